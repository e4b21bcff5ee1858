//! Many requests for the same rows: a busy group of ten thousand members, and one user with many
//! devices. No deadlock reaches a caller, and every request is answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server};

on_every_database!(busy_group, twenty_devices_of_one_user);

async fn busy_group(engine: Engine) {
    const MEMBERS: usize = 10_000;
    const SENDERS: usize = 50;
    const READERS: usize = 500;
    const EACH: usize = 4;
    let server = &Server::start(engine).await;
    let uids: Vec<String> = (0..MEMBERS).map(|number| format!("user{number}")).collect();
    server
        .call(
            "/channel",
            json!({"channel_id": "town", "channel_type": 2, "subscribers": uids}),
        )
        .await;
    let begun = Instant::now();
    let slowest = &AtomicU64::new(0);
    let senders = (0..SENDERS).map(|number| async move {
        for count in 0..EACH {
            let sent = Instant::now();
            server
                .send(
                    &format!("user{number}"),
                    "town",
                    2,
                    &format!("{number}-{count}"),
                )
                .await;
            slowest.fetch_max(sent.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    });
    let readers = (0..READERS).map(|number| async move {
        let mut device = Incremental::new(&format!("user{}", SENDERS + number));
        for _ in 0..3 {
            device.sync(server).await;
        }
        device
    });
    let (_, devices) = tokio::join!(
        futures_util::future::join_all(senders),
        futures_util::future::join_all(readers)
    );
    println!(
        "{engine:?}: {} sends beside {} looks in {:?}, the slowest send {slowest:?} ms",
        SENDERS * EACH,
        READERS * 3,
        begun.elapsed()
    );
    for (number, mut device) in devices.into_iter().enumerate().step_by(50) {
        device.sync(server).await;
        let full = server.full(&format!("user{}", SENDERS + number)).await;
        device.must_hold(&full);
        assert_eq!(
            (&full[0]["last_msg_seq"], &full[0]["unread"]),
            (&json!(SENDERS * EACH), &json!(SENDERS * EACH)),
            "device {number}: {full:?}"
        );
    }
}

async fn twenty_devices_of_one_user(engine: Engine) {
    let server = &Server::start(engine).await;
    for round in 0..10 {
        for peer in 0..4 {
            server
                .send(&format!("peer{peer}"), "ann", 1, &format!("hello {round}"))
                .await;
        }
        let devices = futures_util::future::join_all((0..20).map(|number| async move {
            let mut device = if number % 4 == 3 {
                Incremental::in_pages("ann", 1)
            } else {
                Incremental::new("ann")
            };
            if number == 7 {
                server.set_unread("ann", "peer1", 1, 0).await;
            }
            device.sync(server).await;
            device
        }));
        let devices = devices.await;
        let full = server.full("ann").await;
        for mut device in devices {
            device.sync(server).await;
            device.must_hold(&full);
        }
    }
}
