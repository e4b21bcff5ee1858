//! A database that allows fewer connections than configured, that is not reachable yet, or that
//! refuses: no request is refused because of it, and the error says why.

use std::time::{Duration, Instant};

use recents::server::{connect, open_store};
use sea_orm::ConnectionTrait;
use serde_json::json;

use crate::support::server::{message, settings};
use crate::support::{Engine, Server, TestDatabase};

/// A database user who may have three connections.
async fn three_connections(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let connection = database.connect().await;
    let (server, name) = database.url.rsplit_once('/').unwrap();
    let (_, server) = server.rsplit_once('@').unwrap();
    let user = format!("few_{name}").chars().take(30).collect::<String>();
    let make = match engine {
        Engine::Postgres => vec![
            format!("CREATE ROLE {user} LOGIN PASSWORD 'hush' CONNECTION LIMIT 3"),
            format!("GRANT ALL ON DATABASE {name} TO {user}"),
            format!("ALTER DATABASE {name} OWNER TO {user}"),
            format!("GRANT ALL ON SCHEMA public TO {user}"),
        ],
        _ => vec![
            format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'hush' WITH MAX_USER_CONNECTIONS 3"),
            format!("GRANT ALL ON {name}.* TO '{user}'@'%'"),
        ],
    };
    for statement in make {
        connection.execute_unprepared(&statement).await.unwrap();
    }
    let scheme = if engine == Engine::Postgres {
        "postgres"
    } else {
        "mysql"
    };
    let url = format!("{scheme}://{user}:hush@{server}/{name}");
    let database = std::sync::Arc::new(TestDatabase::existing(engine, url));
    let server = Server::start_on(database, |settings| {
        settings.database.max_connections = 10;
        // The database counts closed connections until it has noticed, which takes long while other
        // tests keep it busy.
        settings.database.acquire_timeout_seconds = 20;
    })
    .await;
    let server = &server;
    for round in 0..3 {
        let begun = Instant::now();
        let all = (0..40).map(|number| async move {
            let text = format!("{round}-{number}");
            let sent = server
                .post(
                    "/message/send",
                    message("bob", &format!("group{number}"), 2, &text).to_string(),
                )
                .await;
            let read = server
                .post(
                    "/conversation/sync",
                    json!({"uid": format!("u{number}")}).to_string(),
                )
                .await;
            assert_eq!(
                (sent.status, read.status),
                (200, 200),
                "{round}: {sent:?}, {read:?}"
            );
        });
        futures_util::future::join_all(all).await;
        println!(
            "{engine:?}: eighty requests with three connections took {:?}",
            begun.elapsed()
        );
        assert!(
            round == 0 || begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
    }
    let ready = server.request(server.http("GET", "/readyz")).await;
    assert_eq!(ready.status, 200, "{ready:?}");
    assert!(ready.text.contains("of 10 connections"), "{ready:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    three_connections(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    three_connections(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql() {
    three_connections(Engine::MySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_refusal_names_address_and_reason() {
    let database = TestDatabase::create(Engine::Postgres).await;
    let real = database.url.clone();
    let (server, name) = real.rsplit_once('/').unwrap();
    let target = server.rsplit_once('@').unwrap().1.to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut settings = settings(&database);
    settings.database.url = format!("postgres://postgres:hush@{address}/{name}?sslmode=disable")
        .as_str()
        .into();
    let begun = Instant::now();
    let error = format!("{:#}", open_store(&settings).await.unwrap_err());
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "it was waited for {:?}",
        begun.elapsed()
    );
    assert!(
        error.contains(&address.to_string())
            && error.contains("refused")
            && !error.contains("hush"),
        "{error}"
    );

    settings.database.startup_timeout_seconds = 20;
    let comes = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let target = target.clone();
            tokio::spawn(async move {
                let mut database = tokio::net::TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut database).await;
            });
        }
    };
    let begun = Instant::now();
    tokio::select! {
        () = comes => {}
        store = open_store(&settings) => {
            store.unwrap();
            assert!(begun.elapsed() >= Duration::from_secs(1));
        }
    }

    // A permanent error is reported without waiting.
    settings.database.url = format!("{server}/there_is_no_such_database")
        .as_str()
        .into();
    let begun = Instant::now();
    let error = format!("{:#}", connect(&settings).await.err().unwrap());
    assert!(
        begun.elapsed() < Duration::from_secs(5) && error.contains("there_is_no_such_database"),
        "{error}"
    );
}
