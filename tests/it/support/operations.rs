//! Operations of Ann and Bob in one channel, applied to a server and to the reference model.

use serde_json::{Value, json};

use Operation::{Delete, Hook, Join, Leave, Send, SetUnread, Sync};

use super::model::{self, Model};
use super::server::{Answer, Server, message, webhook_message};
use crate::support::sync_clients::Incremental;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A message that is sent to this server.
    Send(&'static str),
    /// A message of a webhook, with its seq.
    Hook(&'static str, i64),
    SetUnread(i64),
    Delete,
    Leave,
    Join,
    /// Ann's device syncs.
    Sync,
}

/// The state before one operation, or before two concurrent ones.
#[derive(Debug)]
pub struct Scenario {
    pub is_group: bool,
    pub before: &'static [Operation],
    /// Happens after the devices have synced, so that there is something to assign a version to.
    pub unseen: &'static [Operation],
    /// True if Ann's devices have synced before.
    pub is_known: bool,
    pub operations: &'static [Operation],
}

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        is_group: true,
        before: &[Hook("bob", 1), Hook("bob", 2)],
        unseen: &[Hook("bob", 3)],
        is_known: true,
        operations: &[Send("ann"), Send("bob"), SetUnread(1), Delete, Leave, Sync],
    },
    // Seq 2 is late.
    Scenario {
        is_group: true,
        before: &[Hook("bob", 1), Hook("bob", 3)],
        unseen: &[],
        is_known: true,
        operations: &[
            Hook("bob", 4),
            Hook("ann", 4),
            Hook("bob", 2),
            Hook("ann", 2),
            SetUnread(1),
            Delete,
            Leave,
            Join,
            Sync,
        ],
    },
    // Ann is a former member, and learns that she was removed.
    Scenario {
        is_group: true,
        before: &[Hook("bob", 1), Hook("bob", 2), Leave],
        unseen: &[Hook("bob", 3)],
        is_known: true,
        operations: &[Join, Send("bob"), Send("ann"), Leave, Sync],
    },
    // Ann has never synced.
    Scenario {
        is_group: true,
        before: &[Hook("bob", 1), Hook("bob", 2)],
        unseen: &[],
        is_known: false,
        operations: &[Sync, Send("bob"), SetUnread(1), Delete, Leave],
    },
    // No messages yet.
    Scenario {
        is_group: false,
        before: &[],
        unseen: &[],
        is_known: false,
        operations: &[Send("ann"), Send("bob"), Hook("bob", 1), Delete, Sync],
    },
];

impl Scenario {
    /// Applies the earlier events to the server, and to the model that it returns.
    pub async fn prepare(
        &self,
        server: &Server,
        test_channel: &TestChannel,
        devices: &mut [Incremental],
    ) -> Model {
        let mut model = Model::default();
        if self.is_group {
            let (id, _) = test_channel.channel("ann");
            let (ann, bob) = (test_channel.uid("ann"), test_channel.uid("bob"));
            server.group(&id, &[&ann, &bob]).await;
            for uid in [ann, bob] {
                model.join(&uid, &test_channel.identity());
            }
        }
        for (operations, look) in [(self.before, self.is_known), (self.unseen, false)] {
            for operation in operations {
                test_channel
                    .perform(server, *operation, &mut devices[0])
                    .await;
                test_channel.apply(&mut model, *operation);
            }
            for device in devices.iter_mut().filter(|_| look) {
                device.sync(server).await;
            }
        }
        model
    }
}

/// One channel of Ann and Bob, with names of its own, so that many share a server.
pub struct TestChannel {
    pub number: i64,
    /// A group, or a person channel.
    pub is_group: bool,
}

impl TestChannel {
    pub fn uid(&self, who: &str) -> String {
        format!("{who}-{}", self.number)
    }

    /// Returns the channel's name from the view of `who`.
    pub fn channel(&self, who: &str) -> (String, u8) {
        match (self.is_group, who) {
            (true, _) => (format!("team-{}", self.number), 2),
            (false, "ann") => (self.uid("bob"), 1),
            (false, _) => (self.uid("ann"), 1),
        }
    }

    fn identity(&self) -> model::Channel {
        let (id, kind) = self.channel("ann");
        model::channel(&self.uid("ann"), &id, kind)
    }

    /// A sent message has its sender in its client number: the same operation again is a repeat.
    fn body(&self, operation: Operation) -> (String, Value) {
        let ann = self.channel("ann");
        let target = json!({"uid": self.uid("ann"), "channel_id": ann.0, "channel_type": ann.1, "subscribers": [self.uid("ann")]});
        match operation {
            Send(from) => {
                let (id, kind) = self.channel(from);
                (
                    "/message/send".to_owned(),
                    message(&self.uid(from), &id, kind, &format!("sent by {from}")),
                )
            }
            Hook(from, seq) => {
                let (id, kind) = self.channel(from);
                let message =
                    webhook_message(&self.uid(from), &id, kind, seq, self.number * 100 + seq);
                ("/webhook?event=msg.notify".to_owned(), json!([message]))
            }
            SetUnread(unread) => {
                let mut target = target;
                target["unread"] = json!(unread);
                ("/conversations/setUnread".to_owned(), target)
            }
            Delete => ("/conversations/delete".to_owned(), target),
            Leave => ("/channel/subscriber_remove".to_owned(), target),
            Join => ("/channel/subscriber_add".to_owned(), target),
            Sync => (
                "/conversation/sync".to_owned(),
                json!({"uid": self.uid("ann"), "version": 0, "msg_count": 20}),
            ),
        }
    }

    /// Sends the request, whatever the response is.
    pub async fn ask(&self, server: &Server, operation: Operation) -> Answer {
        let (path, body) = self.body(operation);
        server.post(&path, body.to_string()).await
    }

    /// Applies the operation to a server; a sync is made by `device`.
    pub async fn perform(&self, server: &Server, operation: Operation, device: &mut Incremental) {
        if operation == Sync {
            return device.sync(server).await;
        }
        let answer = self.ask(server, operation).await;
        assert_eq!(answer.status, 200, "{operation:?}: {answer:?}");
    }

    /// Applies the operation to the model.
    pub fn apply(&self, model: &mut Model, operation: Operation) {
        let (ann, channel) = (self.uid("ann"), self.identity());
        match operation {
            Send(_) => {
                let (_, mut message) = self.body(operation);
                let name = message["client_msg_no"].clone();
                let is_there = |stored: &model::Message| stored.shape["client_msg_no"] == name;
                if model
                    .messages
                    .get(&channel)
                    .is_some_and(|messages| messages.values().any(is_there))
                {
                    return;
                }
                let seq = model.last_seq(&channel) + 1;
                message["message_seq"] = json!(seq);
                message["message_id"] = json!(self.number * 100 + seq);
                model.message(&message);
            }
            Hook(..) => model.message(&self.body(operation).1[0]),
            SetUnread(unread) => model.set_unread(&ann, &channel, unread, None),
            Delete => model.delete(&ann, &channel, None),
            Leave => model.leave(&ann, &channel),
            Join => model.join(&ann, &channel),
            Sync => {}
        }
    }

    /// Returns the part of a full response that does not depend on which server assigned which
    /// number: unread, and the names of the visible messages, newest first; `None` when the channel
    /// is not listed.
    pub fn shown(&self, full: &[Value]) -> Option<(i64, Vec<String>)> {
        let (id, _) = self.channel("ann");
        let item = full.iter().find(|item| item["channel_id"] == id)?;
        let names = item["recents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["client_msg_no"].as_str().unwrap().to_owned());
        Some((item["unread"].as_i64().unwrap(), names.collect()))
    }

    /// The same for the model.
    pub fn expected(&self, model: &Model) -> Option<(i64, Vec<String>)> {
        self.shown(&model.full(&self.uid("ann"), 20, &Default::default()))
    }
}
