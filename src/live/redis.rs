//! Hints from and for other servers, through Redis pub/sub. Nobody waits for it: while Redis is
//! away, servers find out by their polls.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::AsyncTypedCommands;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::bus::{Bus, Hint};
use crate::config::Live;

/// Pauses between tries to connect, doubled each time.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long connecting, and saying something, may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often every server says that it is there; who does not hear itself is not connected.
const HEARTBEAT: Duration = Duration::from_secs(5);
const DEAF_AFTER: Duration = Duration::from_secs(16);

/// What goes through Redis.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Which server says so.
    from: String,
    #[serde(flatten)]
    hint: Hint,
}

/// Attends to Redis for as long as the server runs. `name` is this server's own.
pub(crate) async fn attend(bus: Arc<Bus>, settings: Live, name: String) {
    if settings.redis_url.reveal().is_empty() {
        return;
    }
    bus.outbox();
    tokio::join!(
        listen_on(&bus, &settings, &name),
        tell_on(&bus, &settings, &name)
    );
}

fn failed(what: &'static str, error: &str) {
    tracing::warn!(
        error,
        "Redis: {what}; changes of other servers come with the poll"
    );
}

fn client(settings: &Live) -> redis::RedisResult<redis::Client> {
    redis::Client::open(settings.redis_url.reveal())
}

async fn in_time<T>(work: impl Future<Output = redis::RedisResult<T>>) -> Result<T, String> {
    match timeout(TIMEOUT, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// Listens, again and again.
async fn listen_on(bus: &Bus, settings: &Live, name: &str) {
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        let error = listen(bus, settings, name).await;
        metrics::gauge!("recents_live_redis_up").set(0.0);
        metrics::counter!("recents_live_redis_failures_total").increment(1);
        failed("nothing is heard", &error);
        pause = if began.elapsed() > LONGEST_PAUSE {
            PAUSE
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        tokio::time::sleep(pause).await;
    }
}

/// Until it breaks; why.
async fn listen(bus: &Bus, settings: &Live, name: &str) -> String {
    let connect = async {
        let mut connection = client(settings)?.get_async_pubsub().await?;
        connection.subscribe(&settings.redis_channel).await?;
        Ok(connection)
    };
    let mut connection = match in_time(connect).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    tracing::info!("Redis: listening");
    metrics::gauge!("recents_live_redis_up").set(1.0);
    // Nobody knows what was said before.
    bus.deliver(&Hint {
        everybody: true,
        ..Hint::default()
    });
    let mut notes = connection.on_message();
    let mut heard = Instant::now();
    loop {
        let note = match timeout(DEAF_AFTER.saturating_sub(heard.elapsed()), notes.next()).await {
            Ok(Some(note)) => note,
            Ok(None) => return "the connection ended".to_owned(),
            Err(_) => {
                return format!(
                    "not even this server itself was heard for {} s",
                    DEAF_AFTER.as_secs()
                );
            }
        };
        match serde_json::from_slice::<Note>(note.get_payload_bytes()) {
            // Its own hints were delivered when they were made.
            Ok(note) if note.from == name => heard = Instant::now(),
            Ok(note) => bus.deliver(&note.hint),
            // Another version of this server, or somebody else.
            Err(error) => {
                tracing::debug!(error = %error, "a note in Redis is none of ours");
                bus.deliver(&Hint {
                    everybody: true,
                    ..Hint::default()
                });
            }
        }
    }
}

/// Tells, again and again. What could not be told is not kept: the others are told that they missed
/// something.
async fn tell_on(bus: &Bus, settings: &Live, name: &str) {
    let mut pause = PAUSE;
    let mut has_missed = false;
    loop {
        let began = Instant::now();
        let error = tell(bus, settings, name, has_missed).await;
        has_missed = true;
        failed("nothing is told", &error);
        pause = if began.elapsed() > LONGEST_PAUSE {
            PAUSE
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        tokio::time::sleep(pause).await;
    }
}

/// Until it breaks; why.
async fn tell(bus: &Bus, settings: &Live, name: &str, has_missed: bool) -> String {
    let connect = async { client(settings)?.get_multiplexed_async_connection().await };
    let mut connection = match in_time(connect).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let mut hint = Hint {
        everybody: has_missed,
        ..Hint::default()
    };
    loop {
        let note = serde_json::to_string(&Note {
            from: name.to_owned(),
            hint,
        })
        .unwrap_or_default();
        if let Err(error) = in_time(connection.publish(&settings.redis_channel, note)).await {
            return error;
        }
        hint = timeout(HEARTBEAT, bus.outbox().take())
            .await
            .unwrap_or_default();
    }
}
