use async_graphql::{Context, ID, InputObject, Object};

use super::node_id::NodeId;
use crate::channel::Flags;
use crate::graphql::context::ContextExt;
use crate::graphql::error::Result;
use crate::model::ChannelRef;

/// The name of a channel.
#[derive(Clone, Debug, InputObject)]
pub struct ChannelInput {
    /// The channel's ID; for a person channel the other user's uid.
    channel_id: ID,
    /// 1 person, 2 group, 3 customer service, … up to 255.
    channel_type: i32,
}

impl ChannelInput {
    pub(in crate::graphql) fn parse(self) -> Result<ChannelRef> {
        Ok(ChannelRef::parse(
            self.channel_id.0,
            i64::from(self.channel_type),
        )?)
    }
}

/// A channel, to which messages are sent.
#[derive(Clone, Debug)]
pub struct Channel {
    channel: ChannelRef,
    /// `None` until a field needs them.
    flags: Option<Flags>,
}

impl From<ChannelRef> for Channel {
    fn from(channel: ChannelRef) -> Self {
        Self {
            channel,
            flags: None,
        }
    }
}

impl Channel {
    pub(super) fn with_flags(channel: ChannelRef, flags: Flags) -> Self {
        Self {
            channel,
            flags: Some(flags),
        }
    }

    async fn flags(&self, ctx: &Context<'_>) -> Result<Flags> {
        match self.flags {
            Some(flags) => Ok(flags),
            None => Ok(ctx
                .loaders()
                .load_one(self.channel.clone())
                .await?
                .unwrap_or_default()),
        }
    }
}

/// A channel, to which messages are sent.
#[Object]
impl Channel {
    /// The global ID.
    pub(super) async fn id(&self) -> ID {
        NodeId::Channel(self.channel.clone()).encode()
    }

    /// The channel's ID.
    async fn channel_id(&self) -> ID {
        ID(self.channel.channel_id.clone())
    }

    /// 1 person, 2 group, 3 customer service, … up to 255.
    async fn channel_type(&self) -> i32 {
        i32::from(self.channel.channel_type.number())
    }

    /// True if the channel is marked as a group of very many members.
    async fn large(&self, ctx: &Context<'_>) -> Result<bool> {
        Ok(self.flags(ctx).await?.large)
    }

    /// True if the channel is marked as banned.
    async fn ban(&self, ctx: &Context<'_>) -> Result<bool> {
        Ok(self.flags(ctx).await?.ban)
    }

    /// True if the channel is marked as disbanded.
    async fn disband(&self, ctx: &Context<'_>) -> Result<bool> {
        Ok(self.flags(ctx).await?.disband)
    }
}
