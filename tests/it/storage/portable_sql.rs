//! Every SQL statement that the server sends while every operation runs: none that TiDB,
//! CockroachDB or Vitess would refuse, or execute differently without an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use crate::support::operations::{SCENARIOS, TestChannel};
use crate::support::proxy::Proxy;
use crate::support::server::webhook_message;
use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server, TestDatabase};

/// SQL features that some engines lack, each with the reason why this server does not need it.
/// (TiDB lacks SKIP LOCKED; the server stops using it at its first refusal.)
const BANNED: [&str; 19] = [
    "RETURNING", // MySQL, TiDB, Vitess
    "WITH ",     // a common table expression that writes; one that reads is a subquery
    "ADVISORY",  // locks beside the rows: behind a pooler, or on another node, they lock nothing
    "GET_LOCK",
    "RELEASE_LOCK",
    "LOCK TABLE",
    "FOR UPDATE OF", // MySQL before 8
    "FOR SHARE",
    "NOWAIT",
    "MERGE ",
    "NEXTVAL", // sequences
    "SERIAL",
    "AUTO_INCREMENT",
    "TRIGGER",
    "REFERENCES", // foreign keys between shards
    "TEMPORARY",
    "LISTEN",
    "NOTIFY",
    "SAVEPOINT", // a rolled back part of a transaction: deadlocks roll back all of it on MySQL
];

async fn recorded_statements(engine: Engine) -> BTreeSet<String> {
    let database = Arc::new(TestDatabase::create(engine).await);
    let proxy = Proxy::before(&database).await;
    let server = Server::start_on(database, |settings| {
        settings.database.url = proxy.url.as_str().into()
    })
    .await;
    proxy.take_seen();
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        for (round, operation) in scenario.operations.iter().enumerate() {
            let test_channel = TestChannel {
                number: (100 * number + round) as i64,
                is_group: scenario.is_group,
            };
            let ann = test_channel.uid("ann");
            let mut devices = [Incremental::new(&ann), Incremental::in_pages(&ann, 1)];
            scenario.prepare(&server, &test_channel, &mut devices).await;
            test_channel
                .perform(&server, *operation, &mut devices[0])
                .await;
            for device in &mut devices {
                device.sync(&server).await;
            }
        }
    }
    let body = json!({"channel_id": "team", "channel_type": 2, "large": 1, "reset": 1, "subscribers": ["ann", "bob"]});
    server.call("/channel", body.clone()).await;
    server.call("/channel/subscriber_add", body).await;
    let batch: Vec<_> = (0..30)
        .map(|number| {
            webhook_message(
                "bob",
                ["team", "other", "third"][number % 3],
                2,
                30 - number as i64,
                9000 + number as i64,
            )
        })
        .collect();
    assert_eq!(server.notify(json!(batch)).await.status, 200);
    let mut offline = webhook_message("bob", "team", 2, 40, 9040);
    offline["to_uids"] = json!(["ann", "cid", "dan"]);
    assert_eq!(
        server
            .post("/webhook?event=msg.offline", offline.to_string())
            .await
            .status,
        200
    );
    server.sync(json!({"uid": "ann", "version": 5, "last_msg_seqs": "team:2:3", "msg_count": 3, "larges": [{"channel_id": "team", "channel_type": 2}]})).await;
    let screen = "{ conversations(uid: \"ann\", first: 2) { conversations { lastMessage { seq: messageSeq } recents(last: 3) { messageSeq } } }
        unreadSummary(uid: \"ann\") { total } conversation(uid: \"ann\", channel: {channelId: \"team\", channelType: 2}) { unread } }";
    server.graphql(screen, json!({})).await;
    for page in ["first: 2", "last: 2"] {
        let history = format!(
            "{{ messages(uid: \"ann\", channel: {{channelId: \"team\", channelType: 2}}, {page}) {{ edges {{ cursor }} }} }}"
        );
        server.graphql(&history, json!({})).await;
    }
    server.request(server.http("GET", "/readyz")).await;
    proxy.take_seen().into_iter().collect()
}

/// The statement without parameter numbers and list lengths.
fn form(statement: &str) -> String {
    let words = statement.split_whitespace().map(|word| {
        if word.contains(['$', '?']) {
            "…"
        } else {
            word
        }
    });
    let mut words: Vec<&str> = words.collect();
    words.dedup();
    words.join(" ")
}

async fn statements_are_portable(engine: Engine) {
    let forms: BTreeSet<String> = recorded_statements(engine)
        .await
        .iter()
        .map(|statement| form(statement))
        .collect();
    for statement in &forms {
        let text = statement.to_uppercase();
        let banned = BANNED.iter().find(|banned| text.contains(*banned));
        assert!(banned.is_none(), "{banned:?} in {statement}");
        // MariaDB lacks it; CockroachDB and YugabyteDB, which use PostgreSQL's protocol, have it.
        assert!(
            engine == Engine::Postgres || !text.contains("LATERAL"),
            "{statement}"
        );
        let verb = text.split(' ').next().unwrap();
        assert!(
            ["SELECT", "INSERT", "UPDATE", "BEGIN", "START", "COMMIT"].contains(&verb),
            "{statement}"
        );
        let locks = text.contains("FOR UPDATE");
        assert!(
            !locks || !text.contains("JOIN"),
            "one table is locked at a time, and read in a statement of its own: {statement}"
        );
        assert!(
            !locks || text.contains("ORDER BY"),
            "locks are taken in an order: {statement}"
        );
        assert!(
            !text.contains("NOT IN (…"),
            "what is left out stands in the text, or the plan is wrong: {statement}"
        );
        assert!(verb != "UPDATE" || text.contains(" WHERE "), "{statement}");
        // All engines with PostgreSQL's protocol support its array columns (CockroachDB,
        // YugabyteDB, Citus).
        let rows = text.replace(" SELECT * FROM …", "");
        assert!(
            verb != "INSERT" || !rows.contains("SELECT"),
            "rows are inserted as values, or as columns: {statement}"
        );
    }
    assert!(
        forms.len() > 25,
        "only {} statements were seen",
        forms.len()
    );
    println!("{engine:?}: {} different statements", forms.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    statements_are_portable(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    statements_are_portable(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql() {
    statements_are_portable(Engine::MySql).await;
}
