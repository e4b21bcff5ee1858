//! The answers of v1 and v2: `/conversation/sync`.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Listed, Listing, MAX_CONVERSATIONS, SYNC, Source, channel_of, seq_of, too_many};
use crate::model::{ChannelKey, EpochMs, Seq, Uid};
use crate::upstream::RequestError;
use crate::wukongim::decode_value;

/// An item of `/conversation/sync`. v2 returns the read position, v1 does not.
#[derive(Deserialize)]
struct SyncItem {
    channel_id: String,
    channel_type: u8,
    unread: i64,
    timestamp: i64,
    last_msg_seq: u32,
    last_client_msg_no: String,
    readed_to_msg_seq: Option<IgnoredAny>,
}

impl Source {
    pub(super) async fn list_with(
        &self,
        uid: &Uid,
        msg_count: usize,
    ) -> Result<Listing, RequestError> {
        let mut body = json!({
            "uid": uid.as_str(), "version": 0, "last_msg_seqs": "", "msg_count": msg_count,
        });
        if !self.groups.is_empty() {
            let larges = self.groups.iter().map(|group| {
                json!({"channel_id": group.channel_id, "channel_type": group.channel_type.number()})
            });
            body["larges"] = larges.collect();
        }
        let answer = self.client.fetch(SYNC, &body, &self.listings).await?;
        let Value::Array(items) = answer.value else {
            return Err(RequestError::Refused(format!(
                "{SYNC} did not answer with an array"
            )));
        };
        let mut listing = Listing {
            _memory: Some(answer.memory),
            ..Listing::default()
        };
        if items.len() > MAX_CONVERSATIONS {
            return Err(too_many());
        }
        for item in items {
            listing.add(read_item(uid, item, msg_count));
        }
        listing.remove_repeats();
        Ok(listing)
    }
}

/// Reads an item of `/conversation/sync`.
fn read_item(uid: &Uid, mut item: Value, msg_count: usize) -> Result<Option<Listed>, String> {
    let recents = item
        .as_object_mut()
        .and_then(|fields| fields.remove("recents"));
    let mut recents = match recents {
        Some(Value::Array(recents)) => recents,
        _ => Vec::new(),
    };
    recents.truncate(msg_count);
    let item: SyncItem = decode_value(item, "conversation").map_err(|error| error.to_string())?;
    let Some(channel) = channel_of(uid, item.channel_id, item.channel_type)? else {
        return Ok(None);
    };
    let is_v2 = item.readed_to_msg_seq.is_some();
    let last_seq = Seq::from(item.last_msg_seq);
    if last_seq == Seq::ZERO {
        return Ok(None);
    }
    Ok(Some(Listed {
        key: ChannelKey::new(uid, &channel),
        channel,
        unread: item.unread.max(0),
        last_seq,
        last_sent_at: EpochMs(item.timestamp.saturating_mul(1000)),
        last_client_msg_no: item.last_client_msg_no,
        deleted_to: if is_v2 {
            watermark(&recents, last_seq, msg_count)
        } else {
            Seq::ZERO
        },
        loses_red_dots: is_v2,
        recents,
    }))
}

/// Returns the seq up to which v2 hides messages that the user deleted. It does not name it, but
/// fewer messages than requested come if older ones are hidden. If there are gaps, the reason for
/// fewer messages is not known.
fn watermark(recents: &[Value], last_seq: Seq, msg_count: usize) -> Seq {
    let seqs = || recents.iter().filter_map(seq_of);
    let (Some(lowest), Some(highest)) = (seqs().min(), seqs().max()) else {
        return Seq::ZERO;
    };
    let is_dense = i64::try_from(recents.len()) == Ok(highest.distance_from(lowest) + 1);
    if recents.len() < msg_count && highest == last_seq && is_dense && lowest > Seq::ZERO {
        lowest.previous()
    } else {
        Seq::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recents(seqs: &[i64]) -> Vec<Value> {
        seqs.iter().map(|seq| json!({"message_seq": seq})).collect()
    }

    #[test]
    fn watermark_of_v2_shows_by_missing_messages() {
        let at = |seqs: &[i64], last: i64| watermark(&recents(seqs), Seq(last), 4).0;
        assert_eq!(at(&[9, 8], 9), 7);
        assert_eq!(at(&[2, 1], 2), 0);
        // As many as requested: the older ones may show or not.
        assert_eq!(at(&[9, 8, 7, 6], 9), 0);
        // With gaps, or without the last message.
        assert_eq!(at(&[9, 7], 9), 0);
        assert_eq!(at(&[8, 7], 9), 0);
        assert_eq!(at(&[], 9), 0);
    }
}
