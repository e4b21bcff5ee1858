//! Every request stopped before each of its statements, and another one done in between, on another server. Whatever comes out
//! must be what one of the two orders would have given, and no device may miss anything. Each mistake that the protocol's rules
//! guard against (a read before the lock, a cursor read after the rows, a mark taken without the channel's lock, …) breaks one
//! of these meetings.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use crate::clients::Incremental;
use crate::support::operations::{MEETINGS, Meeting, Operation, Stage};
use crate::support::proxy::{Fate, Pair};
use crate::support::{Engine, Server};

/// So many pairs at once.
const LANES: usize = 4;

/// `one` is stopped before the statement after `passing` others, `other` is done, `one` goes on. Whether there was a statement
/// to stop before, and whether `other` could be done in the meantime or waited for a lock.
async fn meet(pair: &Pair<'_>, number: i64, meeting: &Meeting, one: Operation, other: Operation, passing: usize) -> (bool, bool) {
    let Pair { direct, behind, proxy } = pair;
    let direct: &Server = direct;
    let stage = Stage { number, is_group: meeting.is_group };
    let ann = stage.uid("ann");
    // The one that is stopped, one that looks meanwhile, one that looks afterwards, and one that reads in pages.
    let mut devices = [Incremental::new(&ann), Incremental::new(&ann), Incremental::new(&ann), Incremental::in_pages(&ann, 1)];
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
        was_done = tokio::time::timeout(Duration::from_millis(60), &mut second).await.is_ok();
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

    let full = direct.full(&ann).await;
    let orders = [[one, other], [other, one]].map(|order| {
        let mut model = model.clone();
        order.into_iter().for_each(|operation| stage.apply(&mut model, operation));
        stage.expected(&model)
    });
    let shown = stage.shown(&full);
    let name = format!("{one:?} stopped before its statement {}, {other:?} in between", passing + 1);
    assert!(orders.contains(&shown), "{name}: {shown:?}, but the two orders give {orders:?}");
    for (number, device) in devices.iter_mut().enumerate() {
        device.sync(direct).await;
        device.must_hold_after(&full, &format!("after {name}: device {number}"));
    }
    (was_held, was_done)
}

async fn every_pair_at_every_statement(engine: Engine) {
    let direct = &Server::start(engine).await;
    let pairs = MEETINGS.iter().flat_map(|meeting| {
        meeting.operations.iter().flat_map(move |one| meeting.operations.iter().map(move |other| (meeting, *one, *other)))
    });
    let pairs = &std::sync::Mutex::new(pairs);
    let (number, done, waited) = (&AtomicI64::new(0), &AtomicU32::new(0), &AtomicU32::new(0));
    let lanes = (0..LANES).map(|_| async move {
        let pair = Pair::open(direct).await;
        loop {
            let Some((meeting, one, other)) = pairs.lock().unwrap().next() else { return };
            for passing in 0.. {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let (was_held, was_done) = meet(&pair, number, meeting, one, other, passing).await;
                done.fetch_add(u32::from(was_done), Ordering::Relaxed);
                waited.fetch_add(u32::from(was_held && !was_done), Ordering::Relaxed);
                if !was_held {
                    assert!(passing > 0, "{one:?} asks the database for something");
                    break;
                }
            }
        }
    });
    futures_util::future::join_all(lanes).await;
    let (done, waited) = (done.load(Ordering::Relaxed), waited.load(Ordering::Relaxed));
    println!("{engine:?}: {done} times the other one was done in between, {waited} times it waited for a lock");
    assert!(done > 300 && waited > 100, "{done} done, {waited} waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    every_pair_at_every_statement(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    every_pair_at_every_statement(Engine::MariaDb).await;
}
