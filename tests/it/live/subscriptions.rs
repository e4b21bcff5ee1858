//! Live updates. `scripts/try-live` and `tests/clients/live.mjs` test real clients; these tests
//! check the same on every database: an event applies as a sync response does, and none is missing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::server::message;
use crate::support::sse::{Event, Events};
use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server, TestDatabase, ThrowawayServers};

/// A device with a subscription.
struct Follower {
    device: Incremental,
    events: Events,
}

impl Follower {
    /// Subscribes from the device's version, and applies the first event.
    async fn begin(device: Incremental, server: &Server) -> Self {
        let (query, variables) = device.subscription();
        let events = Events::open(server.http("POST", "/graphql"), &query, variables)
            .await
            .expect("no stream");
        let mut follower = Self { device, events };
        follower.apply_next_event().await;
        follower
    }

    async fn apply_next_event(&mut self) {
        let data = self.events.data().await;
        self.device.apply(&data["conversationChanges"]);
    }

    /// Applies events until the device holds the result of a full sync. Returns the number of
    /// events.
    async fn catch_up(&mut self, server: &Server, uid: &str) -> usize {
        let (begun, mut told) = (Instant::now(), 0);
        loop {
            let full = server.full(uid).await;
            if self.device.holds(&full) {
                return told;
            }
            if begun.elapsed() > Duration::from_secs(15) {
                self.device.must_hold(&full);
            }
            if let Ok(event) =
                tokio::time::timeout(Duration::from_millis(500), self.events.next()).await
            {
                let Event::Next(answer) = event else {
                    panic!("{event:?}")
                };
                self.device.apply(&answer["data"]["conversationChanges"]);
                told += 1;
            }
        }
    }
}

/// Returns a server that does not poll: every event comes from a notification.
async fn server_with_live_updates(engine: Engine) -> Server {
    Server::start_with(engine, |settings| {
        settings.live.poll_interval_seconds = 3600
    })
    .await
}

async fn every_kind_of_change_is_an_event(engine: Engine) {
    let server = server_with_live_updates(engine).await;
    server.group("g", &["ann", "bob"]).await;
    server.send("bob", "g", 2, "before").await;
    let mut here = Follower::begin(Incremental::new("ann"), &server).await;
    let mut there = Follower::begin(Incremental::new("ann"), &server).await;
    here.device.must_hold(&server.full("ann").await);
    let target = |id: &str, kind: u8| json!({"uid": "ann", "channel_id": id, "channel_type": kind});
    let graphql = async |field: &str| {
        let channel = "channel: {channelId: \"g\", channelType: 2}";
        server
            .graphql(
                &format!("mutation {{ {} }}", field.replace("CHANNEL", channel)),
                json!({}),
            )
            .await;
    };
    for change in 0..17 {
        match change {
            0 => drop(server.send("bob", "g", 2, "one").await),
            1 => drop(
                server
                    .send("bob", "ann", 1, "a person that she does not know yet")
                    .await,
            ),
            2 => drop(
                server
                    .call(
                        "/conversations/setUnread",
                        merge(target("g", 2), json!({"unread": 7})),
                    )
                    .await,
            ),
            3 => drop(
                server
                    .call("/conversations/clearUnread", target("g", 2))
                    .await,
            ),
            4 => drop(server.call("/conversations/delete", target("g", 2)).await),
            5 => drop(server.send("bob", "g", 2, "back").await),
            6 => {
                graphql("pinConversation(input: {uid: \"ann\", CHANNEL}) { conversation { id } }")
                    .await
            }
            7 => {
                graphql("muteConversation(input: {uid: \"ann\", CHANNEL}) { conversation { id } }")
                    .await
            }
            8 => drop(
                server
                    .send("ann", "g", 2, "her own, from another device")
                    .await,
            ),
            9 => {
                server.group("new", &["ann"]).await;
                server
                    .send("bob", "new", 2, "a group that she came into")
                    .await;
            }
            10 => {
                let hook =
                    crate::support::server::webhook_message("bob", "hooked", 2, 5, 7_000_000_005);
                let mut offline = hook.clone();
                offline["to_uids"] = json!(["ann"]);
                server.call("/webhook?event=msg.offline", offline).await;
            }
            11 => {
                // A late message, below the head.
                let hook =
                    crate::support::server::webhook_message("bob", "hooked", 2, 4, 7_000_000_004);
                server
                    .call("/webhook?event=msg.notify", json!([hook]))
                    .await;
                let hook =
                    crate::support::server::webhook_message("bob", "hooked", 2, 6, 7_000_000_006);
                server
                    .call("/webhook?event=msg.notify", json!([hook]))
                    .await;
            }
            12 => {
                server.send("bob", "g", 2, "unread").await;
                graphql("markAllRead(input: {uid: \"ann\"}) { conversations { id } }").await;
            }
            13 => {
                let leave = json!({"channel_id": "new", "channel_type": 2, "subscribers": ["ann"]});
                server.call("/channel/subscriber_remove", leave).await;
            }
            14 => {
                let join = json!({"channel_id": "new", "channel_type": 2, "subscribers": ["ann"]});
                server.call("/channel/subscriber_add", join).await;
                server.send("bob", "new", 2, "and back").await;
            }
            15 => graphql("deleteChannel(input: {CHANNEL}) { channel { id } }").await,
            _ => {
                server.group("g", &["ann"]).await;
                server.send("bob", "g", 2, "made again").await;
            }
        }
        let events = [
            here.catch_up(&server, "ann").await,
            there.catch_up(&server, "ann").await,
        ];
        assert!(
            events.iter().all(|events| (1..=4).contains(events)),
            "change {change} came as {events:?} events"
        );
    }
}

fn merge(mut one: Value, other: Value) -> Value {
    one.as_object_mut()
        .unwrap()
        .extend(other.as_object().unwrap().clone());
    one
}

/// A message that is sent while a device subscribes is in the first response or comes after it.
async fn no_event_is_lost_after_the_first_read(engine: Engine) {
    let server = server_with_live_updates(engine).await;
    server.group("g", &["ann", "bob"]).await;
    let mut device = Incremental::new("ann");
    for round in 0..40 {
        let (follower, ()) = tokio::join!(Follower::begin(device, &server), async {
            tokio::time::sleep(Duration::from_micros(round * 200)).await;
            server
                .send("bob", "g", 2, &format!("meanwhile {round}"))
                .await;
        });
        let mut follower = follower;
        follower.catch_up(&server, "ann").await;
        // The device continues from its version.
        device = follower.device;
    }
}

/// A group's first message arrives while the feed learns that its user is a member.
async fn no_message_is_lost_after_joining(engine: Engine) {
    let server = server_with_live_updates(engine).await;
    let mut follower = Follower::begin(Incremental::new("ann"), &server).await;
    for round in 0..60 {
        let group = format!("group-{round}");
        server.group(&group, &["ann"]).await;
        // Around the time of the sync that joining causes.
        tokio::time::sleep(Duration::from_micros(4000 + round * 250)).await;
        server.send("bob", &group, 2, "welcome").await;
        follower.catch_up(&server, "ann").await;
    }
}

async fn burst_becomes_few_events(engine: Engine) {
    let server = server_with_live_updates(engine).await;
    server.group("g", &["ann", "bob"]).await;
    let mut follower = Follower::begin(Incremental::new("ann"), &server).await;
    let sends = (0..100).map(|number| {
        let server = &server;
        async move {
            server
                .send("bob", "g", 2, &format!("number {number}"))
                .await
        }
    });
    let (_, events) = tokio::join!(futures_util::future::join_all(sends), async {
        let mut told = 0;
        loop {
            follower.apply_next_event().await;
            told += 1;
            if follower.device.unread("g") == Some(100) {
                break told;
            }
        }
    });
    println!("{engine:?}: a burst of 100 messages is {events} events");
    assert!(events <= 30, "100 messages came as {events} events");
    follower.device.must_hold(&server.full("ann").await);
}

/// A server on the same database sends no notification here: the poll finds the change.
async fn poll_finds_changes_of_other_servers(engine: Engine) {
    let server =
        Server::start_with(engine, |settings| settings.live.poll_interval_seconds = 1).await;
    let other = Server::start_on(std::sync::Arc::clone(&server.database), |_| {}).await;
    server.group("g", &["ann", "bob"]).await;
    server.send("bob", "g", 2, "before").await;
    let mut follower = Follower::begin(Incremental::new("ann"), &server).await;
    let begun = Instant::now();
    other.send("bob", "g", 2, "there").await;
    follower.catch_up(&server, "ann").await;
    other
        .call(
            "/conversations/delete",
            json!({"uid": "ann", "channel_id": "g", "channel_type": 2}),
        )
        .await;
    follower.catch_up(&server, "ann").await;
    other.group("other", &["ann"]).await;
    other
        .send(
            "bob",
            "other",
            2,
            "in a group that only the other one knows",
        )
        .await;
    follower.catch_up(&server, "ann").await;
    // From here on its messages send notifications.
    server.send("bob", "other", 2, "here").await;
    follower.catch_up(&server, "ann").await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

async fn long_backlog_is_split_and_unknown_version_resets(engine: Engine) {
    let server = Server::start_with(engine, |settings| settings.limits.page_size = 7).await;
    for number in 0..30 {
        server
            .send("bob", &format!("friend-{number}"), 1, "hello")
            .await;
    }
    let mut follower = Follower::begin(Incremental::new("bob"), &server).await;
    let parts = 1 + follower.catch_up(&server, "bob").await;
    assert_eq!(parts, 5, "30 conversations, 7 in a part");
    let (query, mut variables) = follower.device.subscription();
    variables["version"] = json!(follower.device.version + 1_000_000);
    let mut events = Events::open(server.http("POST", "/graphql"), &query, variables)
        .await
        .expect("no stream");
    let first = events.data().await["conversationChanges"].clone();
    assert_eq!(
        (&first["reset"], &first["hasMore"]),
        (&json!(true), &json!(true))
    );
    assert!(first["version"].as_i64().unwrap() <= follower.device.version);
}

async fn message_added_delivers_every_message(engine: Engine) {
    let server = server_with_live_updates(engine).await;
    server.group("g", &["ann", "bob"]).await;
    server.send("bob", "g", 2, "before").await;
    let query = "subscription ($uid: ID, $channel: ChannelInput!, $after: UInt53) {
        messageAdded(uid: $uid, channel: $channel, after: $after) { messageSeq fromUid } }";
    let group = json!({"channelId": "g", "channelType": 2});
    let open = async |variables: Value| {
        Events::open(server.http("POST", "/graphql"), query, variables)
            .await
            .expect("no stream")
    };
    let mut now = open(json!({"uid": "ann", "channel": group})).await;
    let mut from_start = open(json!({"uid": "ann", "channel": group, "after": 0})).await;
    assert_eq!(from_start.data().await["messageAdded"]["messageSeq"], 1);
    // "From now on" is only defined once the stream is open.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for seq in 2..=6 {
        server.send("bob", "g", 2, &format!("said {seq}")).await;
        assert_eq!(
            now.data().await["messageAdded"],
            json!({"messageSeq": seq, "fromUid": "bob"}),
            "seq {seq}"
        );
        assert_eq!(
            from_start.data().await["messageAdded"]["messageSeq"],
            seq,
            "seq {seq}"
        );
    }
    let leave = json!({"channel_id": "g", "channel_type": 2, "subscribers": ["ann"]});
    server.call("/channel/subscriber_remove", leave).await;
    server.send("bob", "g", 2, "not for her").await;
    assert_eq!(now.next().await, Event::Complete);
    for (uid, channel) in [("ann", "g"), ("zoe", "g"), ("ann", "nowhere")] {
        let mut refused =
            open(json!({"uid": uid, "channel": {"channelId": channel, "channelType": 2}})).await;
        let Event::Next(answer) = refused.next().await else {
            panic!("no answer")
        };
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "NOT_FOUND",
            "{uid} {channel}: {answer}"
        );
        assert_eq!(refused.next().await, Event::Complete, "{uid} {channel}");
    }
}

on_every_database!(
    every_kind_of_change_is_an_event,
    no_event_is_lost_after_the_first_read,
    no_message_is_lost_after_joining,
    burst_becomes_few_events,
    poll_finds_changes_of_other_servers,
    long_backlog_is_split_and_unknown_version_resets,
    message_added_delivers_every_message,
);

#[tokio::test]
async fn invalid_subscriptions_are_refused() {
    let server = Server::start(Engine::Sqlite).await;
    let answer = async |query: &str| {
        let mut events = Events::open(server.http("POST", "/graphql"), query, json!({}))
            .await
            .expect("no stream");
        let Event::Next(answer) = events.next().await else {
            panic!("no answer to {query}")
        };
        assert_eq!(events.next().await, Event::Complete, "{query}");
        let error = &answer["errors"][0];
        (
            error["extensions"]["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            error["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    for (query, code, text) in [
        (
            "subscription { conversationChanges { version } }",
            "BAD_USER_INPUT",
            "uid must be given",
        ),
        (
            r#"subscription { conversationChanges(uid: "ann", msgCount: -1) { version } }"#,
            "BAD_USER_INPUT",
            "msgCount must be",
        ),
        (
            r#"subscription { conversationChanges(uid: "ann", msgCount: 501) { version } }"#,
            "BAD_USER_INPUT",
            "msgCount must be",
        ),
        (
            r#"subscription { conversationChanges(uid: "ann", version: -1) { version } }"#,
            "BAD_USER_INPUT",
            "UInt53",
        ),
        (
            r#"subscription { conversationChanges(uid: "ann") { nope } }"#,
            "GRAPHQL_VALIDATION_FAILED",
            "nope",
        ),
        (
            r#"subscription { a: conversationChanges(uid: "ann") { version } b: conversationChanges(uid: "ann") { version } }"#,
            "GRAPHQL_VALIDATION_FAILED",
            "exactly one field",
        ),
        ("subscription {", "GRAPHQL_PARSE_FAILED", ""),
        (
            r#"subscription { messageAdded(uid: "ann", channel: {channelId: "g", channelType: 0}) { id } }"#,
            "BAD_USER_INPUT",
            "channelType",
        ),
    ] {
        let (got, message) = answer(query).await;
        assert_eq!(got, code, "{query}: {message}");
        assert!(message.contains(text), "{query}: {message}");
    }
    // Requests over transports that return a single response.
    let refused = server
        .graphql_raw(
            r#"subscription { conversationChanges(uid: "ann") { version } }"#,
            json!({}),
        )
        .await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
    assert!(
        refused["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("text/event-stream"),
        "{refused}"
    );
    let off = Server::start_with(Engine::Sqlite, |settings| settings.conversation.on = false).await;
    let query = r#"subscription { conversationChanges(uid: "ann") { version } }"#;
    let mut events = Events::open(off.http("POST", "/graphql"), query, json!({}))
        .await
        .expect("no stream");
    let Event::Next(answer) = events.next().await else {
        panic!("no answer")
    };
    assert_eq!(
        answer["errors"][0]["extensions"]["code"],
        "CONVERSATIONS_OFF"
    );
}

#[tokio::test]
async fn query_over_event_stream() {
    let server = Server::start(Engine::Sqlite).await;
    let mut events = Events::open(server.http("POST", "/graphql"), "{ __typename }", json!({}))
        .await
        .expect("no stream");
    assert_eq!(events.data().await, json!({"__typename": "Query"}));
    assert_eq!(events.next().await, Event::Complete);
    // A client that offers HTTP/2 does not want a WebSocket.
    let offer = server
        .http("GET", "/graphql?query=%7B__typename%7D")
        .header("upgrade", "h2c")
        .header("connection", "upgrade");
    assert_eq!(
        server.request(offer).await.json()["data"]["__typename"],
        "Query"
    );
    // GET runs queries only.
    let url = "/graphql?query=subscription%7BconversationChanges(uid:%22ann%22)%7Bversion%7D%7D";
    let response = server
        .http("GET", url)
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["content-type"]
        ),
        (200, &"text/event-stream; charset=utf-8".parse().unwrap())
    );
    let url = "/graphql?query=mutation%7BmarkAllRead(input:%7Buid:%22ann%22%7D)%7Bconversations%7Bid%7D%7D%7D";
    let response = server
        .http("GET", url)
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    let text = response.text().await.unwrap();
    assert!(text.contains("use POST"), "{text}");
}

/// The cost of a message depends on the connected users, not on the members, and the devices of a
/// user share a read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_message_cost_depends_on_connected_users() {
    let database = TestDatabase::create(Engine::Postgres).await;
    let server = Process::start_with(
        &database.url,
        &[("RECENTS__LIVE__POLL_INTERVAL_SECONDS", "3600")],
    );
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let members: Vec<String> = (0..10_000).map(|number| format!("m{number}")).collect();
    server
        .call(
            "/channel",
            json!({"channel_id": "big", "channel_type": 2, "subscribers": members}),
        )
        .await;
    let mut followers = Vec::new();
    for number in 0..200 {
        // Each user has four devices.
        let device = Incremental::new(&format!("m{}", number / 4));
        let (query, variables) = device.subscription();
        let mut events = Events::open(
            http.post(format!("{}/graphql", server.url)),
            &query,
            variables,
        )
        .await
        .expect("no stream");
        events.data().await;
        followers.push(events);
    }
    let cost = async |text: &str| {
        let before = (
            server.metric("recents_sql_statements_total").await,
            server.metric("recents_live_notifications_total").await,
        );
        server
            .call("/message/send", message("m0", "big", 2, text))
            .await;
        for events in &mut followers {
            events.data().await;
        }
        (
            server.metric("recents_sql_statements_total").await - before.0,
            server.metric("recents_live_notifications_total").await - before.1,
        )
    };
    let mut cost = cost;
    cost("first").await;
    let (statements, wakes) = cost("second").await;
    println!("10,000 members, 50 of them with 200 devices: {wakes} wakes, {statements} statements");
    assert_eq!(wakes, 50, "one for each user who is there");
    // Each sync: one read, then lock, read, version update and cursor, and the messages.
    assert!(
        statements <= 50 * 7 + 10,
        "{statements} statements for 50 users"
    );
}

/// Two servers and one Redis: clients of one server get the changes that the other one made, with a
/// password and over TLS.
async fn redis_notifies_other_servers(url: &str, authority: &str) {
    let database = TestDatabase::create(Engine::Postgres).await;
    let environment = [
        ("RECENTS__LIVE__REDIS_URL", url),
        ("SSL_CERT_FILE", authority),
        ("RECENTS__LIVE__POLL_INTERVAL_SECONDS", "3600"),
    ];
    let servers = [
        Process::start_with(&database.url, &environment),
        Process::start_with(&database.url, &environment),
    ];
    for server in &servers {
        let begun = Instant::now();
        while !server
            .get("/metrics")
            .await
            .1
            .contains("recents_live_redis_up 1")
        {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "Redis is not reached"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut device = Incremental::new("ann");
    let (query, variables) = device.subscription();
    let mut events = Events::open(
        http.post(format!("{}/graphql", servers[1].url)),
        &query,
        variables,
    )
    .await
    .expect("no stream");
    device.apply(&events.data().await["conversationChanges"]);
    let mut times = Vec::new();
    for number in 0..30 {
        servers[0]
            .call(
                "/message/send",
                message("bob", "ann", 1, &format!("number {number}")),
            )
            .await;
        let begun = Instant::now();
        device.apply(&events.data().await["conversationChanges"]);
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    times.sort_unstable();
    println!(
        "from the acknowledged send to the event on another server: median {:?}, worst {:?}",
        times[15], times[29]
    );
    let full = servers[0]
        .call("/conversation/sync", json!({"uid": "ann", "msg_count": 20}))
        .await;
    device.must_hold(full.as_array().unwrap());
    // Without load it takes less than 20 ms; other tests run at the same time.
    assert!(
        times[15] < Duration::from_millis(250),
        "median {:?}",
        times[15]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_notifies_other_servers_with_and_without_tls() {
    let servers = ThrowawayServers::start(&["redis"]).await;
    let authority = servers.url("RECENTS_TEST_REDIS_AUTHORITY");
    redis_notifies_other_servers(servers.url("RECENTS_TEST_REDIS"), authority).await;
    redis_notifies_other_servers(servers.url("RECENTS_TEST_REDIS_TLS"), authority).await;
}

/// A shutdown ends streams without `complete`, so that clients continue elsewhere, and does not
/// wait for clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_closes_subscriptions() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let mut server = Process::start_with(&database.url, &[]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (query, variables) = Incremental::new("ann").subscription();
    let mut events = Events::open(
        http.post(format!("{}/graphql", server.url)),
        &query,
        variables,
    )
    .await
    .expect("no stream");
    events.data().await;
    let begun = Instant::now();
    server.signal("-TERM");
    assert_eq!(events.next().await, Event::Broken);
    assert_eq!(server.wait(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}
