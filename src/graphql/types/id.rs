//! Global ids: opaque to clients, versioned for us.

use async_graphql::ID;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ids::{ChannelRef, Uid};

/// The first version of how ids are made.
const VERSION: u8 = 1;

/// What a global id names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::graphql) enum NodeId {
    /// A user's view of a channel.
    Conversation(Uid, ChannelRef),
    /// A message by its global number.
    Message(i64),
    /// A channel that is not a person channel.
    Channel(ChannelRef),
}

impl NodeId {
    /// The id: whatever the parts contain, no two objects share one.
    pub(super) fn encode(&self) -> ID {
        let of_channel = |channel: &ChannelRef| [channel.channel_type.number().to_string(), channel.channel_id.clone()];
        let (kind, parts) = match self {
            Self::Conversation(uid, channel) => {
                let [channel_type, channel_id] = of_channel(channel);
                ("Conversation", vec![uid.to_string(), channel_type, channel_id])
            }
            Self::Message(id) => ("Message", vec![id.to_string()]),
            Self::Channel(channel) => ("Channel", of_channel(channel).to_vec()),
        };
        ID(URL_SAFE_NO_PAD.encode(serde_json::json!([VERSION, kind, parts]).to_string()))
    }

    /// What a client gave back; `None` for what was never an id.
    pub(in crate::graphql) fn decode(id: &str) -> Option<Self> {
        let text = URL_SAFE_NO_PAD.decode(id).ok()?;
        let (version, kind, parts): (u8, String, Vec<String>) = serde_json::from_slice(&text).ok()?;
        if version != VERSION {
            return None;
        }
        let channel = |channel_type: &str, id: &str| ChannelRef::parse(id, channel_type.parse().ok()?).ok();
        match (kind.as_str(), parts.as_slice()) {
            ("Conversation", [uid, channel_type, id]) => {
                Some(Self::Conversation(Uid::parse("id", uid.as_str()).ok()?, channel(channel_type, id)?))
            }
            ("Message", [id]) => Some(Self::Message(id.parse().ok()?)),
            ("Channel", [channel_type, id]) => Some(Self::Channel(channel(channel_type, id)?)),
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
        fn ids_come_back_and_nothing_panics(uid in "[^\\p{Cc}]{1,50}", channel in "[^\\p{Cc}]{1,50}", kind in 1_i64..=255, text in ".*") {
            let channel = ChannelRef::parse(channel, kind).unwrap();
            for id in [NodeId::Conversation(Uid::parse("uid", uid).unwrap(), channel.clone()), NodeId::Channel(channel), NodeId::Message(kind)] {
                prop_assert_eq!(NodeId::decode(&id.encode()), Some(id));
            }
            let _ = NodeId::decode(&text);
            let _ = NodeId::decode(&URL_SAFE_NO_PAD.encode(text));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "[2,\"Message\",[\"1\"]]",
            "[1,\"Message\",[\"x\"]]",
            "[1,\"Message\",[]]",
            "[1,\"User\",[\"1\"]]",
            "[1,\"Channel\",[\"0\",\"g\"]]",
            "{}",
            "",
        ] {
            assert_eq!(NodeId::decode(&URL_SAFE_NO_PAD.encode(text)), None, "{text}");
        }
    }
}
