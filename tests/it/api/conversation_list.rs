//! The list as a screen shows it, and the changes that a user makes in it.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server};

on_every_database!(
    paging_misses_nothing_while_messages_arrive,
    paging_does_not_depend_on_clocks,
    subscribing_from_the_first_page_sends_no_backlog,
    slow_clock_does_not_move_a_conversation_down,
    pinned_first_then_latest_activity,
    filters,
    pins_and_mutes_reach_other_devices,
    mark_all_read,
    deleted_channel_disappears_for_all_members,
    node_finds_objects_by_global_id,
);

const PAGE: &str = "query ($uid: ID!, $first: Int, $after: String, $last: Int, $before: String, $filter: ConversationFilter) {
    conversationList(uid: $uid, first: $first, after: $after, last: $last, before: $before, filter: $filter) {
        totalCount version pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
        edges { cursor node { id channelId unread pinnedAt muted version lastMsgSeq lastActivityAt } } } }";

async fn page(server: &Server, variables: Value) -> Value {
    server.graphql(PAGE, variables).await["conversationList"].clone()
}

fn ids(page: &Value) -> Vec<String> {
    page["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| edge["node"]["channelId"].as_str().unwrap().to_owned())
        .collect()
}

fn channel(id: &str, kind: u8) -> Value {
    json!({"channelId": id, "channelType": kind})
}

async fn change(server: &Server, mutation: &str, input: Value) -> Value {
    let kind = format!("{}{}", mutation[..1].to_uppercase(), &mutation[1..]);
    let query = format!(
        "mutation ($input: {kind}Input!) {{ {mutation}(input: $input) {{ conversation {{ channelId unread pinnedAt muted version }} }} }}"
    );
    server.graphql(&query, json!({"input": input})).await[mutation]["conversation"].clone()
}

async fn paging_misses_nothing_while_messages_arrive(engine: Engine) {
    const ALL: i64 = 1000;
    let server = Server::start(engine).await;
    // From a webhook; each message is one second later than the one before.
    for chunk in (0..ALL).collect::<Vec<_>>().chunks(100) {
        let messages: Vec<Value> = chunk
            .iter()
            .map(|number| {
                let mut message = crate::support::server::webhook_message(
                    &format!("u{number}"),
                    "ann",
                    1,
                    1,
                    number + 1,
                );
                message["timestamp"] = json!(1_700_000_000 + number);
                message
            })
            .collect();
        assert_eq!(
            server.notify(json!(messages)).await.status,
            200,
            "messages {chunk:?}"
        );
    }
    let mut now = 1_795_393_000_000;
    let mut disturb = async |round: i64| {
        // New messages go to conversations on earlier pages, on the next page, on the last page,
        // and to new conversations.
        for number in [ALL - 1 - round, ALL / 2 + round, round, ALL + round] {
            now += 1;
            server.set_clock(now);
            server
                .send(
                    &format!("u{number}"),
                    "ann",
                    1,
                    &format!("again {round} {number}"),
                )
                .await;
        }
    };
    let mut forwards = Vec::new();
    let mut cursor = Value::Null;
    for round in 0.. {
        let page = page(&server, json!({"uid": "ann", "first": 50, "after": cursor})).await;
        forwards.extend(ids(&page));
        cursor = page["pageInfo"]["endCursor"].clone();
        assert_eq!(
            page["pageInfo"]["hasPreviousPage"],
            json!(round > 0),
            "round {round}: {page}"
        );
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        disturb(round).await;
    }
    let all = |walk: &[String]| {
        let seen: HashSet<&String> = walk.iter().collect();
        let missing = (0..ALL)
            .map(|number| format!("u{number}"))
            .filter(|id| !seen.contains(id));
        assert_eq!(
            missing.collect::<Vec<_>>(),
            Vec::<String>::new(),
            "missing in {walk:?}"
        );
    };
    all(&forwards);
    // Conversations that moved above the cursor come with the next page; between them, the order is
    // that of the list.
    let undisturbed: Vec<&String> = forwards
        .iter()
        .filter(|id| ["u940", "u600", "u300"].contains(&id.as_str()))
        .collect();
    assert_eq!(undisturbed, ["u940", "u600", "u300"]);

    // The same list backwards, from its end.
    let mut backwards = vec![forwards.last().unwrap().clone()];
    for round in 100.. {
        let page = page(&server, json!({"uid": "ann", "last": 50, "before": cursor})).await;
        backwards.extend(ids(&page).into_iter().rev());
        cursor = page["pageInfo"]["startCursor"].clone();
        if page["pageInfo"]["hasPreviousPage"] == false {
            break;
        }
        disturb(round).await;
    }
    all(&backwards);

    // Paging backwards again also shows the conversations that are new.
    let mut all = HashSet::new();
    let mut cursor = Value::Null;
    loop {
        let page = page(
            &server,
            json!({"uid": "ann", "last": 500, "before": cursor}),
        )
        .await;
        for id in ids(&page) {
            assert!(all.insert(id.clone()), "{id} twice");
        }
        cursor = page["pageInfo"]["startCursor"].clone();
        if page["pageInfo"]["hasPreviousPage"] == false {
            assert_eq!(page["totalCount"].as_u64().unwrap(), all.len() as u64);
            break;
        }
    }
}

async fn pinned_first_then_latest_activity(engine: Engine) {
    let server = Server::start(engine).await;
    for (at, from) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        server.set_clock(1_795_393_000_000 + at as i64);
        server.send(from, "ann", 1, from).await;
    }
    let list = async || ids(&page(&server, json!({"uid": "ann"})).await);
    assert_eq!(list().await, ["e", "d", "c", "b", "a"]);
    for id in ["b", "a"] {
        change(
            &server,
            "pinConversation",
            json!({"uid": "ann", "channel": channel(id, 1)}),
        )
        .await;
    }
    assert_eq!(list().await, ["b", "a", "e", "d", "c"]);
    change(
        &server,
        "pinConversation",
        json!({"uid": "ann", "channel": channel("b", 1), "pinned": false}),
    )
    .await;
    assert_eq!(list().await, ["a", "e", "d", "c", "b"]);
    // A pin between two pages moves a conversation above the cursor: it comes with the next page.
    let first = page(&server, json!({"uid": "ann", "first": 2})).await;
    server.set_clock(1_795_393_100_000);
    change(
        &server,
        "pinConversation",
        json!({"uid": "ann", "channel": channel("c", 1)}),
    )
    .await;
    let rest = page(
        &server,
        json!({"uid": "ann", "first": 9, "after": first["pageInfo"]["endCursor"]}),
    )
    .await;
    assert_eq!(
        [ids(&first), ids(&rest)].concat(),
        ["a", "e", "c", "d", "b"]
    );
    for (wrong, argument) in [
        (json!({"uid": "ann", "first": 1, "last": 1}), "first"),
        (json!({"uid": "ann", "first": -1}), "first"),
        (json!({"uid": "ann", "last": 1001}), "last"),
        (json!({"uid": "ann", "after": "bm9wZQ"}), "after"),
        (
            json!({"uid": "ann", "before": first["edges"][0]["node"]["id"]}),
            "before",
        ),
        (
            json!({"uid": "ann", "filter": {"channelTypes": [0]}}),
            "filter.channelTypes",
        ),
        (json!({}), "uid"),
    ] {
        let mut variables = wrong.clone();
        if variables.get("uid").is_none() {
            variables["uid"] = json!("");
        }
        let answer = server.graphql_raw(PAGE, variables).await;
        let extensions = &answer["errors"][0]["extensions"];
        assert_eq!(
            (extensions["code"].as_str(), extensions["argument"].as_str()),
            (Some("BAD_USER_INPUT"), Some(argument)),
            "{answer}"
        );
    }
}

async fn filters(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    server.send("bob", "team", 2, "one").await;
    for from in ["bob", "bo%", "carl"] {
        server.send(from, "ann", 1, "one").await;
    }
    server.set_unread("ann", "carl", 1, 0).await;
    change(
        &server,
        "muteConversation",
        json!({"uid": "ann", "channel": channel("bob", 1)}),
    )
    .await;
    change(
        &server,
        "pinConversation",
        json!({"uid": "ann", "channel": channel("carl", 1)}),
    )
    .await;
    for (filter, expected) in [
        (json!({}), vec!["bo%", "bob", "carl", "team"]),
        (json!({"onlyUnread": true}), vec!["bo%", "bob", "team"]),
        (json!({"channelTypes": [2]}), vec!["team"]),
        (json!({"channelTypes": []}), vec![]),
        (json!({"muted": true}), vec!["bob"]),
        (
            json!({"muted": false, "pinned": false}),
            vec!["bo%", "team"],
        ),
        (json!({"pinned": true}), vec!["carl"]),
        (json!({"channelIdPrefix": "bo"}), vec!["bo%", "bob"]),
        (json!({"channelIdPrefix": "bo%"}), vec!["bo%"]),
        (json!({"channelIdPrefix": "BO"}), vec![]),
    ] {
        let page = page(&server, json!({"uid": "ann", "filter": filter})).await;
        let mut found = ids(&page);
        found.sort();
        assert_eq!(
            (found, page["totalCount"].as_u64()),
            (
                expected.iter().map(|id| (*id).to_owned()).collect(),
                Some(expected.len() as u64)
            ),
            "{filter}"
        );
    }
}

async fn pins_and_mutes_reach_other_devices(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "one").await;
    server.send("carl", "ann", 1, "one").await;
    let changes = "query ($version: UInt53!) { conversations(uid: \"ann\", version: $version) {
        version conversations { channelId pinnedAt muted version } } }";
    let mut version =
        server.graphql(changes, json!({"version": 0})).await["conversations"]["version"].clone();
    for (mutation, argument) in [("pinConversation", "pinned"), ("muteConversation", "muted")] {
        for value in [true, false] {
            let input = json!({"uid": "ann", "channel": channel("bob", 1), argument: value});
            let changed = change(&server, mutation, input.clone()).await;
            let seen =
                server.graphql(changes, json!({"version": version})).await["conversations"].clone();
            assert_eq!(seen["conversations"].as_array().unwrap().len(), 1, "{seen}");
            let item = &seen["conversations"][0];
            let shown = if argument == "pinned" {
                !item["pinnedAt"].is_null()
            } else {
                item["muted"] == true
            };
            assert_eq!(
                (shown, &item["version"]),
                (value, &changed["version"]),
                "{mutation} {seen}"
            );
            assert!(
                seen["version"].as_i64() > version.as_i64(),
                "{mutation} {value}: {seen}"
            );
            version = seen["version"].clone();
            // Repeating the request changes nothing.
            assert_eq!(
                change(&server, mutation, input).await["version"],
                changed["version"],
                "{mutation} {value}"
            );
        }
        let unknown = json!({"input": {"uid": "ann", "channel": channel("nobody", 1)}});
        let kind = if argument == "pinned" {
            "PinConversationInput"
        } else {
            "MuteConversationInput"
        };
        let query = format!(
            "mutation ($input: {kind}!) {{ {mutation}(input: $input) {{ conversation {{ id }} }} }}"
        );
        assert_eq!(
            server.graphql_code(&query, unknown).await,
            "NOT_FOUND",
            "{mutation}"
        );
    }
    // Muted conversations are counted separately; pins and mutes outlive a deletion.
    change(
        &server,
        "muteConversation",
        json!({"uid": "ann", "channel": channel("bob", 1)}),
    )
    .await;
    let summary = server
        .graphql(
            "{ unreadSummary(uid: \"ann\") { total conversations mutedTotal mutedConversations } }",
            json!({}),
        )
        .await;
    assert_eq!(
        summary["unreadSummary"],
        json!({"total": 1, "conversations": 1, "mutedTotal": 1, "mutedConversations": 1})
    );
    server.delete("ann", "bob", 1).await;
    server.send("bob", "ann", 1, "two").await;
    let list = page(&server, json!({"uid": "ann", "filter": {"muted": true}})).await;
    assert_eq!(ids(&list), ["bob"]);
}

async fn mark_all_read(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    server.send("bob", "team", 2, "one").await;
    for number in 0..30 {
        server.send(&format!("u{number}"), "ann", 1, "one").await;
    }
    let mut device = Incremental::new("ann");
    device.sync(&server).await;
    let mark = "mutation ($input: MarkAllReadInput!) { markAllRead(input: $input) {
        conversations { channelId unread version } unreadSummary { total conversations } } }";
    let marked = server
        .graphql(mark, json!({"input": {"uid": "ann", "channelTypes": [2]}}))
        .await["markAllRead"]
        .clone();
    assert_eq!(marked["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(
        marked["unreadSummary"],
        json!({"total": 30, "conversations": 30})
    );
    let marked =
        server.graphql(mark, json!({"input": {"uid": "ann"}})).await["markAllRead"].clone();
    let all = marked["conversations"].as_array().unwrap();
    assert_eq!(
        (all.len(), &marked["unreadSummary"]),
        (30, &json!({"total": 0, "conversations": 0}))
    );
    let versions: HashSet<i64> = all
        .iter()
        .map(|one| one["version"].as_i64().unwrap())
        .collect();
    assert_eq!(versions.len(), 30, "each has a version of its own");
    let again = server.graphql(mark, json!({"input": {"uid": "ann"}})).await["markAllRead"].clone();
    assert_eq!(again["conversations"], json!([]));
    device.sync(&server).await;
    device.must_hold_after(&server.full("ann").await, "after marking all");
    assert_eq!(
        server
            .graphql_code(
                mark,
                json!({"input": {"uid": "ann", "channelTypes": [300]}})
            )
            .await,
        "BAD_USER_INPUT"
    );
    server.send("u1", "ann", 1, "two").await;
    assert_eq!(
        server
            .graphql("{ unreadSummary(uid: \"ann\") { total } }", json!({}))
            .await["unreadSummary"]["total"],
        1
    );
}

async fn deleted_channel_disappears_for_all_members(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    server.send("bob", "team", 2, "secret").await;
    let mut devices = [Incremental::new("ann"), Incremental::new("bob")];
    for device in &mut devices {
        device.sync(&server).await;
    }
    let delete = "mutation ($channel: ChannelInput!) { deleteChannel(input: {channel: $channel}) { channel { channelId } } }";
    for round in 0..2 {
        let answer = server
            .graphql(delete, json!({"channel": channel("team", 2)}))
            .await;
        assert_eq!(
            answer["deleteChannel"]["channel"]["channelId"], "team",
            "deletion {round}: {answer}"
        );
    }
    for (device, uid) in devices.iter_mut().zip(["ann", "bob"]) {
        assert_eq!(server.full(uid).await, Vec::<Value>::new(), "{uid}");
        device.sync(&server).await;
        device.must_hold_after(&[], "after the channel was deleted");
    }
    // Former members are no longer members; the user who creates the channel again starts anew.
    server.send("bob", "team", 2, "lost").await;
    assert_eq!(server.full("ann").await, Vec::<Value>::new());
    server.group("team", &["ann", "carl"]).await;
    server.send("carl", "team", 2, "hello").await;
    let only = server.only("ann").await;
    let texts: Vec<&str> = only["recents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["client_msg_no"].as_str().unwrap())
        .collect();
    assert_eq!(
        (only["unread"].as_i64(), texts),
        (Some(1), vec!["hello", "lost"])
    );
    assert_eq!(server.full("bob").await, Vec::<Value>::new());
    let history = "{ messages(uid: \"carl\", channel: {channelId: \"team\", channelType: 2}) { nodes { clientMsgNo } } }";
    assert_eq!(
        server.graphql(history, json!({})).await["messages"]["nodes"],
        json!([{"clientMsgNo": "lost"}, {"clientMsgNo": "hello"}])
    );
    assert_eq!(
        server
            .graphql_code(delete, json!({"channel": channel("bob", 1)}))
            .await,
        "BAD_USER_INPUT"
    );
    server
        .graphql(delete, json!({"channel": channel("nothing", 2)}))
        .await;
}

async fn node_finds_objects_by_global_id(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    server.send("bob", "team", 2, "one").await;
    let data = server
        .graphql(
            "{ conversation(uid: \"ann\", channel: {channelId: \"team\", channelType: 2}) { id lastMessage { id } } }",
            json!({}),
        )
        .await;
    let (conversation, message) = (
        &data["conversation"]["id"],
        &data["conversation"]["lastMessage"]["id"],
    );
    let made = server
        .graphql(
            "mutation { addMembers(input: {channel: {channelId: \"team\", channelType: 2}, uids: []}) { channel { id } } }",
            json!({}),
        )
        .await;
    let channel = &made["addMembers"]["channel"]["id"];
    let nodes = "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id
        ... on Conversation { unread } ... on Message { clientMsgNo } ... on Channel { channelId } } }";
    server.delete("ann", "team", 2).await;
    let ids = json!([message, conversation, channel, message]);
    let found = server.graphql(nodes, json!({"ids": ids})).await["nodes"].clone();
    let name = json!({"__typename": "Message", "id": message, "clientMsgNo": "one"});
    assert_eq!(
        found,
        json!([name, null, {"__typename": "Channel", "id": channel, "channelId": "team"}, name])
    );
    server.send("bob", "team", 2, "two").await;
    let node = "query ($id: ID!) { node(id: $id) { id ... on Conversation { unread } } }";
    assert_eq!(
        server.graphql(node, json!({"id": conversation})).await["node"],
        json!({"id": conversation, "unread": 1})
    );
    for (query, variables, argument) in [
        (node, json!({"id": "nope"}), "id"),
        (nodes, json!({"ids": [message, "nope"]}), "ids"),
    ] {
        let answer = server.graphql_raw(query, variables).await;
        assert_eq!(
            answer["errors"][0]["extensions"],
            json!({"code": "BAD_USER_INPUT", "argument": argument}),
            "{argument}: {answer}"
        );
    }
}

async fn page_through(
    server: &Server,
    first: i64,
    mut between: impl AsyncFnMut(i64),
) -> Vec<String> {
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    for round in 0.. {
        let page = page(
            server,
            json!({"uid": "ann", "first": first, "after": cursor}),
        )
        .await;
        seen.extend(ids(&page));
        cursor = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            return seen;
        }
        between(round).await;
    }
    unreachable!()
}

/// Feeders send whole seconds, times in the future, and equal times for many messages: paging
/// misses no conversation nevertheless.
async fn paging_does_not_depend_on_clocks(engine: Engine) {
    for (times, again) in [
        // The message that moves p1 has the same time as the newest one.
        ((0..12).collect::<Vec<i64>>(), 11),
        // All messages have the same second.
        (vec![0; 12], 0),
        // One message is far in the future, and one has a time before all others.
        (
            (0..12)
                .map(|number| if number == 5 { 1_000_000 } else { number })
                .collect(),
            -100,
        ),
    ] {
        let server = Server::start(engine).await;
        let hook = |number: i64, seq: i64, time: i64| {
            let mut message = crate::support::server::webhook_message(
                &format!("p{number}"),
                "ann",
                1,
                seq,
                number * 100 + seq,
            );
            message["timestamp"] = json!(1_795_393_000 + time);
            message
        };
        let all: Vec<Value> = times
            .iter()
            .enumerate()
            .map(|(number, time)| hook(number as i64, 1, *time))
            .collect();
        server.notify(json!(all)).await;
        let seen = page_through(&server, 4, async |round| {
            // One conversation that was on the first page, and one that was not.
            let moved = json!([
                hook(10 - round, 2 + round, again),
                hook(1, 2 + round, again)
            ]);
            assert_eq!(
                server.notify(moved).await.status,
                200,
                "{times:?}, round {round}"
            );
        })
        .await;
        let seen: HashSet<String> = seen.into_iter().collect();
        assert_eq!(seen.len(), 12, "{seen:?}");
    }
}

async fn subscribing_from_the_first_page_sends_no_backlog(engine: Engine) {
    let server = Server::start(engine).await;
    for number in 0..30 {
        server.send(&format!("u{number}"), "ann", 1, "hello").await;
    }
    let first = page(&server, json!({"uid": "ann", "first": 5})).await;
    let changes = "query ($version: UInt53) { conversations(uid: \"ann\", version: $version) { version conversations { channelId } removed { id } } }";
    let none = server
        .graphql(changes, json!({"version": first["version"]}))
        .await["conversations"]
        .clone();
    assert_eq!(
        none,
        json!({"version": first["version"], "conversations": [], "removed": []})
    );
    server.send("u3", "ann", 1, "again").await;
    let one = server
        .graphql(changes, json!({"version": first["version"]}))
        .await["conversations"]
        .clone();
    assert_eq!(one["conversations"], json!([{"channelId": "u3"}]));
}

/// The clocks of servers differ: a new message never moves a conversation down.
async fn slow_clock_does_not_move_a_conversation_down(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("cat", "ann", 1, "first").await;
    server.set_clock(1_795_393_005_000);
    server.send("bob", "ann", 1, "ahead").await;
    server.set_clock(1_795_393_001_000);
    server.send("bob", "ann", 1, "behind").await;
    let list = page(&server, json!({"uid": "ann"})).await;
    assert_eq!(ids(&list), ["bob", "cat"]);
    assert_eq!(
        list["edges"][0]["node"]["lastActivityAt"],
        "2026-11-23T00:16:45.000Z"
    );
}
