//! The conversations that a user sees, and the changes that reach the user's other devices.

use serde_json::{Value, json};

use crate::support::server::{message, webhook_message};
use crate::support::sync_clients::{Incremental, graphql_full};
use crate::support::{Engine, Server};

on_every_database!(
    own_messages_are_read,
    set_unread_raises_and_lowers,
    deleted_conversation_returns_with_unread_1,
    every_change_reaches_other_devices,
    filters_apply_to_every_conversation,
    rest_pages_are_not_cursors,
    paging_by_version_loses_nothing,
    unknown_version_triggers_reset,
    named_channels_are_returned_unchanged,
    unlisted_channels_are_never_returned,
    unusual_ids_are_accepted,
    messages_are_stored_while_conversations_are_disabled,
    unread_summary_equals_the_list,
    history_pages,
    fields_share_loaded_messages,
    message_json_matches_its_type,
    non_json_payloads_have_null_content,
);

async fn own_messages_are_read(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "one").await;
    server.send("bob", "ann", 1, "two").await;
    assert_unread!(server, "ann", 2);
    assert_unread!(server, "bob", 0);
    server.send("ann", "bob", 1, "three").await;
    assert_unread!(server, "ann", 0);
    assert_unread!(server, "bob", 1);
    let ann = server.only("ann").await;
    assert_eq!(ann["channel_id"], "bob");
    let channels: Vec<&Value> = ann["recents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["channel_id"])
        .collect();
    assert_eq!(
        channels,
        ["bob", "ann", "ann"],
        "a message names its recipient"
    );
}

async fn set_unread_raises_and_lowers(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "one").await;
    for unread in [0, 5, 2_147_483_647, 1] {
        server.set_unread("ann", "bob", 1, unread).await;
        assert_unread!(server, "ann", unread);
    }
    server.send("bob", "ann", 1, "two").await;
    assert_unread!(server, "ann", 2);
    // Clients store 32 bits, in both interfaces.
    server.set_unread("ann", "bob", 1, 2_147_483_647).await;
    server.send("bob", "ann", 1, "three").await;
    let full = server.full("ann").await;
    assert_eq!(full[0]["unread"], 2_147_483_647);
    assert_eq!(
        full,
        graphql_full(&server, &json!({"uid": "ann", "msg_count": 20})).await
    );
    server
        .call(
            "/conversations/clearUnread",
            json!({"uid": "ann", "channel_id": "bob", "channel_type": 1}),
        )
        .await;
    assert_unread!(server, "ann", 0);
    assert_eq!(server.only("ann").await["readed_to_msg_seq"], 3);
    assert_unread!(server, "bob", 0, "it is Ann's alone");
}

async fn deleted_conversation_returns_with_unread_1(engine: Engine) {
    let server = Server::start(engine).await;
    for text in ["one", "two", "three"] {
        server.send("bob", "ann", 1, text).await;
    }
    server.delete("ann", "bob", 1).await;
    assert_eq!(server.full("ann").await, Vec::<Value>::new());
    assert_eq!(
        server.only("bob").await["recents"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    // No other operation may bring it back either.
    server.set_unread("ann", "bob", 1, 7).await;
    server.delete("ann", "bob", 1).await;
    assert_eq!(server.full("ann").await, Vec::<Value>::new());
    server.send("bob", "ann", 1, "four").await;
    let back = server.only("ann").await;
    assert_eq!(back["unread"], 1);
    assert_eq!(
        back["recents"].as_array().unwrap().len(),
        1,
        "deleted messages never show again"
    );
    assert_eq!(back["last_client_msg_no"], "four");
    let query = "query { messages(uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}) { edges { node { clientMsgNo } } } }";
    let history = server.graphql(query, json!({})).await;
    assert_eq!(
        history["messages"]["edges"],
        json!([{"node": {"clientMsgNo": "four"}}])
    );
}

async fn every_change_reaches_other_devices(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    let mut device = Incremental::new("ann");
    let mut paged = Incremental::in_pages("ann", 1);
    let mut last = 0;
    let steps: [(&str, Value); 8] = [
        ("/message/send", message("bob", "team", 2, "one")),
        ("/message/send", message("cid", "ann", 1, "two")),
        (
            "/conversations/setUnread",
            json!({"uid": "ann", "channel_id": "team", "channel_type": 2, "unread": 4}),
        ),
        (
            "/conversations/clearUnread",
            json!({"uid": "ann", "channel_id": "team", "channel_type": 2}),
        ),
        (
            "/conversations/delete",
            json!({"uid": "ann", "channel_id": "cid", "channel_type": 1}),
        ),
        ("/message/send", message("cid", "ann", 1, "three")),
        (
            "/channel/subscriber_remove",
            json!({"channel_id": "team", "channel_type": 2, "subscribers": ["ann"]}),
        ),
        (
            "/channel/subscriber_add",
            json!({"channel_id": "team", "channel_type": 2, "subscribers": ["ann"]}),
        ),
    ];
    for (path, body) in steps {
        server.call(path, body.clone()).await;
        let full = server.full("ann").await;
        for device in [&mut device, &mut paged] {
            device.sync(&server).await;
            device.must_hold(&full);
        }
        // A member who rejoins sees nothing before the next message, so there is no change to
        // report until then.
        assert!(
            device.version > last || path == "/channel/subscriber_add",
            "{path} {body} gave no version"
        );
        last = device.version;
        device.sync(&server).await;
        assert_eq!(device.version, last, "nothing changed");
    }
    server.send("bob", "team", 2, "four").await;
    device.sync(&server).await;
    device.must_hold(&server.full("ann").await);
    assert_eq!(server.full("ann").await.len(), 2);
}

async fn filters_apply_to_every_conversation(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    server.send("bob", "team", 2, "g1").await;
    server.send("bob", "ann", 1, "p1").await;
    server.send("cid", "ann", 1, "p2").await;
    server.set_unread("ann", "cid", 1, 0).await;
    let ids = |items: Vec<Value>| {
        let mut ids: Vec<String> = items
            .iter()
            .map(|item| item["channel_id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    for (filter, expected) in [
        (json!({"only_unread": 1}), vec!["bob", "team"]),
        (json!({"exclude_channel_types": [2]}), vec!["bob", "cid"]),
        (
            json!({"only_unread": 1, "exclude_channel_types": [1]}),
            vec!["team"],
        ),
        // The filter also applies to named channels.
        (
            json!({"only_unread": 1, "last_msg_seqs": "cid:1:0|bob:1:1"}),
            vec!["bob", "team"],
        ),
    ] {
        let mut request = json!({"uid": "ann", "version": 0, "msg_count": 5});
        request
            .as_object_mut()
            .unwrap()
            .extend(filter.as_object().unwrap().clone());
        let answer = server.sync(request.clone()).await;
        assert_eq!(answer, graphql_full(&server, &request).await, "{filter}");
        assert_eq!(ids(answer), expected, "{filter}");
    }
    // A conversation that no longer matches the filter is removed for clients that use the filter.
    let query = "query ($version: UInt53) { conversations(uid: \"ann\", version: $version, onlyUnread: true) {
        version conversations { channelId } removed { channelId } } }";
    let before = server.graphql(query, json!({"version": 0})).await["conversations"].clone();
    server.set_unread("ann", "bob", 1, 0).await;
    let after = server
        .graphql(query, json!({"version": before["version"]}))
        .await["conversations"]
        .clone();
    assert_eq!(after["removed"], json!([{"channelId": "bob"}]));
    assert_eq!(after["conversations"], json!([]));
}

async fn rest_pages_are_not_cursors(engine: Engine) {
    let server = Server::start(engine).await;
    for (number, peer) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        server.set_clock(1_795_393_000_000 + 1000 * number as i64);
        server.send(peer, "ann", 1, peer).await;
    }
    let full = server.full("ann").await;
    let mut pages = Vec::new();
    for page in 1..=3 {
        let answer = server
            .sync(json!({"uid": "ann", "msg_count": 20, "page": page, "page_size": 2}))
            .await;
        assert!(
            answer.iter().all(|item| item["version"] == 0),
            "page {page}: {answer:?}"
        );
        pages.extend(answer);
    }
    assert_eq!(pages.len(), 5);
    let ids = |items: &[Value]| {
        items
            .iter()
            .map(|item| item["channel_id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&pages), ids(&full));
    assert_eq!(ids(&full), ["e", "d", "c", "b", "a"]);
    assert_eq!(
        server
            .sync(json!({"uid": "ann", "msg_count": 1, "page": 4, "page_size": 2}))
            .await
            .len(),
        0
    );
    assert_eq!(
        server
            .sync(json!({"uid": "ann", "msg_count": 1, "page": 1}))
            .await
            .len(),
        5
    );
}

async fn paging_by_version_loses_nothing(engine: Engine) {
    let server = Server::start(engine).await;
    for number in 0..7 {
        server
            .send(&format!("peer{number}"), "ann", 1, "hello")
            .await;
    }
    let mut paged = Incremental::in_pages("ann", 3);
    paged.sync(&server).await;
    paged.must_hold(&server.full("ann").await);
    // Some rows have a version above the cursor, some are stale, and one is both.
    server.set_unread("ann", "peer1", 1, 0).await;
    server.set_unread("ann", "peer2", 1, 0).await;
    server.send("peer1", "ann", 1, "again").await;
    server.send("peer5", "ann", 1, "again").await;
    let mut one = Incremental::in_pages("ann", 1);
    for device in [&mut paged, &mut one] {
        device.sync(&server).await;
        device.must_hold(&server.full("ann").await);
    }
    let query =
        "{ conversations(uid: \"ann\", first: 0) { version hasMore conversations { id } } }";
    let empty = server.graphql(query, json!({})).await["conversations"].clone();
    assert_eq!(
        empty,
        json!({"version": 0, "hasMore": true, "conversations": []})
    );
}

async fn unknown_version_triggers_reset(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "one").await;
    server.send("cid", "ann", 1, "two").await;
    server.full("ann").await;
    for version in [
        1_795_393_127_619_000_000_i64,
        9_007_199_254_740_991,
        i64::MAX,
    ] {
        assert_eq!(
            server
                .sync(json!({"uid": "ann", "version": version, "msg_count": 1}))
                .await
                .len(),
            2,
            "{version}"
        );
    }
    let query = "query ($uid: ID, $version: UInt53) { conversations(uid: $uid, version: $version) { version reset conversations { id } removed { id } } }";
    for (version, reset) in [(9_007_199_254_740_991_i64, true), (0, false)] {
        let answer = server
            .graphql(query, json!({"uid": "ann", "version": version}))
            .await["conversations"]
            .clone();
        assert_eq!(
            (
                answer["reset"].clone(),
                answer["conversations"].as_array().unwrap().len()
            ),
            (json!(reset), 2),
            "{version}: {answer}"
        );
    }
    let nobody = server
        .graphql(query, json!({"uid": "nobody", "version": 5}))
        .await["conversations"]
        .clone();
    assert_eq!(
        nobody,
        json!({"version": 0, "reset": true, "conversations": [], "removed": []})
    );
    // The same sync by a user who is in a group but has never synced.
    server.group("team", &["dan"]).await;
    server.send("ann", "team", 2, "three").await;
    let first = server
        .graphql(query, json!({"uid": "dan", "version": 77}))
        .await["conversations"]
        .clone();
    assert_eq!(
        (
            first["reset"].clone(),
            first["conversations"].as_array().unwrap().len()
        ),
        (json!(true), 1)
    );
    // A negative version counts as 0. (Ann is in the group because she has sent to it.)
    assert_eq!(
        server
            .sync(json!({"uid": "ann", "version": -5, "msg_count": 1}))
            .await
            .len(),
        3
    );
}

async fn named_channels_are_returned_unchanged(engine: Engine) {
    let server = Server::start(engine).await;
    for text in ["one", "two", "three"] {
        server.send("bob", "ann", 1, text).await;
    }
    server.send("cid", "ann", 1, "x").await;
    let version = server
        .full("ann")
        .await
        .iter()
        .map(|item| item["version"].as_i64().unwrap())
        .max()
        .unwrap();
    let ask = async |version: i64, seqs: &str, count: i64| {
        let request =
            json!({"uid": "ann", "version": version, "last_msg_seqs": seqs, "msg_count": count});
        let answer = server.sync(request).await;
        let mut shown: Vec<(String, Vec<i64>)> = answer
            .iter()
            .map(|item| {
                let seqs = item["recents"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|message| message["message_seq"].as_i64().unwrap());
                (
                    item["channel_id"].as_str().unwrap().to_owned(),
                    seqs.collect(),
                )
            })
            .collect();
        shown.sort();
        shown
    };
    let named = |id: &str, seqs: &[i64]| (id.to_owned(), seqs.to_vec());
    assert_eq!(ask(version, "", 5).await, []);
    assert_eq!(ask(version, "bob:1:3|cid:1:1", 5).await, []);
    assert_eq!(ask(version, "bob:1:1", 5).await, [named("bob", &[3, 2])]);
    assert_eq!(
        ask(version, "bob:1:1", 1).await,
        [named("bob", &[3])],
        "the newest N first, then those above the client's"
    );
    assert_eq!(
        ask(0, "bob:1:3", 5).await,
        [named("bob", &[]), named("cid", &[1])]
    );
    assert_eq!(
        ask(0, "bob:1:1", 0).await,
        [named("bob", &[]), named("cid", &[])]
    );
    assert_eq!(
        ask(0, "bob:1:9", 5).await,
        [named("bob", &[]), named("cid", &[1])]
    );
    // v1 returns the conversations named in `larges` always.
    let larges = json!({"uid": "ann", "version": version, "msg_count": 1, "larges": [{"channel_id": "cid", "channel_type": 1}]});
    assert_eq!(server.sync(larges).await.len(), 1);
}

async fn unlisted_channels_are_never_returned(engine: Engine) {
    let server = Server::start(engine).await;
    for kind in [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 255] {
        let id = format!("c{kind}");
        server
            .call(
                "/channel",
                json!({"channel_id": id, "channel_type": kind, "subscribers": ["ann"]}),
            )
            .await;
        server.send("bob", &id, kind, "hello").await;
    }
    let mut kinds: Vec<u64> = server
        .full("ann")
        .await
        .iter()
        .map(|item| item["channel_type"].as_u64().unwrap())
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [2, 3, 4, 5, 7, 8, 10, 11, 12, 255]);
    // Neither a user who sends to the system nor the system has a conversation.
    server.send("", "dan", 1, "welcome").await;
    server.send("dan", "____system", 1, "thanks").await;
    assert_eq!(server.full("dan").await, Vec::<Value>::new());
    assert_eq!(server.full("____system").await, Vec::<Value>::new());
    // Messages that are not stored create no conversation.
    for flag in ["sync_once", "no_persist"] {
        let mut transient = message("eve", "dan", 1, flag);
        transient["header"][flag] = json!(1);
        assert_eq!(
            server.call("/message/send", transient).await["data"]["message_seq"],
            0,
            "{flag}"
        );
    }
    server.send("eve", "dan____cmd", 1, "command").await;
    assert_eq!(server.full("dan").await, Vec::<Value>::new());
}

async fn unusual_ids_are_accepted(engine: Engine) {
    let server = Server::start(engine).await;
    let long = "é".repeat(127) + "x";
    let ids = [
        "a:b",
        "x|y",
        "o'brien",
        "50%",
        "under_score",
        "back\\slash",
        "\"quoted\"",
        "Ünï",
        "用户甲",
        "👍🏽",
        "a b",
        "a",
        "A",
        "a ",
        " a",
        "a@b",
        "b@a",
        "--",
        ";drop table channel",
        "ﬀ",
        "ff",
        "é",
        "e\u{301}",
        &long,
    ];
    for id in ids {
        server.send(id, "ann", 1, "hello").await;
        server.group(id, &["bob"]).await;
        server.send("cid", id, 2, "hello").await;
    }
    for (uid, kind) in [("ann", 1), ("bob", 2)] {
        let full = server.full(uid).await;
        let mut shown: Vec<&str> = full
            .iter()
            .map(|item| item["channel_id"].as_str().unwrap())
            .collect();
        let mut expected = ids.to_vec();
        shown.sort_unstable();
        expected.sort_unstable();
        assert_eq!(shown, expected, "{uid}");
        for id in ids {
            server.set_unread(uid, id, kind, 3).await;
        }
        for item in server.full(uid).await {
            assert_eq!(
                (&item["unread"], &item["last_msg_seq"]),
                (&json!(3), &json!(1)),
                "{item}"
            );
        }
    }
    // Conversations with equal seconds are ordered by type, then by the bytes of the ID.
    let order: Vec<Value> = server
        .full("ann")
        .await
        .iter()
        .map(|item| item["channel_id"].clone())
        .collect();
    let mut sorted = ids.to_vec();
    sorted.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    assert_eq!(order, sorted);
    // Different pairs of uids are different channels.
    server.send("a@b", "c", 1, "one").await;
    server.send("a", "b@c", 1, "two").await;
    assert_eq!(
        server.only("c").await["recents"].as_array().unwrap().len(),
        1
    );
    assert_eq!(server.only("b@c").await["channel_id"], "a");
    for id in ids.into_iter().filter(|id| !id.contains('|')) {
        let answer = server
            .sync(json!({"uid": "ann", "msg_count": 5, "last_msg_seqs": format!("{id}:1:1")}))
            .await;
        let named = answer.iter().find(|item| item["channel_id"] == id).unwrap();
        assert_eq!(named["recents"], json!([]), "{id}");
    }
}

async fn messages_are_stored_while_conversations_are_disabled(engine: Engine) {
    let server = Server::start_with(engine, |settings| settings.conversation.on = false).await;
    server.group("team", &["ann"]).await;
    server.send("bob", "team", 2, "one").await;
    server
        .notify(json!([webhook_message("bob", "ann", 1, 1, 77)]))
        .await;
    for (path, body) in [
        ("/conversation/sync", json!({"uid": "ann"})),
        ("/conversation/sync", json!({})),
        (
            "/conversations/setUnread",
            json!({"uid": "ann", "channel_id": "team", "channel_type": 2, "unread": 1}),
        ),
        (
            "/conversations/clearUnread",
            json!({"uid": "ann", "channel_id": "team", "channel_type": 2}),
        ),
        (
            "/conversations/delete",
            json!({"uid": "ann", "channel_id": "team", "channel_type": 2}),
        ),
    ] {
        let answer = server.post(path, body.to_string()).await;
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        assert!(answer.msg().contains("conversation.on"), "{answer:?}");
    }
    let channel = json!({"channelId": "team", "channelType": 2});
    for query in [
        "{ conversations(uid: \"ann\") { version } }",
        "query ($channel: ChannelInput!) { conversation(uid: \"ann\", channel: $channel) { id } }",
        "query ($channel: ChannelInput!) { messages(uid: \"ann\", channel: $channel) { edges { cursor } } }",
        "{ unreadSummary(uid: \"ann\") { total } }",
        "mutation ($channel: ChannelInput!) { setUnread(input: {uid: \"ann\", channel: $channel, unread: 1}) { conversation { id } } }",
        "mutation ($channel: ChannelInput!) { clearUnread(input: {uid: \"ann\", channel: $channel}) { conversation { id } } }",
        "mutation ($channel: ChannelInput!) { deleteConversation(input: {uid: \"ann\", channel: $channel}) { removed { id } } }",
    ] {
        let variables = if query.contains("$channel") {
            json!({"channel": channel})
        } else {
            json!({})
        };
        assert_eq!(
            server.graphql_code(query, variables).await,
            "CONVERSATIONS_OFF",
            "{query}"
        );
    }
    let server = server
        .restart(|settings| settings.conversation.on = true)
        .await;
    let full = server.full("ann").await;
    assert_eq!(full.len(), 2);
    assert!(full.iter().all(|item| item["unread"] == 1));
}

async fn unread_summary_equals_the_list(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann"]).await;
    for text in ["one", "two"] {
        server.send("bob", "team", 2, text).await;
    }
    server.send("bob", "ann", 1, "three").await;
    server.send("cid", "ann", 1, "four").await;
    server.set_unread("ann", "cid", 1, 0).await;
    server.send("dan", "ann", 1, "five").await;
    server.delete("ann", "dan", 1).await;
    let query = "{ unreadSummary(uid: \"ann\") { total conversations mutedTotal mutedConversations byChannelType { channelType total conversations } }
                   conversations(uid: \"ann\") { unreadSummary { total } } }";
    let answer = server.graphql(query, json!({})).await;
    assert_eq!(
        answer["unreadSummary"],
        json!({"total": 3, "conversations": 2, "mutedTotal": 0, "mutedConversations": 0, "byChannelType": [
            {"channelType": 1, "total": 1, "conversations": 1}, {"channelType": 2, "total": 2, "conversations": 1}]})
    );
    assert_eq!(answer["conversations"]["unreadSummary"]["total"], 3);
    let listed: i64 = server
        .full("ann")
        .await
        .iter()
        .map(|item| item["unread"].as_i64().unwrap())
        .sum();
    assert_eq!(listed, 3);
}

async fn history_pages(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    // The seqs have a gap, as a lost webhook leaves it.
    for seq in [1, 2, 3, 5, 6, 7, 8] {
        server
            .notify(json!([webhook_message("bob", "team", 2, seq, 100 + seq)]))
            .await;
    }
    let query = "query ($first: Int, $after: String, $last: Int, $before: String, $uid: ID) {
        messages(uid: $uid, channel: {channelId: \"team\", channelType: 2}, first: $first, after: $after, last: $last, before: $before) {
            edges { cursor node { messageSeq } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
    let seqs = |page: &Value| -> Vec<i64> {
        page["edges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|edge| edge["node"]["messageSeq"].as_i64().unwrap())
            .collect()
    };
    let ask = async |variables: Value| {
        let mut variables = variables;
        if variables.get("uid").is_none() {
            variables["uid"] = json!("ann");
        }
        server.graphql(query, variables).await["messages"].clone()
    };
    let mut forwards = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = ask(json!({"first": 3, "after": after})).await;
        forwards.extend(seqs(&page));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(forwards, [1, 2, 3, 5, 6, 7, 8]);
    let mut backwards = Vec::new();
    let mut before = Value::Null;
    loop {
        let page = ask(json!({"last": 3, "before": before})).await;
        backwards.splice(0..0, seqs(&page));
        before = page["pageInfo"]["startCursor"].clone();
        if page["pageInfo"]["hasPreviousPage"] == false {
            break;
        }
    }
    assert_eq!(backwards, forwards);
    assert_eq!(seqs(&ask(json!({})).await), forwards);
    assert_eq!(seqs(&ask(json!({"first": 0})).await), Vec::<i64>::new());
    // A channel with a gap still returns as many messages as requested.
    let recents = server.sync(json!({"uid": "ann", "msg_count": 6})).await[0]["recents"].clone();
    let newest: Vec<i64> = recents
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["message_seq"].as_i64().unwrap())
        .collect();
    assert_eq!(newest, [8, 7, 6, 5, 3, 2]);
    // A former member sees the messages up to leaving; a user who was never a member sees none.
    server
        .call(
            "/channel/subscriber_remove",
            json!({"channel_id": "team", "channel_type": 2, "subscribers": ["ann"]}),
        )
        .await;
    server
        .notify(json!([webhook_message("bob", "team", 2, 9, 109)]))
        .await;
    assert_eq!(seqs(&ask(json!({})).await), forwards);
    assert_eq!(seqs(&ask(json!({"uid": "bob"})).await).last(), Some(&9));
    assert_eq!(
        server.graphql(query, json!({"uid": "eve"})).await,
        json!({"messages": null})
    );
    for variables in [
        json!({"uid": "bob", "first": -1}),
        json!({"uid": "bob", "last": 1001}),
        json!({"uid": "bob", "after": "x"}),
        json!({"uid": "bob", "first": 1, "last": 1}),
    ] {
        assert_eq!(
            server.graphql_code(query, variables.clone()).await,
            "BAD_USER_INPUT",
            "{variables}"
        );
    }
    assert_eq!(
        seqs(&ask(json!({"uid": "bob", "first": 1000})).await).len(),
        8
    );
}

/// Several fields of one request read the same channel, with and without gaps. Each field gets its
/// own messages, without duplicates.
async fn fields_share_loaded_messages(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann"]).await;
    for seq in [1, 2, 3, 4, 5, 6, 9] {
        server
            .notify(json!([webhook_message("bob", "team", 2, seq, 100 + seq)]))
            .await;
    }
    let query = "{ conversation(uid: \"ann\", channel: {channelId: \"team\", channelType: 2}) { lastMessage { messageSeq }
        one: recents(last: 1) { messageSeq } three: recents(last: 3) { messageSeq } all: recents(last: 500) { messageSeq } five: recents(last: 5) { messageSeq } }
        conversations(uid: \"ann\", msgCount: 2) { conversations { recents { messageSeq } six: recents(last: 6) { messageSeq } } } }";
    let answer = server.graphql(query, json!({})).await;
    let seqs = |messages: &Value| -> Vec<i64> {
        messages
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["messageSeq"].as_i64().unwrap())
            .collect()
    };
    let conversation = &answer["conversation"];
    assert_eq!(conversation["lastMessage"]["messageSeq"], 9);
    for (field, expected) in [
        ("one", vec![9]),
        ("three", vec![9, 6, 5]),
        ("five", vec![9, 6, 5, 4, 3]),
        ("all", vec![9, 6, 5, 4, 3, 2, 1]),
    ] {
        assert_eq!(seqs(&conversation[field]), expected, "{field}");
    }
    let listed = &answer["conversations"]["conversations"][0];
    assert_eq!(
        (seqs(&listed["recents"]), seqs(&listed["six"])),
        (vec![9, 6], vec![9, 6, 5, 4, 3, 2])
    );
}

async fn non_json_payloads_have_null_content(engine: Engine) {
    use base64::Engine as _;
    let server = Server::start(engine).await;
    let all: Vec<u8> = (0..=255).collect();
    for (number, bytes) in [
        all.as_slice(),
        b"\0",
        b"not json",
        b"{\"type\":1}",
        &[0xff; 70_000],
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = message("bob", "ann", 1, &format!("m{number}"));
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        body["payload"] = json!(encoded);
        server.call("/message/send", body).await;
        let query = "{ conversation(uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}) { lastMessage { payload content } } }";
        let last = server.graphql(query, json!({})).await["conversation"]["lastMessage"].clone();
        let content = serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
        assert_eq!(
            last,
            json!({"payload": encoded, "content": content}),
            "message {number}"
        );
        assert_eq!(
            server.only("ann").await["recents"][0]["payload"],
            encoded,
            "message {number}"
        );
    }
}

/// Messages of conversations are serialised directly; those of a history are resolved field by
/// field. Both must agree with the schema.
async fn message_json_matches_its_type(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    let payloads = [
        &b"{\"type\":1,\"n\":[1,2.50,null,\"\\u00fc\"]}"[..],
        b"\xff\x00",
        b"",
        b"a \"quoted\" \\ text",
        b"\"text\"",
        b"17",
    ];
    let mut messages: Vec<Value> = Vec::new();
    for (seq, payload) in (1..).zip(payloads) {
        let mut message = webhook_message(
            if seq == 2 { "b\"o\\b" } else { "bob" },
            "team",
            2,
            seq,
            7000 + seq,
        );
        message["payload"] = json!(base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            payload
        ));
        message["header"]["red_dot"] = json!(seq % 2);
        message["setting"] = json!(seq * 8);
        message["topic"] = json!(if seq == 1 { "" } else { "Straße \"7\"" });
        message["expire"] = json!(seq * 1_000_000_000 % 4_000_000_000);
        messages.push(message);
    }
    assert_eq!(server.notify(json!(messages)).await.status, 200);
    let fields = "fragment All on Message { ...Named seq: messageSeq clientMsgNo fromUid channelId channelType setting topic sentAt
            ... on Node { id } ... { expire } payload content seq: messageSeq __typename skipped: topic @skip(if: true) }
        fragment Named on Message { kind: __typename messageId header { redDot } header { n: noPersist syncOnce __typename ...H } }
        fragment H on MessageHeader { syncOnce again: redDot }";
    let channel = json!({"channelId": "team", "channelType": 2});
    let query = format!(
        "query ($channel: ChannelInput!) {{
            conversations(uid: \"ann\") {{ conversations {{ recents {{ ...All }} few: recents(last: 2) {{ ...All }} none: recents(last: 0) {{ ...All }} }} }}
            conversation(uid: \"ann\", channel: $channel) {{ recents {{ ...All }} lastMessage {{ ...All }} }}
            conversationList(uid: \"ann\") {{ nodes {{ recents(last: 100) {{ ...All }} }} }}
            messages(uid: \"ann\", channel: $channel) {{ nodes {{ ...All }} }}
        }} {fields}"
    );
    let answer = server.graphql(&query, json!({"channel": channel})).await;
    let mut wanted = answer["messages"]["nodes"].as_array().unwrap().clone();
    wanted.reverse();
    assert_eq!(wanted.len(), payloads.len());
    assert_eq!(
        wanted[5]["content"],
        json!({"type": 1, "n": [1, 2.5, null, "ü"]})
    );
    assert_eq!(
        (
            &wanted[0]["kind"],
            &wanted[0]["header"]["__typename"],
            wanted[0].get("skipped")
        ),
        (&json!("Message"), &json!("MessageHeader"), None)
    );
    let text = |value: &Value| value.to_string();
    let all = text(&json!(wanted));
    let conversation = &answer["conversations"]["conversations"][0];
    assert_eq!(
        text(&conversation["recents"]),
        all,
        "the order of fields, too"
    );
    assert_eq!(text(&conversation["few"]), text(&json!(wanted[..2])));
    assert_eq!(conversation["none"], json!([]));
    assert_eq!(text(&answer["conversation"]["recents"]), all);
    assert_eq!(
        text(&answer["conversation"]["lastMessage"]),
        text(&wanted[0])
    );
    assert_eq!(
        text(&answer["conversationList"]["nodes"][0]["recents"]),
        all
    );
}
