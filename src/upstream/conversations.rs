//! The conversations of a user on a `WuKongIM`: `/conversation/sync` of v1 and v2,
//! `/conversation/list` of v3.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{RequestError, WukongimClient};
use crate::config::WukongimVersion;
use crate::model::{ChannelRef, EpochMs, Seq, Uid};
use crate::wukongim::decode_value;

/// Number of conversations in one answer of v3.
const PAGE_SIZE: u32 = 200;

/// A conversation, as far as it is needed to find messages.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamConversation {
    pub(crate) channel: ChannelRef,
    pub(crate) unread: i64,
    pub(crate) last_seq: Seq,
    /// When the newest message was sent.
    pub(crate) last_message_at: EpochMs,
}

/// An item of `/conversation/sync`.
#[derive(Deserialize)]
struct SyncItem {
    channel_id: String,
    channel_type: i64,
    unread: i64,
    timestamp: i64,
    last_msg_seq: i64,
}

/// The answer of `/conversation/list`.
#[derive(Deserialize)]
struct ListPage {
    conversations: Vec<Value>,
    next_cursor: String,
    done: bool,
}

/// An item of `/conversation/list`.
#[derive(Deserialize)]
struct ListItem {
    channel_id: String,
    channel_type: i64,
    unread: i64,
    last_message: LastMessage,
}

#[derive(Deserialize)]
struct LastMessage {
    message_seq: i64,
    server_timestamp_ms: i64,
}

/// Returns the conversations of a user; those that are invalid are left out. v1 lists only those
/// with a message after `since`.
pub(crate) async fn list_conversations(
    client: &WukongimClient,
    version: WukongimVersion,
    uid: &Uid,
    since: EpochMs,
) -> Result<Vec<UpstreamConversation>, RequestError> {
    if version == WukongimVersion::V3 {
        return list_v3(client, uid).await;
    }
    // v1's versions are times in milliseconds. v2 ignores versions, and answers nothing without a
    // number of messages.
    let since = if version == WukongimVersion::V1 {
        since.0
    } else {
        0
    };
    let body = json!({"uid": uid.as_str(), "version": since, "last_msg_seqs": "", "msg_count": 1});
    let answer = client.post("/conversation/sync", &body).await?;
    let Value::Array(items) = answer else {
        return Err(RequestError::Refused(
            "/conversation/sync did not answer with an array".to_owned(),
        ));
    };
    let items = items.into_iter().filter_map(|item| {
        let item: SyncItem = decode_value(item, "conversation").ok()?;
        Some(UpstreamConversation {
            channel: ChannelRef::parse(item.channel_id, item.channel_type).ok()?,
            unread: item.unread,
            last_seq: Seq(item.last_msg_seq),
            last_message_at: EpochMs(item.timestamp.saturating_mul(1000)),
        })
    });
    Ok(items.collect())
}

async fn list_v3(
    client: &WukongimClient,
    uid: &Uid,
) -> Result<Vec<UpstreamConversation>, RequestError> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut body = json!({"uid": uid.as_str(), "limit": PAGE_SIZE});
        if !cursor.is_empty() {
            body["cursor"] = json!(cursor);
        }
        let answer = client.post("/conversation/list", &body).await?;
        let page: ListPage = decode_value(answer, "the answer")
            .map_err(|error| RequestError::Refused(error.to_string()))?;
        let items = page.conversations.into_iter().filter_map(|item| {
            let item: ListItem = decode_value(item, "conversation").ok()?;
            Some(UpstreamConversation {
                channel: ChannelRef::parse(item.channel_id, item.channel_type).ok()?,
                unread: item.unread,
                last_seq: Seq(item.last_message.message_seq),
                last_message_at: EpochMs(item.last_message.server_timestamp_ms),
            })
        });
        found.extend(items);
        if page.done || page.next_cursor.is_empty() || page.next_cursor == cursor {
            return Ok(found);
        }
        cursor = page.next_cursor;
    }
}
