//! Databases, servers and clients for tests.

pub mod business_server;
pub mod cluster;
pub mod database;
pub mod fixtures;
pub mod hostile_target;
pub mod hostile_texts;
pub mod load;
pub mod model;
pub mod operations;
pub mod process;
pub mod proxy;
pub mod server;
pub mod snapshots;
pub mod sse;
pub mod sync_clients;
pub mod tokens;
pub mod upstream;
pub mod webhooks;
pub mod websocket;
pub mod wukongim;

pub use database::{Engine, TestDatabase, ThrowawayServers};
pub use server::Server;

/// Defines one test for each database of every scenario in the list.
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

/// Asserts how many messages are unread in the user's only conversation. A failure names the user and
/// shows the whole conversation.
macro_rules! assert_unread {
    ($server:expr, $uid:expr, $unread:expr $(, $reason:literal)?) => {{
        let (uid, conversation) = ($uid, $server.only($uid).await);
        assert_eq!(
            conversation["unread"], $unread,
            "unread of {uid}{}: {conversation:#}",
            concat!("" $(, ", ", $reason)?)
        );
    }};
}
