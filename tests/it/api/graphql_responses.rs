//! GraphQL responses as a whole: nulls, empty selections, variables, codes, and IDs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::sse::{Event, Events};
use crate::support::tokens::{SECRET, token};
use crate::support::{Engine, Server};

on_every_database!(
    omitted_channel_fields_stay_unchanged,
    mutations_return_the_unread_summary_after_the_change,
    mutations_take_an_id_or_a_channel,
    message_id_is_scoped_to_its_channel,
);

/// Returns the whole response.
async fn ask(server: &Server, body: Value) -> Value {
    let request = server
        .http("POST", "/graphql")
        .header("content-type", "application/json")
        .body(body.to_string());
    server.request(request).await.json()
}

fn channel(id: &str, kind: u8) -> String {
    format!("channel: {{channelId: \"{id}\", channelType: {kind}}}")
}

#[tokio::test]
async fn failed_field_does_not_hide_others() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let set = |name: &str, id: &str| {
        let channel = channel(id, 1);
        format!(
            "{name}: setUnread(input: {{uid: \"ann\", {channel}, unread: 7}}) {{ conversation {{ unread }} }}"
        )
    };
    let query = format!(
        "mutation {{ {} {} {} }}",
        set("a", "bob"),
        set("b", "nobody"),
        set("c", "bob")
    );
    let answer = server.graphql_raw(&query, json!({})).await;
    let done = json!({"conversation": {"unread": 7}});
    assert_eq!(answer["data"], json!({"a": done, "b": null, "c": done}));
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(
        (
            errors.len(),
            &errors[0]["path"],
            &errors[0]["extensions"]["code"]
        ),
        (1, &json!(["b"]), &json!("NOT_FOUND"))
    );
    let answer = server
        .graphql_raw(&format!("mutation {{ {} }}", set("b", "nobody")), json!({}))
        .await;
    assert_eq!(answer["data"], json!({"b": null}));
    // An absent object is null, without an error.
    let absent = URL_SAFE_NO_PAD.encode(r#"[1,"Conversation",["ann","2","nowhere"]]"#);
    let query = format!(
        "{{ unreadSummary(uid: \"ann\") {{ total }} messages(uid: \"ann\", {group}) {{ nodes {{ id }} }}
            conversation(uid: \"ann\", {group}) {{ id }} node(id: \"{absent}\") {{ id }} nodes(ids: [\"{absent}\"]) {{ id }} }}",
        group = channel("nowhere", 2)
    );
    let data = server.graphql(&query, json!({})).await;
    let expected = json!({"unreadSummary": {"total": 7}, "messages": null, "conversation": null, "node": null, "nodes": [null]});
    assert_eq!(data, expected);
}

#[tokio::test]
async fn root_fields_are_nullable() {
    let server = Server::start(Engine::Sqlite).await;
    let query = "{ __schema { queryType { ...F } mutationType { ...F } } } fragment F on __Type { fields { name type { kind } } }";
    let schema = server.graphql(query, json!({})).await["__schema"].clone();
    for root in ["queryType", "mutationType"] {
        for field in schema[root]["fields"].as_array().unwrap() {
            assert_ne!(field["type"]["kind"], "NON_NULL", "{}", field["name"]);
        }
    }
}

#[tokio::test]
async fn empty_selection_is_an_empty_object() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let one = format!("conversation(uid: \"ann\", {})", channel("bob", 1));
    let id = server
        .graphql(&format!("{{ {one} {{ id }} }}"), json!({}))
        .await["conversation"]["id"]
        .clone();
    let no = "@include(if: $no)";
    for (query, data) in [
        (format!("{{ {one} {no} {{ unread }} }}"), json!({})),
        (format!("{{ __typename {no} }}"), json!({})),
        (
            format!("{{ ...f {no} }} fragment f on Query {{ __typename }}"),
            json!({}),
        ),
        (
            format!("{{ {one} {{ unread {no} }} }}"),
            json!({"conversation": {}}),
        ),
        (
            format!("{{ {one} {{ unread {no} id @skip(if: $no) }} }}"),
            json!({"conversation": {"id": id}}),
        ),
        (
            format!("{{ {one} {{ ... {no} {{ unread }} }} }}"),
            json!({"conversation": {}}),
        ),
        (
            format!("{{ {one} {{ ...f }} }} fragment f on Conversation {{ unread {no} }}"),
            json!({"conversation": {}}),
        ),
        (
            format!("{{ {one} {{ ...f }} }} fragment f on Node {{ id {no} }}"),
            json!({"conversation": {}}),
        ),
        (
            format!("{{ {one} {{ lastMessage {{ id {no} }} }} }}"),
            json!({"conversation": {"lastMessage": {}}}),
        ),
        (
            format!("{{ {one} {{ recents {{ id {no} }} }} }}"),
            json!({"conversation": {"recents": [{}]}}),
        ),
        (
            format!("{{ {one} {{ recents {{ header {{ redDot {no} }} }} }} }}"),
            json!({"conversation": {"recents": [{"header": {}}]}}),
        ),
        (
            format!("{{ unreadSummary(uid: \"ann\") {{ total {no} }} }}"),
            json!({"unreadSummary": {}}),
        ),
        (
            format!("{{ conversationList(uid: \"ann\") {{ nodes {{ id {no} }} }} }}"),
            json!({"conversationList": {"nodes": [{}]}}),
        ),
        // No fragment applies to the type of the object.
        (
            format!("{{ node(id: {id}) {{ ... on Message {{ id {no} }} }} }}"),
            json!({"node": {}}),
        ),
        (
            format!("{{ __schema {no} {{ queryType {{ name }} }} }}"),
            json!({}),
        ),
        (
            format!("{{ __schema {{ queryType {{ name {no} }} }} }}"),
            json!({"__schema": {"queryType": {}}}),
        ),
        // Absent objects are null all the same.
        (
            format!(
                "{{ conversation(uid: \"ann\", {}) {{ unread {no} }} }}",
                channel("nobody", 1)
            ),
            json!({"conversation": null}),
        ),
    ] {
        let query = format!("query ($no: Boolean = false) {query}");
        assert_eq!(server.graphql(&query, json!({})).await, data, "{query}");
        assert_eq!(
            server.graphql(&query, json!({"no": false})).await,
            data,
            "{query}"
        );
    }
    let input = format!("input: {{uid: \"ann\", {}, unread: 3}}", channel("bob", 1));
    let mutation = format!(
        "mutation {{ setUnread({input}) {{ conversation {{ unread @skip(if: true) }} }} }}"
    );
    assert_eq!(
        server.graphql(&mutation, json!({})).await,
        json!({"setUnread": {"conversation": {}}})
    );
    let mutation = format!(
        "mutation {{ setUnread({input}) @skip(if: true) {{ conversation {{ unread }} }} }}"
    );
    assert_eq!(server.graphql(&mutation, json!({})).await, json!({}));
    // The variable's default applies when the variable is omitted.
    let query = "query ($yes: Boolean! = true) { a: __typename @skip(if: $yes) b: __typename @include(if: $yes) }";
    assert_eq!(
        server.graphql(query, json!({})).await,
        json!({"b": "Query"})
    );
    assert_eq!(
        server.graphql(query, json!({"yes": false})).await,
        json!({"a": "Query"})
    );
}

#[tokio::test]
async fn empty_selection_of_an_event_is_an_empty_object() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let next =
        async |query: &str| match Events::open(server.http("POST", "/graphql"), query, json!({}))
            .await
        {
            Ok(mut events) => match events.next().await {
                Event::Next(answer) => answer,
                other => panic!("{query}: {other:?}"),
            },
            Err(refused) => serde_json::from_str(refused.split_once(": ").unwrap().1).unwrap(),
        };
    let query = "subscription { conversationChanges(uid: \"ann\") { unreadSummary { total @skip(if: true) } } }";
    assert_eq!(
        next(query).await,
        json!({"data": {"conversationChanges": {"unreadSummary": {}}}})
    );
    let query = "subscription { conversationChanges(uid: \"ann\") { version @skip(if: true) } }";
    assert_eq!(
        next(query).await,
        json!({"data": {"conversationChanges": {}}})
    );
    // The only field of a subscription's root cannot be skipped.
    let query = "subscription { conversationChanges(uid: \"ann\") @skip(if: true) { version } }";
    assert_eq!(
        next(query).await["errors"][0]["extensions"]["code"],
        "GRAPHQL_VALIDATION_FAILED"
    );
}

#[tokio::test]
async fn omitted_variable_takes_the_default() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    server.send("cid", "ann", 1, "one").await;
    server.set_unread("ann", "cid", 1, 0).await;
    let list = "query ($o: Boolean) { conversationList(uid: \"ann\", filter: {onlyUnread: $o}) { totalCount } }";
    for (variables, count) in [
        (json!({}), 2),
        (json!({"o": null}), 2),
        (json!({"o": false}), 2),
        (json!({"o": true}), 1),
    ] {
        let data = server.graphql(list, variables.clone()).await;
        assert_eq!(data["conversationList"]["totalCount"], count, "{variables}");
    }
    let pin = format!(
        "mutation ($p: Boolean) {{ pinConversation(input: {{uid: \"ann\", {}, pinned: $p}}) {{ conversation {{ pinnedAt }} }} }}",
        channel("bob", 1)
    );
    assert!(
        server.graphql(&pin, json!({})).await["pinConversation"]["conversation"]["pinnedAt"]
            .is_string()
    );
    assert!(server.graphql(&pin, json!({"p": false})).await["pinConversation"]["conversation"]["pinnedAt"].is_null());
    let send = format!(
        "mutation ($h: MessageHeaderInput, $s: Int, $e: UInt53, $r: Boolean) {{
            a: sendMessage(input: {{fromUid: \"bob\", {0}, payload: \"eA==\", header: $h, setting: $s, expire: $e}}) {{ ...m }}
            b: sendMessage(input: {{fromUid: \"bob\", {0}, payload: \"eA==\", header: {{redDot: $r}}}}) {{ ...m }} }}
         fragment m on SendMessagePayload {{ message {{ setting expire header {{ redDot noPersist syncOnce }} }} }}",
        channel("ann", 1)
    );
    let message = json!({"message": {"setting": 0, "expire": 0, "header": {"redDot": true, "noPersist": false, "syncOnce": false}}});
    assert_eq!(
        server.graphql(&send, json!({})).await,
        json!({"a": message, "b": message})
    );
}

#[tokio::test]
async fn null_for_a_non_null_variable_is_refused() {
    let server = Server::start(Engine::Sqlite).await;
    for (query, variables) in [
        (
            "query ($n: Int! = 5) { conversationList(uid: \"ann\", first: $n) { totalCount } }",
            json!({"n": null}),
        ),
        (
            "query ($n: Int! = 5) { ...f } fragment f on Query { conversations(uid: \"ann\", first: $n) { version } }",
            json!({"n": null}),
        ),
        (
            "query ($n: Int!) { conversations(uid: \"ann\", first: $n) { version } }",
            json!({}),
        ),
        (
            "query A ($n: Int!) { conversations(uid: \"ann\", first: $n) { version } } query B { __typename }",
            json!({"n": null}),
        ),
    ] {
        let body = json!({"query": query, "variables": variables, "operationName": query.contains("query A").then_some("A")});
        let answer = ask(&server, body).await;
        let extensions = json!({"argument": "$n", "code": "BAD_USER_INPUT"});
        let error = &answer["errors"][0];
        assert_eq!(
            (answer.get("data"), &error["extensions"]),
            (None, &extensions),
            "{query}: {answer}"
        );
        assert!(error["locations"][0]["line"] == 1, "{answer}");
    }
    let body = json!({"query": "query A ($n: Int!) { conversations(uid: \"ann\", first: $n) { version } } query B { __typename }", "operationName": "B"});
    assert_eq!(
        ask(&server, body).await,
        json!({"data": {"__typename": "Query"}}),
        "the other one's variable"
    );
    let unread = "mutation ($u: Int) { setUnread(input: {uid: \"ann\", channel: {channelId: \"b\", channelType: 1}, unread: $u}) { conversation { id } } }";
    for (variables, code) in [
        (json!({"u": null}), "GRAPHQL_VALIDATION_FAILED"),
        (json!({}), "BAD_USER_INPUT"),
    ] {
        assert_eq!(
            server.graphql_code(unread, variables.clone()).await,
            code,
            "{variables}"
        );
    }
    let input = json!({"input": {"uid": "ann", "channel": {"channelId": "bob", "channelType": 1}, "unread": null}});
    let set =
        "mutation ($input: SetUnreadInput!) { setUnread(input: $input) { conversation { id } } }";
    assert_eq!(
        server.graphql_code(set, input).await,
        "GRAPHQL_VALIDATION_FAILED"
    );
}

async fn omitted_channel_fields_stay_unchanged(engine: Engine) {
    let server = Server::start(engine).await;
    let flags = async |field: &str, input: &str| {
        let query = format!(
            "mutation {{ {field}(input: {{{}, {input}}}) {{ channel {{ id large ban disband }} }} }}",
            channel("team", 2)
        );
        server.graphql(&query, json!({})).await[field]["channel"].clone()
    };
    let assert_flags = |large: bool, ban: bool, disband: bool, channel: &Value| {
        assert_eq!(
            (&channel["large"], &channel["ban"], &channel["disband"]),
            (&json!(large), &json!(ban), &json!(disband))
        );
    };
    let made = flags(
        "createChannel",
        "uids: [\"ann\", \"bob\"], large: true, ban: true",
    )
    .await;
    assert_flags(true, true, false, &made);
    assert_flags(
        true,
        true,
        false,
        &flags("createChannel", "uids: [\"cid\"]").await,
    );
    assert_flags(
        true,
        true,
        false,
        &flags("createChannel", "large: null, ban: null, disband: null").await,
    );
    assert_flags(
        true,
        false,
        true,
        &flags("createChannel", "ban: false, disband: true").await,
    );
    let members = async || {
        let answer = server
            .post(
                "/datasource",
                r#"{"cmd":"getSubscribers","data":{"channel_id":"team","channel_type":2}}"#,
            )
            .await;
        let mut uids: Vec<String> = answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|uid| uid.as_str().unwrap().to_owned())
            .collect();
        uids.sort();
        uids
    };
    assert_eq!(members().await, ["ann", "bob", "cid"]);
    assert_flags(
        true,
        false,
        true,
        &flags("addMembers", "uids: [\"dan\"]").await,
    );
    assert_eq!(
        members().await,
        ["ann", "bob", "cid", "dan"],
        "nobody leaves"
    );
    assert_flags(
        true,
        false,
        true,
        &flags("replaceMembers", "uids: [\"bob\", \"eve\"]").await,
    );
    assert_eq!(members().await, ["bob", "eve"]);
    flags("replaceMembers", "uids: []").await;
    assert_eq!(members().await, Vec::<String>::new());
    let node = format!(
        "{{ node(id: {}) {{ id ... on Channel {{ large ban disband }} }} }}",
        made["id"]
    );
    assert_flags(
        true,
        false,
        true,
        &server.graphql(&node, json!({})).await["node"],
    );
    for field in ["createChannel", "addMembers"] {
        let query = format!(
            "mutation {{ {field}(input: {{{}, uids: [], reset: true}}) {{ channel {{ id }} }} }}",
            channel("team", 2)
        );
        assert_eq!(
            server.graphql_code(&query, json!({})).await,
            "GRAPHQL_VALIDATION_FAILED",
            "{field}"
        );
    }
    // REST sets all flags or none of them.
    server
        .call(
            "/channel/info",
            json!({"channel_id": "team", "channel_type": 2, "ban": 1}),
        )
        .await;
    assert_flags(
        false,
        true,
        false,
        &server.graphql(&node, json!({})).await["node"],
    );
}

async fn mutations_return_the_unread_summary_after_the_change(engine: Engine) {
    let server = Server::start(engine).await;
    server.send("bob", "ann", 1, "one").await;
    server.send("cid", "ann", 1, "one").await;
    let summary = "{ unreadSummary(uid: \"ann\") { id total mutedTotal } }";
    let id = server.graphql(summary, json!({})).await["unreadSummary"]["id"].clone();
    let assert_summary = async |total: i64, muted: i64, mutation: &str| {
        let query =
            format!("mutation {{ {mutation} {{ unreadSummary {{ id total mutedTotal }} }} }}");
        let data = server.graphql(&query, json!({})).await;
        let (field, _) = mutation.split_once('(').unwrap();
        assert_eq!(
            data[field]["unreadSummary"],
            json!({"id": id, "total": total, "mutedTotal": muted}),
            "{mutation}"
        );
    };
    let bob = format!("uid: \"ann\", {}", channel("bob", 1));
    assert_summary(6, 0, &format!("setUnread(input: {{{bob}, unread: 5}})")).await;
    assert_summary(6, 0, &format!("pinConversation(input: {{{bob}}})")).await;
    assert_summary(1, 5, &format!("muteConversation(input: {{{bob}}})")).await;
    assert_summary(
        6,
        0,
        &format!("muteConversation(input: {{{bob}, muted: false}})"),
    )
    .await;
    assert_summary(1, 0, &format!("clearUnread(input: {{{bob}}})")).await;
    server.send("bob", "ann", 1, "two").await;
    assert_summary(1, 0, &format!("deleteConversation(input: {{{bob}}})")).await;
    server.send("bob", "ann", 1, "three").await;
    let to_bob = channel("bob", 1);
    assert_summary(
        1,
        0,
        &format!("sendMessage(input: {{fromUid: \"ann\", {to_bob}, payload: \"eA==\"}})"),
    )
    .await;
    assert_summary(0, 0, "markAllRead(input: {uid: \"ann\"})").await;
    // Each mutation sees the changes of the earlier ones.
    let query = format!(
        "mutation {{ a: setUnread(input: {{{bob}, unread: 5}}) {{ unreadSummary {{ total }} }}
            b: setUnread(input: {{{bob}, unread: 2}}) {{ unreadSummary {{ total }} }} }}"
    );
    let data = server.graphql(&query, json!({})).await;
    assert_eq!(
        (
            &data["a"]["unreadSummary"]["total"],
            &data["b"]["unreadSummary"]["total"]
        ),
        (&json!(5), &json!(2))
    );
    let node = format!("{{ node(id: {id}) {{ __typename id ... on UnreadSummary {{ total }} }} }}");
    let expected = json!({"node": {"__typename": "UnreadSummary", "id": id, "total": 2}});
    assert_eq!(server.graphql(&node, json!({})).await, expected);
    // The system has no conversations.
    let system = format!(
        "mutation {{ sendMessage(input: {{{to_bob}, payload: \"eA==\"}}) {{ unreadSummary {{ total }} }} }}"
    );
    assert_eq!(
        server.graphql(&system, json!({})).await,
        json!({"sendMessage": {"unreadSummary": null}})
    );
}

async fn mutations_take_an_id_or_a_channel(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    server.send("bob", "team", 2, "one").await;
    server.send("bob", "ann", 1, "one").await;
    let id = async |id: &str, kind: u8| {
        let query = format!(
            "{{ conversation(uid: \"ann\", {}) {{ id }} }}",
            channel(id, kind)
        );
        server.graphql(&query, json!({})).await["conversation"]["id"].clone()
    };
    let (team, bob) = (id("team", 2).await, id("bob", 1).await);
    let made = format!(
        "mutation {{ addMembers(input: {{{}, uids: []}}) {{ channel {{ id }} }} }}",
        channel("team", 2)
    );
    let channel_id = server.graphql(&made, json!({})).await["addMembers"]["channel"]["id"].clone();
    let unread = "conversation { channelId unread }";
    for (mutation, name) in [
        (
            format!("setUnread(input: {{id: {bob}, unread: 4}}) {{ {unread} }}"),
            "bob",
        ),
        (
            format!("setUnread(input: {{uid: \"ann\", id: {bob}, unread: 4}}) {{ {unread} }}"),
            "bob",
        ),
        (
            format!(
                "setUnread(input: {{uid: \"ann\", id: {channel_id}, unread: 4}}) {{ {unread} }}"
            ),
            "team",
        ),
        (
            format!("clearUnread(input: {{id: {team}}}) {{ {unread} }}"),
            "team",
        ),
        (
            format!("pinConversation(input: {{id: {team}}}) {{ {unread} }}"),
            "team",
        ),
        (
            format!("muteConversation(input: {{id: {team}}}) {{ {unread} }}"),
            "team",
        ),
        (
            format!(
                "deleteConversation(input: {{id: {team}}}) {{ conversation: removed {{ channelId }} }}"
            ),
            "team",
        ),
        (
            format!(
                "sendMessage(input: {{id: {bob}, payload: \"eA==\"}}) {{ conversation: message {{ channelId }} }}"
            ),
            "bob",
        ),
        (
            format!(
                "createChannel(input: {{id: {channel_id}}}) {{ conversation: channel {{ channelId }} }}"
            ),
            "team",
        ),
        (
            format!(
                "addMembers(input: {{id: {team}, uids: []}}) {{ conversation: channel {{ channelId }} }}"
            ),
            "team",
        ),
        (
            format!(
                "removeMembers(input: {{id: {team}, uids: []}}) {{ conversation: channel {{ channelId }} }}"
            ),
            "team",
        ),
        (
            format!(
                "replaceMembers(input: {{id: {team}, uids: [\"ann\"]}}) {{ conversation: channel {{ channelId }} }}"
            ),
            "team",
        ),
        (
            format!(
                "deleteChannel(input: {{id: {channel_id}}}) {{ conversation: channel {{ channelId }} }}"
            ),
            "team",
        ),
    ] {
        let data = server
            .graphql(&format!("mutation {{ all: {mutation} }}"), json!({}))
            .await;
        assert_eq!(data["all"]["conversation"]["channelId"], name, "{mutation}");
    }
    let sender = format!(
        "mutation {{ sendMessage(input: {{id: {bob}, payload: \"eA==\"}}) {{ message {{ fromUid }} }} }}"
    );
    assert_eq!(
        server.graphql(&sender, json!({})).await["sendMessage"]["message"]["fromUid"],
        "ann"
    );
    let by_name = channel("bob", 1);
    let message = URL_SAFE_NO_PAD.encode(r#"[1,"Message",["2","team","1"]]"#);
    let message = json!(message);
    for (input, argument) in [
        (format!("uid: \"ann\", id: {bob}, {by_name}"), "input.id"),
        ("uid: \"ann\"".to_owned(), "input.channel"),
        (
            format!("uid: \"ann\", {}", channel("bob", 0)),
            "input.channel.channelType",
        ),
        ("uid: \"ann\", id: \"nope\"".to_owned(), "input.id"),
        (format!("uid: \"ann\", id: {message}"), "input.id"),
        (format!("uid: \"bob\", id: {bob}"), "input.id"),
        (format!("id: {channel_id}"), "input.uid"),
    ] {
        let answer = server
            .graphql_raw(
                &format!("mutation {{ clearUnread(input: {{{input}}}) {{ {unread} }} }}"),
                json!({}),
            )
            .await;
        assert_eq!(
            answer["errors"][0]["extensions"],
            json!({"argument": argument, "code": "BAD_USER_INPUT"}),
            "{input}: {answer}"
        );
    }
}

#[tokio::test]
async fn conversation_id_of_another_user_is_forbidden() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.jwt.secret = SECRET.into();
        settings.auth.users_may_send = true;
    })
    .await;
    let ask = async |uid: &str, query: &str| {
        let request = server
            .http("POST", "/graphql")
            .header("authorization", format!("Bearer {}", token(uid)));
        let body = json!({"query": query}).to_string();
        server
            .request(
                request
                    .header("content-type", "application/json")
                    .body(body),
            )
            .await
            .json()
    };
    let send = format!(
        "mutation {{ sendMessage(input: {{{}, payload: \"eA==\"}}) {{ message {{ id }} }} }}",
        channel("ann", 1)
    );
    ask("bob", &send).await;
    let found = format!(
        "{{ conversation({}) {{ id }} unreadSummary {{ id }} }}",
        channel("bob", 1)
    );
    let data = ask("ann", &found).await["data"].clone();
    let (id, summary) = (&data["conversation"]["id"], &data["unreadSummary"]["id"]);
    let clear =
        format!("mutation {{ clearUnread(input: {{id: {id}}}) {{ conversation {{ unread }} }} }}");
    assert_eq!(
        ask("ann", &clear).await["data"]["clearUnread"]["conversation"]["unread"],
        0
    );
    assert_eq!(
        ask("bob", &clear).await["errors"][0]["extensions"]["code"],
        "FORBIDDEN"
    );
    let send = format!(
        "mutation {{ sendMessage(input: {{id: {id}, payload: \"eA==\"}}) {{ message {{ fromUid }} }} }}"
    );
    assert_eq!(
        ask("ann", &send).await["data"]["sendMessage"]["message"]["fromUid"],
        "ann"
    );
    assert_eq!(
        ask("bob", &send).await["errors"][0]["extensions"]["code"],
        "FORBIDDEN"
    );
    let node = format!("{{ node(id: {summary}) {{ id }} }}");
    assert_eq!(
        ask("ann", &node).await,
        json!({"data": {"node": {"id": summary}}})
    );
    assert_eq!(ask("bob", &node).await, json!({"data": {"node": null}}));
}

async fn message_id_is_scoped_to_its_channel(engine: Engine) {
    let server = Server::start(engine).await;
    server.group("team", &["ann"]).await;
    server.send("ann", "team", 2, "one").await;
    server.send("ann", "bob", 1, "two").await;
    server.send("bob", "ann", 1, "three").await;
    let all = "{ conversations(uid: \"ann\") { conversations { channelType recents { id messageId } } } }";
    let all = server.graphql(all, json!({})).await["conversations"]["conversations"].clone();
    let recents = |kind: u8| {
        let found = all
            .as_array()
            .unwrap()
            .iter()
            .find(|conversation| conversation["channelType"] == kind)
            .unwrap();
        found["recents"].as_array().unwrap().clone()
    };
    let (group, person) = (recents(2), recents(1));
    let encode =
        |parts: Value| json!(URL_SAFE_NO_PAD.encode(json!([1, "Message", parts]).to_string()));
    assert_eq!(
        group[0]["id"],
        encode(json!(["2", "team", group[0]["messageId"]]))
    );
    assert_eq!(
        person[0]["id"],
        encode(json!(["1", "3:annbob", person[0]["messageId"]]))
    );
    assert_eq!(
        person[1]["id"],
        encode(json!(["1", "3:annbob", person[1]["messageId"]]))
    );
    let query = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }";
    let ids = json!([group[0]["id"], person[0]["id"], person[1]["id"]]);
    let found: Vec<Value> = ids
        .as_array()
        .unwrap()
        .iter()
        .map(|id| json!({"id": id}))
        .collect();
    assert_eq!(
        server.graphql(query, json!({"ids": ids})).await["nodes"],
        json!(found)
    );
    // The ID of the same message in another channel finds nothing.
    let elsewhere = json!([
        encode(json!(["2", "other", group[0]["messageId"]])),
        encode(json!(["3", "team", group[0]["messageId"]]))
    ]);
    assert_eq!(
        server.graphql(query, json!({"ids": elsewhere})).await["nodes"],
        json!([null, null])
    );
    for old in [
        encode(json!([group[0]["messageId"]])),
        encode(json!(["1", "annbob", "1"])),
    ] {
        assert_eq!(
            server.graphql_code(query, json!({"ids": [old]})).await,
            "BAD_USER_INPUT",
            "{old}"
        );
    }
}

#[tokio::test]
async fn oversized_page_is_bad_user_input() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let message = "id messageId messageSeq fromUid content sentAt";
    for (query, argument) in [
        (
            format!(
                "{{ conversationList(uid: \"ann\", first: 300000) {{ nodes {{ recents {{ {message} }} }} }} }}"
            ),
            "first",
        ),
        (
            format!(
                "{{ conversationList(uid: \"ann\", last: 1001) {{ nodes {{ recents {{ {message} }} }} }} }}"
            ),
            "last",
        ),
        (
            format!(
                "{{ messages(uid: \"ann\", {}, first: 2000000000) {{ nodes {{ {message} }} }} }}",
                channel("bob", 1)
            ),
            "first",
        ),
        (
            format!(
                "{{ conversations(uid: \"ann\", first: 300000) {{ conversations {{ recents {{ {message} }} }} }} }}"
            ),
            "first",
        ),
        (
            format!(
                "{{ conversations(uid: \"ann\", msgCount: 300000) {{ conversations {{ recents {{ {message} }} }} }} }}"
            ),
            "msgCount",
        ),
        (
            format!(
                "{{ conversationList(uid: \"ann\", first: 9) {{ nodes {{ recents(last: 300000) {{ {message} }} }} }} }}"
            ),
            "last",
        ),
    ] {
        let answer = server.graphql_raw(&query, json!({})).await;
        assert_eq!(
            answer["errors"][0]["extensions"],
            json!({"argument": argument, "code": "BAD_USER_INPUT"}),
            "{query}: {answer}"
        );
    }
    let many = format!(
        "{{ conversationList(uid: \"ann\", first: 1000) {{ nodes {{ recents(last: 500) {{ {message} }} }} }} }}"
    );
    assert_eq!(
        server.graphql_code(&many, json!({})).await,
        "QUERY_TOO_COMPLEX"
    );
}

#[tokio::test]
async fn times_have_milliseconds_and_z() {
    let server = Server::start(Engine::Sqlite).await;
    for (ms, text) in [
        (1_795_393_000_000, "2026-11-23T00:16:40.000Z"),
        (1_795_393_001_120, "2026-11-23T00:16:41.120Z"),
        (1_795_393_002_007, "2026-11-23T00:16:42.007Z"),
    ] {
        server.set_clock(ms);
        server.send("bob", "ann", 1, text).await;
        let query = format!(
            "mutation {{ pinConversation(input: {{uid: \"ann\", {0}, pinned: true}}) {{ conversation {{ lastActivityAt pinnedAt
                recents(last: 1) {{ sentAt }} lastMessage {{ sentAt }} }} }}
                unpin: pinConversation(input: {{uid: \"ann\", {0}, pinned: false}}) {{ conversation {{ pinnedAt }} }} }}",
            channel("bob", 1)
        );
        let data =
            server.graphql(&query, json!({})).await["pinConversation"]["conversation"].clone();
        let time = json!({"sentAt": text});
        assert_eq!(
            data,
            json!({"lastActivityAt": text, "pinnedAt": text, "recents": [time], "lastMessage": time}),
            "{ms}"
        );
    }
}

#[tokio::test]
async fn surrogate_pairs_in_literals_are_one_character() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "😀", 1, "one").await;
    for uid in [
        r"\ud83d\ude00",
        r"\uD83D\uDE00",
        r"\u{1F600}",
        r"\u{01f600}",
        "😀",
    ] {
        let query = format!("{{ unreadSummary(uid: \"{uid}\") {{ total }} }}");
        assert_eq!(
            server.graphql(&query, json!({})).await,
            json!({"unreadSummary": {"total": 1}}),
            "{uid}"
        );
    }
    for uid in [
        r"\ud83d",
        r"\ude00",
        r"\ud83dx\ude00",
        r"\ude00\ud83d",
        r"\u{d83d}",
        r"\u{110000}",
        r"\u{}",
    ] {
        let answer = server
            .graphql_raw(
                &format!("{{ unreadSummary(uid: \"{uid}\") {{ total }} }}"),
                json!({}),
            )
            .await;
        let error = &answer["errors"][0];
        assert_eq!(
            error["extensions"]["code"], "GRAPHQL_PARSE_FAILED",
            "{uid}: {answer}"
        );
        assert_eq!(
            error["locations"],
            json!([{"line": 1, "column": 23}]),
            "{uid}: {answer}"
        );
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains(r"the escape \u"),
            "{uid}: {answer}"
        );
    }
}
