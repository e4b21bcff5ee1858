//! Every request with each of its statements failing once: rolled back for another transaction, the connection gone before the
//! database saw it, the connection gone before the answer came. A request that was rolled back is done all the same; one whose
//! connection broke is done or refused with 503, and done once when it is asked for again; nobody needs a restart. On a node of a
//! cluster a transaction may be rolled back without a word: that is noticed, and it is done all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::clients::Incremental;
use crate::support::operations::{MEETINGS, Meeting, Operation, Stage};
use crate::support::proxy::{Fate, Pair, at_every_statement};
use crate::support::{Engine, OwnServers, Server, TestDatabase};

/// Whether there was a statement to fail, and whether the request was refused.
async fn fail(pair: &Pair<'_>, number: i64, meeting: &Meeting, operation: Operation, passing: usize, fate: Fate) -> (bool, bool) {
    let Pair { direct, behind, proxy } = pair;
    let direct: &Server = direct;
    let stage = Stage { number, is_group: meeting.is_group };
    let ann = stage.uid("ann");
    let mut devices = [Incremental::new(&ann), Incremental::in_pages(&ann, 1)];
    let mut model = meeting.prepare(direct, &stage, &mut devices).await;
    let name = format!("{operation:?} with {fate:?} at its statement {}", passing + 1);
    proxy.plan(passing, fate);
    let answer = stage.ask(behind, operation).await;
    let was_met = proxy.was_met();
    let was_refused = answer.status == 503;
    if was_refused {
        assert!(![Fate::Deadlock, Fate::RolledBackSilently].contains(&fate), "{name}: it can be done again: {answer:?}");
        assert_eq!(answer.msg(), "the database cannot be reached just now, try again", "{name}");
        let again = stage.ask(behind, operation).await;
        assert_eq!(again.status, 200, "{name}: at once after it was refused: {again:?}");
    } else {
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    assert!(!was_refused || was_met, "{name}: refused although nothing failed: {answer:?}");

    stage.apply(&mut model, operation);
    let full = direct.full(&ann).await;
    assert_eq!(stage.shown(&full), stage.expected(&model), "{name}");
    for device in &mut devices {
        device.sync(direct).await;
        device.must_hold_after(&full, &format!("after {name}"));
    }
    (was_met, was_refused)
}

/// How often a statement failed, and how often a request was refused.
async fn every_statement_fails_once(direct: &Server, fates: &[Fate]) -> (u32, u32) {
    let cases = MEETINGS.iter().flat_map(|meeting| {
        let each = move |operation: &'static Operation| fates.iter().map(move |fate| (meeting, *operation, *fate));
        meeting.operations.iter().flat_map(each)
    });
    let (met, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    at_every_statement(direct, &direct.database, cases, async |pair, number, (meeting, operation, fate), passing| {
        let (was_met, was_refused) = fail(pair, number, meeting, operation, passing, fate).await;
        met.fetch_add(u32::from(was_met), Ordering::Relaxed);
        refused.fetch_add(u32::from(was_refused), Ordering::Relaxed);
        was_met
    })
    .await;
    let (met, refused) = (met.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!("{}: {met} statements failed, {refused} requests were refused and asked again", direct.database.url);
    (met, refused)
}

async fn on_one_server(engine: Engine) {
    let fates = [Fate::Deadlock, Fate::CutBefore, Fate::CutAfter];
    let (met, refused) = every_statement_fails_once(&Server::start(engine).await, &fates).await;
    assert!(met > 300 && refused > 100, "{met} failed, {refused} refused");
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
async fn a_node_of_a_galera_cluster() {
    let cluster = OwnServers::start(&["galera"]).await;
    let (node, _) = cluster.url("RECENTS_TEST_GALERA").split_once(' ').unwrap();
    let database = Arc::new(TestDatabase::create_on(Engine::MariaDb, node).await);
    let direct = Server::start_on(database, |_| {}).await;
    let (met, _) = every_statement_fails_once(&direct, &[Fate::RolledBackSilently]).await;
    assert!(met > 100, "{met} rolled back");
}
