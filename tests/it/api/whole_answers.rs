//! Whole answers of both interfaces for the same small state: every field, with the same value on
//! every database. The fields of REST answers are in their order on the wire.

use serde_json::{Value, json};

use crate::support::server::webhook_message;
use crate::support::snapshots::assert_answer;
use crate::support::{Engine, Server};

on_every_database!(lists_and_history, changes_and_removals);

/// Fragments with every field of the types of a list.
const LIST: &str = "fragment list on Conversation {
    id channelId channelType unread lastActivityAt lastMsgSeq readSeq lastClientMsgNo version pinnedAt muted
    lastMessage { id } recents(last: 2) { ...stored }
}";
const STORED: &str = "fragment stored on Message {
    id messageId messageSeq clientMsgNo fromUid channelId channelType
    header { noPersist redDot syncOnce } setting topic sentAt expire payload content
}";
const SUMS: &str = "fragment sums on UnreadSummary {
    id total conversations mutedTotal mutedConversations
    byChannelType { channelType total conversations }
}";
const PAGE: &str = "fragment page on PageInfo {
    hasPreviousPage hasNextPage startCursor endCursor
}";

/// Ann has a muted group with two messages, of which one is unread, a pinned chat with a number of
/// unread messages that she set, and a chat in which she wrote last.
async fn start(engine: Engine) -> Server {
    let server = Server::start(engine).await;
    server.group("team", &["ann", "bob"]).await;
    let mut rich = webhook_message("bob", "team", 2, 2, 102);
    rich["header"]["red_dot"] = json!(0);
    rich["setting"] = json!(10);
    rich["topic"] = json!("plans");
    rich["expire"] = json!(3600);
    rich["payload"] = json!("bm90IEpTT04=");
    let messages = json!([
        webhook_message("bob", "team", 2, 1, 101),
        rich,
        webhook_message("dan", "ann", 1, 1, 201),
        webhook_message("eve", "ann", 1, 1, 301),
        webhook_message("ann", "eve", 1, 2, 302),
    ]);
    assert_eq!(server.notify(messages).await.status, 200);
    server.set_unread("ann", "dan", 1, 5).await;
    let change = "mutation ($team: MuteConversationInput!, $dan: PinConversationInput!) {
        muteConversation(input: $team) { conversation { id } }
        pinConversation(input: $dan) { conversation { id } }
    }";
    let input = |id: &str, channel_type: u8| json!({"uid": "ann", "channel": {"channelId": id, "channelType": channel_type}});
    let variables = json!({"team": input("team", 2), "dan": input("dan", 1)});
    server.graphql(change, variables).await;
    server
}

async fn lists_and_history(engine: Engine) {
    let server = start(engine).await;
    let sync = json!({"uid": "ann", "version": 0, "msg_count": 2});
    assert_answer(
        "rest_sync",
        "POST /conversation/sync, all conversations",
        &json!(server.sync(sync).await),
    );
    let query = format!(
        "{{ conversations(uid: \"ann\") {{
            version reset hasMore conversations {{ ...list }} removed {{ id }} unreadSummary {{ ...sums }}
        }} }} {LIST} {STORED} {SUMS}"
    );
    let answer = sorted(server.graphql(&query, json!({})).await);
    assert_answer("graphql_sync", "conversations, every field", &answer);
    let query = format!(
        "{{ conversationList(uid: \"ann\", first: 2) {{
            edges {{ cursor node {{ ...list }} }} pageInfo {{ ...page }} totalCount version
        }} unreadSummary(uid: \"ann\") {{ ...sums }} }} {LIST} {STORED} {SUMS} {PAGE}"
    );
    let answer = sorted(server.graphql(&query, json!({})).await);
    assert_answer("graphql_list", "conversationList, every field", &answer);
    let history = json!({
        "login_uid": "ann", "channel_id": "team", "channel_type": 2,
        "start_message_seq": 0, "end_message_seq": 0, "limit": 10, "pull_mode": 1,
    });
    assert_answer(
        "rest_history",
        "POST /channel/messagesync",
        &server.call("/channel/messagesync", history).await,
    );
    let query = format!(
        "{{ messages(uid: \"ann\", channel: {{channelId: \"team\", channelType: 2}}, last: 1) {{
            edges {{ cursor node {{ ...stored }} }} pageInfo {{ ...page }}
        }} }} {STORED} {PAGE}"
    );
    let answer = sorted(server.graphql(&query, json!({})).await);
    assert_answer("graphql_history", "messages, every field", &answer);
}

async fn changes_and_removals(engine: Engine) {
    let server = start(engine).await;
    let version = latest(&server).await;
    server.delete("ann", "dan", 1).await;
    server.set_unread("ann", "team", 2, 0).await;
    let query = "query ($version: UInt53) { conversations(uid: \"ann\", version: $version) {
        version reset hasMore conversations { id unread readSeq version }
        removed { id channelId channelType version } unreadSummary { total }
    } }";
    let answer = sorted(server.graphql(query, json!({"version": version})).await);
    assert_answer(
        "graphql_changes",
        "conversations after a version: one deleted, one read",
        &answer,
    );
    let sync = json!({"uid": "ann", "version": version, "msg_count": 1});
    assert_answer(
        "rest_changes",
        "POST /conversation/sync after a version: one deleted, one read",
        &json!(server.sync(sync).await),
    );
}

/// Sorts the fields of a GraphQL answer, which below the root are in the order of completion.
fn sorted(mut answer: Value) -> Value {
    answer.sort_all_objects();
    answer
}

async fn latest(server: &Server) -> i64 {
    let query = "{ conversations(uid: \"ann\") { version } }";
    let answer: Value = server.graphql(query, json!({})).await;
    answer["conversations"]["version"].as_i64().unwrap()
}

#[test]
fn every_file_has_a_test() {
    let source = include_str!("whole_answers.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/snapshots");
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let name = format!("\"{}\"", file.trim_end_matches(".snap"));
        assert!(source.contains(&name), "no test compares {file}");
    }
}
