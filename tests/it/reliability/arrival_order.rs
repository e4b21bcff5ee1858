//! The order in which a feeder's messages arrive does not matter. A generated history, delivered in
//! the order of its seqs and in shuffled, split and repeated forms, with reads and deletions of
//! users in between, ends in the same state.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use crate::support::model::without_versions;
use crate::support::server::webhook_message;
use crate::support::{Engine, Server};

const USERS: [&str; 3] = ["ann", "bob", "cid"];
/// Number of shuffled deliveries of each history.
const SHUFFLES: usize = 3;

#[derive(Clone, Debug)]
enum Event {
    /// A message of the group.
    Message { from: usize, seq: i64, red: bool },
    /// A message between the first two users.
    Person { from: usize, seq: i64, red: bool },
    Read {
        user: usize,
        group: bool,
        up_to: i64,
    },
    Delete {
        user: usize,
        group: bool,
        up_to: i64,
    },
}

fn history() -> impl Strategy<Value = Vec<Event>> {
    let message = |users: usize| (0..users, prop::bool::weighted(0.8));
    let reads = (0..USERS.len(), any::<bool>(), any::<bool>(), 1_i64..10);
    (
        prop::collection::vec(message(3), 1..8),
        prop::collection::vec(message(2), 0..5),
        prop::collection::vec(reads, 0..5),
    )
        .prop_map(|(group, person, reads)| {
            let mut events = Vec::new();
            for (at, (from, red)) in group.into_iter().enumerate() {
                events.push(Event::Message {
                    from,
                    seq: at as i64 + 1,
                    red,
                });
            }
            for (at, (from, red)) in person.into_iter().enumerate() {
                events.push(Event::Person {
                    from,
                    seq: at as i64 + 1,
                    red,
                });
            }
            for (user, group, is_read, up_to) in reads {
                // The third user is not a member of the conversation of the first two.
                let user = if group { user } else { user % 2 };
                events.push(if is_read {
                    Event::Read { user, group, up_to }
                } else {
                    Event::Delete { user, group, up_to }
                });
            }
            events
        })
}

/// Delivers a history to users of its own. Consecutive messages share a body.
async fn deliver(server: &Server, number: i64, events: &[Event], cut: usize) -> Vec<Vec<Value>> {
    let uid = |user: usize| format!("{}-{number}", USERS[user]);
    let group = format!("team-{number}");
    server.group(&group, &[&uid(0), &uid(1), &uid(2)]).await;
    let mut body: Vec<Value> = Vec::new();
    for event in events {
        let (from, id, kind, seq, red) = match event {
            Event::Message { from, seq, red } => (uid(*from), group.clone(), 2, *seq, *red),
            Event::Person { from, seq, red } => (uid(*from), uid(1 - from), 1, *seq, *red),
            Event::Read {
                user,
                group: in_group,
                up_to,
            }
            | Event::Delete {
                user,
                group: in_group,
                up_to,
            } => {
                flush(server, &mut body).await;
                let (id, kind) = if *in_group {
                    (group.clone(), 2)
                } else {
                    (uid(1 - user), 1)
                };
                let path = if matches!(event, Event::Read { .. }) {
                    "clearUnread"
                } else {
                    "delete"
                };
                let target = json!({"uid": uid(*user), "channel_id": id, "channel_type": kind, "message_seq": up_to});
                server.call(&format!("/conversations/{path}"), target).await;
                continue;
            }
        };
        let place = i64::from(kind) * 100;
        let mut message = webhook_message(&from, &id, kind, seq, number * 1000 + place + seq);
        message["header"]["red_dot"] = json!(u8::from(red));
        body.push(message);
        if body.len() >= cut {
            flush(server, &mut body).await;
        }
    }
    flush(server, &mut body).await;
    let mut states = Vec::new();
    for user in 0..USERS.len() {
        states.push(without_versions(&server.full(&uid(user)).await));
    }
    states
}

async fn flush(server: &Server, body: &mut Vec<Value>) {
    if !body.is_empty() {
        assert_eq!(server.notify(json!(std::mem::take(body))).await.status, 200);
    }
}

/// Returns the states without the names and IDs that differ between deliveries.
fn anonymous(states: &[Vec<Value>], number: i64) -> String {
    let text = json!(states).to_string();
    let ids = without_ids(&text, number);
    ids.replace(&format!("-{number}\""), "\"")
}

/// Message IDs and numbers are `number * 1000 + …`: keeps the remainder.
fn without_ids(text: &str, number: i64) -> String {
    let mut text = text.to_owned();
    for rest in 100..300 {
        text = text.replace(&format!("{}", number * 1000 + rest), &format!("m{rest}"));
    }
    // The payload contains the message ID.
    let payloads = text
        .split("\"payload\":\"")
        .map(|part| part.split_once('"').map_or(part, |(_, rest)| rest));
    payloads.collect::<Vec<_>>().join("\"payload\":\"")
}

/// The first message of a person channel creates the conversation. A read before it has no
/// conversation to change, so it must come later.
fn is_representable(events: &[Event]) -> bool {
    let first = events
        .iter()
        .position(|event| matches!(event, Event::Person { .. }));
    events.iter().enumerate().all(|(at, event)| match event {
        Event::Read { group: false, .. } | Event::Delete { group: false, .. } => {
            first.is_some_and(|first| first < at)
        }
        _ => true,
    })
}

fn arrival_order(engine: Engine) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(Server::start(engine));
    let number = std::sync::atomic::AtomicI64::new(10_001);
    let next = || number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let cases: u32 = std::env::var("RECENTS_TEST_HISTORIES")
        .ok()
        .map_or(150, |cases| cases.parse().unwrap());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let shuffled = (
        history(),
        prop::collection::vec((any::<u64>(), 1_usize..6), SHUFFLES),
    );
    TestRunner::new(config)
        .run(&shuffled, |(events, shuffles)| {
            let run = async {
                let first = next();
                let mut expected = None;
                if is_representable(&events) {
                    expected = Some(anonymous(
                        &deliver(&server, first, &events, usize::MAX).await,
                        first,
                    ));
                }
                for (seed, cut) in shuffles {
                    let mut events = events.clone();
                    // Some messages are delivered twice.
                    let repeats: Vec<Event> =
                        events.iter().filter(|_| seed % 3 == 0).cloned().collect();
                    events.extend(repeats);
                    let mut at = seed;
                    events.sort_by_cached_key(|_| {
                        at = at
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        at >> 20
                    });
                    if !is_representable(&events) {
                        continue;
                    }
                    let number = next();
                    let state = anonymous(&deliver(&server, number, &events, cut).await, number);
                    let expected = expected.get_or_insert_with(|| state.clone());
                    assert_eq!(&state, expected, "delivered as {events:?}, {cut} in a body");
                }
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run)))
                .map_err(|panic| {
                    TestCaseError::fail(panic.downcast_ref::<String>().cloned().unwrap_or_default())
                })
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn sqlite() {
    arrival_order(Engine::Sqlite);
}

#[test]
fn postgres() {
    arrival_order(Engine::Postgres);
}

#[test]
fn mariadb() {
    arrival_order(Engine::MariaDb);
}

#[test]
fn mysql() {
    arrival_order(Engine::MySql);
}
