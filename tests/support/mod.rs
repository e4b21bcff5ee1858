//! Databases, servers and clients for tests.

pub mod database;
pub mod events;
pub mod fixtures;
pub mod fleet;
pub mod hostile;
pub mod model;
pub mod operations;
pub mod process;
pub mod proxy;
pub mod server;
pub mod site;
pub mod socket;
pub mod storm;
pub mod tokens;

pub use database::{Engine, OwnServers, TestDatabase};
pub use server::Server;

/// One test for each database of every scenario named.
macro_rules! on_every_database {
    ($($scenario:ident),* $(,)?) => {
        $(mod $scenario {
            use crate::support::Engine;
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() { super::$scenario(Engine::Sqlite).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() { super::$scenario(Engine::Postgres).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() { super::$scenario(Engine::MariaDb).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mysql() { super::$scenario(Engine::MySql).await; }
        })*
    };
}
