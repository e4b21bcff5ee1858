//! Several real servers on one database. Requests go to any of them, and are repeated on another
//! one when a server cannot answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::process::Process;
use super::server::TRY_AGAIN;
use crate::support::sync_clients::GraphqlClient;

/// The time for which a request is repeated before the test fails.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct ServerCluster {
    databases: Vec<String>,
    environment: Vec<(&'static str, &'static str)>,
    servers: Vec<Mutex<Option<Process>>>,
    urls: RwLock<Vec<String>>,
    http: reqwest::Client,
    /// A client without a time limit, for streams.
    endless: reqwest::Client,
    random: Mutex<StdRng>,
    /// Number of 503 responses and failed connections.
    pub refused: AtomicU64,
}

/// Sizes of the message cache: large, tiny, and none. Responses must not depend on them.
const CACHES: [&str; 3] = ["134217728", "20000", "0"];

impl ServerCluster {
    /// One server for each database URL.
    pub async fn start(
        databases: Vec<String>,
        environment: Vec<(&'static str, &'static str)>,
    ) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let cluster = Self {
            servers: databases.iter().map(|_| Mutex::new(None)).collect(),
            urls: RwLock::new(vec![String::new(); databases.len()]),
            databases,
            environment,
            http,
            endless: reqwest::Client::builder().no_proxy().build().unwrap(),
            random: Mutex::new(StdRng::seed_from_u64(1)),
            refused: AtomicU64::new(0),
        };
        for number in 0..cluster.len() {
            cluster.restart(number).await;
        }
        cluster
    }

    pub fn len(&self) -> usize {
        self.databases.len()
    }

    /// `kill -9`.
    pub fn crash(&self, number: usize) {
        let process = self.servers[number].lock().unwrap().take();
        drop(process);
    }

    /// Starts a server again, on another port.
    pub async fn restart(&self, number: usize) {
        let (database, mut environment) =
            (self.databases[number].clone(), self.environment.clone());
        environment.push((
            "RECENTS__CACHE__RECENT_MESSAGES_BYTES",
            CACHES[number % CACHES.len()],
        ));
        let process =
            tokio::task::spawn_blocking(move || Process::start_with(&database, &environment))
                .await
                .unwrap();
        self.urls.write().unwrap()[number] = process.url.clone();
        *self.servers[number].lock().unwrap() = Some(process);
    }

    /// Returns the sum of a counter without labels over all running servers.
    pub async fn metric(&self, name: &str) -> u64 {
        let urls = self.urls.read().unwrap().clone();
        let mut sum = 0;
        for url in urls {
            let Ok(answer) = self.http.get(format!("{url}/metrics")).send().await else {
                continue;
            };
            let text = answer.text().await.unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            sum += line.map_or(0, |value| value.parse::<u64>().unwrap());
        }
        sum
    }

    /// A request to any of the servers, without a time limit.
    pub fn any(&self, path: &str) -> reqwest::RequestBuilder {
        let number = self.random.lock().unwrap().random_range(0..self.len());
        let url = self.urls.read().unwrap()[number].clone();
        self.endless.post(format!("{url}{path}"))
    }

    /// Resident memory of all servers in KiB.
    pub fn memory(&self) -> u64 {
        self.servers
            .iter()
            .filter_map(|server| server.lock().unwrap().as_ref().map(Process::memory))
            .sum()
    }

    async fn ask_once(&self, path: &str, body: &str) -> Option<Value> {
        let number = self.random.lock().unwrap().random_range(0..self.len());
        let url = self.urls.read().unwrap()[number].clone();
        let request = self
            .http
            .post(format!("{url}{path}"))
            .header("content-type", "application/json")
            .body(body.to_owned());
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        if status == 503 {
            return None;
        }
        assert_eq!(status, 200, "{path} {body}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let code = answer["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or_default();
        if code == "OVERLOADED" || TRY_AGAIN.contains(&code) {
            return None;
        }
        assert!(answer.get("errors").is_none(), "{path} {body}: {text}");
        Some(answer)
    }

    /// Repeats the request until it is acknowledged.
    pub async fn call(&self, path: &str, body: &Value) -> Value {
        let (begun, body) = (Instant::now(), body.to_string());
        loop {
            if let Some(answer) = self.ask_once(path, &body).await {
                return answer;
            }
            self.refused.fetch_add(1, Ordering::Relaxed);
            assert!(
                begun.elapsed() < PATIENCE,
                "{path} {body} was refused for {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns a full sync of the user.
    pub async fn full(&self, uid: &str, msg_count: i64) -> Vec<Value> {
        let body = json!({"uid": uid, "version": 0, "msg_count": msg_count});
        self.call("/conversation/sync", &body)
            .await
            .as_array()
            .unwrap()
            .clone()
    }
}

impl GraphqlClient for ServerCluster {
    async fn graphql(&self, query: &str, variables: Value) -> Value {
        self.call("/graphql", &json!({"query": query, "variables": variables}))
            .await["data"]
            .clone()
    }
}
