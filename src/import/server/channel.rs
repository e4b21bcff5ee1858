//! Imports a channel: its messages, and the user as a member.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{ImportSummary, progress_key, with_details};
use crate::message::{IncomingMessage, IngestReport, MessageBatch, Recipients, ingest};
use crate::model::{ChannelKey, ChannelRef, EpochMs, Message, MessageId, Seq, Uid};
use crate::services::Services;
use crate::upstream::WukongimClient;
use crate::wukongim::{
    Flag, MessageDecoder, SourceDialect, StoredMessage, decode_value, parse_timestamp,
};

/// Messages of one request, and of one transaction.
const PAGE_SIZE: i64 = 500;

/// The answer of `/channel/messagesync`.
#[derive(Deserialize)]
struct HistoryPage {
    messages: Vec<StoredMessage>,
    more: Flag,
}

/// The answer of `/channel/messagesync`, without the contents of its messages.
#[derive(Deserialize)]
struct PlacesPage {
    messages: Vec<MessagePlace>,
}

/// The place of a message in its channel.
#[derive(Deserialize)]
struct MessagePlace {
    message_seq: i64,
    message_id: i64,
    timestamp: i64,
}

/// Imports the messages of a channel that are missing, and makes the user a member.
pub(super) async fn import_channel(
    core: &Arc<Services>,
    client: &WukongimClient,
    uid: &Uid,
    channel: &ChannelRef,
    is_v2: bool,
    summary: &mut ImportSummary,
) -> anyhow::Result<()> {
    let key = ChannelKey::new(uid, channel);
    let kind = key.channel_type.number().to_string();
    let progress_key = progress_key(client, &["channel", &kind, &key.key]);
    let decoder = MessageDecoder {
        dialect: SourceDialect {
            names_pairs: false,
            loses_red_dots: is_v2,
        },
        limits: &core.base.limits,
        clock: &core.base.clock,
    };
    let mut seq = Seq(i64::try_from(
        core.base.store.count_imported_lines(&progress_key).await?,
    )?);
    let mut first: Option<FirstMessage> = None;
    loop {
        let body = json!({
            "login_uid": uid.as_str(), "channel_id": channel.channel_id, "channel_type": channel.channel_type.number(),
            "start_message_seq": seq.next().0, "end_message_seq": 0, "limit": PAGE_SIZE, "pull_mode": 1,
        });
        let page: HistoryPage = decode_value(
            client
                .post_with_retries("/channel/messagesync", &body)
                .await?,
            "history",
        )?;
        let last = page.messages.iter().filter_map(StoredMessage::seq).max();
        let mut messages: Vec<IncomingMessage> = Vec::new();
        for stored in page.messages {
            match decoder.decode(stored) {
                // Messages of other channels than the requested one are ignored.
                Ok(incoming) if incoming.key == key => messages.push(incoming),
                Ok(_) => summary.refused += 1,
                Err(reason) => {
                    tracing::warn!(reason = reason.label(), channel = ?key, "skipped an invalid message");
                    summary.refused += 1;
                }
            }
        }
        first = first.or_else(|| {
            messages
                .first()
                .map(|incoming| FirstMessage::of(&incoming.message))
        });
        let report: IngestReport = ingest(
            &core.messages,
            MessageBatch {
                messages,
                recipients: None,
            },
        )
        .await
        .map_err(with_details)?;
        summary.stored += report.stored;
        summary.repeated += report.repeated;
        summary.conflicts += report.conflicts;
        match last {
            Some(last) if last > seq => {
                seq = last;
                core.base
                    .store
                    .write_imported_lines(&progress_key, u64::try_from(seq.0)?)
                    .await
                    .map_err(with_details)?;
            }
            _ => break,
        }
        if !page.more.0 {
            break;
        }
    }
    join(core, client, uid, channel, &key, first).await
}

/// The first message of a channel; imported members join below it.
struct FirstMessage {
    seq: Seq,
    message_id: MessageId,
    sent_at: EpochMs,
}

impl FirstMessage {
    fn of(message: &Message) -> Self {
        Self {
            seq: message.seq,
            message_id: message.message_id,
            sent_at: message.sent_at,
        }
    }
}

/// Makes the user a member, below the channel's first message. Both users of a person channel are
/// members implicitly.
async fn join(
    core: &Arc<Services>,
    client: &WukongimClient,
    uid: &Uid,
    channel: &ChannelRef,
    key: &ChannelKey,
    first: Option<FirstMessage>,
) -> anyhow::Result<()> {
    if key.pair().is_some() {
        return Ok(());
    }
    // If the channel was imported for another user, its messages are known, and only the first one
    // is requested again.
    let first = match first {
        Some(first) => Some(first),
        None => {
            let body = json!({
                "login_uid": uid.as_str(), "channel_id": channel.channel_id, "channel_type": channel.channel_type.number(),
                "start_message_seq": 1, "end_message_seq": 0, "limit": 1, "pull_mode": 1,
            });
            let page: PlacesPage = decode_value(
                client
                    .post_with_retries("/channel/messagesync", &body)
                    .await?,
                "history",
            )?;
            page.messages.first().map(|message| FirstMessage {
                seq: Seq(message.message_seq),
                message_id: MessageId(message.message_id),
                sent_at: parse_timestamp(message.timestamp),
            })
        }
    };
    let Some(FirstMessage {
        seq,
        message_id,
        sent_at,
    }) = first
    else {
        return Ok(());
    };
    let recipients = Recipients {
        key: key.clone(),
        seq,
        message_id,
        sent_at,
        uids: vec![uid.clone()],
    };
    ingest(
        &core.messages,
        MessageBatch {
            messages: Vec::new(),
            recipients: Some(recipients),
        },
    )
    .await
    .map_err(with_details)?;
    Ok(())
}
