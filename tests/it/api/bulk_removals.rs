//! Removing thousands of members: takes effect for all readers immediately, is written in the
//! background, and is finished by any server.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::server::message;
use crate::support::sync_clients::Incremental;
use crate::support::{Engine, Server, TestDatabase};

on_every_database!(
    removing_all_members_is_immediate_and_reversible,
    remaining_members_keep_their_state,
    deleted_channel_disappears_at_once,
    named_members_are_removed_within_seconds,
    joins_and_messages_during_a_removal,
    removal_survives_a_crash
);

/// More members than are removed before the response.
const MANY: usize = 2600;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("u{number:05}")).collect()
}

fn team(more: Value) -> Value {
    let mut body = json!({"channel_id": "team", "channel_type": 2});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

async fn number(connection: &DatabaseConnection, sql: &str) -> i64 {
    let statement = Statement::from_string(connection.get_database_backend(), sql.to_owned());
    connection
        .query_one_raw(statement)
        .await
        .unwrap()
        .unwrap()
        .try_get_by_index(0)
        .unwrap()
}

async fn pending(connection: &DatabaseConnection) -> i64 {
    number(connection, "SELECT COUNT(*) FROM pending_removal").await
}

/// Counts the rows that still say member.
async fn stored_members(connection: &DatabaseConnection) -> i64 {
    number(
        connection,
        "SELECT COUNT(*) FROM conversation WHERE membership = 0",
    )
    .await
}

/// Waits until every removal is written to its rows.
async fn wait_until_written(connection: &DatabaseConnection) {
    for _ in 0..600 {
        if pending(connection).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a removal is still pending");
}

/// Returns a server with a group of `MANY` members and one message, and a connection for reading
/// its rows.
async fn server_with_many_members(engine: Engine) -> (Server, DatabaseConnection, Vec<String>) {
    let server = Server::start(engine).await;
    let uids = names(MANY);
    server
        .call("/channel", team(json!({"subscribers": uids})))
        .await;
    server.send("eve", "team", 2, "one").await;
    let connection = server.database.connect().await;
    (server, connection, uids)
}

async fn removing_all_members_is_immediate_and_reversible(engine: Engine) {
    let (server, connection, uids) = server_with_many_members(engine).await;
    let mut devices = [
        Incremental::new(&uids[0]),
        Incremental::new(&uids[MANY - 1]),
        Incremental::in_pages(&uids[MANY - 2], 1),
    ];
    for device in &mut devices {
        device.sync(&server).await;
    }
    server
        .call("/channel/subscriber_remove_all", team(json!({})))
        .await;
    assert!(
        pending(&connection).await > 0,
        "so many are not written before the answer"
    );
    for uid in [&uids[0], &uids[1300], &uids[MANY - 1]] {
        assert_eq!(server.full(uid).await, Vec::<Value>::new(), "{uid}");
    }
    for device in &mut devices {
        device.sync(&server).await;
        device.must_hold(&[]);
    }
    let asked = json!({"cmd": "getSubscribers", "data": {"channel_id": "team", "channel_type": 2}});
    assert_eq!(server.call("/datasource", asked.clone()).await, json!([]));
    // A member who rejoins now stays, also when the removal reaches the row.
    let (first, last) = (&uids[0], &uids[MANY - 1]);
    server
        .call(
            "/channel/subscriber_add",
            team(json!({"subscribers": [first, last]})),
        )
        .await;
    server.set_clock(1_795_393_100_000);
    server.send("eve", "team", 2, "two").await;
    for uid in [first, last] {
        assert_unread!(server, uid, 1);
    }
    assert_eq!(server.full(&uids[1300]).await, Vec::<Value>::new());
    wait_until_written(&connection).await;
    // Eve and the two members who rejoined.
    assert_eq!(stored_members(&connection).await, 3);
    server.send("eve", "team", 2, "three").await;
    for uid in [first, last] {
        assert_unread!(server, uid, 2);
    }
    assert_eq!(server.full(&uids[1300]).await, Vec::<Value>::new());
    for device in &mut devices {
        device.sync(&server).await;
    }
    devices[0].must_hold(&server.full(first).await);
    devices[1].must_hold(&server.full(last).await);
    devices[2].must_hold(&[]);
    // A former member reads the messages up to the removal, and no later ones.
    let history = "{ messages(uid: \"u01300\", channel: {channelId: \"team\", channelType: 2}, first: 9) { edges { node { messageSeq } } } }";
    let answer = server.graphql(history, json!({})).await;
    assert!(
        answer["messages"].is_null() || answer["messages"]["edges"].as_array().unwrap().len() <= 1,
        "{answer}"
    );
}

async fn remaining_members_keep_their_state(engine: Engine) {
    let (server, connection, uids) = server_with_many_members(engine).await;
    let stays = &uids[7];
    server.set_unread(stays, "team", 2, 5).await;
    server
        .call(
            "/channel/subscriber_add",
            team(json!({"subscribers": [stays, "new"], "reset": 1})),
        )
        .await;
    for moment in ["before the removal is written", "after it"] {
        assert_unread!(server, stays, 5, "who stays is left alone");
        assert_eq!(server.full(&uids[8]).await, Vec::<Value>::new(), "{moment}");
        wait_until_written(&connection).await;
    }
    server.send("eve", "team", 2, "two").await;
    assert_unread!(server, stays, 6);
    assert_unread!(server, "new", 1);
    assert_eq!(stored_members(&connection).await, 2);
}

async fn deleted_channel_disappears_at_once(engine: Engine) {
    let (server, connection, uids) = server_with_many_members(engine).await;
    let mut device = Incremental::new(&uids[2000]);
    device.sync(&server).await;
    let delete = "mutation { deleteChannel(input: {channel: {channelId: \"team\", channelType: 2}}) { channel { id } } }";
    server.graphql(delete, json!({})).await;
    device.sync(&server).await;
    device.must_hold(&[]);
    // A delayed webhook adds nobody again, neither before nor after the rows are written.
    for round in 0..2 {
        let mut late =
            crate::support::server::webhook_message("eve", "team", 2, 2 + round, 900 + round);
        late["to_uids"] = json!([uids[2000], uids[2599]]);
        assert_eq!(
            server
                .post("/webhook?event=msg.offline", late.to_string())
                .await
                .status,
            200,
            "round {round}"
        );
        assert_eq!(
            server.full(&uids[2000]).await,
            Vec::<Value>::new(),
            "round {round}"
        );
        wait_until_written(&connection).await;
    }
    server.call("/channel/delete", team(json!({}))).await;
    assert_eq!(
        pending(&connection).await,
        0,
        "deleting it again changes nothing"
    );
    assert_eq!(stored_members(&connection).await, 0);
}

async fn named_members_are_removed_within_seconds(engine: Engine) {
    let (server, connection, uids) = server_with_many_members(engine).await;
    let named: Vec<&String> = uids[100..].iter().collect();
    server
        .call(
            "/channel/subscriber_remove",
            team(json!({"subscribers": named})),
        )
        .await;
    assert!(pending(&connection).await > 0);
    // A later request takes effect after the removal.
    server
        .call(
            "/channel/subscriber_add",
            team(json!({"subscribers": [uids[100], uids[MANY - 1], uids[0]]})),
        )
        .await;
    wait_until_written(&connection).await;
    server.send("eve", "team", 2, "two").await;
    assert_unread!(server, &uids[0], 2);
    assert_unread!(server, &uids[100], 1);
    assert_unread!(server, &uids[MANY - 1], 1);
    for uid in [&uids[101], &uids[2000]] {
        assert_eq!(server.full(uid).await, Vec::<Value>::new(), "{uid}");
    }
    // The members who were not named, the two who rejoined, and Eve.
    assert_eq!(stored_members(&connection).await, 103);
}

/// Whatever happens during a removal, all readers agree on the members at the end, and everybody
/// who joined after its response is a member.
async fn joins_and_messages_during_a_removal(engine: Engine) {
    let (server, connection, uids) = server_with_many_members(engine).await;
    let server = &server;
    let mut devices: Vec<Incremental> =
        uids[..24].iter().map(|uid| Incremental::new(uid)).collect();
    for device in &mut devices {
        device.sync(server).await;
    }
    let busy =
        devices
            .iter_mut()
            .zip(&uids)
            .enumerate()
            .map(|(number, (device, uid))| async move {
                tokio::time::sleep(Duration::from_millis(number as u64 * 15)).await;
                match number % 3 {
                    0 => {
                        server
                            .call(
                                "/channel/subscriber_add",
                                team(json!({"subscribers": [uid]})),
                            )
                            .await
                    }
                    1 => server.send("eve", "team", 2, &format!("by {uid}")).await,
                    _ => {
                        server
                            .call("/conversations/delete", team(json!({"uid": uid})))
                            .await
                    }
                };
                device.sync(server).await;
            });
    let removing = async {
        let name = if engine == Engine::Sqlite {
            "/channel/delete"
        } else {
            "/channel/subscriber_remove_all"
        };
        server.call(name, team(json!({}))).await;
        server
            .call(
                "/channel/subscriber_add",
                team(json!({"subscribers": [uids[30], uids[31]]})),
            )
            .await;
    };
    tokio::join!(futures_util::future::join_all(busy), removing);
    server.send("eve", "team", 2, "in between").await;
    wait_until_written(&connection).await;
    server.send("eve", "team", 2, "afterwards").await;
    let asked = json!({"cmd": "getSubscribers", "data": {"channel_id": "team", "channel_type": 2}});
    let members = server.call("/datasource", asked).await;
    let members: Vec<&str> = members
        .as_array()
        .unwrap()
        .iter()
        .map(|uid| uid.as_str().unwrap())
        .collect();
    for uid in &uids[..100] {
        assert_eq!(
            !server.full(uid).await.is_empty(),
            members.contains(&uid.as_str()),
            "{uid} of {members:?}"
        );
    }
    for uid in [&uids[30], &uids[31]] {
        assert!(
            server.only(uid).await["unread"].as_i64() >= Some(2),
            "{uid} joined after the removal"
        );
    }
    for (device, uid) in devices.iter_mut().zip(&uids) {
        device.sync(server).await;
        device.must_hold(&server.full(uid).await);
    }
}

async fn removal_survives_a_crash(engine: Engine) {
    const CROWD: usize = 6000;
    let database = TestDatabase::create(engine).await;
    let connection = database.connect().await;
    let mut server = Process::start(&database);
    let uids = names(CROWD);
    server
        .call("/channel", team(json!({"subscribers": uids})))
        .await;
    server
        .call("/message/send", message("u00000", "team", 2, "one"))
        .await;
    server
        .call("/channel/subscriber_remove_all", team(json!({})))
        .await;
    server.signal("-9");
    server.wait();
    let left = stored_members(&connection).await;
    assert!(
        left > 0 && pending(&connection).await == 1,
        "{left} rows were left"
    );
    let server = Process::start(&database);
    let sync = |uid: &str| json!({"uid": uid, "msg_count": 1});
    for uid in [&uids[0], &uids[CROWD - 1]] {
        assert_eq!(
            server.call("/conversation/sync", sync(uid)).await,
            json!([]),
            "{uid}"
        );
    }
    server
        .call(
            "/channel/subscriber_add",
            team(json!({"subscribers": [uids[CROWD - 1]]})),
        )
        .await;
    wait_until_written(&connection).await;
    assert_eq!(stored_members(&connection).await, 1);
    server
        .call("/message/send", message("eve", "team", 2, "two"))
        .await;
    assert_eq!(
        server
            .call("/conversation/sync", sync(&uids[CROWD - 1]))
            .await[0]["unread"],
        1
    );
    assert_eq!(
        server.call("/conversation/sync", sync(&uids[0])).await,
        json!([])
    );
}
