//! The answers of v3: `/conversation/list`, and messages without times and red dots.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{LIST, Listed, Listing, MAX_CONVERSATIONS, Source, channel_of, too_many};
use crate::model::{ChannelKey, ChannelRef, ChannelType, EpochMs, SYSTEM_UID, Seq, Uid};
use crate::upstream::RequestError;
use crate::wukongim::decode_value;

/// Number of messages of one answer: larger pages were never seen to work.
pub(super) const PAGE_SIZE: i64 = 100;
/// Number of conversations of one answer; v3 refuses more.
const LIST_SIZE: usize = 200;
/// The time of the first message id, in milliseconds since 1970.
const MESSAGE_ID_EPOCH_MS: i64 = 1_288_834_974_657;

#[derive(Deserialize)]
struct ListAnswer {
    conversations: Vec<Value>,
    unresolved: Vec<Value>,
    next_cursor: String,
    done: bool,
}

#[derive(Deserialize)]
struct ListItem {
    channel_id: String,
    channel_type: u8,
    unread: i64,
    deleted_to_seq: u32,
    last_message: LastMessage,
}

#[derive(Deserialize)]
struct LastMessage {
    message_idstr: String,
    message_seq: u32,
    client_msg_no: String,
    server_timestamp_ms: i64,
    payload: String,
}

impl Source {
    pub(super) async fn list_v3(&self, uid: &Uid) -> Result<Listing, RequestError> {
        let mut listing = Listing::default();
        let mut cursor = String::new();
        loop {
            let mut body = json!({"uid": uid.as_str(), "limit": LIST_SIZE});
            if !cursor.is_empty() {
                body["cursor"] = json!(cursor);
            }
            let answer = self.client.fetch(LIST, &body, &self.listings).await?;
            // Only the conversations are kept, which are far smaller than the answer.
            let page: ListAnswer = decode_value(answer.value, "conversation list")
                .map_err(|error| RequestError::Refused(error.to_string()))?;
            for item in page.conversations.into_iter().take(LIST_SIZE) {
                listing.add(read_item(uid, item));
            }
            listing.unresolved += page.unresolved.len() as u64;
            if listing.conversations.len() > MAX_CONVERSATIONS {
                return Err(too_many());
            }
            if page.done || page.next_cursor.is_empty() || page.next_cursor == cursor {
                listing.remove_repeats();
                return Ok(listing);
            }
            cursor = page.next_cursor;
        }
    }
}

fn read_item(uid: &Uid, item: Value) -> Result<Option<Listed>, String> {
    let item: ListItem = decode_value(item, "conversation").map_err(|error| error.to_string())?;
    let Some(channel) = channel_of(uid, item.channel_id, item.channel_type)? else {
        return Ok(None);
    };
    // A conversation that was opened again after a deletion has no message.
    let last = item.last_message;
    if last.message_seq == 0 {
        return Ok(None);
    }
    let last_seq = Seq::from(last.message_seq);
    Ok(Some(Listed {
        key: ChannelKey::new(uid, &channel),
        channel,
        unread: item.unread.max(0),
        last_seq,
        last_sent_at: EpochMs(last.server_timestamp_ms),
        last_client_msg_no: last.client_msg_no,
        deleted_to: Seq::from(item.deleted_to_seq).min(last_seq),
        loses_red_dots: true,
        recents: vec![json!({
            "message_seq": last.message_seq,
            "message_idstr": last.message_idstr,
            "payload": last.payload,
        })],
    }))
}

/// Adds to a message of v3 what other versions say: the recipient in a person channel, which v3
/// calls by the name of the request, and the time, which its message id contains.
pub(super) fn complete(message: &mut Value, uid: &Uid, channel: &ChannelRef) {
    let Some(fields) = message.as_object_mut() else {
        return;
    };
    if channel.channel_type == ChannelType::PERSON {
        let from = fields.get("from_uid").and_then(Value::as_str);
        let from = from.filter(|from| !from.is_empty()).unwrap_or(SYSTEM_UID);
        let recipient = if from == uid.as_str() {
            channel.channel_id.clone()
        } else {
            uid.as_str().to_owned()
        };
        fields.insert("channel_id".to_owned(), Value::String(recipient));
    }
    let is_unknown = fields
        .get("timestamp")
        .is_none_or(|timestamp| timestamp.as_i64() == Some(0));
    let id = fields.get("message_id").and_then(Value::as_i64);
    if is_unknown && let Some(id) = id {
        fields.insert("timestamp".to_owned(), json!(sent_at(id) / 1000));
    }
}

/// Returns when the message with this id was sent, in milliseconds since 1970.
fn sent_at(message_id: i64) -> i64 {
    (message_id >> 22) + MESSAGE_ID_EPOCH_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_get_their_recipient_and_time() {
        let ann = Uid::parse("uid", "ann").unwrap();
        let bob = ChannelRef::parse("bob", 1).unwrap();
        for (from, recipient) in [("ann", "bob"), ("bob", "ann")] {
            let mut message = json!({
                "from_uid": from, "channel_id": "bob", "channel_type": 1, "timestamp": 0,
                "message_id": 2_126_118_363_649_282_048_i64,
            });
            complete(&mut message, &ann, &bob);
            assert_eq!(message["channel_id"], recipient);
            // v3 says 1795741093920 about this message.
            assert_eq!(message["timestamp"], 1_795_741_093);
        }
    }
}
