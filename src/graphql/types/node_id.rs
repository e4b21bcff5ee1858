//! Global IDs: opaque to clients, versioned for the server.

use async_graphql::ID;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::{ChannelKey, ChannelRef, ChannelType, MessageId, Uid};

/// The version of the encoding.
const ENCODING_VERSION: u8 = 1;

/// The object that a global ID names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::graphql) enum NodeId {
    /// A user's view of a channel.
    Conversation(Uid, ChannelRef),
    /// A message, by its stored channel key and its message id.
    Message(ChannelKey, MessageId),
    /// A channel other than a person channel.
    Channel(ChannelRef),
    /// The unread totals of all of a user's conversations.
    UnreadSummary(Uid),
}

impl NodeId {
    /// Encodes the ID. The encoding is unambiguous, whatever characters the parts contain.
    pub(super) fn encode(&self) -> ID {
        let of_channel = |channel: &ChannelRef| {
            [
                channel.channel_type.number().to_string(),
                channel.channel_id.clone(),
            ]
        };
        let (kind, parts) = match self {
            Self::Conversation(uid, channel) => {
                let [channel_type, channel_id] = of_channel(channel);
                (
                    "Conversation",
                    vec![uid.to_string(), channel_type, channel_id],
                )
            }
            Self::Message(ChannelKey { channel_type, key }, id) => (
                "Message",
                vec![
                    channel_type.number().to_string(),
                    key.clone(),
                    id.to_string(),
                ],
            ),
            Self::Channel(channel) => ("Channel", of_channel(channel).to_vec()),
            Self::UnreadSummary(uid) => ("UnreadSummary", vec![uid.to_string()]),
        };
        ID(URL_SAFE_NO_PAD.encode(serde_json::json!([ENCODING_VERSION, kind, parts]).to_string()))
    }

    /// Decodes an ID from a client; returns `None` if it is not valid.
    pub(in crate::graphql) fn decode(id: &str) -> Option<Self> {
        let text = URL_SAFE_NO_PAD.decode(id).ok()?;
        let (version, kind, parts): (u8, String, Vec<String>) =
            serde_json::from_slice(&text).ok()?;
        if version != ENCODING_VERSION {
            return None;
        }
        let channel =
            |channel_type: &str, id: &str| ChannelRef::parse(id, channel_type.parse().ok()?).ok();
        match (kind.as_str(), parts.as_slice()) {
            ("Conversation", [uid, channel_type, id]) => Some(Self::Conversation(
                Uid::parse("id", uid.as_str()).ok()?,
                channel(channel_type, id)?,
            )),
            ("Message", [channel_type, key, id]) => {
                let channel_type = ChannelType::parse("id", channel_type.parse().ok()?).ok()?;
                let key = ChannelKey {
                    channel_type,
                    key: key.clone(),
                };
                let is_key = if channel_type == ChannelType::PERSON {
                    key.pair().is_some()
                } else {
                    !key.key.is_empty()
                };
                is_key.then_some(Self::Message(key, MessageId(id.parse().ok()?)))
            }
            ("Channel", [channel_type, id]) => Some(Self::Channel(channel(channel_type, id)?)),
            ("UnreadSummary", [uid]) => {
                Some(Self::UnreadSummary(Uid::parse("id", uid.as_str()).ok()?))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_round_trip_and_invalid_ids_do_not_panic(uid in "[^\\p{Cc}]{1,50}", channel in "[^\\p{Cc}]{1,50}", kind in 1_i64..=255, text in ".*") {
            let (uid, channel) = (Uid::parse("uid", uid).unwrap(), ChannelRef::parse(channel, kind).unwrap());
            for id in [
                NodeId::Message(ChannelKey::new(&uid, &channel), MessageId(kind)),
                NodeId::Conversation(uid.clone(), channel.clone()),
                NodeId::Channel(channel),
                NodeId::UnreadSummary(uid),
            ] {
                prop_assert_eq!(NodeId::decode(&id.encode()), Some(id));
            }
            let _ = NodeId::decode(&text);
            let _ = NodeId::decode(&URL_SAFE_NO_PAD.encode(text));
        }
    }

    #[test]
    fn invalid_ids_are_refused() {
        for text in [
            "[2,\"Message\",[\"2\",\"g\",\"1\"]]",
            "[1,\"Message\",[\"2\",\"g\",\"x\"]]",
            "[1,\"Message\",[\"0\",\"g\",\"1\"]]",
            "[1,\"Message\",[\"2\",\"\",\"1\"]]",
            "[1,\"Message\",[\"1\",\"annbob\",\"1\"]]",
            "[1,\"Message\",[\"1\"]]",
            "[1,\"Message\",[]]",
            "[1,\"UnreadSummary\",[\"\"]]",
            "[1,\"User\",[\"1\"]]",
            "[1,\"Channel\",[\"0\",\"g\"]]",
            "{}",
            "",
        ] {
            assert_eq!(
                NodeId::decode(&URL_SAFE_NO_PAD.encode(text)),
                None,
                "{text}"
            );
        }
    }
}
