//! The server process: its database, its routes, its background tasks, its start and its shutdown.

mod background;
mod database;
mod lifecycle;
mod pages;
mod router;

pub use self::background::BackgroundTasks;
pub use self::database::{connect, open_store};
pub use self::lifecycle::{ListenError, Server, assemble, bind, run, serve};
pub use self::router::router;
