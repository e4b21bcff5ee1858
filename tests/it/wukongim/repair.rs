//! Messages that no webhook brought are fetched, and the state is then that of a server that
//! missed none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use recents::config::{Settings, WukongimVersion};
use serde_json::{Value, json};

use crate::support::process::{run, stderr, stdout};
use crate::support::proxy::Proxy;
use crate::support::server::payload;
use crate::support::wukongim::StandIn;
use crate::support::{Engine, Server, TestDatabase};

const VERSIONS: [WukongimVersion; 3] = [
    WukongimVersion::V1,
    WukongimVersion::V2,
    WukongimVersion::V3,
];
const USERS: [&str; 6] = ["ann", "bob", "cat", "dan", "eve", "fay"];
const GROUPS: [&str; 4] = ["g1", "g2", "g3", "g4"];
/// The time of a test server when it starts.
const START_MS: i64 = 1_795_393_000_000;
const DEADLINE: Duration = Duration::from_secs(40);

/// A server that a stand-in feeds.
struct Fed {
    stand_in: StandIn,
    server: Server,
    random: StdRng,
    seconds: i64,
}

impl Fed {
    async fn start(engine: Engine, version: WukongimVersion, seed: u64) -> Self {
        let stand_in = StandIn::start(version).await;
        let server = Server::start_with(engine, repairing(&stand_in, version)).await;
        stand_in.send_webhooks_to(format!("{}/webhook", server.url));
        for (number, group) in GROUPS.iter().enumerate() {
            // Membership would otherwise begin at the receiver list that arrives first.
            server.group(group, &USERS[number..number + 3]).await;
            stand_in.add_members(group, &USERS[number..number + 3]);
        }
        Self {
            stand_in,
            server,
            random: StdRng::seed_from_u64(seed),
            seconds: 0,
        }
    }

    /// Sends messages of random users to some of the groups and to each other.
    async fn traffic(&mut self, version: WukongimVersion, messages: usize, channels: usize) {
        for number in 0..messages {
            let group = self.random.random_range(0..channels);
            let from = USERS[group + self.random.random_range(0..3)];
            // v2 and v3 do not keep red dots.
            let red_dot = version != WukongimVersion::V1 || self.random.random_bool(0.8);
            let (channel_id, channel_type) = if self.random.random_bool(0.6) {
                (GROUPS[group], 2)
            } else {
                (*USERS.choose(&mut self.random).unwrap(), 1)
            };
            self.stand_in.send_message(&json!({
                "header": {"no_persist": 0, "red_dot": i32::from(red_dot), "sync_once": 0},
                "client_msg_no": format!("{from}-{number}"),
                "from_uid": from,
                "channel_id": channel_id,
                "channel_type": channel_type,
                "payload": payload(&format!("number {number}")),
            }));
        }
        self.stand_in.webhooks_settled().await;
    }

    /// Lets the server's clock advance by a second.
    fn tick(&mut self) {
        self.seconds += 1;
        self.server.set_clock(START_MS + self.seconds * 1000);
    }
}

fn repairing(stand_in: &StandIn, version: WukongimVersion) -> impl FnOnce(&mut Settings) + use<> {
    let url = stand_in.url.clone();
    move |settings| {
        settings.ingest.wukongim = version;
        settings.ingest.repair_url = url.as_str().into();
        settings.ingest.repair_seconds = 1;
    }
}

/// Returns everything that users see, apart from versions.
async fn state(server: &Server) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for uid in USERS {
        let body = json!({"uid": uid, "version": 0, "msg_count": 500});
        let mut items = server.sync(body).await;
        for item in &mut items {
            item["version"] = json!(0);
        }
        all.push((uid.to_owned(), json!(items)));
    }
    all
}

/// Describes the conversations that differ, with the seqs of their messages.
fn differences(found: &[(String, Value)], wanted: &[(String, Value)]) -> String {
    let mut lines = Vec::new();
    for ((uid, found), (_, wanted)) in found.iter().zip(wanted) {
        for (sign, items, others) in [("found", found, wanted), ("wanted", wanted, found)] {
            let others = others.as_array().unwrap();
            for (place, item) in items.as_array().unwrap().iter().enumerate() {
                if others.get(place) != Some(item) {
                    lines.push(format!(
                        "{uid} {sign} at {place}: {}, unread {}, read to {}: {:?}",
                        item["channel_id"],
                        item["unread"],
                        item["readed_to_msg_seq"],
                        seqs(item)
                    ));
                }
            }
        }
    }
    lines.join("\n")
}

/// Waits until both servers show the same.
async fn assert_equal_in_time(fed: &mut Fed, other: &Server, what: &str) {
    let begun = Instant::now();
    let wanted = state(other).await;
    loop {
        let found = state(&fed.server).await;
        if found == wanted {
            return;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "{what}: {}",
            differences(&found, &wanted)
        );
        fed.tick();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Webhooks are dropped for a while, as when the network is away. Some channels exist only since
/// then, and some have no message afterwards.
async fn dropped_webhooks_are_made_up_for(engine: Engine) {
    for version in VERSIONS {
        let mut fed = Fed::start(engine, version, 5).await;
        let mut complete = Fed::start(Engine::Sqlite, version, 5).await;
        for one in [&mut fed, &mut complete] {
            one.traffic(version, 40, 2).await;
            one.server.set_unread("ann", "g1", 2, 0).await;
            one.server.set_unread("bob", "g1", 2, 3).await;
        }
        fed.stand_in.drop_webhooks(true);
        for one in [&mut fed, &mut complete] {
            one.traffic(version, 60, 4).await;
        }
        assert!(fed.stand_in.dropped_webhooks() > 30);
        fed.stand_in.drop_webhooks(false);
        for one in [&mut fed, &mut complete] {
            one.traffic(version, 5, 1).await;
        }
        assert_ne!(state(&fed.server).await, state(&complete.server).await);
        assert_equal_in_time(&mut fed, &complete.server, &format!("{version:?}")).await;
        assert_eq!(
            fed.stand_in.newest_seqs(),
            complete.stand_in.newest_seqs(),
            "both servers got the same messages"
        );
    }
}

/// A group and a chat begin while webhooks are dropped, and have no message afterwards.
async fn unknown_channels_are_found(engine: Engine) {
    for version in VERSIONS {
        let mut fed = Fed::start(engine, version, 11).await;
        fed.stand_in.send("ann", "bob", 1, "known");
        fed.stand_in.webhooks_settled().await;
        fed.stand_in.drop_webhooks(true);
        fed.stand_in.add_members("new", &["bob", "gil"]);
        for text in ["one", "two", "three"] {
            fed.stand_in.send("bob", "new", 2, text);
        }
        fed.stand_in.send("gil", "ann", 1, "hello");
        fed.stand_in.webhooks_settled().await;
        fed.stand_in.drop_webhooks(false);
        // A failed webhook, or a jump, hints at the loss.
        fed.stand_in.send("ann", "bob", 1, "jump");
        fed.stand_in.send("ann", "bob", 1, "later");
        fed.stand_in.drop_webhooks(true);
        fed.stand_in.webhooks_settled().await;
        fed.stand_in.drop_webhooks(false);
        fed.stand_in.send("ann", "bob", 1, "last");
        let begun = Instant::now();
        let all = loop {
            let all = fed.server.full("gil").await;
            if all.len() == 2 {
                break all;
            }
            assert!(begun.elapsed() < DEADLINE, "{version:?}: gil sees {all:?}");
            fed.tick();
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let group = all.iter().find(|item| item["channel_id"] == "new").unwrap();
        assert_eq!((seqs(group), &group["unread"]), (vec![3, 2, 1], &json!(3)));
    }
}

/// The server is stopped while messages are sent, and nothing is sent afterwards.
async fn a_stopped_server_catches_up(engine: Engine) {
    let version = WukongimVersion::V1;
    let mut fed = Fed::start(engine, version, 6).await;
    let mut complete = Fed::start(Engine::Sqlite, version, 6).await;
    for one in [&mut fed, &mut complete] {
        one.traffic(version, 40, 2).await;
    }
    // The old address refuses connections.
    fed.stand_in.send_webhooks_to("http://127.0.0.1:1/webhook");
    for one in [&mut fed, &mut complete] {
        one.traffic(version, 40, 4).await;
    }
    fed.server = fed.server.restart(repairing(&fed.stand_in, version)).await;
    fed.stand_in
        .send_webhooks_to(format!("{}/webhook", fed.server.url));
    assert_equal_in_time(&mut fed, &complete.server, "after the restart").await;
}

/// The database is away while messages are sent: webhooks fail, and are dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_is_made_up_for() {
    let version = WukongimVersion::V2;
    let database = Arc::new(TestDatabase::create(Engine::Postgres).await);
    let proxy = Proxy::before(&database).await;
    let mut fed = Fed::start(Engine::Sqlite, version, 7).await;
    let configure = repairing(&fed.stand_in, version);
    fed.server = Server::start_on(database, |settings| {
        configure(settings);
        settings.database.url = proxy.url.as_str().into();
        settings.database.acquire_timeout_seconds = 1;
    })
    .await;
    fed.stand_in
        .send_webhooks_to(format!("{}/webhook", fed.server.url));
    let mut complete = Fed::start(Engine::Sqlite, version, 7).await;
    for one in [&mut fed, &mut complete] {
        one.traffic(version, 40, 2).await;
    }
    proxy.set_down(true);
    for one in [&mut fed, &mut complete] {
        one.traffic(version, 40, 4).await;
    }
    assert!(fed.stand_in.dropped_webhooks() > 0);
    proxy.set_down(false);
    assert_equal_in_time(&mut fed, &complete.server, "after the outage").await;
}

/// The WuKongIM is away when messages are missing; later it is back.
async fn an_outage_of_wukongim_is_waited_out(engine: Engine) {
    let version = WukongimVersion::V1;
    let mut fed = Fed::start(engine, version, 8).await;
    let mut complete = Fed::start(Engine::Sqlite, version, 8).await;
    fed.stand_in.drop_webhooks(true);
    for one in [&mut fed, &mut complete] {
        one.traffic(version, 30, 4).await;
    }
    fed.stand_in.drop_webhooks(false);
    fed.stand_in.set_away(true);
    for one in [&mut fed, &mut complete] {
        one.traffic(version, 5, 1).await;
    }
    for _ in 0..20 {
        fed.tick();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!fed.stand_in.bodies("/channel/messagesync").is_empty());
    fed.stand_in.set_away(false);
    // The first webhook of these arrived late: that is since when messages are expected.
    assert_equal_in_time(&mut fed, &complete.server, "after the outage").await;
}

/// A message that the WuKongIM does not have either is not expected any more.
async fn removed_messages_are_not_asked_for_again(engine: Engine) {
    let version = WukongimVersion::V1;
    let mut fed = Fed::start(engine, version, 9).await;
    fed.stand_in.send("ann", "g1", 2, "first");
    fed.stand_in.webhooks_settled().await;
    fed.stand_in.drop_webhooks(true);
    let lost = fed.stand_in.send("ann", "g1", 2, "lost");
    fed.stand_in.send("ann", "g1", 2, "missed");
    fed.stand_in.webhooks_settled().await;
    fed.stand_in.remove_message("g1", lost);
    fed.stand_in.drop_webhooks(false);
    fed.stand_in.send("ann", "g1", 2, "last");
    fed.stand_in.webhooks_settled().await;
    let begun = Instant::now();
    loop {
        fed.tick();
        let seqs = seqs(&fed.server.only("bob").await);
        if seqs == [4, 3, 1] && missing(&fed.server).await == 0 {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "bob sees {seqs:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = fed.stand_in.bodies("/channel/messagesync").len();
    for _ in 0..20 {
        fed.tick();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(fed.stand_in.bodies("/channel/messagesync").len(), asked);
}

/// A WuKongIM that has lost the first message that arrived here cannot tell what came before it. It
/// is not asked again every second.
async fn a_lost_beginning_is_not_asked_for_all_the_time(engine: Engine) {
    let mut fed = Fed::start(engine, WukongimVersion::V1, 12).await;
    fed.stand_in.drop_webhooks(true);
    for text in ["one", "two"] {
        fed.stand_in.send("ann", "g1", 2, text);
    }
    fed.stand_in.webhooks_settled().await;
    fed.stand_in.drop_webhooks(false);
    fed.stand_in.send("ann", "g1", 2, "three");
    fed.stand_in.webhooks_settled().await;
    // Message 2 would be the one below it.
    for seq in [2, 3] {
        fed.stand_in.remove_message("g1", seq);
    }
    for _ in 0..50 {
        fed.tick();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seqs(&fed.server.only("bob").await), [3, 1]);
    let asked = fed.stand_in.bodies("/channel/messagesync").len();
    assert!((1..=3).contains(&asked), "asked {asked} times in 5 s");
}

/// The messages of another WuKongIM are not taken.
async fn another_wukongim_is_noticed(engine: Engine) {
    let version = WukongimVersion::V1;
    let mut fed = Fed::start(engine, version, 10).await;
    let other = StandIn::start(version).await;
    // The messages of g1 have other ids than those of the WuKongIM that sends webhooks.
    other.send("xav", "yve", 1, "earlier");
    for number in 1..=5 {
        other.send("ann", "g1", 2, &format!("other {number}"));
    }
    fed.server = fed.server.restart(repairing(&other, version)).await;
    fed.stand_in
        .send_webhooks_to(format!("{}/webhook", fed.server.url));
    fed.stand_in.send("ann", "g1", 2, "first");
    fed.stand_in.webhooks_settled().await;
    fed.stand_in.drop_webhooks(true);
    fed.stand_in.send("ann", "g1", 2, "lost");
    fed.stand_in.webhooks_settled().await;
    fed.stand_in.drop_webhooks(false);
    fed.stand_in.send("ann", "g1", 2, "last");
    fed.stand_in.webhooks_settled().await;
    for _ in 0..20 {
        fed.tick();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!other.bodies("/channel/messagesync").is_empty());
    assert_eq!(seqs(&fed.server.only("bob").await), [3, 1]);
    assert_eq!(missing(&fed.server).await, 1);
}

on_every_database!(
    dropped_webhooks_are_made_up_for,
    unknown_channels_are_found,
    a_stopped_server_catches_up,
    an_outage_of_wukongim_is_waited_out,
    removed_messages_are_not_asked_for_again,
    a_lost_beginning_is_not_asked_for_all_the_time,
    another_wukongim_is_noticed,
);

/// Returns the seqs of the recent messages, newest first.
fn seqs(item: &Value) -> Vec<i64> {
    let recents = item["recents"].as_array().unwrap().iter();
    recents
        .map(|message| message["message_seq"].as_i64().unwrap())
        .collect()
}

/// Returns the number of messages that are missing.
async fn missing(server: &Server) -> i64 {
    let mut missing = 0;
    recents::repair::list_gaps(&server.app.core.base.store, |report| {
        missing += report.missing();
    })
    .await
    .unwrap();
    missing
}

/// `recents check` lists what is missing, and `recents repair` fetches it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_list_and_repair() {
    let stand_in = StandIn::start(WukongimVersion::V1).await;
    stand_in.add_members("g1", &["ann", "bob"]);
    let database = Arc::new(TestDatabase::create(Engine::Sqlite).await);
    let server = Server::start_on(Arc::clone(&database), |_| {}).await;
    server.group("g1", &["ann", "bob"]).await;
    stand_in.send_webhooks_to(format!("{}/webhook", server.url));
    for text in ["one", "two"] {
        stand_in.send("ann", "g1", 2, text);
    }
    stand_in.webhooks_settled().await;
    let command = async |arguments: &[&str]| {
        let (url, arguments) = (
            database.url.clone(),
            arguments
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        );
        tokio::task::spawn_blocking(move || {
            let folder = tempfile::tempdir().unwrap();
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = run(
                folder.path(),
                &arguments,
                &[
                    ("RECENTS__DATABASE__URL", url.as_str()),
                    ("RECENTS__INGEST__WUKONGIM", "v1"),
                ],
            );
            (output.status.code(), stdout(&output), stderr(&output))
        })
        .await
        .unwrap()
    };
    let (code, output, problem) = command(&["check"]).await;
    assert_eq!(code, Some(0), "{problem}");
    assert_eq!(output, "0 messages of 0 channels are missing\n");

    stand_in.drop_webhooks(true);
    for text in ["three", "four"] {
        stand_in.send("ann", "g1", 2, text);
    }
    stand_in.webhooks_settled().await;
    stand_in.drop_webhooks(false);
    stand_in.send("ann", "g1", 2, "five");
    stand_in.webhooks_settled().await;
    let (code, output, problem) = command(&["check"]).await;
    assert_eq!(code, Some(1), "{problem}");
    assert_eq!(
        output,
        "channel g1, type 2: 2 missing: 3-4\n2 messages of 1 channels are missing\n"
    );
    assert!(problem.contains("recents repair URL"), "{problem}");

    let (code, _, problem) = command(&["repair", "http://127.0.0.1:1"]).await;
    assert!(
        code == Some(1) && problem.contains("http://127.0.0.1:1") && problem.contains("refused"),
        "{problem}"
    );
    let (code, _, problem) = command(&["repair", "no url"]).await;
    assert!(
        code == Some(2) && problem.contains("is not a URL"),
        "{problem}"
    );

    let (code, output, problem) = command(&["repair", &stand_in.url]).await;
    assert_eq!(code, Some(0), "{problem}");
    assert!(output.contains("2 messages stored"), "{output}");
    let (code, output, _) = command(&["check"]).await;
    assert_eq!(
        (code, output.as_str()),
        (Some(0), "0 messages of 0 channels are missing\n")
    );
    assert_eq!(seqs(&server.only("bob").await), [5, 4, 3, 2, 1]);
    assert_unread!(server, "bob", 5);
}
