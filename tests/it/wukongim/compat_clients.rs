//! Problems that users of WuKongIM reported, one test each (the numbers are those of its issues),
//! and requests of its clients.

use serde_json::{Value, json};

use crate::support::{Engine, Server};

on_every_database!(
    list_is_ordered_by_last_activity,
    new_conversation_is_listed_immediately,
    only_unread_filters,
    version_filters,
    set_unread_raises_and_lowers,
    own_messages_do_not_count,
    deleted_conversation_returns_with_the_next_message,
    other_devices_see_reads_and_deletions,
    total_unread_and_mark_all_read,
    pages_and_filters,
    large_groups_have_conversations,
    versions_of_other_servers_return_everything,
    include_removed_lists_removals,
    many_last_msg_seqs_and_ids_with_separators,
);

fn ids(items: &[Value]) -> Vec<String> {
    items
        .iter()
        .map(|item| item["channel_id"].as_str().unwrap().to_owned())
        .collect()
}

fn target(id: &str, kind: u8) -> Value {
    json!({"uid": "ann", "channel_id": id, "channel_type": kind})
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

/// #544
async fn list_is_ordered_by_last_activity(engine: Engine) {
    let server = Server::start(engine).await;
    for number in 0..30 {
        server.set_clock(1_795_393_000_000 + number * 1000);
        server
            .send(&format!("friend-{number}"), "ann", 1, "hello")
            .await;
    }
    server.set_clock(1_795_393_100_000);
    server.send("friend-7", "ann", 1, "again").await;
    let expected: Vec<String> = std::iter::once(7)
        .chain((0..30).rev().filter(|number| *number != 7))
        .map(|number| format!("friend-{number}"))
        .collect();
    assert_eq!(ids(&server.full("ann").await), expected);
    let server = server.restart(|_| {}).await;
    assert_eq!(
        ids(&server.full("ann").await),
        expected,
        "also after a restart"
    );
}

/// #510, #497
async fn new_conversation_is_listed_immediately(engine: Engine) {
    let server = Server::start(engine).await;
    for number in 0..10 {
        server
            .send("bob", "ann", 1, &format!("number {number}"))
            .await;
        assert_eq!(
            server.only("ann").await["last_msg_seq"],
            number + 1,
            "number {number}"
        );
    }
}

/// #512, #515
async fn only_unread_filters(engine: Engine) {
    let server = Server::start(engine).await;
    for friend in ["read", "deleted", "unread"] {
        server.send(friend, "ann", 1, "hello").await;
    }
    server
        .call("/conversations/clearUnread", target("read", 1))
        .await;
    server
        .call("/conversations/delete", target("deleted", 1))
        .await;
    for held in ["", "read:1:0|deleted:1:0|unread:1:0"] {
        let only = server
            .sync(json!({"uid": "ann", "msg_count": 1, "only_unread": 1, "last_msg_seqs": held}))
            .await;
        assert_eq!(ids(&only), ["unread"], "{held}");
    }
}

/// #306
async fn version_filters(engine: Engine) {
    let server = Server::start(engine).await;
    for friend in ["bob", "cat", "dan"] {
        server.send(friend, "ann", 1, "hello").await;
    }
    let version = server
        .full("ann")
        .await
        .iter()
        .map(|item| item["version"].as_i64().unwrap())
        .max()
        .unwrap();
    assert!(
        server
            .sync(json!({"uid": "ann", "version": version, "msg_count": 1}))
            .await
            .is_empty()
    );
    server.send("cat", "ann", 1, "again").await;
    assert_eq!(
        ids(&server
            .sync(json!({"uid": "ann", "version": version, "msg_count": 1}))
            .await),
        ["cat"]
    );
}

/// #460
async fn set_unread_raises_and_lowers(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "hello").await;
    for unread in [5, 0, 1, 3] {
        server
            .call(
                "/conversations/setUnread",
                with(target("bob", 1), json!({"unread": unread})),
            )
            .await;
        assert_unread!(server, "ann", unread);
    }
    server.send("bob", "ann", 1, "one more").await;
    assert_unread!(server, "ann", 4);
}

/// #461
async fn own_messages_do_not_count(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("g", &["ann", "bob"]).await;
    for number in 0..3 {
        server
            .send("ann", "g", 2, &format!("number {number}"))
            .await;
    }
    assert_unread!(server, "ann", 0);
    assert_unread!(server, "bob", 3);
    server.send("bob", "g", 2, "an answer").await;
    assert_eq!(
        (
            server.only("ann").await["unread"].clone(),
            server.only("bob").await["unread"].clone()
        ),
        (json!(1), json!(0))
    );
}

/// #255, #328, #343
async fn deleted_conversation_returns_with_the_next_message(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "old").await;
    for round in 0..3 {
        server.call("/conversations/delete", target("bob", 1)).await;
        assert!(server.full("ann").await.is_empty(), "round {round}");
        server.send("bob", "ann", 1, &format!("new {round}")).await;
        let item = server.only("ann").await;
        assert_eq!(
            (&item["unread"], item["recents"].as_array().unwrap().len()),
            (&json!(1), 1),
            "round {round}: {item}"
        );
    }
}

/// JSSDK#11, #232
async fn other_devices_see_reads_and_deletions(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "hello").await;
    let version = server.only("ann").await["version"].as_i64().unwrap();
    server
        .call("/conversations/clearUnread", target("bob", 1))
        .await;
    let answer_items = server
        .sync(json!({"uid": "ann", "version": version, "msg_count": 1}))
        .await;
    assert_eq!(
        (answer_items.len(), &answer_items[0]["unread"]),
        (1, &json!(0))
    );
    server.call("/conversations/delete", target("bob", 1)).await;
    let query = "query ($version: UInt53) { conversations(uid: \"ann\", version: $version) { removed { channelId } } }";
    let data = server.graphql(query, json!({"version": version})).await;
    assert_eq!(
        data["conversations"]["removed"],
        json!([{"channelId": "bob"}])
    );
}

/// #427
async fn total_unread_and_mark_all_read(engine: Engine) {
    let server = Server::start(engine).await;
    for friend in ["bob", "cat"] {
        server.send(friend, "ann", 1, "one").await;
        server.send(friend, "ann", 1, "two").await;
    }
    let total = async || {
        server
            .graphql("{ unreadSummary(uid: \"ann\") { total } }", json!({}))
            .await["unreadSummary"]["total"]
            .clone()
    };
    assert_eq!(total().await, 4);
    server
        .graphql(
            "mutation { markAllRead(input: {uid: \"ann\"}) { conversations { id } } }",
            json!({}),
        )
        .await;
    assert_eq!(total().await, 0);
    assert!(
        server
            .full("ann")
            .await
            .iter()
            .all(|item| item["unread"] == 0)
    );
}

/// #151, #173
async fn pages_and_filters(engine: Engine) {
    let server = Server::start(engine).await;
    for number in 0..7 {
        server.set_clock(1_795_393_000_000 + number * 1000);
        server
            .send(&format!("friend-{number}"), "ann", 1, "hello")
            .await;
    }
    server.group("g", &["ann"]).await;
    server.send("bob", "g", 2, "hello").await;
    let page = async |number: i64| {
        let body = json!({"uid": "ann", "msg_count": 1, "page": number, "page_size": 3, "exclude_channel_types": [2]});
        ids(&server.sync(body).await)
    };
    assert_eq!(page(1).await, ["friend-6", "friend-5", "friend-4"]);
    assert_eq!(page(3).await, ["friend-0"]);
    assert!(page(4).await.is_empty());
}

/// #141
async fn large_groups_have_conversations(engine: Engine) {
    let server = Server::start(engine).await;
    let members: Vec<String> = (0..3000)
        .map(|number| format!("m{number}"))
        .chain(["ann".to_owned()])
        .collect();
    server
        .call(
            "/channel",
            json!({"channel_id": "huge", "channel_type": 2, "large": 1, "subscribers": members}),
        )
        .await;
    server.send("m1", "huge", 2, "to everybody").await;
    for uid in ["ann", "m0", "m2999"] {
        assert_unread!(server, uid, 1);
    }
}

/// v2's versions are nanoseconds; a restored database has given smaller versions than clients hold.
async fn versions_of_other_servers_return_everything(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "hello").await;
    let version = server.only("ann").await["version"].as_i64().unwrap();
    for foreign in [1_795_393_165_000_000_000, version + 1, i64::MAX] {
        let all = server
            .sync(json!({"uid": "ann", "version": foreign, "msg_count": 1}))
            .await;
        assert_eq!(ids(&all), ["bob"], "{foreign}");
        assert!(
            all[0]["version"].as_i64().unwrap() <= version,
            "and from then on it has a version of this server"
        );
    }
    assert!(
        server
            .sync(json!({"uid": "ann", "version": version, "msg_count": 1}))
            .await
            .is_empty()
    );
}

/// `include_removed`
async fn include_removed_lists_removals(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("g", &["ann", "bob"]).await;
    server.send("bob", "g", 2, "hello").await;
    server.send("bob", "ann", 1, "hello").await;
    let version = server
        .full("ann")
        .await
        .iter()
        .map(|item| item["version"].as_i64().unwrap())
        .max()
        .unwrap();
    server.call("/conversations/delete", target("bob", 1)).await;
    server
        .call(
            "/channel/subscriber_remove",
            json!({"channel_id": "g", "channel_type": 2, "subscribers": ["ann"]}),
        )
        .await;
    server.send("cat", "ann", 1, "new").await;
    let request = json!({"uid": "ann", "version": version, "msg_count": 1});
    assert_eq!(
        ids(&server.sync(request.clone()).await),
        ["cat"],
        "who does not ask never sees it"
    );
    let answer = server
        .post(
            "/conversation/sync",
            with(request.clone(), json!({"include_removed": 1})).to_string(),
        )
        .await;
    let answer_items: Vec<Value> = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(ids(&answer_items), ["cat", "bob", "g"]);
    for (item, kind) in [(&answer_items[1], 1), (&answer_items[2], 2)] {
        let seen = item["version"].as_i64().unwrap();
        assert!(seen > version, "{item} is not above {version}");
        let expected = format!(
            r#"{{"channel_id":"{}","channel_type":{kind},"version":{seen},"removed":1,"recents":[]}}"#,
            item["channel_id"].as_str().unwrap()
        );
        assert!(
            answer.text.contains(&expected),
            "{expected} in {}",
            answer.text
        );
    }
    // A full response has nothing to remove, and a page is not a cursor.
    for more in [
        json!({"version": 0, "include_removed": 1}),
        json!({"include_removed": 1, "page": 1}),
    ] {
        let answer = server.sync(with(request.clone(), more.clone())).await;
        assert_eq!(ids(&answer), ["cat"], "{more}");
    }
}

async fn many_last_msg_seqs_and_ids_with_separators(engine: Engine) {
    let server = Server::start(engine).await;
    for (number, id) in ["a:b", "a:b:2", "x@y", "a b", "用户"]
        .into_iter()
        .enumerate()
    {
        server.set_clock(1_795_393_000_000 + number as i64 * 1000);
        server.send(id, "ann", 1, "one").await;
        server.send(id, "ann", 1, "two").await;
    }
    let named = "a:b:1:1|a:b:2:1:2|x@y:1:0";
    let many = (0..99_997).fold(named.to_owned(), |mut text, number| {
        text.push_str("|nobody-");
        text.push_str(&number.to_string());
        text.push_str(":1:5");
        text
    });
    let items = server
        .sync(json!({"uid": "ann", "msg_count": 20, "last_msg_seqs": many}))
        .await;
    let newer: Vec<(String, usize)> = items
        .iter()
        .map(|item| {
            (
                item["channel_id"].as_str().unwrap().to_owned(),
                item["recents"].as_array().unwrap().len(),
            )
        })
        .collect();
    let expected = [
        ("用户", 2),
        ("a b", 2),
        ("x@y", 2),
        ("a:b:2", 0),
        ("a:b", 1),
    ]
    .map(|(id, count)| (id.to_owned(), count));
    assert_eq!(newer, expected);
    let answer = server
        .post(
            "/conversation/sync",
            json!({"uid": "ann", "last_msg_seqs": format!("{many}|x:1:1")}).to_string(),
        )
        .await;
    assert_eq!(
        (answer.status, answer.msg().as_str()),
        (400, "last_msg_seqs must have at most 100000 entries")
    );
}
