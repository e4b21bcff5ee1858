//! Concurrent writers and readers on a cluster of servers, and the checks at the end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use sea_orm::{ConnectionTrait, Database, Statement};
use serde_json::json;

use super::cluster::ServerCluster;
use super::server::{message, webhook_message};
use super::sse::{Event, Events};
use crate::support::sync_clients::{Incremental, Versions};

const USERS: usize = 40;
const GROUPS: usize = 16;
const READERS: usize = 24;
const FOLLOWERS: usize = 8;
/// Messages of each conversation that readers hold.
const MSG_COUNT: i64 = 3;

/// Duration and number of clients.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub writers: usize,
    pub time: Duration,
    /// The minimum of every writer, however slow the machine is: it may take longer than `time`.
    pub least_steps: u64,
    /// Stops earlier when this number of operations is acknowledged.
    pub operations: u64,
    /// Maximum number of messages in a webhook.
    pub batch: i64,
    /// Pause of a reader between two syncs.
    pub pause: Duration,
}

/// The totals. Every fault panics, so a report means that there was none.
#[derive(Debug)]
pub struct Report {
    /// Messages sent or received by webhook, repeats included, and all other changes.
    pub operations: u64,
    /// Requests that wrote.
    pub writes: u64,
    pub messages: u64,
    pub reads: u64,
    /// Live events.
    pub events: u64,
    pub refused: u64,
    pub retried: u64,
    pub time: Duration,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.time.as_secs_f64();
        write!(
            f,
            "operations {} ({:.0}/s) in {} requests, messages {}, reads {}, events {}, faults 0, rolled back and begun again {}, refused and \
             asked again {}, {seconds:.0} s",
            self.operations,
            self.operations as f64 / seconds,
            self.writes,
            self.messages,
            self.reads,
            self.events,
            self.retried,
            self.refused,
        )
    }
}

#[derive(Default)]
struct Tally {
    operations: AtomicU64,
    writes: AtomicU64,
    reads: AtomicU64,
    events: AtomicU64,
    done: AtomicBool,
    /// Acknowledged (channel, seq) of sends: no two sends have the same one.
    acknowledged: Mutex<HashSet<(String, i64)>>,
    /// Messages that must be stored, by channel.
    messages: Mutex<HashMap<String, u64>>,
}

fn user(number: usize) -> String {
    format!("user-{:02}", number % USERS)
}

/// Group `number` has every third user, and one user who only reads live updates and never sends or
/// marks anything.
fn members(number: usize) -> Vec<String> {
    (0..USERS)
        .filter(|user| (user + number).is_multiple_of(3))
        .map(user)
        .chain(["watcher".to_owned()])
        .collect()
}

struct Writer<'a> {
    cluster: &'a ServerCluster,
    tally: &'a Tally,
    number: usize,
    random: StdRng,
    sent: u64,
    /// The writer's own webhook group: the next seq, and the messages that will be late.
    next_seq: i64,
    late: Vec<i64>,
    batch: i64,
}

impl Writer<'_> {
    fn webhook_group(&self) -> String {
        format!("hooked-{}", self.number)
    }

    fn member(&mut self, group: usize) -> String {
        let members = members(group);
        members[self.random.random_range(0..members.len() - 1)].clone()
    }

    async fn step(&mut self) {
        let group = self.random.random_range(0..GROUPS);
        let uid = self.member(group);
        let target = json!({"uid": uid, "channel_id": format!("group-{group}"), "channel_type": 2});
        match self.random.random_range(0..100) {
            0..40 => self.send(&uid, &format!("group-{group}"), 2).await,
            40..50 => {
                let number = self.random.random_range(0..USERS);
                self.send(&user(number), &user(number + 1), 1).await;
            }
            50..65 => self.hook().await,
            65..77 => {
                let mut target = target;
                target["unread"] = json!(self.random.random_range(0..5));
                self.write("/conversations/setUnread", target).await;
            }
            77..84 => drop(self.write("/conversations/clearUnread", target).await),
            84..92 => drop(self.write("/conversations/delete", target).await),
            joins => {
                let path = if joins < 96 {
                    "/channel/subscriber_remove"
                } else {
                    "/channel/subscriber_add"
                };
                let group = format!("moving-{}", self.random.random_range(0..4));
                let uids: Vec<String> = (0..self.random.random_range(1..4))
                    .map(|_| user(self.random.random_range(0..USERS)))
                    .collect();
                self.write(
                    path,
                    json!({"channel_id": group, "channel_type": 2, "subscribers": uids}),
                )
                .await;
                let from = user(self.random.random_range(0..USERS));
                self.send(&from, &group, 2).await;
            }
        }
    }

    async fn write(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let answer = self.cluster.call(path, &body).await;
        self.tally.writes.fetch_add(1, Ordering::Relaxed);
        self.tally.operations.fetch_add(
            body.as_array().map_or(1, |messages| messages.len() as u64),
            Ordering::Relaxed,
        );
        answer
    }

    async fn send(&mut self, from: &str, channel: &str, kind: u8) {
        self.sent += 1;
        let body = message(
            from,
            channel,
            kind,
            &format!("w{}-{}", self.number, self.sent),
        );
        let answer = self.write("/message/send", body.clone()).await;
        let seq = answer["data"]["message_seq"].as_i64().unwrap();
        let name = if kind == 1 {
            format!("{from}→{channel}")
        } else {
            channel.to_owned()
        };
        assert!(
            self.tally
                .acknowledged
                .lock()
                .unwrap()
                .insert((name.clone(), seq)),
            "seq {seq} of {name} was given twice"
        );
        *self
            .tally
            .messages
            .lock()
            .unwrap()
            .entry(if kind == 1 {
                "persons".to_owned()
            } else {
                name
            })
            .or_default() += 1;
        if self.random.random_range(0..20) == 0 {
            let again = self.write("/message/send", body).await;
            assert_eq!(
                again["data"], answer["data"],
                "the same send answers the same"
            );
        }
    }

    /// Sends a webhook body: shuffled, with some messages repeated and some held back until later.
    async fn hook(&mut self) {
        let count = self.random.random_range(1..=self.batch);
        let mut seqs: Vec<i64> = (self.next_seq..self.next_seq + count).collect();
        self.next_seq += count;
        if self.random.random_range(0..3) == 0 {
            self.late.extend(seqs.pop());
        }
        if self.late.len() > 3 {
            seqs.push(self.late.remove(0));
        }
        if self.random.random_range(0..4) == 0 {
            seqs.push(self.random.random_range(1..self.next_seq));
            self.late.retain(|seq| Some(seq) != seqs.last());
        }
        seqs.shuffle(&mut self.random);
        self.deliver(&seqs).await;
    }

    async fn deliver(&mut self, seqs: &[i64]) {
        let group = self.webhook_group();
        let messages: Vec<_> = seqs
            .iter()
            .map(|seq| {
                webhook_message(
                    &user(*seq as usize),
                    &group,
                    2,
                    *seq,
                    (self.number as i64 + 1) * 1_000_000_000 + seq,
                )
            })
            .collect();
        self.write("/webhook?event=msg.notify", json!(messages))
            .await;
    }

    async fn finish(&mut self) {
        let late = std::mem::take(&mut self.late);
        if !late.is_empty() {
            self.deliver(&late).await;
        }
        if self.next_seq > 1 {
            self.tally
                .messages
                .lock()
                .unwrap()
                .insert(self.webhook_group(), self.next_seq as u64 - 1);
        }
    }
}

/// Runs writers and readers on the cluster, with `beside` at the same time, and checks the result.
/// Reads `database` at the end.
pub async fn run_load(
    cluster: &ServerCluster,
    database: &str,
    plan: Plan,
    beside: impl AsyncFn(&AtomicBool),
) -> Report {
    let begun = Instant::now();
    let tally = Tally::default();
    let everybody: Vec<String> = (0..USERS).map(user).chain(["watcher".to_owned()]).collect();
    for group in 0..GROUPS {
        let body = json!({"channel_id": format!("group-{group}"), "channel_type": 2, "subscribers": members(group)});
        cluster.call("/channel", &body).await;
    }
    for writer in 0..plan.writers {
        let body = json!({"channel_id": format!("hooked-{writer}"), "channel_type": 2, "subscribers": everybody});
        cluster.call("/channel", &body).await;
    }
    let versions: HashMap<String, Arc<Versions>> = everybody
        .iter()
        .map(|uid| (uid.clone(), Arc::default()))
        .collect();

    let writers = async {
        let tasks = (0..plan.writers).map(|number| {
            let tally = &tally;
            async move {
                let random = StdRng::seed_from_u64(number as u64);
                let mut writer = Writer {
                    cluster,
                    tally,
                    number,
                    random,
                    sent: 0,
                    next_seq: 1,
                    late: Vec::new(),
                    batch: plan.batch,
                };
                let mut steps = 0;
                while steps < plan.least_steps
                    || begun.elapsed() < plan.time
                        && tally.operations.load(Ordering::Relaxed) < plan.operations
                {
                    writer.step().await;
                    steps += 1;
                }
                writer.finish().await;
            }
        });
        futures_util::future::join_all(tasks).await;
        tally.done.store(true, Ordering::SeqCst);
    };
    let readers = (0..READERS).map(|number| {
        let uid = if number == 0 {
            "watcher".to_owned()
        } else {
            user(number / 2)
        };
        let (versions, tally) = (Arc::clone(&versions[&uid]), &tally);
        async move {
            let device = if number % 3 == 2 {
                Incremental::in_pages(&uid, 4)
            } else {
                Incremental::new(&uid)
            };
            let mut device = device.holding(MSG_COUNT, versions);
            while !tally.done.load(Ordering::SeqCst) {
                device.sync(cluster).await;
                tally.reads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(plan.pause).await;
            }
            (uid, device)
        }
    });
    // Followers: subscribed to any of the servers, switching to another one from time to time.
    let followers = (0..FOLLOWERS).map(|number| {
        let uid = if number == 0 {
            "watcher".to_owned()
        } else {
            user(number)
        };
        let (versions, tally) = (Arc::clone(&versions[&uid]), &tally);
        async move {
            let mut random = StdRng::seed_from_u64(1000 + number as u64);
            let mut device = Incremental::new(&uid).holding(MSG_COUNT, versions);
            while !tally.done.load(Ordering::SeqCst) {
                let (query, variables) = device.subscription();
                let opened = Events::open(cluster.any("/graphql"), &query, variables).await;
                // A server that is down, or has no capacity.
                let Ok(mut events) = opened else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                for _ in 0..random.random_range(1..40) {
                    match tokio::time::timeout(Duration::from_millis(500), events.next()).await {
                        Ok(Event::Next(answer)) => {
                            assert!(answer.get("errors").is_none(), "{answer}");
                            device.apply(&answer["data"]["conversationChanges"]);
                            tally.events.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(Event::Complete) => panic!("a subscription was completed"),
                        Ok(Event::Broken) => break,
                        Err(_) if tally.done.load(Ordering::SeqCst) => break,
                        Err(_) => {}
                    }
                }
            }
            (uid, device)
        }
    });
    let (_, mut devices, followers, ()) = tokio::join!(
        writers,
        futures_util::future::join_all(readers),
        futures_util::future::join_all(followers),
        beside(&tally.done)
    );
    // Followers get missed changes with their version, as after any disconnect.
    devices.extend(followers);

    for (uid, mut device) in devices {
        let full = cluster.full(&uid, MSG_COUNT).await;
        device.sync(cluster).await;
        device.must_hold(&full);
    }
    // A user who has never synced and never done anything has everything unread.
    let mut expected = tally.messages.lock().unwrap().clone();
    let watched = cluster.full("watcher", 1).await;
    for item in &watched {
        let (name, count) = (
            item["channel_id"].as_str().unwrap(),
            item["last_msg_seq"].as_u64().unwrap(),
        );
        assert_eq!(expected.get(name), Some(&count), "messages of {name}");
        assert_eq!(item["unread"], count, "unread of {name}");
    }
    expected.retain(|name, _| !name.starts_with("moving") && name != "persons");
    assert_eq!(watched.len(), expected.len());
    let sum: u64 = tally.messages.lock().unwrap().values().sum();
    check_tables(database, sum).await;
    Report {
        operations: tally.operations.load(Ordering::Relaxed),
        writes: tally.writes.load(Ordering::Relaxed),
        messages: sum,
        reads: tally.reads.load(Ordering::Relaxed),
        events: tally.events.load(Ordering::Relaxed),
        refused: cluster.refused.load(Ordering::Relaxed),
        retried: cluster.metric("recents_transactions_retried_total").await,
        time: begun.elapsed(),
    }
}

/// Asserts that seqs are dense, heads are correct, nothing is stored twice, and no version is above
/// its user's cursor or assigned twice.
pub async fn check_tables(database: &str, messages: u64) {
    let connection = Database::connect(database).await.unwrap();
    let count = async |sql: &str| {
        let statement = Statement::from_string(connection.get_database_backend(), sql.to_owned());
        connection
            .query_one_raw(statement)
            .await
            .unwrap()
            .unwrap()
            .try_get_by_index::<i64>(0)
            .unwrap()
    };
    assert_eq!(
        count("SELECT COUNT(*) FROM message").await,
        messages as i64,
        "messages"
    );
    let red = "SUM(CASE WHEN m.red_dot THEN 1 ELSE 0 END)";
    let wrong_heads = format!(
        "SELECT COUNT(*) FROM (SELECT ch.id FROM channel ch JOIN message m ON m.channel_id = ch.id
         GROUP BY ch.id, ch.last_seq, ch.red_dots
         HAVING MIN(m.seq) <> 1 OR MAX(m.seq) <> ch.last_seq OR COUNT(*) <> ch.last_seq OR {red} <> ch.red_dots) wrong"
    );
    assert_eq!(
        count(&wrong_heads).await,
        0,
        "channels whose seqs have holes or whose head does not add up"
    );
    let twice = "SELECT COUNT(*) FROM (SELECT uid FROM conversation WHERE version > 0 GROUP BY uid, version HAVING COUNT(*) > 1) twice";
    assert_eq!(
        count(twice).await,
        0,
        "versions that two conversations of a user have"
    );
    let above = "SELECT COUNT(*) FROM conversation c LEFT JOIN user_cursor u ON u.uid = c.uid
        WHERE c.version > COALESCE(u.version, 0)";
    assert_eq!(count(above).await, 0, "versions above their user's cursor");
    let stamped = "SELECT COUNT(*) FROM conversation c JOIN channel ch ON ch.id = c.channel_id WHERE c.stamped_revision > ch.revision";
    assert_eq!(
        count(stamped).await,
        0,
        "stamps of revisions that there are not"
    );
    connection.close().await.unwrap();
}
