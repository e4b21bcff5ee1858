//! Membership in channels.

use serde_json::{Value, json};

use crate::support::server::webhook_message;
use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server};

on_every_database!(
    removed_member_stays_removed,
    group_senders_and_receivers_become_members,
    message_to_oneself_creates_one_conversation,
    channel_id_hash_collision,
    joining_and_leaving,
    rejoining_keeps_the_deletion,
    reset_replaces_all_members,
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
    assert_unread!(server, "ann", 1, "who is in it already is left alone");
    assert_eq!(
        server.full("cid").await,
        Vec::<Value>::new(),
        "no message since Cid joined"
    );
    server.send("bob", "team", 2, "two").await;
    assert_unread!(server, "cid", 1);
    assert_eq!(
        server.only("cid").await["recents"]
            .as_array()
            .unwrap()
            .len(),
        2,
        "but earlier messages can be read"
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
    // Membership routes accept a missing type for groups.
    server
        .call(
            "/channel/subscriber_add",
            json!({"channel_id": "team", "subscribers": ["ann"]}),
        )
        .await;
    server.send("bob", "team", 2, "four").await;
    assert_unread!(server, "ann", 1);
    assert_unread!(server, "cid", 3);
    // The sender of a group message becomes a member.
    assert_unread!(server, "bob", 0);
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
    assert_unread!(server, "bob", 0);
}

async fn rejoining_keeps_the_deletion(engine: Engine) {
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

async fn reset_replaces_all_members(engine: Engine) {
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
        assert_unread!(server, uid, 1);
    }
    change(&server, "/channel/subscriber_remove", &uids[..1200]).await;
    server.send("eve", "team", 2, "two").await;
    assert_eq!(
        server.full(uids[0]).await.len() + server.full(uids[1199]).await.len(),
        0
    );
    assert_unread!(server, uids[1200], 2);
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

/// A webhook that was already under way when a member was removed must not add the member again,
/// whichever route removed them.
async fn removed_member_stays_removed(engine: Engine) {
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
            let mut message = webhook_message(from, &group, 2, seq, number as i64 * 100 + seq);
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
            // The request sets the exact members.
            "/channel" => (removal["reset"], removal["subscribers"]) = (json!(1), json!(["p"])),
            _ => {}
        }
        server.call(path, removal).await;
        // Sent before the removal, or so shortly after it that clocks may differ; the member is its
        // receiver or its sender.
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
        // A message sent long after the removal shows that the user is a member again.
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

async fn group_senders_and_receivers_become_members(engine: Engine) {
    let server = Server::start(engine).await;
    let mut body = webhook_message("bob", "team", 2, 1, 11);
    body["to_uids"] = json!(["ann"]);
    server.call("/webhook?event=msg.offline", body).await;
    // Cid was online, so no receiver list names him until he sends a message.
    server
        .notify(json!([webhook_message("cid", "team", 2, 2, 12)]))
        .await;
    for (uid, unread) in [("ann", 2), ("bob", 1), ("cid", 0)] {
        assert_unread!(server, uid, unread);
    }
}

async fn message_to_oneself_creates_one_conversation(engine: Engine) {
    let server = Server::start(engine).await;
    server
        .notify(json!([webhook_message("w02", "w02@w02", 1, 1, 11)]))
        .await;
    server
        .call(
            "/webhook?event=msg.offline",
            webhook_message("w02", "w02", 1, 1, 11),
        )
        .await;
    server
        .notify(json!([webhook_message("w02", "w02@w02", 1, 2, 12)]))
        .await;
    let item = server.only("w02").await;
    assert_eq!(
        (&item["channel_id"], &item["last_msg_seq"], &item["unread"]),
        (&json!("w02"), &json!(2), &json!(0))
    );
    assert_eq!(server.full("w02@w02").await, Vec::<Value>::new());
}

/// A channel's ID is a hash of 63 bits. Two channels with the same hash must not share their
/// messages.
async fn channel_id_hash_collision(engine: Engine) {
    let server = Server::start(engine).await;
    let key = recents::model::ChannelKey {
        channel_type: recents::model::ChannelType::parse("channel_type", 2).unwrap(),
        key: "second".to_owned(),
    };
    let connection = server.database.connect().await;
    let taken = format!(
        "INSERT INTO channel (id, channel_type, channel_key) VALUES ({}, 2, 'first')",
        key.derived_id(0).0
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
    // Another server, without a cache.
    let other = Server::start_on(std::sync::Arc::clone(&server.database), |_| {}).await;
    other.set_unread("ann", "second", 2, 7).await;
    other.send("bob", "second", 2, "two").await;
    assert_unread!(other, "ann", 8);
}
