//! The read position: the shortest histories in which a simpler rule of unread fails, and reads of
//! messages that nobody has seen.

use serde_json::{Value, json};

use crate::support::server::{message, webhook_message};
use crate::support::{Engine, Server};

use Step::{Bob, Delete, Offline, Own, Read, Set};

on_every_database!(
    shortest_counterexamples,
    read_up_to_a_seq,
    read_before_the_message_arrives,
    mark_all_read_keeps_unseen_messages_unread,
    reading_far_ahead_is_capped,
    late_message_is_unread_below_its_seq,
    positions_in_graphql,
);

/// An event in a group of Ann and Bob. Ann sees all of them.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Bob sends a red-dot message with this seq.
    Bob(i64),
    /// Ann sends a red-dot message.
    Own(i64),
    /// Ann reads up to a seq; `None`: everything.
    Read(Option<i64>),
    /// Ann sets the unread count, of the messages up to a seq or of all.
    Set(i64, Option<i64>),
    Delete(Option<i64>),
    /// Bob sends a message that names Ann as its receiver.
    Offline(i64),
}

struct TestConversation<'a> {
    server: &'a Server,
    number: i64,
}

impl TestConversation<'_> {
    fn group(&self) -> String {
        format!("team-{}", self.number)
    }

    fn uid(&self) -> String {
        format!("ann-{}", self.number)
    }

    async fn perform(&self, step: Step) {
        let hook =
            |from: &str, seq| webhook_message(from, &self.group(), 2, seq, self.number * 100 + seq);
        let target = |up_to: Option<i64>| json!({"uid": self.uid(), "channel_id": self.group(), "channel_type": 2, "message_seq": up_to.unwrap_or(0)});
        match step {
            Bob(seq) => assert_eq!(
                self.server.notify(json!([hook("bob", seq)])).await.status,
                200
            ),
            Own(seq) => assert_eq!(
                self.server
                    .notify(json!([hook(&self.uid(), seq)]))
                    .await
                    .status,
                200
            ),
            Offline(seq) => {
                let mut body = hook("bob", seq);
                body["to_uids"] = json!([self.uid()]);
                self.server.call("/webhook?event=msg.offline", body).await;
            }
            Read(up_to) => drop(
                self.server
                    .call("/conversations/clearUnread", target(up_to))
                    .await,
            ),
            Set(unread, up_to) => {
                let mut body = target(up_to);
                body["unread"] = json!(unread);
                self.server.call("/conversations/setUnread", body).await;
            }
            Delete(up_to) => drop(
                self.server
                    .call("/conversations/delete", target(up_to))
                    .await,
            ),
        }
    }

    /// Returns unread and the read position of the conversation that Ann's list shows.
    async fn sees(&self) -> (i64, i64) {
        let query = "query ($uid: ID!, $id: ID!) { conversation(uid: $uid, channel: {channelId: $id, channelType: 2}) { unread readSeq } }";
        let found = self
            .server
            .graphql(query, json!({"uid": self.uid(), "id": self.group()}))
            .await["conversation"]
            .clone();
        (
            found["unread"].as_i64().unwrap_or(-1),
            found["readSeq"].as_i64().unwrap_or(-1),
        )
    }
}

/// Each history, with unread and the read position at its end.
const HISTORIES: &[(&[Step], i64, i64)] = &[
    // The read comes before the message, also before an own message.
    (&[Read(Some(1)), Own(1), Bob(2)], 1, 1),
    (&[Read(Some(2)), Bob(2), Own(1)], 0, 2),
    (&[Read(Some(1)), Bob(1)], 0, 1),
    (&[Read(Some(2)), Own(1), Bob(2)], 0, 2),
    // Late messages of others and own ones.
    (&[Own(2), Bob(1)], 0, 2),
    (&[Bob(2), Own(1)], 1, 1),
    (&[Bob(2), Bob(1), Read(Some(1))], 1, 1),
    (&[Own(2), Own(1)], 0, 2),
    (&[Bob(1), Bob(3), Bob(2)], 3, 0),
    // An unread count set by hand, and later messages.
    (&[Bob(1), Set(1, None), Own(2)], 0, 2),
    (&[Bob(2), Read(Some(1)), Own(3)], 0, 3),
    (&[Bob(2), Bob(3), Set(1, None), Own(1)], 1, 1),
    (&[Bob(1), Read(Some(2)), Set(1, None), Own(2)], 1, 2),
    (&[Bob(2), Own(3), Set(1, None), Delete(Some(1))], 0, 3),
    (&[Bob(2), Bob(3), Set(1, None), Read(Some(1))], 1, 1),
    (&[Own(2), Set(1, None), Read(Some(1))], 1, 2),
    (&[Own(2), Set(1, None), Delete(Some(1))], 0, 2),
    (&[Own(1), Set(1, None)], 1, 1),
    (&[Bob(2), Own(3), Set(1, Some(1))], 1, 3),
    (&[Bob(1), Bob(2), Bob(3), Set(5, Some(2))], 6, 0),
    // After a removal and a return, messages up to the earlier read position are read, and deleted
    // messages stay deleted.
    (&[Bob(1), Delete(None), Bob(2)], 1, 1),
    (&[Bob(1), Own(2), Offline(1)], 0, 2),
    // The unread count of the next message after a deletion above the head.
    (&[Bob(1), Delete(Some(3)), Bob(2), Bob(3), Bob(4)], 1, 3),
];

/// The one history where a sync makes a difference: an unread count set by hand, a late message
/// that is counted into it by the sync, and then a read past that message but below the head.
/// Unread is higher than without the sync, but never higher than the number of messages above the
/// position.
const LATE_BELOW_A_NUMBER_SET_BY_HAND: &[Step] =
    &[Bob(2), Bob(3), Set(1, None), Bob(1), Read(Some(1))];

async fn shortest_counterexamples(engine: Engine) {
    let server = &Server::start(engine).await;
    // A sync assigns versions and sets marks anew, which must not change unread. A summary must not
    // change it either.
    let both = HISTORIES
        .iter()
        .flat_map(|history| [(*history, false), (*history, true)]);
    let late = [
        ((LATE_BELOW_A_NUMBER_SET_BY_HAND, 1, 1), false),
        ((LATE_BELOW_A_NUMBER_SET_BY_HAND, 2, 1), true),
    ];
    for (number, ((history, unread, position), looks)) in (1..).zip(both.chain(late)) {
        let ann = TestConversation { server, number };
        server.group(&ann.group(), &[&ann.uid(), "bob"]).await;
        for step in history {
            ann.perform(*step).await;
            if looks {
                server.full(&ann.uid()).await;
            }
        }
        assert_eq!(
            ann.sees().await,
            (unread, position),
            "{history:?}, looking in between: {looks}"
        );
        let listed = server.only(&ann.uid()).await;
        assert_eq!(listed["unread"], unread, "{history:?}, in a sync");
        let query = "query ($uid: ID!) { unreadSummary(uid: $uid) { total } }";
        let summary = server.graphql(query, json!({"uid": ann.uid()})).await;
        assert_eq!(
            summary["unreadSummary"]["total"], unread,
            "{history:?}, in the summary"
        );
    }
}

async fn read_up_to_a_seq(engine: Engine) {
    let server = Server::start(engine).await;
    for text in ["one", "two", "three"] {
        server.send("bob", "ann", 1, text).await;
    }
    let target = |seq: i64| json!({"uid": "ann", "channel_id": "bob", "channel_type": 1, "message_seq": seq});
    // A third message arrived after Ann's screen was drawn.
    server.call("/conversations/clearUnread", target(2)).await;
    assert_unread!(server, "ann", 1);
    // The late receipt of another device changes nothing.
    server.call("/conversations/clearUnread", target(1)).await;
    assert_unread!(server, "ann", 1);
    // A deletion keeps the message that was not seen.
    server.call("/conversations/delete", target(2)).await;
    let item = server.only("ann").await;
    assert_eq!(
        (&item["unread"], item["recents"].as_array().unwrap().len()),
        (&json!(1), 1)
    );
    server.send("bob", "ann", 1, "four").await;
    let mut set = target(3);
    set["unread"] = json!(0);
    server.call("/conversations/setUnread", set).await;
    assert_unread!(server, "ann", 1);
    // 0 means the same as a missing seq: to the end.
    server.call("/conversations/clearUnread", target(0)).await;
    assert_unread!(server, "ann", 0);
}

async fn read_before_the_message_arrives(engine: Engine) {
    let server = Server::start(engine).await;
    let hook = |seq: i64| json!([webhook_message("bob", "ann", 1, seq, 100 + seq)]);
    server.notify(hook(1)).await;
    for path in ["/conversations/clearUnread", "/conversations/delete"] {
        let last = server.sync(json!({"uid": "ann", "msg_count": 1})).await;
        let seq = last
            .first()
            .map_or(3, |item| item["last_msg_seq"].as_i64().unwrap() + 1);
        let body =
            json!({"uid": "ann", "channel_id": "bob", "channel_type": 1, "message_seq": seq});
        server.call(path, body).await;
        server.notify(hook(seq)).await;
        let shown = server.full("ann").await;
        if path == "/conversations/delete" {
            assert_eq!(shown, Vec::<Value>::new(), "deleted before it came");
        } else {
            assert_eq!(shown[0]["unread"], 0, "read before it came");
        }
    }
    server.notify(hook(4)).await;
    assert_unread!(server, "ann", 1);
}

async fn mark_all_read_keeps_unseen_messages_unread(engine: Engine) {
    let server = Server::start(engine).await;
    for from in ["bob", "cid", "dan"] {
        server.send(from, "ann", 1, "hello").await;
    }
    let list = "{ conversationList(uid: \"ann\") { version } }";
    let version = server.graphql(list, json!({})).await["conversationList"]["version"].clone();
    // Bob's conversation is not the one on the screen any more.
    server.send("bob", "ann", 1, "again").await;
    let mark = "mutation ($input: MarkAllReadInput!) { markAllRead(input: $input) { conversations { channelId } unreadSummary { total } } }";
    let marked = server
        .graphql(
            mark,
            json!({"input": {"uid": "ann", "upToVersion": version}}),
        )
        .await["markAllRead"]
        .clone();
    assert_eq!(marked["unreadSummary"]["total"], 2, "{marked}");
    assert_eq!(
        marked["conversations"].as_array().unwrap().len(),
        2,
        "{marked}"
    );
    let marked =
        server.graphql(mark, json!({"input": {"uid": "ann"}})).await["markAllRead"].clone();
    assert_eq!(marked["unreadSummary"]["total"], 0);
}

async fn reading_far_ahead_is_capped(engine: Engine) {
    let server = Server::start_with(engine, |settings| settings.limits.read_ahead = 3).await;
    let hook = |seq: i64| json!([webhook_message("bob", "ann", 1, seq, 100 + seq)]);
    server.notify(hook(1)).await;
    server
        .call(
            "/conversations/clearUnread",
            json!({"uid": "ann", "channel_id": "bob", "channel_type": 1, "message_seq": 4_294_967_295_u32}),
        )
        .await;
    server.notify(hook(4)).await;
    assert_unread!(server, "ann", 0);
    server.notify(hook(5)).await;
    assert_unread!(server, "ann", 1);
}

async fn late_message_is_unread_below_its_seq(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob", "cid", "dan"]).await;
    server
        .notify(json!([
            webhook_message("bob", "team", 2, 1, 101),
            webhook_message("bob", "team", 2, 3, 103)
        ]))
        .await;
    server
        .call(
            "/conversations/clearUnread",
            json!({"uid": "cid", "channel_id": "team", "channel_type": 2}),
        )
        .await;
    server
        .notify(json!([webhook_message("ann", "team", 2, 4, 104)]))
        .await;
    // msg.offline arrives before msg.notify, in either order of the two messages.
    let mut late = webhook_message("bob", "team", 2, 2, 102);
    late["to_uids"] = json!(["ann", "dan"]);
    server.call("/webhook?event=msg.offline", late).await;
    for (uid, unread) in [("ann", 0), ("bob", 1), ("cid", 1), ("dan", 4)] {
        assert_unread!(server, uid, unread);
    }
}

async fn positions_in_graphql(engine: Engine) {
    let server = Server::start(engine).await;
    for text in ["one", "two", "three"] {
        server
            .call("/message/send", message("bob", "ann", 1, text))
            .await;
    }
    let channel = json!({"channelId": "bob", "channelType": 1});
    let clear = "mutation ($input: ClearUnreadInput!) { clearUnread(input: $input) { conversation { unread readSeq lastMsgSeq } } }";
    let read = async |up_to: Value| {
        let input = json!({"input": {"uid": "ann", "channel": channel, "upTo": up_to}});
        server.graphql(clear, input).await["clearUnread"]["conversation"].clone()
    };
    assert_eq!(
        read(json!(2)).await,
        json!({"unread": 1, "readSeq": 2, "lastMsgSeq": 3})
    );
    assert_eq!(
        read(json!(1)).await,
        json!({"unread": 1, "readSeq": 2, "lastMsgSeq": 3})
    );
    let set = "mutation ($input: SetUnreadInput!) { setUnread(input: $input) { conversation { unread readSeq } } }";
    let input = json!({"input": {"uid": "ann", "channel": channel, "unread": 5, "upTo": 2}});
    let conversation = server.graphql(set, input).await["setUnread"]["conversation"].clone();
    assert_eq!(conversation, json!({"unread": 6, "readSeq": 2}));
    assert_eq!(
        read(Value::Null).await,
        json!({"unread": 0, "readSeq": 3, "lastMsgSeq": 3})
    );
    let delete = "mutation ($input: DeleteConversationInput!) { deleteConversation(input: $input) { removed { channelId } conversation { recents { messageSeq } } } }";
    let deleted = async |up_to: Value| {
        let input = json!({"input": {"uid": "ann", "channel": channel, "upTo": up_to}});
        server.graphql(delete, input).await["deleteConversation"].clone()
    };
    assert_eq!(
        deleted(json!(1)).await,
        json!({"removed": null, "conversation": {"recents": [{"messageSeq": 3}, {"messageSeq": 2}]}})
    );
    assert_eq!(
        deleted(Value::Null).await,
        json!({"removed": {"channelId": "bob"}, "conversation": null})
    );
}
