//! The number of SQL statements and rows that a request needs, and the indexes that it uses: none
//! of them depends on the amount of data.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::server::{message, webhook_message};
use crate::support::{Engine, TestDatabase};

on_every_database!(
    statement_count_is_constant,
    send_writes_the_same_rows_for_any_group,
    plans_use_the_indexes
);

/// Returns the number of SQL statements of one call.
async fn statements(server: &Process, path: &str, body: Value) -> u64 {
    let before = server.metric("recents_sql_statements_total").await;
    server.call(path, body).await;
    server.metric("recents_sql_statements_total").await - before
}

/// Creates one user with `groups` groups of `members` members and `messages` messages each.
async fn fill(server: &Process, uid: &str, groups: usize, members: usize, messages: i64) {
    static ID: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(1);
    for group in 0..groups {
        let id = format!("{uid}-{group}");
        let mut uids: Vec<String> = (1..members)
            .map(|number| format!("{id}-m{number}"))
            .collect();
        uids.push(uid.to_owned());
        server
            .call(
                "/channel",
                json!({"channel_id": id, "channel_type": 2, "subscribers": uids}),
            )
            .await;
        let body: Vec<Value> = (1..=messages)
            .map(|seq| {
                webhook_message(
                    "sender",
                    &id,
                    2,
                    seq,
                    ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
                )
            })
            .collect();
        server.call("/webhook?event=msg.notify", json!(body)).await;
    }
}

async fn statement_count_is_constant(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let server = Process::start(&database);
    let mut counts: Vec<BTreeSet<(String, u64)>> = Vec::new();
    for (uid, groups, members, messages) in [
        ("one", 1, 2, 1),
        ("ten", 10, 2, 2),
        ("some", 50, 3, 30),
        ("many", 500, 2, 3),
        ("big", 2, 1500, 60),
    ] {
        fill(&server, uid, groups, members, messages).await;
        let channel = format!("{uid}-0");
        let target = |more: Value| {
            let mut body = json!({"uid": uid, "channel_id": channel, "channel_type": 2});
            body.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            body
        };
        let mut these = BTreeSet::new();
        let mut count = async |name: &str, path: &str, body: Value| {
            these.insert((name.to_owned(), statements(&server, path, body).await));
        };
        count(
            "first sync",
            "/conversation/sync",
            json!({"uid": uid, "msg_count": 20}),
        )
        .await;
        count(
            "full sync",
            "/conversation/sync",
            json!({"uid": uid, "msg_count": 20}),
        )
        .await;
        let answer = server
            .call("/conversation/sync", json!({"uid": uid, "msg_count": 1}))
            .await;
        let version = answer
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["version"].as_i64().unwrap())
            .max()
            .unwrap();
        count(
            "nothing changed",
            "/conversation/sync",
            json!({"uid": uid, "version": version, "msg_count": 20}),
        )
        .await;
        count(
            "send",
            "/message/send",
            message("sender", &channel, 2, "s1"),
        )
        .await;
        count(
            "repeated send",
            "/message/send",
            message("sender", &channel, 2, "s1"),
        )
        .await;
        count(
            "one changed",
            "/conversation/sync",
            json!({"uid": uid, "version": version, "msg_count": 20}),
        )
        .await;
        count(
            "setUnread",
            "/conversations/setUnread",
            target(json!({"unread": 7})),
        )
        .await;
        let screen = "query ($uid: ID) { conversations(uid: $uid, msgCount: 5) { conversations { unread lastMessage { content } recents(last: 3) { id } } unreadSummary { total } } }";
        count(
            "screen",
            "/graphql",
            json!({"query": screen, "variables": {"uid": uid}}),
        )
        .await;
        let list = "query ($uid: ID) { conversationList(uid: $uid, first: 50) { totalCount nodes { unread lastMessage { content } recents(last: 3) { id } } } unreadSummary(uid: $uid) { total } }";
        count(
            "list screen",
            "/graphql",
            json!({"query": list, "variables": {"uid": uid}}),
        )
        .await;
        let ids = "query ($uid: ID) { conversationList(uid: $uid, first: 50) { nodes { id lastMessage { id } } } }";
        let ids = server
            .call("/graphql", json!({"query": ids, "variables": {"uid": uid}}))
            .await;
        let nodes = ids["data"]["conversationList"]["nodes"].as_array().unwrap();
        let ids: Vec<&Value> = nodes
            .iter()
            .flat_map(|node| [&node["id"], &node["lastMessage"]["id"]])
            .collect();
        let node = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }";
        count(
            "nodes",
            "/graphql",
            json!({"query": node, "variables": {"ids": ids}}),
        )
        .await;
        let input = json!({"uid": uid, "channel": {"channelId": channel, "channelType": 2}});
        let pin = "mutation ($input: PinConversationInput!) { pinConversation(input: $input) { conversation { id } } }";
        count(
            "pin",
            "/graphql",
            json!({"query": pin, "variables": {"input": input}}),
        )
        .await;
        let mark = "mutation ($uid: ID!) { markAllRead(input: {uid: $uid}) { conversations { id } unreadSummary { total } } }";
        count(
            "mark all read",
            "/graphql",
            json!({"query": mark, "variables": {"uid": uid}}),
        )
        .await;
        count("delete", "/conversations/delete", target(json!({}))).await;
        counts.push(these);
    }
    for (these, uid) in counts[2..].iter().zip(["some", "many", "big"]) {
        assert_eq!(these, &counts[1], "statements for {uid}, and for ten");
    }
    // A single object is found by its name in one statement, several objects in two.
    for ((name, one), (_, several)) in counts[0].iter().zip(&counts[1]) {
        assert!(
            one == several || (name == "nodes" && one + 1 == *several),
            "{name}: {one} for one, {several} for several"
        );
    }
    println!("{engine:?}: {:?}", counts[1]);
    let most = counts[1].iter().map(|(_, count)| *count).max().unwrap();
    assert!(most <= 8, "{counts:?}");
}

async fn count_rows(connection: &DatabaseConnection) -> i64 {
    let mut rows = 0;
    for table in [
        "channel",
        "message",
        "sender_mark",
        "late_message",
        "conversation",
        "user_cursor",
    ] {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        let row = connection
            .query_one_raw(Statement::from_string(
                connection.get_database_backend(),
                sql,
            ))
            .await
            .unwrap()
            .unwrap();
        rows += row.try_get_by_index::<i64>(0).unwrap();
    }
    rows
}

/// Returns the rows as text, to find the conversations that differ.
async fn conversation_rows(connection: &DatabaseConnection) -> BTreeSet<String> {
    let sql = "SELECT uid, channel_id, read_seq, read_mark, marked_revision, deleted_to_seq, joined_seq, version, stamped_revision FROM conversation";
    let rows = connection
        .query_all_raw(Statement::from_string(
            connection.get_database_backend(),
            sql,
        ))
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            let numbers: Vec<i64> = (1..9)
                .map(|index| row.try_get_by_index(index).unwrap())
                .collect();
            format!("{} {numbers:?}", row.try_get_by_index::<String>(0).unwrap())
        })
        .collect()
}

async fn send_writes_the_same_rows_for_any_group(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let server = Process::start(&database);
    let connection = database.connect().await;
    let mut written = Vec::new();
    for (channel, members) in [("two", 2), ("many", 10_000)] {
        let uids: Vec<String> = (0..members)
            .map(|number| format!("{channel}-{number}"))
            .collect();
        server
            .call(
                "/channel",
                json!({"channel_id": channel, "channel_type": 2, "subscribers": uids}),
            )
            .await;
        let before = (
            count_rows(&connection).await,
            conversation_rows(&connection).await,
        );
        server
            .call("/message/send", message(&uids[0], channel, 2, "hello"))
            .await;
        let after = (
            count_rows(&connection).await,
            conversation_rows(&connection).await,
        );
        // New rows, changed conversations, and the channel's row.
        let changed = after.1.difference(&before.1).count() as i64;
        written.push((after.0 - before.0, changed));
        assert_eq!(
            server
                .call("/conversation/sync", json!({"uid": uids[members - 1]}))
                .await[0]["unread"],
            1,
            "{channel}"
        );
    }
    println!("{engine:?}: (new rows, changed conversations) {written:?}, and one channel each");
    assert_eq!(written[0], written[1]);
    // The message and its sender's mark; nothing that belongs to a reader.
    assert_eq!(written[0], (2, 0));
}

async fn explain(connection: &DatabaseConnection, engine: Engine, sql: &str) -> String {
    let prefix = match engine {
        Engine::Sqlite => "EXPLAIN QUERY PLAN ",
        // MySQL's traditional table format, because its current default is a tree. MariaDB has only
        // the table.
        Engine::MySql => "EXPLAIN FORMAT=TRADITIONAL ",
        _ => "EXPLAIN ",
    };
    let rows = connection
        .query_all_raw(Statement::from_string(
            connection.get_database_backend(),
            format!("{prefix}{sql}"),
        ))
        .await
        .unwrap();
    let mut lines = Vec::new();
    for row in rows {
        match engine {
            Engine::Sqlite => lines.push(row.try_get::<String>("", "detail").unwrap()),
            Engine::Postgres => lines.push(row.try_get_by_index::<String>(0).unwrap()),
            Engine::MariaDb | Engine::MySql => lines.push(
                ["table", "type", "key", "key_len", "rows"]
                    .map(|name| {
                        row.try_get::<Option<String>>("", name)
                            .ok()
                            .flatten()
                            .or_else(|| {
                                row.try_get::<Option<u64>>("", name)
                                    .ok()
                                    .flatten()
                                    .map(|number| number.to_string())
                            })
                            .unwrap_or_default()
                    })
                    .join(" "),
            ),
        }
    }
    lines.join("\n")
}

/// Explains the statements of the hot path, as the store builds them, on a filled database.
async fn plans_use_the_indexes(engine: Engine) {
    let database = TestDatabase::create(engine).await;
    let server = Process::start(&database);
    fill(&server, "ann", 40, 3, 60).await;
    fill(&server, "crowd", 1, 3000, 400).await;
    fill(&server, "busy", 400, 2, 2).await;
    let connection = database.connect().await;
    // Forty times as many messages, so that reading all of them costs more than any index.
    for (times, step) in [(4, 1), (10, 10)] {
        let numbers = (1..times)
            .map(|number| format!("SELECT {} AS k", number * step))
            .collect::<Vec<_>>()
            .join(" UNION ALL ");
        let sql = format!(
            "INSERT INTO message (channel_id, seq, message_id, client_msg_no, from_uid, payload)
             SELECT channel_id, seq + 100000 * k, message_id + 10000000 * k, client_msg_no, from_uid, payload
             FROM message CROSS JOIN ({numbers}) AS n"
        );
        connection.execute_unprepared(&sql).await.unwrap();
    }
    // As many late messages as a channel with an unreliable feeder may have.
    let sql = "INSERT INTO late_message (channel_id, revision, seq) SELECT channel_id, seq, seq FROM message WHERE seq < 2000";
    connection.execute_unprepared(sql).await.unwrap();
    // SQLite has no table statistics unless ANALYZE runs, and nothing runs it.
    if engine != Engine::Sqlite {
        let analyze = if engine.is_mysql_like() {
            "ANALYZE TABLE channel, message, sender_mark, late_message, conversation, user_cursor"
        } else {
            "ANALYZE"
        };
        connection.execute_unprepared(analyze).await.unwrap();
    }
    if engine == Engine::Sqlite {
        let sql = "SELECT sql FROM sqlite_master WHERE name = 'message'";
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await.unwrap().unwrap();
        let table: String = row.try_get_by_index(0).unwrap();
        assert!(
            !table.contains("WITHOUT ROWID"),
            "reading a seq or a length reads the whole payload as well: {table}"
        );
    }
    let mut ids = Vec::new();
    for key in ["crowd-0", "ann-0"] {
        let sql =
            format!("SELECT id FROM channel WHERE channel_type = 2 AND channel_key = '{key}'");
        let row = connection
            .query_one_raw(Statement::from_string(
                connection.get_database_backend(),
                sql,
            ))
            .await
            .unwrap()
            .unwrap();
        ids.push(row.try_get_by_index::<i64>(0).unwrap());
    }
    let statements =
        recents::store::hot_statements(connection.get_database_backend(), "ann", ids[0], ids[1]);
    assert!(statements.len() >= 9);
    for (name, sql, forbidden) in statements {
        let plan = explain(&connection, engine, &sql).await;
        for table in forbidden {
            let scans = match engine {
                Engine::Sqlite => plan
                    .lines()
                    .any(|line| format!("{line} ").contains(&format!("SCAN {table} "))),
                Engine::Postgres => plan.contains(&format!("Seq Scan on {table} ")),
                Engine::MariaDb | Engine::MySql => plan.lines().any(|line| {
                    line.starts_with(&format!("{table} ALL "))
                        || line.starts_with(&format!("{table} index "))
                }),
            };
            assert!(
                !scans,
                "{name} reads all of {table} on {engine:?}:\n{plan}\n{sql}"
            );
        }
        // Reads some messages of the channel, not all.
        assert!(
            name != "a repeated send" || plan.contains("message_client_msg_no"),
            "{name} on {engine:?}:\n{plan}\n{sql}"
        );
        if name.starts_with("several conversations") {
            // Reads only the requested conversations, not all of the user or of the channel.
            let by_key = |line: &str| match engine {
                Engine::MariaDb | Engine::MySql => line.starts_with("c eq_ref PRIMARY"),
                _ => [
                    "uid",
                    "channel_id",
                    if engine == Engine::Sqlite {
                        "SEARCH c"
                    } else {
                        "Index Cond"
                    },
                ]
                .iter()
                .all(|part| line.contains(part)),
            };
            assert!(
                plan.lines().any(by_key),
                "{name} does not look up each conversation:\n{plan}\n{sql}"
            );
        }
    }
}
