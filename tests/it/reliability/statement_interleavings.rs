//! Every request is stopped before each of its statements while another request runs on another
//! server. The result must be that of one of the two orders, and no device may miss a change. Each
//! mistake that the protocol's rules prevent (a read before the lock, a cursor read after the rows,
//! a mark taken without the channel's lock, …) breaks one of these scenarios.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sea_orm::{ConnectionTrait, TransactionTrait};

use crate::support::operations::{Operation, SCENARIOS, Scenario, TestChannel};
use crate::support::proxy::{Fate, Pair, at_every_statement};
use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server, TestDatabase, ThrowawayServers};

/// Stops `one` before the statement after `passing` others, runs `other`, and continues `one`.
/// Returns whether there was a statement to stop at, and whether `other` finished in the meantime
/// instead of waiting for a lock.
async fn interleave(
    pair: &Pair<'_>,
    number: i64,
    scenario: &Scenario,
    one: Operation,
    other: Operation,
    passing: usize,
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
    // The device of the stopped request, one that syncs meanwhile, one that syncs afterwards, and
    // one that reads in pages.
    let mut devices = [
        Incremental::new(&ann),
        Incremental::new(&ann),
        Incremental::new(&ann),
        Incremental::in_pages(&ann, 1),
    ];
    let model = scenario.prepare(direct, &test_channel, &mut devices).await;
    let [stopped, meanwhile, ..] = &mut devices;

    proxy.plan(passing, Fate::Hold);
    let mut first = Box::pin(test_channel.perform(behind, one, stopped));
    let was_held = tokio::select! {
        () = &mut first => false,
        () = proxy.held() => true,
    };
    let mut was_done = false;
    if was_held {
        let mut second = Box::pin(async {
            test_channel.perform(direct, other, meanwhile).await;
            meanwhile.sync(direct).await;
        });
        was_done = tokio::time::timeout(Duration::from_millis(60), &mut second)
            .await
            .is_ok();
        proxy.release();
        if was_done {
            first.await
        } else {
            let _ = tokio::join!(first, second);
        }
    } else {
        drop(first);
        assert!(!proxy.was_met());
        test_channel.perform(direct, other, meanwhile).await;
    }

    let name = format!(
        "{one:?} stopped before its statement {}, {other:?} in between",
        passing + 1
    );
    let mut orders = [[one, other], [other, one]].map(|order| {
        let mut model = model.clone();
        order
            .into_iter()
            .for_each(|operation| test_channel.apply(&mut model, operation));
        model
    });
    // Wrong values that are not visible yet become visible with the next message.
    for next in [None, Some(Operation::Hook("bob", 9))] {
        if let Some(next) = next {
            test_channel.perform(direct, next, &mut devices[0]).await;
            orders
                .iter_mut()
                .for_each(|model| test_channel.apply(model, next));
        }
        let full = direct.full(&ann).await;
        let (shown, expected) = (
            test_channel.shown(&full),
            orders.each_ref().map(|model| test_channel.expected(model)),
        );
        assert!(
            expected.contains(&shown),
            "{name}, then {next:?}: {shown:?}, but the two orders give {expected:?}"
        );
        for (number, device) in devices.iter_mut().enumerate() {
            device.sync(direct).await;
            device.must_hold_after(
                &full,
                &format!("after {name}, then {next:?}: device {number}"),
            );
        }
    }
    (was_held, was_done)
}

/// Runs every pair of operations of every scenario, the first one through a proxy to `node`.
/// Returns how often the other one finished in between, and how often it waited for a lock.
async fn every_pair_at_every_statement(direct: &Server, node: &Arc<TestDatabase>) -> (u32, u32) {
    let pairs = SCENARIOS.iter().flat_map(|scenario| {
        scenario.operations.iter().flat_map(move |one| {
            scenario
                .operations
                .iter()
                .map(move |other| (scenario, *one, *other))
        })
    });
    let (done, waited) = (AtomicU32::new(0), AtomicU32::new(0));
    at_every_statement(
        direct,
        node,
        pairs,
        async |pair, number, (scenario, one, other), passing| {
            let (was_held, was_done) =
                interleave(pair, number, scenario, one, other, passing).await;
            done.fetch_add(u32::from(was_done), Ordering::Relaxed);
            waited.fetch_add(u32::from(was_held && !was_done), Ordering::Relaxed);
            assert!(
                was_held || passing > 0,
                "{one:?} in {scenario:?} asks the database for nothing"
            );
            was_held
        },
    )
    .await;
    let (done, waited) = (done.into_inner(), waited.into_inner());
    println!(
        "{}: {done} times the other one was done in between, {waited} times it waited for a lock",
        node.url
    );
    (done, waited)
}

async fn on_one_server(engine: Engine) {
    let direct = Server::start(engine).await;
    let (done, waited) = every_pair_at_every_statement(&direct, &direct.database).await;
    assert!(done > 300 && waited > 100, "{done} done, {waited} waited");
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

/// Returns a database on one node of a cluster, and the same database on another node.
async fn two_nodes(cluster: &ThrowawayServers) -> (Arc<TestDatabase>, Arc<TestDatabase>) {
    let nodes: Vec<&str> = cluster.url("RECENTS_TEST_GALERA").split(' ').collect();
    let here = TestDatabase::create_on(Engine::MariaDb, nodes[0]).await;
    let there = here.on_node(nodes[1]);
    (Arc::new(here), Arc::new(there))
}

/// Two requests on two nodes, which do not see each other's locks: neither waits, and one of the
/// two is rolled back and retried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_of_a_galera_cluster() {
    let cluster = ThrowawayServers::start(&["galera"]).await;
    let (here, there) = two_nodes(&cluster).await;
    let direct = Server::start_on(here, |_| {}).await;
    let (done, _) = every_pair_at_every_statement(&direct, &there).await;
    assert!(done > 1000, "{done} done");

    // In a small table, rows that a statement reads without changing stay unlocked. Then only the
    // channel's row, which both write, tells the nodes that a late message and a deletion conflict.
    for (one, other) in [
        (Operation::Hook("bob", 2), Operation::Delete),
        (Operation::Delete, Operation::Hook("bob", 2)),
    ] {
        for passing in 0.. {
            let (here, there) = two_nodes(&cluster).await;
            let direct = Server::start_on(here, |_| {}).await;
            if !interleave(
                &Pair::open(&direct, &there).await,
                0,
                &SCENARIOS[1],
                one,
                other,
                passing,
            )
            .await
            .0
            {
                assert!(passing > 0, "{one:?} and {other:?}");
                break;
            }
        }
    }
}

/// A write that was acknowledged on one node is visible on another node that has not applied it
/// yet: a sync waits there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lagging_galera_node_makes_readers_wait() {
    let cluster = ThrowawayServers::start(&["galera"]).await;
    let (here, there) = two_nodes(&cluster).await;
    let writer = Server::start_on(here, |_| {}).await;
    let lock = there.connect().await.begin().await.unwrap();
    let reader = Server::start_on(there, |_| {}).await;
    for round in 0..10 {
        let (ann, bob) = (format!("ann-{round}"), format!("bob-{round}"));
        writer.send(&bob, &ann, 1, "one").await;
        let mut device = Incremental::new(&ann);
        device.sync(&reader).await;
        // The node is part of the cluster, but applies nothing.
        lock.execute_unprepared("FLUSH TABLES WITH READ LOCK")
            .await
            .unwrap();
        writer.send(&bob, &ann, 1, "two").await;
        let mut look = Box::pin(device.sync(&reader));
        let early = tokio::time::timeout(Duration::from_millis(500), &mut look).await;
        assert!(
            early.is_err(),
            "round {round}: an answer of a node that lacks what was acknowledged"
        );
        lock.execute_unprepared("UNLOCK TABLES").await.unwrap();
        look.await;
        let full = writer.full(&ann).await;
        assert_eq!(full[0]["last_msg_seq"], 2, "round {round}: {full:?}");
        device.must_hold_after(&full, &format!("round {round}"));
    }
}
