//! `/webhook?event=…`: a running `WuKongIM` hands on what it stored. Only status 200 counts as
//! delivered there, and after five tries it drops the body: one message that cannot be used must
//! not cost the others.

use std::io::Read;
use std::sync::{Arc, Once};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::legacy::{Fields, parse_json};
use crate::channel::ChannelKey;
use crate::config::WukongimVersion;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{COMMAND_SUFFIX, ChannelRef, ChannelType, Seq, Uid, check_key};
use crate::message::{Content, Incoming, IncomingMessage, Message, Receivers, Report, ingest};

/// The last second of the year 9999: no message is later.
const LAST_SECOND: i64 = 253_402_300_799;

/// What became of a webhook body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// What became of its messages that could be used.
    pub report: Report,
    /// Messages that are not ours to store: commands, and those sent without being stored.
    pub skipped: u64,
    /// Messages that cannot be stored.
    pub refused: u64,
}

/// Why a message of a body is left out; also the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unusable {
    Transient,
    Command,
    Shape,
    ChannelType,
    Channel,
    Sender,
    Seq,
    MessageId,
    Payload,
    Text,
}

impl Unusable {
    fn label(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Command => "command",
            Self::Shape => "shape",
            Self::ChannelType => "channel_type",
            Self::Channel => "channel_id",
            Self::Sender => "from_uid",
            Self::Seq => "message_seq",
            Self::MessageId => "message_id",
            Self::Payload => "payload",
            Self::Text => "text",
        }
    }
}

/// Stores what one webhook body brings; returns after the commit.
///
/// # Errors
/// [`Error::BadRequest`] or [`Error::BadInput`] only when the body is not the event's JSON shape;
/// [`Error::Store`].
pub async fn deliver(core: &Arc<Core>, event: &str, body: &[u8]) -> Result<Delivery, Error> {
    match event {
        "" => Err(Error::bad_input(
            "event",
            "must be given: ?event=msg.notify or ?event=msg.offline",
        )),
        "msg.notify" => notify(core, body).await,
        "msg.offline" => offline(core, body).await,
        other => {
            // Online states, and whatever a later WuKongIM may send: nothing of it is ours, and a
            // refusal would only be repeated.
            let known = other == "user.onlinestatus";
            metrics::counter!("recents_webhooks_ignored_total", "event" => if known { "user.onlinestatus" } else { "unknown" })
                .increment(1);
            tracing::debug!(event = other, "a webhook that is not about messages");
            Ok(Delivery::default())
        }
    }
}

async fn notify(core: &Arc<Core>, body: &[u8]) -> Result<Delivery, Error> {
    let Value::Array(elements) = parse_json(body)? else {
        return Err(Error::bad_input(
            "the body",
            "must be a JSON array of messages",
        ));
    };
    let (mut delivery, sender) = (Delivery::default(), Sender::configured(core));
    let mut messages = Vec::with_capacity(elements.len());
    for element in elements {
        match Fields::from_element(element, "message")
            .map_err(|_| Unusable::Shape)
            .and_then(|fields| read(core, sender, &fields))
        {
            Ok(message) => messages.push(message),
            Err(reason) => delivery.leave_out(reason),
        }
    }
    store(
        core,
        Incoming {
            messages,
            receivers: None,
        },
        delivery,
    )
    .await
}

async fn store(
    core: &Arc<Core>,
    incoming: Incoming,
    mut delivery: Delivery,
) -> Result<Delivery, Error> {
    let incoming = Arc::new(incoming);
    delivery.report = ingest(core, Arc::clone(&incoming)).await?;
    if let Some(datasource) = core.datasource.get() {
        datasource.look_at(&incoming.messages);
    }
    Ok(delivery)
}

async fn offline(core: &Arc<Core>, body: &[u8]) -> Result<Delivery, Error> {
    let fields = Fields::parse(body)?;
    let mut to_uids = fields.strings("to_uids")?;
    if fields.string("compress")? == "gzip" {
        to_uids.extend(unpack(
            &fields.string("compress_to_uids")?,
            core.limits.body_bytes,
        )?);
    }
    let mut delivery = Delivery::default();
    let incoming = match read(core, Sender::configured(core), &fields) {
        Ok(incoming) => incoming,
        Err(reason) => {
            delivery.leave_out(reason);
            return Ok(delivery);
        }
    };
    let uids: Vec<Uid> = to_uids
        .into_iter()
        .filter_map(|uid| Uid::parse("to_uids", uid).ok())
        .collect();
    // The two of a person channel are in it by its nature.
    let receivers =
        (incoming.key.channel_type != ChannelType::PERSON && !uids.is_empty()).then(|| Receivers {
            key: incoming.key.clone(),
            seq: incoming.message.seq,
            message_id: incoming.message.message_id,
            sent_at: incoming.message.sent_at,
            uids,
        });
    store(
        core,
        Incoming {
            messages: vec![incoming],
            receivers,
        },
        delivery,
    )
    .await
}

/// v1 packs long lists of receivers: base64 of a gzip of a JSON array, which may be as large as a
/// body: gzip packs a thousand to one.
fn unpack(packed: &str, limit: usize) -> Result<Vec<String>, Error> {
    let refuse = || {
        Error::bad_input(
            "compress_to_uids",
            "must be the base64 of a gzip of a JSON array of strings",
        )
    };
    let packed = STANDARD.decode(packed).map_err(|_| refuse())?;
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .take(limit as u64 + 1)
        .read_to_end(&mut json)
        .map_err(|_| refuse())?;
    if json.len() > limit {
        return Err(Error::bad_input(
            "compress_to_uids",
            format!("must unpack to at most {limit} bytes"),
        ));
    }
    serde_json::from_slice(&json).map_err(|_| refuse())
}

impl Delivery {
    fn leave_out(&mut self, reason: Unusable) {
        metrics::counter!("recents_webhook_messages_skipped_total", "reason" => reason.label())
            .increment(1);
        if matches!(reason, Unusable::Transient | Unusable::Command) {
            self.skipped += 1;
        } else {
            self.refused += 1;
            tracing::warn!(
                reason = reason.label(),
                "a webhook's message cannot be stored and is skipped"
            );
        }
    }
}

/// How the server that a message comes from says things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// It names a person channel by the stored pair, not by the recipient.
    pub(crate) names_pairs: bool,
    /// It does not say which messages have a red dot: then all of them have.
    pub(crate) loses_red_dots: bool,
}

impl Sender {
    fn configured(core: &Core) -> Self {
        let is_v3 = core.wukongim == WukongimVersion::V3;
        Self {
            names_pairs: is_v3,
            loses_red_dots: is_v3,
        }
    }
}

/// A message as a server stored it; or in one word why it cannot be used.
pub(crate) fn read_message(
    core: &Core,
    sender: Sender,
    fields: &Fields,
) -> Result<IncomingMessage, &'static str> {
    read(core, sender, fields).map_err(Unusable::label)
}

fn read(core: &Core, sender: Sender, fields: &Fields) -> Result<IncomingMessage, Unusable> {
    let shape = |_: Error| Unusable::Shape;
    let header = fields.object("header").map_err(shape)?;
    if header.flag("no_persist").map_err(shape)? || header.flag("sync_once").map_err(shape)? {
        return Err(Unusable::Transient);
    }
    let channel_id = fields.string("channel_id").map_err(shape)?;
    if channel_id.ends_with(COMMAND_SUFFIX) {
        return Err(Unusable::Command);
    }
    let channel_type = fields
        .int64("channel_type")
        .map_err(|_| Unusable::ChannelType)?;
    let channel_type =
        ChannelType::parse("channel_type", channel_type).map_err(|_| Unusable::ChannelType)?;
    let channel = ChannelRef::parse(channel_id, i64::from(channel_type.number()))
        .map_err(|_| Unusable::Channel)?;
    let from_uid = fields.string("from_uid").map_err(|_| Unusable::Sender)?;
    let from = if from_uid.is_empty() {
        Uid::system()
    } else {
        Uid::parse("from_uid", from_uid).map_err(|_| Unusable::Sender)?
    };
    let key = match (channel_type, sender.names_pairs) {
        (ChannelType::PERSON, true) => {
            pair_of(&from, &channel.channel_id).ok_or(Unusable::Channel)?
        }
        // v2 names a message to oneself by its pair in msg.notify, by the uid in msg.offline.
        (ChannelType::PERSON, false) if channel.channel_id == format!("{from}@{from}") => {
            ChannelKey::person(from.as_str(), from.as_str())
        }
        (ChannelType::PERSON, false) => {
            warn_about_pairs(&from, &channel.channel_id);
            ChannelKey::new(&from, &channel)
        }
        _ => ChannelKey::new(&from, &channel),
    };
    let seq: Seq = fields
        .integer("message_seq", 1..=i64::from(u32::MAX))
        .map_err(|_| Unusable::Seq)?;
    let message_id = fields
        .integer("message_id", 1..=i64::MAX)
        .map_err(|_| Unusable::MessageId)?;
    if seq == 0 {
        return Err(Unusable::Seq);
    }
    if message_id == 0 {
        return Err(Unusable::MessageId);
    }
    let client_msg_no = fields.string("client_msg_no").map_err(shape)?;
    check_key("client_msg_no", &client_msg_no).map_err(|_| Unusable::Text)?;
    let content = Content {
        setting: fields.uint8("setting").map_err(shape)?,
        topic: fields.string("topic").map_err(shape)?,
        expire: fields.uint32("expire").map_err(shape)?,
        stream_no: fields.string("stream_no").map_err(shape)?,
        stream_seq: fields.uint32("stream_seq").map_err(shape)?,
        stream_flag: fields.uint8("stream_flag").map_err(shape)?,
        payload: fields.bytes("payload").map_err(|_| Unusable::Payload)?,
    };
    content
        .check(core.limits.payload_bytes)
        .map_err(|error| match error {
            Error::BadInput { field, .. } if field == "payload" => Unusable::Payload,
            _ => Unusable::Text,
        })?;
    let sent_at = match fields.int64("timestamp").map_err(shape)? {
        ..=0 => core.clock.now_ms(),
        seconds => seconds.min(LAST_SECOND) * 1000,
    };
    let red_dot = header.flag("red_dot").map_err(shape)? || sender.loses_red_dots;
    let message = Message {
        channel: key.seen_by(from.as_str()),
        message_id,
        seq,
        client_msg_no,
        from_uid: from.as_str().to_owned(),
        sent_at,
        red_dot,
        content,
    };
    Ok(IncomingMessage { key, message })
}

/// The person channel that v3 names by its stored pair: the uid with the larger CRC32 first, joined
/// with `@`. Uids may contain `@` themselves, so the sender says where to cut, and where both ends
/// fit, the order of the pair.
fn pair_of(from: &Uid, stored: &str) -> Option<ChannelKey> {
    let from = from.as_str();
    let first = stored
        .strip_prefix(from)
        .and_then(|rest| rest.strip_prefix('@'));
    let second = stored
        .strip_suffix(from)
        .and_then(|rest| rest.strip_suffix('@'));
    let peers = first
        .into_iter()
        .chain(second)
        .filter(|peer| !peer.is_empty());
    let peer = peers
        .clone()
        .find(|peer| stored_pair(from, peer) == stored)
        .or_else(|| peers.clone().next())?;
    Some(ChannelKey::person(from, peer))
}

fn stored_pair(one: &str, other: &str) -> String {
    let rank = |uid: &str| (crc32fast::hash(uid.as_bytes()), uid.to_owned());
    if rank(one) >= rank(other) {
        format!("{one}@{other}")
    } else {
        format!("{other}@{one}")
    }
}

/// v1 and v2 name the recipient. Exactly a stored pair looks like a v3 that nobody told us of.
fn warn_about_pairs(from: &Uid, channel_id: &str) {
    static WARNING: Once = Once::new();
    let looks_like_v3 = pair_of(from, channel_id)
        .and_then(|key| {
            key.pair()
                .map(|(one, other)| stored_pair(one, other) == channel_id)
        })
        .unwrap_or(false);
    if looks_like_v3 {
        WARNING.call_once(|| {
            tracing::warn!(
                channel_id,
                "a person message names its channel by the pair of uids, as v3 does: is ingest.wukongim right?"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn pairs_are_those_of_wukongim() {
        assert_eq!(stored_pair("alice", "bob"), "bob@alice");
        assert_eq!(stored_pair("bob", "alice"), "bob@alice");
    }

    #[test]
    fn a_pair_is_cut_at_its_sender() {
        let uid = |text| Uid::parse("uid", text).unwrap();
        for (from, peer) in [
            ("alice", "bob"),
            ("bob", "alice"),
            ("a@b", "c"),
            ("c", "a@b"),
            ("a", "b@a"),
            ("b@a", "a"),
        ] {
            assert_eq!(
                pair_of(&uid(from), &stored_pair(from, peer)),
                Some(ChannelKey::person(from, peer)),
                "{from} {peer}"
            );
        }
        assert_eq!(pair_of(&uid("carol"), "bob@alice"), None);
    }

    #[test]
    fn packed_uids_are_as_long_as_a_body_at_most() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(b"[\"ann\",\"bob\"]").unwrap();
        let packed = STANDARD.encode(packer.finish().unwrap());
        assert_eq!(unpack(&packed, 13).unwrap(), ["ann", "bob"]);
        assert_eq!(
            unpack(&packed, 12).unwrap_err().to_string(),
            "compress_to_uids must unpack to at most 12 bytes"
        );
    }
}
