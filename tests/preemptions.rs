//! Every request stopped before each of its statements, and another one done in between, on another
//! server. Whatever comes out must be what one of the two orders would have given, and no device
//! may miss anything. Each mistake that the protocol's rules guard against (a read before the lock,
//! a cursor read after the rows, a mark taken without the channel's lock, …) breaks one of these
//! meetings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sea_orm::{ConnectionTrait, TransactionTrait};

use crate::clients::Incremental;
use crate::support::operations::{MEETINGS, Meeting, Operation, Stage};
use crate::support::proxy::{Fate, Pair, at_every_statement};
use crate::support::{Engine, OwnServers, Server, TestDatabase};

/// `one` is stopped before the statement after `passing` others, `other` is done, `one` goes on.
/// Whether there was a statement to stop before, and whether `other` could be done in the meantime
/// or waited for a lock.
async fn meet(
    pair: &Pair<'_>,
    number: i64,
    meeting: &Meeting,
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
    let stage = Stage {
        number,
        is_group: meeting.is_group,
    };
    let ann = stage.uid("ann");
    // The one that is stopped, one that looks meanwhile, one that looks afterwards, and one that
    // reads in pages.
    let mut devices = [
        Incremental::new(&ann),
        Incremental::new(&ann),
        Incremental::new(&ann),
        Incremental::in_pages(&ann, 1),
    ];
    let model = meeting.prepare(direct, &stage, &mut devices).await;
    let [stopped, meanwhile, ..] = &mut devices;

    proxy.plan(passing, Fate::Hold);
    let mut first = Box::pin(stage.perform(behind, one, stopped));
    let was_held = tokio::select! {
        () = &mut first => false,
        () = proxy.held() => true,
    };
    let mut was_done = false;
    if was_held {
        let mut second = Box::pin(async {
            stage.perform(direct, other, meanwhile).await;
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
        stage.perform(direct, other, meanwhile).await;
    }

    let name = format!(
        "{one:?} stopped before its statement {}, {other:?} in between",
        passing + 1
    );
    let mut orders = [[one, other], [other, one]].map(|order| {
        let mut model = model.clone();
        order
            .into_iter()
            .for_each(|operation| stage.apply(&mut model, operation));
        model
    });
    // What does not show counts all the same when the next message comes.
    for next in [None, Some(Operation::Hook("bob", 9))] {
        if let Some(next) = next {
            stage.perform(direct, next, &mut devices[0]).await;
            orders.iter_mut().for_each(|model| stage.apply(model, next));
        }
        let full = direct.full(&ann).await;
        let (shown, expected) = (
            stage.shown(&full),
            orders.each_ref().map(|model| stage.expected(model)),
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

/// Every two operations of every meeting, the first one behind a proxy before `node`. How often the
/// other one was done in between, and how often it waited for a lock.
async fn every_pair_at_every_statement(direct: &Server, node: &Arc<TestDatabase>) -> (u32, u32) {
    let pairs = MEETINGS.iter().flat_map(|meeting| {
        meeting.operations.iter().flat_map(move |one| {
            meeting
                .operations
                .iter()
                .map(move |other| (meeting, *one, *other))
        })
    });
    let (done, waited) = (AtomicU32::new(0), AtomicU32::new(0));
    at_every_statement(
        direct,
        node,
        pairs,
        async |pair, number, (meeting, one, other), passing| {
            let (was_held, was_done) = meet(pair, number, meeting, one, other, passing).await;
            done.fetch_add(u32::from(was_done), Ordering::Relaxed);
            waited.fetch_add(u32::from(was_held && !was_done), Ordering::Relaxed);
            assert!(
                was_held || passing > 0,
                "{one:?} in {meeting:?} asks the database for nothing"
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

/// A database on one node of a cluster, and the same on another.
async fn two_nodes(cluster: &OwnServers) -> (Arc<TestDatabase>, Arc<TestDatabase>) {
    let nodes: Vec<&str> = cluster.url("RECENTS_TEST_GALERA").split(' ').collect();
    let here = TestDatabase::create_on(Engine::MariaDb, nodes[0]).await;
    let there = here.on_node(nodes[1]);
    (Arc::new(here), Arc::new(there))
}

/// The two requests on two nodes that do not see each other's locks: nobody waits, one of the two
/// is rolled back and begun again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_of_a_galera_cluster() {
    let cluster = OwnServers::start(&["galera"]).await;
    let (here, there) = two_nodes(&cluster).await;
    let direct = Server::start_on(here, |_| {}).await;
    let (done, _) = every_pair_at_every_statement(&direct, &there).await;
    assert!(done > 1000, "{done} done");

    // In a small table, rows that a statement looks at and leaves alone stay unlocked: then nothing
    // but what both write to the channel's row tells the nodes that a late message and a deletion
    // have met.
    for (one, other) in [
        (Operation::Hook("bob", 2), Operation::Delete),
        (Operation::Delete, Operation::Hook("bob", 2)),
    ] {
        for passing in 0.. {
            let (here, there) = two_nodes(&cluster).await;
            let direct = Server::start_on(here, |_| {}).await;
            if !meet(
                &Pair::open(&direct, &there).await,
                0,
                &MEETINGS[1],
                one,
                other,
                passing,
            )
            .await
            .0
            {
                assert!(passing > 0);
                break;
            }
        }
    }
}

/// What was acknowledged on one node shows on another, which has not applied it yet: there a look
/// waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lags_behind_makes_readers_wait() {
    let cluster = OwnServers::start(&["galera"]).await;
    let (here, there) = two_nodes(&cluster).await;
    let writer = Server::start_on(here, |_| {}).await;
    let lock = there.connect().await.begin().await.unwrap();
    let reader = Server::start_on(there, |_| {}).await;
    for round in 0..10 {
        let (ann, bob) = (format!("ann-{round}"), format!("bob-{round}"));
        writer.send(&bob, &ann, 1, "one").await;
        let mut device = Incremental::new(&ann);
        device.sync(&reader).await;
        // The node takes part in the cluster, but applies nothing.
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
        assert_eq!(full[0]["last_msg_seq"], 2);
        device.must_hold_after(&full, &format!("round {round}"));
    }
}
