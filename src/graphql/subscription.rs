//! Subscriptions.

use std::sync::Arc;

use async_graphql::{Context, ID, Subscription};
use futures_util::{Stream, StreamExt};

use super::context::ContextExt;
use super::error::{GraphqlError, InArgument, Result};
use super::query::check_count;
use super::scalars::UInt53;
use super::types::{ChannelInput, ConversationSync, Message};
use crate::conversation::SyncRequest;
use crate::live::{Feeds, MessageFeedRequest};
use crate::model::Version;

/// Subscriptions.
pub struct Subscriptions;

/// Subscriptions.
#[Subscription(name = "Subscription")]
impl Subscriptions {
    /// The changes since `version`, then every change as it happens, without a gap between the two.
    /// Each event applies like an answer of `conversations`. The first event always comes; long
    /// ones are split (`hasMore`). To resume, subscribe with the version of the last event.
    async fn conversation_changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(
            desc = "The version of the last answer or event; 0 for everything.",
            default_with = "Some(UInt53(0))"
        )]
        version: Option<UInt53>,
        #[graphql(
            desc = "The maximum number of newest messages of each conversation.",
            default_with = "Some(1)"
        )]
        msg_count: Option<i32>,
    ) -> Result<impl Stream<Item = Result<ConversationSync>> + use<>> {
        let uid = ctx.viewer(uid.as_ref())?;
        ctx.core().base.check_conversations_on()?;
        let msg_count = check_count(
            "msg_count",
            msg_count.unwrap_or(1),
            ctx.core().base.limits.max_messages_per_conversation,
        )?;
        let feeds: &Arc<Feeds> = ctx.data_unchecked();
        let events = feeds.subscribe(
            uid.clone(),
            version.map_or(Version::ZERO, |version| Version(version.signed())),
            msg_count,
        );
        let request = SyncRequest {
            msg_count,
            ..SyncRequest::new(uid)
        };
        let operation = Arc::clone(ctx.operation());
        Ok(events
            .inspect(move |_| operation.reset())
            .map(move |event| {
                event
                    .map(|answer| ConversationSync::new(request.clone(), answer))
                    .map_err(GraphqlError::from)
            }))
    }

    /// A channel's new messages that the user may see, oldest first; the stream ends when the user
    /// leaves the channel. It does not contain late messages, whose number is below one that was
    /// already sent; `conversationChanges` reports those.
    async fn message_added(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(desc = "The channel.")] channel: ChannelInput,
        #[graphql(desc = "Begins above this `messageSeq`. Defaults to messages sent from now on.")]
        after: Option<UInt53>,
    ) -> Result<impl Stream<Item = Result<Message>> + use<>> {
        let uid = ctx.viewer(uid.as_ref())?;
        let channel = channel.parse().in_argument("channel")?;
        let request = MessageFeedRequest {
            uid,
            channel,
            after: after.map(UInt53::seq),
        };
        let feeds: &Arc<Feeds> = ctx.data_unchecked();
        let messages = feeds.messages_added(request).await?;
        Ok(messages.map(|message| message.map(Message::from).map_err(GraphqlError::from)))
    }
}
