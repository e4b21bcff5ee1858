//! Exchanges invalidations with other servers through Redis pub/sub. Writes never wait for Redis;
//! while it is unreachable, servers find the changes of other servers by polling.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::AsyncTypedCommands;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use crate::bus::{Invalidation, NotificationBus};
use crate::config::LiveConfig;
use crate::outage::OutageLog;

/// The first delay before another attempt to connect; it doubles each time up to the maximum.
const RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);
/// Timeout of connecting and of publishing.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of heartbeats. A server that does not receive its own heartbeats is not connected.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(16);
/// The parts of the outage log: both connections must work before an outage is over.
const SUBSCRIBER: u8 = 0;
const PUBLISHER: u8 = 1;

/// A message on the Redis channel.
#[derive(Debug, Serialize, Deserialize)]
struct RedisMessage {
    /// The server that sent it.
    from: String,
    #[serde(flatten)]
    invalidation: Invalidation,
}

/// Exchanges invalidations for as long as the server runs. `name` identifies this server.
pub(crate) async fn run_redis_relay(bus: Arc<NotificationBus>, settings: LiveConfig, name: String) {
    if settings.redis_url.reveal().is_empty() {
        return;
    }
    bus.outbox();
    let outages = OutageLog::with_parts(
        2,
        "Redis cannot be reached: changes of other servers are found by polling",
        "Redis is reached again",
    );
    tokio::join!(
        run_subscriber(&bus, &settings, &name, &outages),
        run_publisher(&bus, &settings, &name, &outages)
    );
}

fn client(settings: &LiveConfig) -> redis::RedisResult<redis::Client> {
    redis::Client::open(settings.redis_url.reveal())
}

async fn with_timeout<T>(work: impl Future<Output = redis::RedisResult<T>>) -> Result<T, String> {
    match timeout(TIMEOUT, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// Runs the subscription, and renews it after every failure.
async fn run_subscriber(
    bus: &NotificationBus,
    settings: &LiveConfig,
    name: &str,
    outages: &OutageLog,
) {
    let mut delay = RETRY_DELAY;
    loop {
        let began = Instant::now();
        let error = subscribe_once(bus, settings, name, outages).await;
        metrics::gauge!(crate::metrics::LIVE_REDIS_UP).set(0.0);
        metrics::counter!(crate::metrics::LIVE_REDIS_FAILURES_TOTAL).increment(1);
        outages.failed(&format_args!("the subscription failed: {error}"));
        delay = if began.elapsed() > MAX_RETRY_DELAY {
            RETRY_DELAY
        } else {
            (delay * 2).min(MAX_RETRY_DELAY)
        };
        tokio::time::sleep(delay).await;
    }
}

/// Delivers messages until the subscription fails; returns the reason.
async fn subscribe_once(
    bus: &NotificationBus,
    settings: &LiveConfig,
    name: &str,
    outages: &OutageLog,
) -> String {
    let connect = async {
        let mut connection = client(settings)?.get_async_pubsub().await?;
        connection.subscribe(&settings.redis_channel).await?;
        Ok(connection)
    };
    let mut connection = match with_timeout(connect).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    if !outages.is_ongoing() {
        tracing::info!("Redis: subscribed");
    }
    outages.part_worked(SUBSCRIBER);
    metrics::gauge!(crate::metrics::LIVE_REDIS_UP).set(1.0);
    // Invalidations may have been missed before.
    bus.deliver(&Invalidation {
        everybody: true,
        ..Invalidation::default()
    });
    let mut messages = connection.on_message();
    let mut last_own_message = Instant::now();
    loop {
        let message = match timeout(
            HEARTBEAT_TIMEOUT.saturating_sub(last_own_message.elapsed()),
            messages.next(),
        )
        .await
        {
            Ok(Some(message)) => message,
            Ok(None) => return "the connection ended".to_owned(),
            Err(_) => {
                return format!(
                    "the server's own heartbeat did not arrive for {} s",
                    HEARTBEAT_TIMEOUT.as_secs()
                );
            }
        };
        match serde_json::from_slice::<RedisMessage>(message.get_payload_bytes()) {
            // The server's own invalidations were delivered locally.
            Ok(message) if message.from == name => {
                last_own_message = Instant::now();
                outages.part_worked(SUBSCRIBER);
            }
            Ok(message) => bus.deliver(&message.invalidation),
            // The message comes from another version of the server, or from another program.
            Err(error) => {
                tracing::debug!(error = %error, "Redis: received an unknown message");
                bus.deliver(&Invalidation {
                    everybody: true,
                    ..Invalidation::default()
                });
            }
        }
    }
}

/// Runs the publisher, and restarts it after every failure. Invalidations that could not be
/// published are replaced by one for everybody.
async fn run_publisher(
    bus: &NotificationBus,
    settings: &LiveConfig,
    name: &str,
    outages: &OutageLog,
) {
    let mut delay = RETRY_DELAY;
    let mut has_missed = false;
    loop {
        let began = Instant::now();
        let error = publish_once(bus, settings, name, has_missed, outages).await;
        has_missed = true;
        outages.failed(&format_args!("publishing failed: {error}"));
        delay = if began.elapsed() > MAX_RETRY_DELAY {
            RETRY_DELAY
        } else {
            (delay * 2).min(MAX_RETRY_DELAY)
        };
        tokio::time::sleep(delay).await;
    }
}

/// Publishes invalidations until it fails; returns the reason.
async fn publish_once(
    bus: &NotificationBus,
    settings: &LiveConfig,
    name: &str,
    has_missed: bool,
    outages: &OutageLog,
) -> String {
    let connect = async { client(settings)?.get_multiplexed_async_connection().await };
    let mut connection = match with_timeout(connect).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let mut invalidation = Invalidation {
        everybody: has_missed,
        ..Invalidation::default()
    };
    loop {
        let message = serde_json::to_string(&RedisMessage {
            from: name.to_owned(),
            invalidation,
        })
        .unwrap_or_default();
        if let Err(error) = with_timeout(connection.publish(&settings.redis_channel, message)).await
        {
            return error;
        }
        outages.part_worked(PUBLISHER);
        invalidation = timeout(HEARTBEAT_INTERVAL, bus.outbox().take())
            .await
            .unwrap_or_default();
    }
}
