//! A server in the test's process, and functions to call it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use recents::clock::{Clock, IdGenerator};
use recents::config::Settings;
use recents::server::{assemble, open_store};
use recents::state::AppState;
use recents::telemetry;
use serde_json::{Value, json};

use super::{Engine, TestDatabase};

/// GraphQL's codes for a database that cannot answer now. Which one it is depends on the database
/// and on the first failure.
pub const TRY_AGAIN: [&str; 3] = ["CONFLICT", "REQUEST_TIMEOUT", "SERVICE_UNAVAILABLE"];

pub struct Server {
    pub url: String,
    pub app: AppState,
    pub database: Arc<TestDatabase>,
    clock: Arc<AtomicI64>,
    http: reqwest::Client,
    task: tokio::task::JoinHandle<()>,
}

/// A response: status and body.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn msg(&self) -> String {
        self.json()["msg"].as_str().unwrap_or_default().to_owned()
    }
}

/// Settings for tests, with conversations enabled.
pub fn settings(database: &TestDatabase) -> Settings {
    let mut settings = Settings::default();
    settings.database.url = database.url.as_str().into();
    settings.database.max_connections = 8;
    settings.conversation.on = true;
    settings
}

impl Server {
    pub async fn start(engine: Engine) -> Self {
        Self::start_with(engine, |_| {}).await
    }

    pub async fn start_with(engine: Engine, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(Arc::new(TestDatabase::create(engine).await), change).await
    }

    pub async fn start_on(database: Arc<TestDatabase>, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(&database);
        change(&mut settings);
        telemetry::install_metrics_recorder();
        let store = open_store(&settings).await.unwrap();
        // A different seed for each start, so that a restarted server generates new IDs.
        static SEED: AtomicU64 = AtomicU64::new(1);
        let clock = Arc::new(AtomicI64::new(1_795_393_000_000));
        let ids = IdGenerator::seeded(SEED.fetch_add(1, Ordering::Relaxed));
        let (server, background) =
            assemble(settings, store, Clock::Fixed(Arc::clone(&clock)), ids).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = server.state.clone();
        let serve = recents::server::serve(server, listener);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = serve => {}
                () = background.run() => {}
            }
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            url,
            app,
            database,
            clock,
            http,
            task,
        }
    }

    /// Starts another server on the same database, without the first one's cache.
    pub async fn restart(&self, change: impl FnOnce(&mut Settings)) -> Self {
        self.task.abort();
        self.app.core.base.store.close().await;
        Self::start_on(Arc::clone(&self.database), change).await
    }

    pub fn set_clock(&self, ms: i64) {
        self.clock.store(ms, Ordering::Relaxed);
    }

    pub async fn request(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let content_type = response
            .headers()
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        Answer {
            status,
            content_type: content_type.unwrap_or_default(),
            text: response.text().await.unwrap(),
        }
    }

    pub fn http(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.request(self.http("POST", path).body(body)).await
    }

    /// Sends a POST that must succeed.
    pub async fn call(&self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body.to_string()).await;
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()
    }

    /// Sends a GraphQL request that must succeed, and returns its data.
    pub async fn graphql(&self, query: &str, variables: Value) -> Value {
        let answer = self.graphql_raw(query, variables.clone()).await;
        assert!(
            answer.get("errors").is_none(),
            "{query} {variables}: {answer}"
        );
        answer["data"].clone()
    }

    pub async fn graphql_raw(&self, query: &str, variables: Value) -> Value {
        let body = json!({"query": query, "variables": variables});
        self.request(
            self.http("POST", "/graphql")
                .header("content-type", "application/json")
                .body(body.to_string()),
        )
        .await
        .json()
    }

    /// Sends a GraphQL request that must fail, and returns its code.
    pub async fn graphql_code(&self, query: &str, variables: Value) -> String {
        let answer = self.graphql_raw(query, variables).await;
        answer["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {answer}"))
            .to_owned()
    }

    pub async fn sync(&self, body: Value) -> Vec<Value> {
        self.call("/conversation/sync", body)
            .await
            .as_array()
            .unwrap()
            .clone()
    }

    /// Returns a full sync of the user, over REST.
    pub async fn full(&self, uid: &str) -> Vec<Value> {
        self.sync(json!({"uid": uid, "version": 0, "msg_count": 20}))
            .await
    }

    /// Returns the user's only conversation.
    pub async fn only(&self, uid: &str) -> Value {
        let all = self.full(uid).await;
        assert_eq!(all.len(), 1, "conversations of {uid}: {all:?}");
        all[0].clone()
    }

    /// Sends a red-dot message, and returns the data of the response.
    pub async fn send(&self, from: &str, channel_id: &str, channel_type: u8, text: &str) -> Value {
        let body = message(from, channel_id, channel_type, text);
        self.call("/message/send", body).await["data"].clone()
    }

    pub async fn group(&self, channel_id: &str, members: &[&str]) {
        self.call(
            "/channel",
            json!({"channel_id": channel_id, "channel_type": 2, "subscribers": members}),
        )
        .await;
    }

    pub async fn set_unread(&self, uid: &str, channel_id: &str, channel_type: u8, unread: i64) {
        let body = json!({"uid": uid, "channel_id": channel_id, "channel_type": channel_type, "unread": unread});
        self.call("/conversations/setUnread", body).await;
    }

    pub async fn delete(&self, uid: &str, channel_id: &str, channel_type: u8) {
        let body = json!({"uid": uid, "channel_id": channel_id, "channel_type": channel_type});
        self.call("/conversations/delete", body).await;
    }

    pub async fn notify(&self, messages: Value) -> Answer {
        self.post("/webhook?event=msg.notify", messages.to_string())
            .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns a message to send; its text is also its client number.
pub fn message(from: &str, channel_id: &str, channel_type: u8, text: &str) -> Value {
    json!({
        "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
        "client_msg_no": text,
        "from_uid": from,
        "channel_id": channel_id,
        "channel_type": channel_type,
        "payload": payload(text),
    })
}

/// Returns a message as a webhook brings it.
pub fn webhook_message(
    from: &str,
    channel_id: &str,
    channel_type: u8,
    seq: i64,
    message_id: i64,
) -> Value {
    json!({
        "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
        "setting": 0,
        "message_id": message_id,
        "message_idstr": message_id.to_string(),
        "client_msg_no": format!("c{message_id}"),
        "message_seq": seq,
        "from_uid": from,
        "channel_id": channel_id,
        "channel_type": channel_type,
        "expire": 0,
        "timestamp": 1_795_393_000 + seq,
        "payload": payload(&format!("message {message_id}")),
    })
}

pub fn payload(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .encode(json!({"type": 1, "content": text}).to_string())
}
