//! What can be changed. Every payload returns what changed, so that normalised caches follow. One
//! file for each kind of thing.

mod channel;
mod conversation;
mod message;

use async_graphql::MergedObject;

/// What can be changed.
#[derive(Debug, Default, MergedObject)]
pub struct Mutation(
    conversation::ConversationMutation,
    message::MessageMutation,
    channel::ChannelMutation,
);
