use async_graphql::{ID, InputObject, Object};

use super::super::error::Result;
use super::id::NodeId;
use crate::ids::ChannelRef;

/// Which channel.
#[derive(Clone, Debug, InputObject)]
pub struct ChannelInput {
    /// The channel's id; for a person channel the other one's uid.
    channel_id: ID,
    /// 1 person, 2 group, 3 customer service, … up to 255.
    channel_type: i32,
}

impl ChannelInput {
    pub(in crate::graphql) fn parse(self) -> Result<ChannelRef> {
        Ok(ChannelRef::parse(self.channel_id.0, i64::from(self.channel_type))?)
    }
}

/// Where messages go.
#[derive(Clone, Debug)]
pub struct Channel(pub ChannelRef);

/// Where messages go.
#[Object]
impl Channel {
    /// The global id.
    pub(super) async fn id(&self) -> ID {
        NodeId::Channel(self.0.clone()).encode()
    }

    /// The channel's id.
    async fn channel_id(&self) -> ID {
        ID(self.0.channel_id.clone())
    }

    /// 1 person, 2 group, 3 customer service, … up to 255.
    async fn channel_type(&self) -> i32 {
        i32::from(self.0.channel_type.number())
    }
}
