//! Clients that keep resources: connections that send nothing or never end, responses that nobody
//! reads, bodies that never arrive. None of them costs the server more than its limits, and other
//! clients are served meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::process::{Process, recents};
use crate::support::server::{message, webhook_message};
use crate::support::sse::{Event, Events};
use crate::support::tokens::{SECRET, token};
use crate::support::websocket::{Received, Socket};
use crate::support::{Engine, Server, TestDatabase};

const MANAGER: &str = "manager-token-of-tests";
/// The growth allowed to a server under attack, with `limits.memory_bytes` as below.
const GROWTH: u64 = 120 * 1024;

/// A server with authentication and little memory for callers.
struct AuthenticatedServer {
    process: Process,
    address: SocketAddr,
    _database: TestDatabase,
}

impl AuthenticatedServer {
    async fn start(environment: &[(&str, &str)]) -> Self {
        let database = TestDatabase::create(Engine::Sqlite).await;
        let own = [
            ("RECENTS__AUTH__MANAGER_TOKEN", MANAGER),
            ("RECENTS__AUTH__JWT__SECRET", SECRET),
            ("RECENTS__INGEST__WEBHOOK_SECRET", "hook"),
            ("RECENTS__LIMITS__MEMORY_BYTES", "67108864"),
        ];
        let process = Process::start_with(&database.url, &[&own, environment].concat());
        let address = process
            .url
            .strip_prefix("http://")
            .unwrap()
            .parse()
            .unwrap();
        let guarded = Self {
            process,
            address,
            _database: database,
        };
        // The first webhook makes the feeder's address known.
        guarded.serves_a_feeder(1).await;
        guarded
    }

    async fn service(&self, path: &str, body: Value) -> Value {
        let request = self
            .process
            .http("POST", path)
            .header("token", MANAGER)
            .body(body.to_string());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    async fn serves_a_feeder(&self, seq: i64) {
        let body = json!([webhook_message("bob", "fed", 2, seq, 1000 + seq)]).to_string();
        let response = self
            .process
            .http("POST", "/webhook/hook?event=msg.notify")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "webhook {seq}");
    }

    async fn serves_a_user(&self) {
        let begun = Instant::now();
        let request = self
            .process
            .http("POST", "/conversation/sync")
            .bearer_auth(token("ann"))
            .body(r#"{"uid":"ann"}"#);
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }

    /// Opens a connection from an address of its own.
    async fn from(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        // Unread data must not stay in this process.
        socket.set_recv_buffer_size(4096).unwrap();
        socket
            .bind(SocketAddr::from(([127, 0, 0, last], 0)))
            .unwrap();
        socket.connect(self.address).await.unwrap()
    }
}

/// Returns whether the server closes the connection within this time.
async fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    let mut bytes = [0; 4096];
    let read = async {
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(within, read).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_heads_are_bounded_and_closed() {
    let server =
        AuthenticatedServer::start(&[("RECENTS__LIMITS__HEADER_TIMEOUT_SECONDS", "2")]).await;
    let before = server.process.memory();
    let mut streams = Vec::new();
    for number in 0..600 {
        let mut stream = server.from(2).await;
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await;
        if number % 2 == 0 {
            // The server reads no more than the limit of a head.
            let _ = tokio::time::timeout(
                Duration::from_millis(20),
                stream.write_all(&vec![b'a'; 600 * 1024]),
            )
            .await;
        }
        streams.push(stream);
    }
    server.serves_a_user().await;
    server.serves_a_feeder(2).await;
    assert!(
        server.process.memory() < before + GROWTH,
        "{before} KiB, then {} KiB",
        server.process.memory()
    );
    for (number, mut stream) in streams.into_iter().enumerate() {
        assert!(
            is_closed(&mut stream, Duration::from_secs(8)).await,
            "connection {number} is open"
        );
    }
    assert!(
        server
            .process
            .get("/metrics")
            .await
            .1
            .contains("recents_open_connections")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_leave_free_files() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let program = recents().get_program().to_owned();
    let mut command = std::process::Command::new("sh");
    let log = tempfile::NamedTempFile::new().unwrap();
    command
        .arg("-c")
        .arg("ulimit -n 256; exec \"$0\"")
        .arg(program)
        .stderr(log.reopen().unwrap());
    let process = Process::start_as(
        command,
        &database.url,
        &[("RECENTS__AUTH__MANAGER_TOKEN", MANAGER)],
    );
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(process.url.strip_prefix("http://").unwrap()).await);
    }
    // Half of the connections are for other addresses.
    let http = reqwest::Client::builder()
        .no_proxy()
        .local_address("127.0.0.2".parse::<std::net::IpAddr>().unwrap())
        .build()
        .unwrap();
    let answer = http
        .post(format!("{}/conversation/sync", process.url))
        .header("token", MANAGER)
        .body(r#"{"uid":"ann"}"#);
    assert_eq!(answer.send().await.unwrap().status(), 200);
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert!(
        log.contains("256 open files") && log.contains("limits.open_connections"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_counts_after_connection_init() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.limits.max_live_connections = 3
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Socket::open(&server.url).await);
    }
    let mut begun = Vec::new();
    for _ in 0..3 {
        begun.push(Socket::open_initialised(&server.url).await);
    }
    let mut fourth = Socket::open(&server.url).await;
    fourth.send_text(br#"{"type":"connection_init"}"#).await;
    assert_eq!(fourth.receive().await, Received::Closed(1013));
    drop(begun.pop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    Socket::open_initialised(&server.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_pongs_are_bounded() {
    let server = AuthenticatedServer::start(&[]).await;
    let before = server.process.memory();
    let mut floods = Vec::new();
    for number in 0..8 {
        let mut stream = server.from(3 + number).await;
        stream.write_all(UPGRADE).await.unwrap();
        floods.push(tokio::spawn(async move {
            // Pings of 125 bytes, masked with zeroes.
            let ping: Vec<u8> = [0x89, 0xfd, 0, 0, 0, 0]
                .into_iter()
                .chain([b'x'; 125])
                .collect();
            let many = ping.repeat(500);
            for _ in 0..2000 {
                if stream.write_all(&many).await.is_err() {
                    return true;
                }
            }
            false
        }));
    }
    for flood in floods {
        let closed = tokio::time::timeout(Duration::from_secs(30), flood).await;
        assert!(
            closed.expect("the server still reads").unwrap(),
            "a million pings were taken"
        );
    }
    server.serves_a_user().await;
    assert!(
        server.process.memory() < before + GROWTH,
        "{before} KiB, then {} KiB",
        server.process.memory()
    );
}

const UPGRADE: &[u8] =
    b"GET /graphql HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_flood_is_closed() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.limits.socket_messages_per_second = 10
    })
    .await;
    let mut socket = Socket::open_initialised(&server.url).await;
    // `connection_init` was the first message of a burst of twenty.
    for _ in 0..19 {
        socket.send_text(br#"{"type":"ping"}"#).await;
    }
    for number in 0..19 {
        assert_eq!(
            socket.receive().await,
            Received::Text(r#"{"type":"pong"}"#.to_owned()),
            "ping {number}"
        );
    }
    for _ in 0..20 {
        socket.send_text(br#"{"type":"pong"}"#).await;
    }
    assert_eq!(socket.receive().await, Received::Closed(1008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_message_is_dropped() {
    let server = AuthenticatedServer::start(&[]).await;
    let before = server.process.memory();
    let mut streams = Vec::new();
    for _ in 0..300 {
        let mut stream = server.from(2).await;
        stream.write_all(UPGRADE).await.unwrap();
        // A text of 200,000 bytes whose last byte never arrives.
        let mut half = vec![0x81, 0xff, 0, 0, 0, 0, 0, 3, 0x0d, 0x40, 0, 0, 0, 0];
        half.extend(vec![b'x'; 199_999]);
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.write_all(&half)).await;
        streams.push(stream);
    }
    server.serves_a_user().await;
    assert!(
        server.process.memory() < before + GROWTH,
        "{before} KiB, then {} KiB",
        server.process.memory()
    );
    for (number, mut stream) in streams.into_iter().enumerate() {
        assert!(
            is_closed(&mut stream, Duration::from_secs(20)).await,
            "connection {number} is open"
        );
    }
}

/// Responses of some megabytes, to a user who does not read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_are_bounded_and_closed() {
    let server = AuthenticatedServer::start(&[]).await;
    for number in 0..30 {
        let mut body = message("bob", &format!("friend-{number}"), 1, "long");
        body["payload"] = crate::support::server::payload(&"x".repeat(100_000)).into();
        server.service("/message/send", body).await;
    }
    let before = server.process.memory();
    let request = |bearer: &str| {
        let body = r#"{"uid":"bob","msg_count":1}"#;
        format!(
            "POST /conversation/sync HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut stream = server.from(2).await;
        stream
            .write_all(request(&token("bob")).as_bytes())
            .await
            .unwrap();
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.serves_a_user().await;
    server.serves_a_feeder(2).await;
    assert!(
        server.process.memory() < before + GROWTH,
        "{before} KiB, then {} KiB",
        server.process.memory()
    );
    let begun = Instant::now();
    loop {
        let metrics = server.process.get("/metrics").await.1;
        let held = metrics
            .lines()
            .find_map(|line| line.strip_prefix("recents_held_bytes "))
            .unwrap()
            .parse::<f64>()
            .unwrap();
        if held < 1e6 {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{held} bytes are still held"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    drop(streams);
}

/// Some megabytes of messages, to subscribers who do not read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_event_streams_are_closed() {
    const STREAMS: usize = 5;
    const MESSAGES: usize = 60;
    const MESSAGE_BYTES: usize = 100_000;
    let server = AuthenticatedServer::start(&[("RECENTS__LIVE__WRITE_TIMEOUT_SECONDS", "2")]).await;
    for number in 0..MESSAGES {
        let mut body = message("bob", "ann", 1, &format!("long {number}"));
        body["payload"] = crate::support::server::payload(&"x".repeat(MESSAGE_BYTES)).into();
        server.service("/message/send", body).await;
    }
    let before = server.process.memory();
    let query = "subscription { messageAdded(channel: {channelId: \"ann\", channelType: 1}, after: 0) { payload } }";
    let body = json!({"query": query}).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\naccept: text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        token("bob"),
        body.len()
    );
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let mut stream = server.from(2).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK", "stream {number}");
        streams.push(stream);
    }
    server.serves_a_user().await;
    let open = "recents_live_connections{protocol=\"sse\"}";
    assert_eq!(server.process.metric(open).await, STREAMS as u64);
    let begun = Instant::now();
    while server.process.metric(open).await > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "streams are still open"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        server.process.memory() < before + GROWTH,
        "{before} KiB, then {} KiB",
        server.process.memory()
    );
    // The bytes that the system buffered can still be read.
    for (number, stream) in streams.iter_mut().enumerate() {
        let (mut bytes, mut read) = (vec![0; 1 << 16], 0);
        let pause = Duration::from_millis(500);
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(pause, stream.read(&mut bytes)).await {
            read += count;
        }
        assert!(
            read < MESSAGES * MESSAGE_BYTES,
            "stream {number} went on to {read} bytes"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_bodies_reserve_no_memory() {
    let server = AuthenticatedServer::start(&[]).await;
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut stream = server.from(2).await;
        let head = format!(
            "POST /conversation/sync HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 4194304\r\n\r\n{{",
            token("bob")
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for seq in 2..10 {
        server.serves_a_feeder(seq).await;
    }
    server.serves_a_user().await;
    // The requests are answered, and closed.
    let mut answer = String::new();
    let read = streams[0].read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(15), read)
        .await
        .expect("still open")
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("the request body came too slowly"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_is_limited_by_the_users_share() {
    let server = AuthenticatedServer::start(&[]).await;
    // Two megabytes of text that take a hundred when they are parsed.
    let body = format!(
        r#"{{"uid":"ann","exclude_channel_types":[{}1]}}"#,
        "1,".repeat(1_000_000)
    );
    let request = server
        .process
        .http("POST", "/conversation/sync")
        .bearer_auth(token("ann"))
        .body(body);
    let response = request.send().await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["retry-after"].as_bytes()
        ),
        (429, b"5".as_slice())
    );
    assert_eq!(
        response.json::<Value>().await.unwrap()["msg"],
        "this user uses as much of the server as one user may"
    );
    server.serves_a_user().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_refused() {
    let server = Server::start(Engine::Sqlite).await;
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    assert!(is_closed(&mut stream, Duration::from_secs(2)).await);
}

/// The newest connections of a user stay open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_connection_replaces_the_users_oldest() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.jwt.secret = SECRET.into();
        settings.limits.max_user_live_connections = 2;
    })
    .await;
    let init = json!({"type": "connection_init", "payload": {"authorization": format!("Bearer {}", token("ann"))}}).to_string();
    let mut sockets = Vec::new();
    for number in 0..2 {
        let mut socket = Socket::open(&server.url).await;
        socket.send_text(init.as_bytes()).await;
        assert!(
            matches!(socket.receive().await, Received::Text(_)),
            "socket {number}"
        );
        sockets.push(socket);
    }
    let query = "subscription { conversationChanges { version } }";
    let open = async || {
        let request = server.http("POST", "/graphql").bearer_auth(token("ann"));
        let mut events = Events::open(request, query, json!({}))
            .await
            .expect("no stream");
        events.data().await;
        events
    };
    let mut stream = open().await;
    assert_eq!(sockets[0].receive().await, Received::Closed(4429));
    let _second = open().await;
    assert_eq!(sockets[1].receive().await, Received::Closed(4429));
    let _third = open().await;
    let Event::Next(told) = stream.next().await else {
        panic!("it was not told")
    };
    assert_eq!(
        told["errors"][0]["extensions"]["code"], "RATE_LIMITED",
        "{told}"
    );
    assert_eq!(stream.next().await, Event::Complete);
}

/// Concurrent requests of one user have a limit of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_of_a_user_are_limited() {
    let server = AuthenticatedServer::start(&[("RECENTS__LIMITS__USER_REQUESTS", "5")]).await;
    let mut streams = Vec::new();
    for number in 0..5 {
        let mut stream = server.from(10 + number).await;
        let head = format!(
            "POST /conversation/sync HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
            token("bob")
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let request = server
        .process
        .http("POST", "/conversation/sync")
        .bearer_auth(token("bob"))
        .body(r#"{"uid":"bob"}"#);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 429);
    server.serves_a_user().await;
    drop(streams);
}

/// Subscribers over server-sent events and over a WebSocket lose their network: the server closes
/// their connections within two pings. Needs root for the network namespace, or a system that
/// allows user namespaces.
#[tokio::test]
async fn vanished_subscribers_are_freed_root_only() {
    const PING_SECONDS: f64 = 3.0;
    let database = TestDatabase::create(Engine::Sqlite).await;
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--map-root-user", "--net", "python3"])
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/clients/vanish.py"
        ));
    command
        .arg(recents().get_program())
        .arg(&database.url)
        .arg(PING_SECONDS.to_string());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seconds: f64 = text.trim().parse().unwrap();
    println!("gone after {seconds} s");
    // The system's retransmission timer is not exact.
    assert!(seconds < 2.0 * PING_SECONDS + 1.0, "after {seconds} s");
}
