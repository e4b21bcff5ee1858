//! Concurrent requests that wait for the same locks, held by another session, and then run at the
//! same time. The result must be that of some sequential order. `statement_interleavings.rs` stops
//! requests between their statements.

use std::time::Duration;

use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::{Value, json};

use crate::support::server::{message, webhook_message};
use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server};

on_every_database!(
    concurrent_changes_are_serializable,
    batches_in_opposite_order,
    concurrent_first_syncs
);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Send(&'static str),
    SetUnread(i64),
    Delete,
    Leave,
    Join,
}

/// Ann's view of the group: membership, unread, and the messages above her watermarks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ExpectedState {
    left: bool,
    unread: i64,
    deleted_to: usize,
    joined: usize,
    messages: Vec<&'static str>,
}

impl ExpectedState {
    fn after(mut self, step: Step) -> Self {
        let listed = !self.left && self.messages.len() > self.deleted_to.max(self.joined);
        match step {
            Step::Send(from) => {
                self.messages.push(from);
                self.unread = if from == "ann" { 0 } else { self.unread + 1 };
            }
            Step::SetUnread(unread) if listed => self.unread = unread,
            Step::Delete if listed => (self.deleted_to, self.unread) = (self.messages.len(), 0),
            Step::Leave => self.left = true,
            Step::Join if self.left => {
                (self.left, self.joined, self.unread) = (false, self.messages.len(), 0)
            }
            _ => {}
        }
        self
    }

    /// Returns unread and the senders of the visible messages, newest first; `None` when the
    /// conversation is not listed.
    fn shown(&self) -> Option<(i64, Vec<&'static str>)> {
        let listed = !self.left && self.messages.len() > self.deleted_to.max(self.joined);
        listed.then(|| {
            (
                self.unread,
                self.messages[self.deleted_to..]
                    .iter()
                    .rev()
                    .copied()
                    .collect(),
            )
        })
    }
}

fn orders(steps: &[Step]) -> Vec<Vec<Step>> {
    if steps.is_empty() {
        return vec![Vec::new()];
    }
    (0..steps.len())
        .flat_map(|first| {
            let mut rest = steps.to_vec();
            let step = rest.remove(first);
            orders(&rest).into_iter().map(move |mut order| {
                order.insert(0, step);
                order
            })
        })
        .collect()
}

async fn perform(server: &Server, step: Step, channel: &str, number: usize) {
    let target =
        json!({"uid": "ann", "channel_id": channel, "channel_type": 2, "subscribers": ["ann"]});
    match step {
        Step::Send(from) => drop(
            server
                .call(
                    "/message/send",
                    message(from, channel, 2, &format!("{channel}-{number}")),
                )
                .await,
        ),
        Step::SetUnread(unread) => server.set_unread("ann", channel, 2, unread).await,
        Step::Delete => server.delete("ann", channel, 2).await,
        Step::Leave => drop(server.call("/channel/subscriber_remove", target).await),
        Step::Join => drop(server.call("/channel/subscriber_add", target).await),
    }
}

async fn concurrent_changes_are_serializable(engine: Engine) {
    use Step::{Delete, Join, Leave, Send, SetUnread};
    let server = Server::start(engine).await;
    let connection = server.database.connect().await;
    let scenarios: [&[Step]; 10] = [
        &[SetUnread(1), Send("ann")],
        &[Send("ann"), SetUnread(1)],
        &[Send("ann"), Delete],
        &[SetUnread(1), Send("ann"), Send("bob")],
        &[Delete, Send("ann"), Send("bob")],
        &[Delete, SetUnread(1), Send("bob")],
        &[Leave, Send("ann"), Send("bob")],
        &[Leave, SetUnread(1), Join],
        &[Leave, Join, Send("bob")],
        &[Delete, Leave, Join, Send("bob")],
    ];
    // Requests that wait for the channel's lock have read nothing yet. Requests that wait for the
    // conversation's lock and do not lock the channel have already read the channel.
    for (round, table) in ["channel", "conversation", "channel", "conversation"]
        .into_iter()
        .enumerate()
    {
        for (number, steps) in scenarios.iter().enumerate() {
            let channel = format!("team-{round}-{number}");
            server.group(&channel, &["ann", "bob"]).await;
            let mut before = ExpectedState::default();
            for (count, from) in ["bob", "bob", "bob"].into_iter().enumerate() {
                perform(&server, Send(from), &channel, 100 + count).await;
                before = before.after(Send(from));
            }
            let mut device = Incremental::new("ann");
            device.sync(&server).await;

            let lock = connection.begin().await.unwrap();
            let column = if table == "channel" { "flags" } else { "muted" };
            lock.execute_unprepared(&format!("UPDATE {table} SET {column} = {column}"))
                .await
                .unwrap();
            let all = async {
                let (server, channel) = (&server, channel.as_str());
                let requests = steps.iter().enumerate().map(|(count, step)| async move {
                    tokio::time::sleep(Duration::from_millis(15 * count as u64)).await;
                    perform(server, *step, channel, count).await;
                });
                tokio::join!(futures_util::future::join_all(requests), async {
                    tokio::time::sleep(Duration::from_millis(80)).await;
                    lock.rollback().await.unwrap();
                });
            };
            all.await;

            let full = server.full("ann").await;
            let conversation = full.iter().find(|item| item["channel_id"] == channel);
            let shown = conversation.map(|item| {
                let senders = item["recents"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|message| message["from_uid"].clone());
                (
                    item["unread"].as_i64().unwrap(),
                    senders.collect::<Vec<Value>>(),
                )
            });
            let possible: Vec<_> = orders(steps)
                .into_iter()
                .map(|order| {
                    order
                        .into_iter()
                        .fold(before.clone(), ExpectedState::after)
                        .shown()
                })
                .map(|shown| {
                    shown.map(|(unread, senders)| {
                        (
                            unread,
                            senders.into_iter().map(Value::from).collect::<Vec<_>>(),
                        )
                    })
                })
                .collect();
            assert!(
                possible.contains(&shown),
                "{steps:?} gave {shown:?}, which no order of them gives: {possible:?}"
            );
            device.sync(&server).await;
            device.must_hold(&full);
        }
    }
}

/// Two webhook bodies with the same channels in opposite order, many times: both are accepted, and
/// neither waits for the other forever.
async fn batches_in_opposite_order(engine: Engine) {
    let server = Server::start(engine).await;
    let channels: Vec<String> = (0..6).map(|number| format!("team-{number}")).collect();
    for channel in &channels {
        server.group(channel, &["ann", "bob"]).await;
    }
    for round in 0..10_i64 {
        let body = |from: &str, parity: i64, reverse: bool| {
            let mut messages: Vec<Value> = channels
                .iter()
                .enumerate()
                .map(|(number, channel)| {
                    let seq = 2 * round + parity + 1;
                    webhook_message(from, channel, 2, seq, 1 + number as i64 * 1000 + seq)
                })
                .collect();
            if reverse {
                messages.reverse();
            }
            json!(messages)
        };
        let (one, other) = tokio::join!(
            server.notify(body("ann", 0, false)),
            server.notify(body("bob", 1, true))
        );
        assert_eq!(
            (one.status, other.status),
            (200, 200),
            "round {round}: {one:?} {other:?}"
        );
    }
    let full = server.full("ann").await;
    assert_eq!(full.len(), channels.len());
    for item in full {
        let seqs: Vec<i64> = item["recents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["message_seq"].as_i64().unwrap())
            .collect();
        assert_eq!(
            seqs,
            (1..=20).rev().collect::<Vec<_>>(),
            "{}",
            item["channel_id"]
        );
    }
}

/// A user's first sync, from many devices at the same time: no version is assigned twice, and each
/// device holds everything.
async fn concurrent_first_syncs(engine: Engine) {
    let server = Server::start(engine).await;
    for round in 0..5 {
        let uid = format!("ann{round}");
        for peer in 0..5 {
            server
                .send(&format!("peer{peer}"), &uid, 1, &format!("hello {round}"))
                .await;
        }
        let devices = futures_util::future::join_all((0..6).map(|number| {
            let (server, uid) = (&server, &uid);
            async move {
                let mut device = if number % 2 == 1 {
                    Incremental::in_pages(uid, 2)
                } else {
                    Incremental::new(uid)
                };
                device.sync(server).await;
                device
            }
        }))
        .await;
        let full = server.full(&uid).await;
        let mut versions: Vec<i64> = full
            .iter()
            .map(|item| item["version"].as_i64().unwrap())
            .collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 5, "round {round}: {full:?}");
        for mut device in devices {
            device.sync(&server).await;
            device.must_hold(&full);
        }
    }
}
