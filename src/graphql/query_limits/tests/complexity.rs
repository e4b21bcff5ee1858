use serde_json::json;

use crate::config::Limits;
use crate::graphql::query_limits::complexity::CostCalculator;
use crate::graphql::query_limits::schema_info::{FRESH_LIST_READ_COST, LIST_READ_COST};

#[test]
fn pages_multiply_the_cost_of_their_entries() {
    let complexity = |document: &str, variables: serde_json::Value| {
        let parsed = async_graphql::parser::parse_query(document).unwrap();
        CostCalculator::of(&parsed, variables.as_object(), &Limits::default())
            .unwrap()
            .complexity
    };
    for (document, variables, expected) in [
        (
            "{conversationList(first: 50) {nodes {id unread}}}",
            json!({}),
            LIST_READ_COST + 50 * 3 + 1,
        ),
        (
            "{conversationList(last: 3) {nodes {recents(last: 4) {id}}}}",
            json!({}),
            LIST_READ_COST + 3 * (4 + 4 + 1 + 1) + 1,
        ),
        (
            "{conversationList {nodes {id}}}",
            json!({}),
            LIST_READ_COST + 20 * 2 + 1,
        ),
        (
            "query ($n: Int) {messages(first: $n) {nodes {id}}}",
            json!({"n": 7}),
            7 * 3 + 1,
        ),
        (
            "query ($n: Int = 9) {messages(first: $n) {nodes {id}}}",
            json!({}),
            9 * 3 + 1,
        ),
        (
            "query ($n: Int = 9) {messages(first: $n) {nodes {id}}}",
            json!({"n": null}),
            20 * 3 + 1,
        ),
        (
            "{conversations {version}}",
            json!({}),
            LIST_READ_COST + 100 + 1,
        ),
        (
            "{conversations(first: 2, msgCount: 30) {conversations {recents {id}}}}",
            json!({}),
            LIST_READ_COST + 2 * (30 + 30 + 1 + 1) + 1,
        ),
        ("{nodes(ids: [1, 2, 3]) {id}}", json!({}), 3 + 3 + 3 + 1),
        (
            "query ($ids: [ID!]!) {nodes(ids: $ids) {...f}} fragment f on Node {id}",
            json!({"ids": [1, 2]}),
            2 + 2 + 2 + 1,
        ),
        (
            "{a: unreadSummary {total} b: unreadSummary {total}}",
            json!({}),
            2 * (LIST_READ_COST + 2),
        ),
        // A number out of range is refused by the resolver and reads nothing.
        ("{messages(first: -1) {nodes {id}}}", json!({}), 1),
        (
            "{messages(first: 1000) {nodes {id}}}",
            json!({}),
            1000 * 3 + 1,
        ),
        ("{messages(first: 1001) {nodes {id}}}", json!({}), 1),
        (
            "{conversationList(first: 2) {nodes {recents(last: 501) {id}}}}",
            json!({}),
            LIST_READ_COST + 2 * 2 + 1,
        ),
        (
            "{conversations(first: 2, msgCount: 501) {conversations {recents {id}}}}",
            json!({}),
            LIST_READ_COST + 2 * (20 + 20 + 1 + 1) + 1,
        ),
        (
            "{messages(first: 99999999999999999999999) {nodes {id}}}",
            json!({}),
            1,
        ),
        (
            "query A {conversationList(first: 9) {totalCount}} query B {unreadSummary {total}}",
            json!({}),
            LIST_READ_COST + 10,
        ),
        // Lists in arguments count wherever they are.
        (
            "{conversations(first: 0, lastMsgSeqs: \"a:1:1|b:1:1\") {version}}",
            json!({}),
            LIST_READ_COST + 2 + 1,
        ),
        (
            "query ($l: String) {conversations(first: 0, lastMsgSeqs: $l) {version}}",
            json!({"l": "a|b|c"}),
            LIST_READ_COST + 3 + 1,
        ),
        (
            "query ($l: [Int!]) {conversations(first: 0, excludeChannelTypes: $l) {version}}",
            json!({"l": [1, 2]}),
            LIST_READ_COST + 2 + 1,
        ),
        (
            "mutation ($i: I!) {addMembers(input: $i) {channel {id}}}",
            json!({"i": {"uids": ["a", "b", "c"]}}),
            3 + 2 + 1,
        ),
        (
            "mutation ($u: [ID!]!) {addMembers(input: {uids: $u}) {channel {id}}}",
            json!({"u": ["a", "b"]}),
            2 + 2 + 1,
        ),
        (
            "mutation {setUnread(input: {}) {unreadSummary {total}}}",
            json!({}),
            FRESH_LIST_READ_COST + 2 + 1,
        ),
        (
            "mutation {markAllRead(input: {}) {unreadSummary {total}}}",
            json!({}),
            2 * FRESH_LIST_READ_COST + 2 + 1,
        ),
        (
            "{conversationList(first: 5) {nodes {lastMessage {id}}}}",
            json!({}),
            LIST_READ_COST + 5 * (2 + 1 + 1) + 1,
        ),
    ] {
        assert_eq!(complexity(document, variables), expected, "{document}");
    }
    let nested = "{__schema{types".to_owned()
        + &"{fields{type".repeat(8)
        + "{name}"
        + &"}}".repeat(8)
        + "}}";
    assert!(complexity(&nested, json!({})) > Limits::default().document_complexity);
}
