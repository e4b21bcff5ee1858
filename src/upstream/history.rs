//! The history of a channel on a `WuKongIM`: `/channel/messagesync`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{RequestError, WukongimClient};
use crate::message::IncomingMessage;
use crate::model::{ChannelKey, SYSTEM_UID, Seq};
use crate::wukongim::{Flag, MessageDecoder, SourceDialect, StoredMessage, decode_value};

/// Number of messages in one answer.
const PAGE_SIZE: i64 = 500;

/// A channel, under the name that one of its users knows it by.
#[derive(Clone, Debug)]
pub(crate) struct ChannelHistory<'a> {
    pub(crate) key: &'a ChannelKey,
    /// `None` for a channel that is not one of two persons.
    pair: Option<(String, String)>,
}

/// Part of a history, in ascending order.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistoryPage {
    pub(crate) messages: Vec<IncomingMessage>,
    /// Number of messages that cannot be stored.
    pub(crate) refused: u64,
    /// The lowest and the highest seq of all messages, if there are any.
    pub(crate) seqs: Option<(Seq, Seq)>,
    /// True if there are more messages in the direction of the request.
    pub(crate) more: bool,
}

/// The answer of `/channel/messagesync`.
#[derive(Deserialize)]
struct MessageSync {
    messages: Vec<Value>,
    more: Flag,
}

/// The answer of `/channel/max_message_seq`.
#[derive(Deserialize)]
struct MaxMessageSeq {
    message_seq: i64,
}

impl<'a> ChannelHistory<'a> {
    /// Returns the history as every user sees it, one after the other. v3 hides from a user the
    /// messages that the user deleted, so for a person channel there are two.
    pub(crate) fn of(key: &'a ChannelKey) -> Vec<Self> {
        let Some((one, other)) = key.pair() else {
            return vec![Self { key, pair: None }];
        };
        let pairs = [(one, other), (other, one)];
        pairs
            .map(|(uid, peer)| Self {
                key,
                pair: Some((uid.to_owned(), peer.to_owned())),
            })
            .to_vec()
    }

    /// Returns the uid and the channel id of requests.
    fn names(&self) -> (&str, &str) {
        match &self.pair {
            Some((uid, peer)) => (uid, peer),
            // v2 refuses an empty uid.
            None => (SYSTEM_UID, &self.key.key),
        }
    }

    /// Returns the newest seq; 0 for an unknown channel.
    pub(crate) async fn newest_seq(&self, client: &WukongimClient) -> Result<Seq, RequestError> {
        let (uid, channel_id) = self.names();
        let channel_type = self.key.channel_type.number().to_string();
        let query = [
            ("login_uid", uid),
            ("channel_id", channel_id),
            ("channel_type", channel_type.as_str()),
        ];
        match client.get("/channel/max_message_seq", &query).await {
            Ok(answer) => {
                let answer: MaxMessageSeq = decoded(answer)?;
                Ok(Seq(answer.message_seq))
            }
            // v3 has no such route.
            Err(RequestError::NoSuchRoute) => {
                let answer = self.request(client, (0, 0), 1, 0).await?;
                let seqs = answer.messages.iter().map(seq_of);
                Ok(seqs.max().unwrap_or(Seq::ZERO))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the messages from `from` on, and below `below` if it is given.
    pub(crate) async fn newer(
        &self,
        client: &WukongimClient,
        decoder: MessageDecoder<'_>,
        from: Seq,
        below: Option<Seq>,
    ) -> Result<HistoryPage, RequestError> {
        let range = (from.0, below.map_or(0, |below| below.0));
        let answer = self.request(client, range, PAGE_SIZE, 1).await?;
        Ok(self.decode(decoder, answer))
    }

    /// Returns the newest messages up to `from`.
    pub(crate) async fn older(
        &self,
        client: &WukongimClient,
        decoder: MessageDecoder<'_>,
        from: Seq,
    ) -> Result<HistoryPage, RequestError> {
        let answer = self.request(client, (from.0, 0), PAGE_SIZE, 0).await?;
        Ok(self.decode(decoder, answer))
    }

    async fn request(
        &self,
        client: &WukongimClient,
        (start, end): (i64, i64),
        limit: i64,
        pull_mode: u8,
    ) -> Result<MessageSync, RequestError> {
        let (uid, channel_id) = self.names();
        let body = json!({
            "login_uid": uid, "channel_id": channel_id, "channel_type": self.key.channel_type.number(),
            "start_message_seq": start, "end_message_seq": end, "limit": limit, "pull_mode": pull_mode,
        });
        decoded(client.post("/channel/messagesync", &body).await?)
    }

    fn decode(&self, decoder: MessageDecoder<'_>, answer: MessageSync) -> HistoryPage {
        let mut page = HistoryPage {
            more: answer.more.0,
            ..HistoryPage::default()
        };
        // Person channels are renamed below, and lost red dots are the caller's decision.
        let decoder = MessageDecoder {
            dialect: SourceDialect {
                names_pairs: false,
                loses_red_dots: false,
            },
            ..decoder
        };
        for mut message in answer.messages {
            let seq = seq_of(&message);
            let (low, high) = page.seqs.unwrap_or((seq, seq));
            page.seqs = Some((low.min(seq), high.max(seq)));
            self.name_recipient(&mut message);
            let stored: Option<StoredMessage> = decode_value(message, "message").ok();
            match stored.map(|stored| decoder.decode(stored)) {
                Some(Ok(incoming)) if incoming.key == *self.key => page.messages.push(incoming),
                _ => page.refused += 1,
            }
        }
        page.messages.sort_by_key(|incoming| incoming.message.seq);
        page
    }

    /// Writes the recipient's uid into a message of a person channel. The versions name such
    /// channels differently, but the channel is known from the request.
    fn name_recipient(&self, message: &mut Value) {
        let Some((uid, peer)) = &self.pair else {
            return;
        };
        let Some(fields) = message.as_object_mut() else {
            return;
        };
        let from = fields.get("from_uid").and_then(Value::as_str);
        let from = match from {
            None | Some("") => SYSTEM_UID,
            Some(from) => from,
        };
        let recipient = if from == uid { peer } else { uid };
        fields.insert("channel_id".to_owned(), json!(recipient));
    }
}

fn seq_of(message: &Value) -> Seq {
    Seq(message["message_seq"].as_i64().unwrap_or(0))
}

fn decoded<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, RequestError> {
    decode_value(answer, "the answer").map_err(|error| RequestError::Refused(error.to_string()))
}
