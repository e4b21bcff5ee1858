//! The root type of mutations. Every payload returns the changed objects, so that normalised caches
//! can update themselves. There is one file for each kind of object.

mod channel;
mod conversation;
mod message;

use async_graphql::MergedObject;

/// Mutations.
#[derive(Debug, Default, MergedObject)]
pub struct Mutation(
    conversation::ConversationMutation,
    message::MessageMutation,
    channel::ChannelMutation,
);
