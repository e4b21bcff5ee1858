//! A database of its own for every test.

use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
    MariaDb,
}

pub struct TestDatabase {
    pub engine: Engine,
    pub url: String,
    _folder: TempDir,
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with scripts/test, which starts the databases"))
}

impl TestDatabase {
    /// An empty database.
    pub async fn create(engine: Engine) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().unwrap();
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = match engine {
            Engine::Sqlite => format!("sqlite://{}?mode=rwc", folder.path().join("recents.db").display()),
            Engine::Postgres | Engine::MariaDb => {
                let (server, admin) = match engine {
                    Engine::Postgres => (variable("RECENTS_TEST_POSTGRES"), "postgres"),
                    _ => (variable("RECENTS_TEST_MYSQL"), "mysql"),
                };
                let connection = Database::connect(format!("{server}/{admin}")).await.unwrap();
                connection.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
                connection.close().await.unwrap();
                format!("{server}/{name}")
            }
        };
        Self { engine, url, _folder: folder }
    }

    /// A connection beside the server's.
    pub async fn connect(&self) -> DatabaseConnection {
        Database::connect(&self.url).await.unwrap()
    }
}
