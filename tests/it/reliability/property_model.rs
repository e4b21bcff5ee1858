//! Random histories of everything that users, services and a WuKongIM can do, compared with the
//! reference model. A failing history shrinks to the shortest one that still fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use crate::support::model::{self, Model, without_versions};
use crate::support::server::{message, webhook_message};
use crate::support::sync_clients::{Incremental, LastSeqs, Walker, graphql_full};
use crate::support::{Engine, Server};

const USERS: [&str; 4] = ["ann", "bob", "cid", "dan"];

/// Two channels that sends fill, and two that webhooks fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    SentGroup,
    SentPerson,
    HookedGroup,
    HookedPerson,
}

#[derive(Clone, Debug)]
struct WebhookMessage {
    channel: Channel,
    from: usize,
    seq: i64,
    red: bool,
    /// Another message that claims the same seq.
    twin: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Send {
        from: usize,
        channel: Channel,
        red: bool,
    },
    SendAgain,
    Webhook(Vec<WebhookMessage>),
    Offline(WebhookMessage, Vec<usize>),
    Join(Vec<usize>, Channel),
    Leave(Vec<usize>, Channel),
    SetUnread(usize, Channel, i64, Option<i64>),
    Delete(usize, Channel, Option<i64>),
    Open(usize, Channel),
    Sync(usize),
}

fn users() -> impl Strategy<Value = usize> {
    0..USERS.len()
}

fn any_webhook_message() -> impl Strategy<Value = WebhookMessage> {
    let channel = prop_oneof![3 => Just(Channel::HookedGroup), 1 => Just(Channel::HookedPerson)];
    (
        channel,
        users(),
        1_i64..12,
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(channel, from, seq, red, twin)| WebhookMessage {
            channel,
            from,
            seq,
            red,
            twin,
        })
}

fn group() -> impl Strategy<Value = Channel> {
    prop_oneof![Just(Channel::SentGroup), Just(Channel::HookedGroup)]
}

fn any_channel() -> impl Strategy<Value = Channel> {
    prop_oneof![
        Just(Channel::SentGroup),
        Just(Channel::SentPerson),
        Just(Channel::HookedGroup),
        Just(Channel::HookedPerson)
    ]
}

/// The seq up to which a request reads or deletes, also above the last message; half of the
/// requests have none.
fn up_to() -> impl Strategy<Value = Option<i64>> {
    prop::option::weighted(0.5, 1_i64..14)
}

fn step() -> impl Strategy<Value = Step> {
    let some_users = || prop::collection::vec(users(), 1..3);
    let sent = prop_oneof![Just(Channel::SentGroup), Just(Channel::SentPerson)];
    prop_oneof![
        4 => (users(), sent, prop::bool::weighted(0.8)).prop_map(|(from, channel, red)| Step::Send { from, channel, red }),
        1 => Just(Step::SendAgain),
        5 => prop::collection::vec(any_webhook_message(), 1..6).prop_map(Step::Webhook),
        2 => (any_webhook_message(), some_users()).prop_map(|(hook, uids)| Step::Offline(hook, uids)),
        2 => (some_users(), group()).prop_map(|(uids, channel)| Step::Join(uids, channel)),
        2 => (some_users(), group()).prop_map(|(uids, channel)| Step::Leave(uids, channel)),
        3 => (users(), any_channel(), 0_i64..4, up_to())
            .prop_map(|(uid, channel, unread, up_to)| Step::SetUnread(uid, channel, unread, up_to)),
        2 => (users(), any_channel(), up_to()).prop_map(|(uid, channel, up_to)| Step::Delete(uid, channel, up_to)),
        1 => (users(), any_channel()).prop_map(|(uid, channel)| Step::Open(uid, channel)),
        5 => users().prop_map(Step::Sync),
    ]
}

/// The devices of one user.
struct Devices {
    incremental: Incremental,
    paged: Incremental,
    walker: Walker,
    last_seqs: LastSeqs,
}

/// One history, with its own names and message IDs, so that all of them share a server.
struct HistoryRun<'a> {
    server: &'a Server,
    number: i64,
    model: Model,
    sends: Vec<Value>,
    devices: BTreeMap<usize, Devices>,
}

impl HistoryRun<'_> {
    fn uid(&self, user: usize) -> String {
        format!("{}-{}", USERS[user], self.number)
    }

    /// The peer in a person channel: each user writes to the next one.
    fn peer(user: usize) -> usize {
        (user + 1) % USERS.len()
    }

    /// Returns the channel's name from the view of `user`.
    fn name(&self, user: usize, channel: Channel) -> (String, u8) {
        match channel {
            Channel::SentGroup => (format!("sent-{}", self.number), 2),
            Channel::HookedGroup => (format!("hooked-{}", self.number), 2),
            Channel::SentPerson => (self.uid(Self::peer(user)), 1),
            // Each user has a separate peer for webhooks, so that sends and webhooks never share a
            // channel.
            Channel::HookedPerson => (format!("hooked-{}", self.uid(user)), 1),
        }
    }

    fn identity(&self, user: usize, channel: Channel) -> model::Channel {
        let (id, kind) = self.name(user, channel);
        model::channel(&self.uid(user), &id, kind)
    }

    fn webhook_body(&self, hook: &WebhookMessage) -> Value {
        let (id, kind) = self.name(hook.from, hook.channel);
        let place = match hook.channel {
            Channel::HookedGroup => 0,
            _ => 1 + hook.from as i64,
        };
        let message_id = self.number * 10_000 + place * 1000 + hook.seq * 10 + i64::from(hook.twin);
        // Each seq of a group has one sender, whichever user the strategy chose: a repeat is a
        // repeat.
        let from = if place == 0 {
            (hook.seq as usize + usize::from(hook.twin)) % USERS.len()
        } else {
            hook.from
        };
        let mut message = webhook_message(&self.uid(from), &id, kind, hook.seq, message_id);
        message["header"]["red_dot"] = json!(u8::from(hook.red || hook.seq % 3 == 0));
        // From the fourth message on, messages are sent more than 10 s after any removal.
        message["timestamp"] = json!(model::NOW / 1000 + hook.seq * 3);
        message
    }

    async fn run(&mut self, step: &Step) {
        match step {
            Step::Send { from, channel, red } => {
                let (id, kind) = self.name(*from, *channel);
                let mut body = message(
                    &self.uid(*from),
                    &id,
                    kind,
                    &format!("n{}", self.sends.len()),
                );
                body["header"]["red_dot"] = json!(u8::from(*red));
                self.send(&body).await;
                self.sends.push(body);
            }
            Step::SendAgain => {
                if let Some(body) = self.sends.last().cloned() {
                    self.send(&body).await;
                }
            }
            Step::Webhook(hooks) => {
                let body: Vec<Value> = hooks.iter().map(|hook| self.webhook_body(hook)).collect();
                body.iter().for_each(|message| self.model.message(message));
                assert_eq!(self.server.notify(json!(body)).await.status, 200);
            }
            Step::Offline(hook, uids) => {
                let message = self.webhook_body(hook);
                self.model.message(&message);
                let sent_at = message["timestamp"].as_i64().unwrap() * 1000;
                let channel = self.identity(hook.from, hook.channel);
                let stored = &self.model.messages[&channel][&hook.seq].shape["message_id"];
                // Only receivers of the message that is stored there are known as members.
                if hook.channel == Channel::HookedGroup && *stored == message["message_id"] {
                    for uid in uids {
                        self.model
                            .receive(&self.uid(*uid), &channel, hook.seq, sent_at);
                    }
                }
                let mut body = message;
                body["to_uids"] = uids.iter().map(|uid| self.uid(*uid)).collect();
                assert_eq!(
                    self.server
                        .post("/webhook?event=msg.offline", body.to_string())
                        .await
                        .status,
                    200
                );
            }
            Step::Join(uids, channel) | Step::Leave(uids, channel) => {
                let path = if matches!(step, Step::Join(..)) {
                    "subscriber_add"
                } else {
                    "subscriber_remove"
                };
                let (id, kind) = self.name(0, *channel);
                let identity = self.identity(0, *channel);
                let uids: Vec<String> = uids.iter().map(|uid| self.uid(*uid)).collect();
                for uid in &uids {
                    if path == "subscriber_add" {
                        self.model.join(uid, &identity)
                    } else {
                        self.model.leave(uid, &identity)
                    }
                }
                let body = json!({"channel_id": id, "channel_type": kind, "subscribers": uids});
                self.server.call(&format!("/channel/{path}"), body).await;
            }
            Step::SetUnread(user, channel, unread, up_to) => {
                let (uid, (id, kind)) = (self.uid(*user), self.name(*user, *channel));
                self.model
                    .set_unread(&uid, &self.identity(*user, *channel), *unread, *up_to);
                let body = json!({"uid": uid, "channel_id": id, "channel_type": kind, "unread": unread, "message_seq": up_to.unwrap_or(0)});
                self.server.call("/conversations/setUnread", body).await;
            }
            Step::Delete(user, channel, up_to) => {
                let (uid, (id, kind)) = (self.uid(*user), self.name(*user, *channel));
                self.model
                    .delete(&uid, &self.identity(*user, *channel), *up_to);
                let body = json!({"uid": uid, "channel_id": id, "channel_type": kind, "message_seq": up_to.unwrap_or(0)});
                self.server.call("/conversations/delete", body).await;
            }
            Step::Open(user, channel) => {
                let (uid, (id, kind)) = (self.uid(*user), self.name(*user, *channel));
                self.model.open(&uid, &self.identity(*user, *channel));
                let body = json!({"uid": uid, "channel_id": id, "channel_type": kind});
                self.server.call("/conversations/activate", body).await;
            }
            Step::Sync(user) => drop(self.look(*user).await),
        }
    }

    async fn send(&mut self, body: &Value) {
        let sent = self.server.call("/message/send", body.clone()).await["data"].clone();
        self.model.message(&json!({
            "header": body["header"],
            "setting": 0,
            "message_id": sent["message_id"],
            "message_idstr": sent["message_id"].to_string(),
            "client_msg_no": body["client_msg_no"],
            "message_seq": sent["message_seq"],
            "from_uid": body["from_uid"],
            "channel_id": body["channel_id"],
            "channel_type": body["channel_type"],
            "expire": 0,
            "timestamp": 1_795_393_000,
            "payload": body["payload"],
        }));
    }

    /// Three devices of the user sync, one of them through v3's routes. All must hold the result of a full sync, which must be that
    /// of the model.
    async fn look(&mut self, user: usize) -> Vec<Value> {
        let uid = self.uid(user);
        let devices = self.devices.entry(user).or_insert_with(|| Devices {
            incremental: Incremental::new(&uid),
            paged: Incremental::in_pages(&uid, 1),
            walker: Walker::new(&uid, 2),
            last_seqs: LastSeqs::new(&uid),
        });
        // The devices sync first, so that a full sync does not assign their versions.
        devices.incremental.sync(self.server).await;
        devices.paged.sync(self.server).await;
        devices.walker.walk(self.server).await;
        let full = self.server.full(&uid).await;
        assert_eq!(
            without_versions(&full),
            self.model.full(&uid, 20, &HashMap::new()),
            "{uid}"
        );
        self.model.look(&uid);
        devices.incremental.must_hold(&full);
        devices.paged.must_hold(&full);
        devices.walker.must_hold(&full);
        full
    }

    /// The same through every other read.
    async fn check(&mut self, user: usize) {
        let full = self.look(user).await;
        let uid = self.uid(user);
        if let Some(Devices { last_seqs, .. }) = self.devices.get_mut(&user) {
            last_seqs.sync(self.server).await;
            last_seqs.must_list(&full);
        }
        let mut new = Walker::new(&uid, 1);
        new.walk(self.server).await;
        new.must_hold(&full);
        if let Some(Devices { walker, .. }) = self.devices.get(&user) {
            walker.must_hold_as(&new);
        }
        let request = json!({"uid": uid, "version": 0, "msg_count": 20});
        assert_eq!(full, graphql_full(self.server, &request).await);
        let future = self
            .server
            .sync(json!({"uid": uid, "version": 9_000_000_000_000_000_i64, "msg_count": 20}))
            .await;
        assert_eq!(future, full, "an unknown version");
        let filtered = json!({"uid": uid, "version": 0, "msg_count": 3, "only_unread": 1, "exclude_channel_types": [1]});
        assert_eq!(
            self.server.sync(filtered.clone()).await,
            graphql_full(self.server, &filtered).await
        );
    }
}

/// Number of histories that run concurrently on one database.
const PARALLEL_RUNS: u32 = 4;

fn random_histories(engine: Engine) {
    let runtime = &tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let much = runtime.block_on(Server::start(engine));
    let with = |bytes| {
        let database = std::sync::Arc::clone(&much.database);
        runtime.block_on(Server::start_on(database, move |settings| {
            settings.cache.recent_messages_bytes = bytes
        }))
    };
    let (little, nothing) = (with(20_000), with(0));
    // The size of the message cache. Each run starts with another one, and responses must not
    // depend on it.
    let servers = &[much, little, nothing];
    let number = &AtomicI64::new(1);
    // Each history takes several times as long on database servers as on SQLite.
    let usual = if engine == Engine::Sqlite { 2000 } else { 800 };
    let cases: u32 = std::env::var("RECENTS_TEST_HISTORIES")
        .ok()
        .map_or(usual, |cases| cases.parse().unwrap());
    let run_cases = || {
        let config = Config {
            cases: cases.div_ceil(PARALLEL_RUNS),
            failure_persistence: None,
            max_shrink_iters: 400,
            ..Config::default()
        };
        TestRunner::new(config).run(&prop::collection::vec(step(), 1..25), |steps| {
            let number = number.fetch_add(1, Ordering::Relaxed);
            let server = &servers[number as usize % servers.len()];
            let run = async {
                let mut history = HistoryRun {
                    server,
                    number,
                    model: Model::default(),
                    sends: Vec::new(),
                    devices: BTreeMap::new(),
                };
                for step in &steps {
                    history.run(step).await;
                }
                for user in 0..USERS.len() {
                    history.check(user).await;
                }
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run)))
                .map_err(|panic| {
                    TestCaseError::fail(panic.downcast_ref::<String>().cloned().unwrap_or_default())
                })
        })
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..PARALLEL_RUNS).map(|_| scope.spawn(run_cases)).collect();
        runs.into_iter()
            .map(|run_cases| run_cases.join().unwrap())
            .collect()
    });
    for result in results {
        if let Err(error) = result {
            panic!("{error}");
        }
    }
    println!(
        "{engine:?}: {} histories",
        number.load(Ordering::Relaxed) - 1
    );
}

#[test]
fn sqlite() {
    random_histories(Engine::Sqlite);
}

#[test]
fn postgres() {
    random_histories(Engine::Postgres);
}

#[test]
fn mariadb() {
    random_histories(Engine::MariaDb);
}

#[test]
fn mysql() {
    random_histories(Engine::MySql);
}
