//! SQLite's files are removed, replaced or overwritten while the server runs: the server notices,
//! and acknowledges nothing that is lost.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::server::message;
use crate::support::{Engine, Server};

fn path(server: &Server) -> PathBuf {
    let url = server.database.url.strip_prefix("sqlite://").unwrap();
    PathBuf::from(url.split('?').next().unwrap())
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

async fn refuses(server: &Server, name: &str) {
    let sent = server
        .post("/message/send", message("bob", "ann", 1, name).to_string())
        .await;
    assert_eq!(sent.status, 503, "{name}: {sent:?}");
    assert!(!sent.text.contains("recents.db"), "{name}: {sent:?}");
    let ready = server.request(server.http("GET", "/readyz")).await;
    assert_eq!(ready.status, 503, "{name}: {ready:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_or_replaced_file_stops_writes() {
    for end in ["", "-wal"] {
        let server = Server::start(Engine::Sqlite).await;
        server.send("bob", "ann", 1, "one").await;
        let file = beside(&path(&server), end);
        let away = beside(&file, ".away");
        fs::rename(&file, &away).unwrap();
        refuses(&server, "moved away").await;
        // A restored backup is another file, whatever it contains.
        fs::copy(&away, &file).unwrap();
        refuses(&server, "replaced").await;
        fs::rename(&away, &file).unwrap();
        server.send("bob", "ann", 1, "back").await;
        assert_eq!(
            server.request(server.http("GET", "/readyz")).await.status,
            200,
            "{end}: it is back"
        );
        fs::remove_file(&file).unwrap();
        refuses(&server, "deleted").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_pages_are_reported() {
    let server = Server::start(Engine::Sqlite).await;
    for number in 0..50 {
        server.send("bob", "ann", 1, &format!("one {number}")).await;
    }
    let file = path(&server);
    let server = server.restart(|_| {}).await;
    // All pages but the first one, which identifies the file as a database.
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096..].fill(0xab);
    fs::write(&file, &bytes).unwrap();
    refuses(&server, "overwritten").await;
    let sync = server.post("/conversation/sync", r#"{"uid":"ann"}"#).await;
    assert_eq!(sync.status, 503, "{sync:?}");
    refuses(&server, "still overwritten").await;
}
