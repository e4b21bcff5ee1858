//! A separate database for every test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
    MariaDb,
    MySql,
}

impl Engine {
    /// Returns whether the engine uses MySQL's protocol and dialect.
    pub fn is_mysql_like(self) -> bool {
        matches!(self, Self::MariaDb | Self::MySql)
    }

    /// Returns the server's name in `scripts/databases`, and the variable with the server's
    /// address.
    pub fn server(self) -> (&'static str, &'static str) {
        match self {
            Self::Sqlite => panic!("SQLite has no server"),
            Self::Postgres => ("postgres", "RECENTS_TEST_POSTGRES"),
            Self::MariaDb => ("mariadb", "RECENTS_TEST_MARIADB"),
            Self::MySql => ("mysql", "RECENTS_TEST_MYSQL"),
        }
    }
}

pub struct TestDatabase {
    pub engine: Engine,
    pub url: String,
    _folder: Option<TempDir>,
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run the tests with scripts/test, which starts the databases")
    })
}

impl TestDatabase {
    /// Creates an empty database.
    pub async fn create(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let database = Self::sqlite_in(folder.path());
                Self {
                    _folder: Some(folder),
                    ..database
                }
            }
            _ => Self::create_on(engine, &variable(engine.server().1)).await,
        }
    }

    /// Names a database file in a folder.
    pub fn sqlite_in(folder: &Path) -> Self {
        let url = format!("sqlite://{}?mode=rwc", folder.join("recents.db").display());
        Self {
            engine: Engine::Sqlite,
            url,
            _folder: None,
        }
    }

    /// Creates an empty database on a server.
    pub async fn create_on(engine: Engine, server: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "test_{}_{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let admin = if engine == Engine::Postgres {
            "postgres"
        } else {
            "mysql"
        };
        let connection = Database::connect(format!("{server}/{admin}"))
            .await
            .unwrap();
        connection
            .execute_unprepared(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        connection.close().await.unwrap();
        Self {
            engine,
            url: format!("{server}/{name}"),
            _folder: None,
        }
    }

    /// Refers to an existing database.
    pub fn existing(engine: Engine, url: String) -> Self {
        Self {
            engine,
            url,
            _folder: None,
        }
    }

    /// Refers to the same database on another node of its cluster.
    pub fn on_node(&self, server: &str) -> Self {
        let (_, name) = self.url.rsplit_once('/').unwrap();
        Self {
            engine: self.engine,
            url: format!("{server}/{name}"),
            _folder: None,
        }
    }

    /// Opens a connection of the test's own.
    pub async fn connect(&self) -> DatabaseConnection {
        Database::connect(&self.url).await.unwrap()
    }
}

/// Database servers of a single test, which it may kill.
pub struct ThrowawayServers {
    folder: PathBuf,
    variables: HashMap<String, String>,
    _temporary: Option<TempDir>,
}

impl ThrowawayServers {
    /// Starts servers, by their names in `scripts/databases`.
    pub async fn start(names: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        // Database servers run as separate users.
        std::fs::set_permissions(
            temporary.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let mut own = Self::start_in(temporary.path(), names).await;
        own._temporary = Some(temporary);
        own
    }

    /// The same, in an existing folder.
    pub async fn start_in(folder: &Path, names: &[&str]) -> Self {
        let mut own = Self {
            folder: folder.join("servers"),
            variables: HashMap::new(),
            _temporary: None,
        };
        for line in own.script("start", names).await.lines() {
            let (name, value) = line
                .strip_prefix("export ")
                .unwrap()
                .split_once('=')
                .unwrap();
            own.variables
                .insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
        own
    }

    /// Returns a variable that the script printed.
    pub fn url(&self, variable: &str) -> &str {
        &self.variables[variable]
    }

    /// Kills the server with all its processes (`kill -9`).
    pub async fn crash(&self, name: &str) {
        self.script("crash", &[name]).await;
    }

    /// Starts a killed server again, and returns when it answers.
    pub async fn resume(&self, name: &str) {
        self.script("resume", &[name]).await;
    }

    fn command(&self, verb: &str) -> std::process::Command {
        let mut command =
            std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/databases"));
        command.arg(verb).arg(&self.folder);
        command
    }

    async fn script(&self, verb: &str, names: &[&str]) -> String {
        let mut command = self.command(verb);
        command.args(names);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        assert!(
            output.status.success(),
            "scripts/databases {verb} {names:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for ThrowawayServers {
    fn drop(&mut self) {
        let _ = self.command("stop").status();
    }
}
