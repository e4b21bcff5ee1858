//! Who is in a channel.

use serde_json::{Value, json};

use crate::clients::Incremental;
use crate::support::server::hooked;
use crate::support::{Engine, Server};

on_every_database!(
    a_removed_member_stays_removed,
    senders_and_receivers_of_a_group_are_members,
    a_message_to_oneself_makes_one_conversation,
    two_channels_with_one_derived_id,
    joining_and_leaving,
    coming_back_keeps_what_was_deleted,
    reset_replaces_everybody,
    many_members_at_once,
    graphql_manages_channels
);

async fn change(server: &Server, path: &str, uids: &[&str]) {
    server
        .call(
            path,
            json!({"channel_id": "team", "channel_type": 2, "subscribers": uids}),
        )
        .await;
}

async fn joining_and_leaving(engine: Engine) {
    let server = Server::start(engine).await;
    change(&server, "/channel/subscriber_add", &["ann"]).await;
    server.send("bob", "team", 2, "one").await;
    change(&server, "/channel/subscriber_add", &["ann", "cid", "cid"]).await;
    assert_eq!(
        server.only("ann").await["unread"],
        1,
        "who is in it already is left alone"
    );
    assert_eq!(
        server.full("cid").await,
        Vec::<Value>::new(),
        "nothing was said since Cid came"
    );
    server.send("bob", "team", 2, "two").await;
    assert_eq!(server.only("cid").await["unread"], 1);
    assert_eq!(
        server.only("cid").await["recents"]
            .as_array()
            .unwrap()
            .len(),
        2,
        "but what was said before can be read"
    );
    change(&server, "/channel/subscriber_remove", &["ann", "nobody"]).await;
    server.send("bob", "team", 2, "three").await;
    assert_eq!(server.full("ann").await, Vec::<Value>::new());
    for path in ["/conversations/setUnread", "/conversations/delete"] {
        server
            .call(
                path,
                json!({"uid": "ann", "channel_id": "team", "channel_type": 2, "unread": 3}),
            )
            .await;
    }
    assert_eq!(server.full("ann").await, Vec::<Value>::new());
    // The type of a group may be left out where members change.
    server
        .call(
            "/channel/subscriber_add",
            json!({"channel_id": "team", "subscribers": ["ann"]}),
        )
        .await;
    server.send("bob", "team", 2, "four").await;
    assert_eq!(server.only("ann").await["unread"], 1);
    assert_eq!(server.only("cid").await["unread"], 3);
    // The sender of a group's message is a member.
    assert_eq!(server.only("bob").await["unread"], 0);
    change(&server, "/channel/subscriber_remove", &["bob"]).await;
    assert_eq!(server.full("bob").await, Vec::<Value>::new());
    server.send("bob", "team", 2, "five").await;
    assert_eq!(
        server.full("bob").await,
        Vec::<Value>::new(),
        "a removal holds for ten seconds"
    );
    server.set_clock(1_795_393_010_001);
    server.send("bob", "team", 2, "six").await;
    assert_eq!(server.only("bob").await["unread"], 0);
}

async fn coming_back_keeps_what_was_deleted(engine: Engine) {
    let server = Server::start(engine).await;
    change(&server, "/channel/subscriber_add", &["ann"]).await;
    let mut device = Incremental::new("ann");
    server.send("bob", "team", 2, "one").await;
    server.delete("ann", "team", 2).await;
    device.sync(&server).await;
    change(&server, "/channel/subscriber_remove", &["ann"]).await;
    change(&server, "/channel/subscriber_add", &["ann"]).await;
    device.sync(&server).await;
    server.send("bob", "team", 2, "two").await;
    device.sync(&server).await;
    let back = server.only("ann").await;
    assert_eq!(
        (
            back["unread"].as_i64(),
            back["recents"].as_array().unwrap().len()
        ),
        (Some(1), 1)
    );
    device.must_hold(&[back]);
}

async fn reset_replaces_everybody(engine: Engine) {
    let server = Server::start(engine).await;
    change(&server, "/channel/subscriber_add", &["ann", "bob"]).await;
    server.send("eve", "team", 2, "one").await;
    let mut device = Incremental::new("ann");
    device.sync(&server).await;
    let reset =
        json!({"channel_id": "team", "channel_type": 2, "subscribers": ["bob", "cid"], "reset": 1});
    server.call("/channel/subscriber_add", reset.clone()).await;
    device.sync(&server).await;
    device.must_hold(&[]);
    server.send("eve", "team", 2, "two").await;
    let unread = async |uid: &str| {
        server
            .full(uid)
            .await
            .iter()
            .map(|item| item["unread"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (
            unread("ann").await,
            unread("bob").await,
            unread("cid").await
        ),
        (vec![], vec![2], vec![1])
    );
    server
        .call("/channel", json!({"channel_id": "team", "channel_type": 2, "subscribers": ["ann"], "reset": 1, "large": 1}))
        .await;
    server.send("eve", "team", 2, "three").await;
    assert_eq!(
        (
            unread("ann").await,
            unread("bob").await,
            unread("cid").await
        ),
        (vec![1], vec![], vec![])
    );
}

async fn many_members_at_once(engine: Engine) {
    let server = Server::start(engine).await;
    let uids: Vec<String> = (0..2500).map(|number| format!("u{number}")).collect();
    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    change(&server, "/channel/subscriber_add", &uids).await;
    server.send("eve", "team", 2, "one").await;
    for uid in [uids[0], uids[999], uids[1000], uids[2499]] {
        assert_eq!(server.only(uid).await["unread"], 1);
    }
    change(&server, "/channel/subscriber_remove", &uids[..1200]).await;
    server.send("eve", "team", 2, "two").await;
    assert_eq!(
        server.full(uids[0]).await.len() + server.full(uids[1199]).await.len(),
        0
    );
    assert_eq!(server.only(uids[1200]).await["unread"], 2);
}

async fn graphql_manages_channels(engine: Engine) {
    let server = Server::start(engine).await;
    let channel = json!({"channelId": "team", "channelType": 2});
    let create = "mutation ($input: CreateChannelInput!) { createChannel(input: $input) { channel { id channelId channelType } } }";
    let created = server
        .graphql(
            create,
            json!({"input": {"channel": channel, "uids": ["ann"]}}),
        )
        .await;
    assert_eq!(
        (
            &created["createChannel"]["channel"]["channelId"],
            &created["createChannel"]["channel"]["channelType"]
        ),
        (&json!("team"), &json!(2))
    );
    let add =
        "mutation ($input: AddMembersInput!) { addMembers(input: $input) { channel { id } } }";
    let added = server
        .graphql(
            add,
            json!({"input": {"channel": channel, "uids": ["bob", "cid"]}}),
        )
        .await;
    assert_eq!(
        added["addMembers"]["channel"]["id"],
        created["createChannel"]["channel"]["id"]
    );
    let remove = "mutation ($input: RemoveMembersInput!) { removeMembers(input: $input) { channel { id } } }";
    server
        .graphql(
            remove,
            json!({"input": {"channel": channel, "uids": ["cid"]}}),
        )
        .await;
    server.send("eve", "team", 2, "one").await;
    assert_eq!(
        (
            server.full("ann").await.len(),
            server.full("bob").await.len(),
            server.full("cid").await.len()
        ),
        (1, 1, 0)
    );
    let person = json!({"channelId": "bob", "channelType": 1});
    for (mutation, input) in [
        (create, json!({"channel": person, "uids": ["ann"]})),
        (add, json!({"channel": person, "uids": ["ann"]})),
        (remove, json!({"channel": person, "uids": ["ann"]})),
        (
            add,
            json!({"channel": {"channelId": "team", "channelType": 0}, "uids": ["ann"]}),
        ),
        (add, json!({"channel": channel, "uids": [""]})),
    ] {
        assert_eq!(
            server.graphql_code(mutation, json!({"input": input})).await,
            "BAD_USER_INPUT",
            "{input}"
        );
    }
}

/// A webhook that was on its way when a member was removed must not bring the member back, however
/// the removal was made.
async fn a_removed_member_stays_removed(engine: Engine) {
    let server = Server::start(engine).await;
    for (number, (is_known, path)) in [
        (true, "/channel/subscriber_remove"),
        (false, "/channel/subscriber_remove"),
        (true, "/channel/subscriber_remove_all"),
        (false, "/channel/subscriber_remove_all"),
        (true, "/channel/delete"),
        (false, "/channel/delete"),
        (true, "/channel"),
        (false, "/channel"),
    ]
    .into_iter()
    .enumerate()
    {
        let group = format!("team-{number}");
        let hook = |from: &str, seq: i64, seconds: i64| {
            let mut message = hooked(from, &group, 2, seq, number as i64 * 100 + seq);
            message["timestamp"] = json!(1_795_393_000 + seconds);
            message
        };
        let offline = async |message: Value| {
            let mut body = message;
            body["to_uids"] = json!(["q"]);
            server.call("/webhook?event=msg.offline", body).await;
        };
        server
            .group(&group, if is_known { &["p", "q"] } else { &["p"] })
            .await;
        server.notify(json!([hook("p", 1, -20)])).await;
        let mut removal = json!({"channel_id": group, "channel_type": 2});
        match path {
            "/channel/subscriber_remove" => removal["subscribers"] = json!(["q"]),
            // The members are exactly these from now on.
            "/channel" => (removal["reset"], removal["subscribers"]) = (json!(1), json!(["p"])),
            _ => {}
        }
        server.call(path, removal).await;
        // Sent before the removal, or so shortly after it that the clocks may differ; as its
        // receiver and as its sender.
        offline(hook("p", 2, -5)).await;
        server.notify(json!([hook("q", 3, 9)])).await;
        server.notify(json!([hook("p", 4, 9)])).await;
        assert_eq!(
            server
                .full("q")
                .await
                .iter()
                .filter(|item| item["channel_id"] == *group)
                .count(),
            0,
            "{is_known} {path}"
        );
        let question =
            json!({"cmd": "getSubscribers", "data": {"channel_id": group, "channel_type": 2}});
        let members = server.call("/datasource", question).await;
        assert!(
            !members.as_array().unwrap().contains(&json!("q")),
            "{is_known} {path}: {members}"
        );
        // A message that was sent long after the removal shows that the user is a member again.
        offline(hook("p", 5, 11)).await;
        let full = server.full("q").await;
        let item = full
            .iter()
            .find(|item| item["channel_id"] == *group)
            .unwrap_or_else(|| panic!("{is_known} {path}"));
        assert_eq!(item["unread"], 1, "{is_known} {path}");
        server
            .call(
                "/channel/subscriber_remove",
                json!({"channel_id": group, "channel_type": 2, "subscribers": ["q"]}),
            )
            .await;
    }
}

async fn senders_and_receivers_of_a_group_are_members(engine: Engine) {
    let server = Server::start(engine).await;
    let mut body = hooked("bob", "team", 2, 1, 11);
    body["to_uids"] = json!(["ann"]);
    server.call("/webhook?event=msg.offline", body).await;
    // Cid was online: no list names him, until he says something.
    server
        .notify(json!([hooked("cid", "team", 2, 2, 12)]))
        .await;
    for (uid, unread) in [("ann", 2), ("bob", 1), ("cid", 0)] {
        assert_eq!(server.only(uid).await["unread"], unread, "{uid}");
    }
}

async fn a_message_to_oneself_makes_one_conversation(engine: Engine) {
    let server = Server::start(engine).await;
    server
        .notify(json!([hooked("w02", "w02@w02", 1, 1, 11)]))
        .await;
    server
        .call("/webhook?event=msg.offline", hooked("w02", "w02", 1, 1, 11))
        .await;
    server
        .notify(json!([hooked("w02", "w02@w02", 1, 2, 12)]))
        .await;
    let item = server.only("w02").await;
    assert_eq!(
        (&item["channel_id"], &item["last_msg_seq"], &item["unread"]),
        (&json!("w02"), &json!(2), &json!(0))
    );
    assert_eq!(server.full("w02@w02").await, Vec::<Value>::new());
}

/// An id is 63 bits of a hash, which two names may share: they must not share their messages.
async fn two_channels_with_one_derived_id(engine: Engine) {
    let server = Server::start(engine).await;
    let key = recents::channel::ChannelKey {
        channel_type: recents::ids::ChannelType::parse("channel_type", 2).unwrap(),
        key: "second".to_owned(),
    };
    let connection = server.database.connect().await;
    let taken = format!(
        "INSERT INTO channel (id, channel_type, channel_key) VALUES ({}, 2, 'first')",
        key.derived_id(0)
    );
    sea_orm::ConnectionTrait::execute_unprepared(&connection, &taken)
        .await
        .unwrap();
    server.group("second", &["ann"]).await;
    server.send("bob", "second", 2, "one").await;
    assert_eq!(server.only("ann").await["channel_id"], "second");
    let sql = "SELECT last_seq FROM channel ORDER BY channel_key";
    let statement = sea_orm::Statement::from_string(
        sea_orm::ConnectionTrait::get_database_backend(&connection),
        sql,
    );
    let rows = sea_orm::ConnectionTrait::query_all_raw(&connection, statement)
        .await
        .unwrap();
    let seqs: Vec<i64> = rows
        .iter()
        .map(|row| row.try_get_by_index(0).unwrap())
        .collect();
    assert_eq!(seqs, [0, 1]);
    // Another server, which remembers nothing.
    let other = Server::start_on(std::sync::Arc::clone(&server.database), |_| {}).await;
    other.set_unread("ann", "second", 2, 7).await;
    other.send("bob", "second", 2, "two").await;
    assert_eq!(other.only("ann").await["unread"], 8);
}
