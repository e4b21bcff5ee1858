use std::collections::HashMap;

use async_graphql::{Context, ID, Interface};

use super::node_id::NodeId;
use super::{Channel, Conversation, Message, UnreadSummary};
use crate::error::Error;
use crate::graphql::context::ContextExt;
use crate::graphql::error::Result;

/// An object with a global ID.
#[derive(Clone, Debug, Interface)]
#[graphql(field(
    name = "id",
    ty = "ID",
    desc = "The global ID: the same in every answer."
))]
pub enum Node {
    /// One user's view of one channel.
    Conversation(Conversation),
    /// A message.
    Message(Message),
    /// A channel, to which messages are sent.
    Channel(Channel),
    /// The unread totals of all of a user's conversations.
    UnreadSummary(UnreadSummary),
}

impl Node {
    /// Decodes the ID given in `argument`.
    pub(in crate::graphql) fn parse_id(
        id: &ID,
        argument: &'static str,
    ) -> std::result::Result<NodeId, Error> {
        NodeId::decode(id).ok_or_else(|| Error::bad_input(argument, "must be an id from an answer"))
    }

    /// Loads the objects that exist, in the order of `ids`, with one batch for each kind.
    pub(in crate::graphql) async fn load(
        ctx: &Context<'_>,
        ids: &[NodeId],
    ) -> Result<Vec<Option<Self>>> {
        let loaders = ctx.loaders();
        let names = ids.iter().filter_map(|id| match id {
            NodeId::Conversation(uid, channel) => Some((uid.clone(), channel.clone())),
            _ => None,
        });
        let messages = ids.iter().filter_map(|id| match id {
            NodeId::Message(key, id) => Some((key.clone(), *id)),
            _ => None,
        });
        let channels = ids.iter().filter_map(|id| match id {
            NodeId::Channel(channel) => Some(channel.clone()),
            _ => None,
        });
        let uids = ids.iter().filter_map(|id| match id {
            NodeId::UnreadSummary(uid) if ctx.caller().may_see(uid) => Some(uid.clone()),
            _ => None,
        });
        let summaries = async {
            let mut summaries = HashMap::new();
            for uid in uids {
                let summary = UnreadSummary::load(ctx.operation(), &uid).await?;
                summaries.insert(uid, summary);
            }
            Ok(summaries)
        };
        let (conversations, messages, channels, summaries) = tokio::try_join!(
            loaders.load_many(names),
            loaders.load_many(messages),
            loaders.load_many(channels),
            summaries
        )?;
        let found = ids.iter().map(|id| match id {
            NodeId::Conversation(uid, channel) => {
                let found = conversations.get(&(uid.clone(), channel.clone()));
                found.map(|conversation| Self::Conversation(conversation.clone().into()))
            }
            NodeId::Message(key, id) => {
                let found = messages.get(&(key.clone(), *id));
                found.map(|message| Self::Message(message.clone().into()))
            }
            NodeId::Channel(channel) => channels
                .get(channel)
                .map(|flags| Self::Channel(Channel::with_flags(channel.clone(), *flags))),
            NodeId::UnreadSummary(uid) => summaries.get(uid).cloned().map(Self::UnreadSummary),
        });
        Ok(found.collect())
    }
}
