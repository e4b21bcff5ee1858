//! A server that receives hostile texts.

use serde_json::{Value, json};

use super::process::Process;
use super::{Engine, TestDatabase};

/// The token of all requests.
pub const MANAGER: &str = "hush";

/// A server in a separate process, and its database.
pub struct HostileTarget {
    pub process: Process,
    _database: TestDatabase,
}

impl HostileTarget {
    /// All requests carry the manager token, which an open server accepts, too.
    pub async fn start(environment: &[(&str, &str)]) -> Self {
        let database = TestDatabase::create(Engine::Sqlite).await;
        Self {
            process: Process::start_with(&database.url, environment),
            _database: database,
        }
    }

    pub fn http(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.process.http(method, path).header("token", MANAGER)
    }

    /// Returns status and text. The main assertion is that there is a response at all.
    pub async fn ask(&self, what: &str, request: reqwest::RequestBuilder) -> (u16, String) {
        let response = request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let status = response.status().as_u16();
        let text = response
            .text()
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(status < 500, "{what}: {status} {text}");
        (status, text)
    }

    pub async fn post(&self, what: &str, path: &str, body: Vec<u8>) -> (u16, String) {
        let request = self
            .http("POST", path)
            .header("content-type", "application/json");
        self.ask(
            what,
            request
                .header("accept", "application/graphql-response+json, */*")
                .body(body),
        )
        .await
    }

    /// Asserts that the request succeeds.
    pub async fn accepts(&self, what: &str, path: &str, body: Vec<u8>) {
        let (status, text) = self.post(what, path, body).await;
        assert_eq!(status, 200, "{what}: {text}");
    }

    /// Asserts that the request is refused in the form of its interface.
    pub async fn refuses(&self, what: &str, path: &str, body: Vec<u8>) {
        let (status, text) = self.post(what, path, body).await;
        assert!([400, 413].contains(&status), "{what}: {status} {text}");
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: {text}"));
        assert!(
            answer["msg"].is_string() || answer["errors"].is_array(),
            "{what}: {text}"
        );
    }

    pub async fn graphql(&self, query: &str, variables: Value) -> String {
        let body = json!({"query": query, "variables": variables}).to_string();
        let (status, text) = self.post(query, "/graphql", body.into_bytes()).await;
        assert!(
            status == 200 && !text.contains("\"errors\":"),
            "{query}: {status} {}",
            &text[..text.len().min(2000)]
        );
        text
    }

    pub async fn still_answers(&self) {
        let (status, text) = self
            .post(
                "a sync",
                "/conversation/sync",
                b"{\"uid\":\"nobody\"}".to_vec(),
            )
            .await;
        assert_eq!((status, text.as_str()), (200, "[]"));
        self.graphql("{ conversations(uid: \"nobody\") { version } }", json!({}))
            .await;
    }
}
