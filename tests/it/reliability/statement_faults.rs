//! Every request, with each of its statements failing once: rolled back in favour of another
//! transaction, with the connection lost before the database received it, and with the connection
//! lost before the response. A request that was rolled back is retried and succeeds. A request
//! whose connection broke is done or refused with 503, and is done once when the client repeats it;
//! no restart is needed. On a Galera node a transaction may be rolled back silently: the server
//! notices and retries it. A COMMIT that fails without a rollback may have been done: the answer is
//! 503, and nothing is repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use crate::support::operations::{Operation, SCENARIOS, Scenario, TestChannel};
use crate::support::proxy::{Fate, Pair, at_every_statement, unclear_commits};
use crate::support::server::message;
use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server, TestDatabase, ThrowawayServers};

/// Messages of refusals: the outcome is unknown, or the request was not done.
const REFUSALS: [&str; 2] = [
    "the database did not confirm this, so its outcome is not known: repeating it is safe (for a message: with the same client_msg_no), \
     try again",
    "the database cannot be reached just now, try again",
];

/// Returns whether there was a statement to fail, and whether the request was refused.
async fn fail(
    pair: &Pair<'_>,
    number: i64,
    scenario: &Scenario,
    operation: Operation,
    passing: usize,
    fate: Fate,
) -> (bool, bool) {
    let Pair {
        direct,
        behind,
        proxy,
    } = pair;
    let direct: &Server = direct;
    let test_channel = TestChannel {
        number,
        is_group: scenario.is_group,
    };
    let ann = test_channel.uid("ann");
    let mut devices = [Incremental::new(&ann), Incremental::in_pages(&ann, 1)];
    let mut model = scenario.prepare(direct, &test_channel, &mut devices).await;
    let name = format!(
        "{operation:?} with {fate:?} at its statement {}",
        passing + 1
    );
    proxy.plan(passing, fate);
    let answer = test_channel.ask(behind, operation).await;
    let was_met = proxy.was_met();
    let was_refused = answer.status == 503;
    if was_refused {
        assert!(
            ![Fate::Deadlock, Fate::RolledBackSilently].contains(&fate),
            "{name}: it can be done again: {answer:?}"
        );
        assert!(
            REFUSALS.contains(&answer.msg().as_str()),
            "{name}: {answer:?}"
        );
        let again = test_channel.ask(behind, operation).await;
        assert_eq!(
            again.status, 200,
            "{name}: at once after it was refused: {again:?}"
        );
    } else {
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    assert!(
        !was_refused || was_met,
        "{name}: refused although nothing failed: {answer:?}"
    );
    if was_met && matches!(fate, Fate::UnclearCommit(_)) {
        assert_eq!(
            (answer.status, answer.msg().as_str()),
            (503, REFUSALS[0]),
            "{name}"
        );
    }

    test_channel.apply(&mut model, operation);
    let full = direct.full(&ann).await;
    assert_eq!(
        test_channel.shown(&full),
        test_channel.expected(&model),
        "{name}"
    );
    for device in &mut devices {
        device.sync(direct).await;
        device.must_hold_after(&full, &format!("after {name}"));
    }
    (was_met, was_refused)
}

/// Returns how many statements failed, and how many requests were refused.
async fn every_statement_fails_once(direct: &Server, fates: &[Fate]) -> (u32, u32) {
    let cases = SCENARIOS.iter().flat_map(|scenario| {
        let each = move |operation: &'static Operation| {
            fates.iter().map(move |fate| (scenario, *operation, *fate))
        };
        scenario.operations.iter().flat_map(each)
    });
    let (met, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    at_every_statement(
        direct,
        &direct.database,
        cases,
        async |pair, number, (scenario, operation, fate), passing| {
            let (was_met, was_refused) =
                fail(pair, number, scenario, operation, passing, fate).await;
            // Some operations commit nothing.
            let asks = was_met || passing > 0 || matches!(fate, Fate::UnclearCommit(_));
            assert!(
                asks,
                "{operation:?} in {scenario:?} asks the database for nothing"
            );
            met.fetch_add(u32::from(was_met), Ordering::Relaxed);
            refused.fetch_add(u32::from(was_refused), Ordering::Relaxed);
            was_met
        },
    )
    .await;
    let (met, refused) = (met.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!(
        "{}: {met} statements failed, {refused} requests were refused and asked again",
        direct.database.url
    );
    (met, refused)
}

async fn on_one_server(engine: Engine) {
    let fates = [Fate::Deadlock, Fate::CutBefore, Fate::CutAfter];
    let server = Server::start(engine).await;
    let (met, refused) = every_statement_fails_once(&server, &fates).await;
    assert!(
        met > 300 && refused > 100,
        "{met} failed, {refused} refused"
    );
    // One code of each kind; batches meet all of them below. A separate server, because the names
    // would be the same.
    let (met, refused) =
        every_statement_fails_once(&Server::start(engine).await, &unclear_commits(engine)[..3])
            .await;
    assert!(
        met > 80 && refused == met,
        "{met} commits were unclear, {refused} requests were refused"
    );
}

/// 16 concurrent sends without a client_msg_no, with one COMMIT that reports failure although it
/// was carried out: each message is stored at most once, and each acknowledged message is stored.
/// Returns the number of refused sends: those of one batch.
async fn sends_with_unknown_commit_outcome(
    pair: &Pair<'_>,
    channel: &str,
    passing: usize,
    fate: Fate,
) -> usize {
    const CLIENTS: usize = 16;
    const EACH: usize = 12;
    let members: Vec<String> = (0..CLIENTS).map(|client| format!("user{client}")).collect();
    pair.direct
        .group(
            channel,
            &members.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
    pair.proxy.plan(passing, fate);
    let clients = members.iter().map(async |member| {
        let mut answers = Vec::new();
        for count in 0..EACH {
            let mut body = message(member, channel, 2, &format!("{member} {count}"));
            body.as_object_mut().unwrap().remove("client_msg_no");
            answers.push((
                body["payload"].clone(),
                pair.behind.post("/message/send", body.to_string()).await,
            ));
        }
        answers
    });
    let answers: Vec<_> = futures_util::future::join_all(clients).await.concat();
    assert!(pair.proxy.was_met(), "{channel}");
    let history =
        json!({"login_uid": "user0", "channel_id": channel, "channel_type": 2, "limit": 10_000});
    let history = pair.direct.call("/channel/messagesync", history).await;
    let mut stored: HashMap<&str, usize> = HashMap::new();
    for message in history["messages"].as_array().unwrap() {
        *stored
            .entry(message["payload"].as_str().unwrap())
            .or_default() += 1;
    }
    for (sent, answer) in &answers {
        let rows = stored.remove(sent.as_str().unwrap()).unwrap_or_default();
        match answer.status {
            200 => assert_eq!(rows, 1, "{channel}: an acknowledged message"),
            503 => assert!(
                rows <= 1 && answer.msg() == REFUSALS[0],
                "{channel}: {rows} rows, {answer:?}"
            ),
            _ => panic!("{channel}: {answer:?}"),
        }
    }
    assert!(stored.is_empty(), "{channel}: {stored:?}");
    answers
        .iter()
        .filter(|(_, answer)| answer.status == 503)
        .count()
}

async fn batches_with_unknown_commit_outcome(engine: Engine) {
    let direct = Server::start(engine).await;
    let pair = Pair::open(&direct, &direct.database).await;
    for fate in unclear_commits(engine) {
        // Repeats until a batch has more than one send.
        let mut passing = 5;
        while sends_with_unknown_commit_outcome(
            &pair,
            &format!("{fate:?} {passing}"),
            passing,
            fate,
        )
        .await
            < 2
        {
            passing += 1;
            assert!(passing < 15, "{fate:?}: never a batch");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_batches() {
    batches_with_unknown_commit_outcome(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_batches() {
    batches_with_unknown_commit_outcome(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    on_one_server(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    on_one_server(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql() {
    on_one_server(Engine::MySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn galera_node() {
    let cluster = ThrowawayServers::start(&["galera"]).await;
    let (node, _) = cluster.url("RECENTS_TEST_GALERA").split_once(' ').unwrap();
    let database = Arc::new(TestDatabase::create_on(Engine::MariaDb, node).await);
    let direct = Server::start_on(database, |_| {}).await;
    let (met, _) = every_statement_fails_once(&direct, &[Fate::RolledBackSilently]).await;
    assert!(met > 100, "{met} rolled back");
}
