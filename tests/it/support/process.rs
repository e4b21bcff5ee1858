//! The real binary, started as its users start it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::TestDatabase;
use super::server::Answer;

pub fn recents() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recents"));
    // The machine's own configuration must not change the results.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RECENTS__")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command in `folder` until it ends.
pub fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    recents()
        .current_dir(folder)
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server in a separate process.
pub struct Process {
    pub child: Child,
    pub url: String,
    /// Time from the start to the line that says that it listens.
    pub started_in: Duration,
    /// All that the server prints when it listens.
    pub banner: String,
    http: reqwest::Client,
}

impl Process {
    pub fn start(database: &TestDatabase) -> Self {
        Self::start_with(&database.url, &[])
    }

    pub fn start_with(database_url: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_as(recents(), database_url, environment)
    }

    /// Starts the server with this command.
    pub fn start_as(
        mut command: Command,
        database_url: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let folder = std::env::temp_dir();
        let begun = Instant::now();
        let mut child = command
            .current_dir(folder)
            .env("RECENTS__DATABASE__URL", database_url)
            .env("RECENTS__SERVER__LISTEN", "127.0.0.1:0")
            .env("RECENTS__CONVERSATION__ON", "true")
            .env("RECENTS__LOG__LEVEL", "warn")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut banner = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut banner).unwrap();
        let started_in = begun.elapsed();
        let url = banner
            .trim()
            .strip_prefix("recents is listening on ")
            .unwrap_or_else(|| panic!("it said {banner:?}"))
            .to_owned();
        while !banner.contains("curl") && stdout.read_line(&mut banner).unwrap() > 0 {}
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            child,
            url,
            started_in,
            banner,
            http,
        }
    }

    pub fn http(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
    }

    pub async fn post(&self, path: &str, body: String) -> reqwest::Result<Answer> {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body);
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok(Answer {
            status,
            content_type: String::new(),
            text: response.text().await?,
        })
    }

    pub async fn call(&self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body.to_string()).await.unwrap();
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self
            .http
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Returns a counter without labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics").await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Returns the exit code, within ten seconds.
    pub fn wait(&mut self) -> Option<i32> {
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not stop");
    }

    /// Returns the resident memory in KiB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Returns the resident memory in KiB without the pages of files. The code of an unoptimised
    /// build is several times as large as that of a release build.
    pub fn anonymous_memory(&self) -> u64 {
        self.status("RssAnon:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
