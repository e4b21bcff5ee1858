//! What can be read.

use async_graphql::{Context, ID, Object};

use super::context::ContextExt;
use super::error::{GraphqlError, Result};
use super::scalars::UInt53;
use super::types::{ChannelInput, Conversation, ConversationSync, Messages, Page, UnreadSummary};
use crate::conversation::{self as conversations, Filter, SyncRequest, parse_last_msg_seqs};
use crate::error::Error;
use crate::message::{HistoryRequest, list_history};

/// A number of things asked for: from 0 to a limit.
pub(super) fn check_count(name: &'static str, count: i32, limit: u32) -> Result<u32> {
    match u32::try_from(count) {
        Ok(count) if count <= limit => Ok(count),
        _ => Err(Error::bad_input(name, format!("must be between 0 and {limit}")).into()),
    }
}

/// What can be read.
pub struct Query;

#[Object]
impl Query {
    /// What changed since `version`. Store the returned `version` and pass it next time.
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments")]
    async fn conversations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whose; a service must say.")] uid: Option<ID>,
        #[graphql(desc = "The version of the last answer; 0 for everything.", default)] version: UInt53,
        #[graphql(desc = "What the client holds: `channelId:channelType:lastMsgSeq`, joined by `|`.")] last_msg_seqs: Option<
            String,
        >,
        #[graphql(desc = "At most this many newest messages for each conversation.", default = 20)] msg_count: i32,
        #[graphql(desc = "Only conversations with unread messages.", default)] only_unread: bool,
        #[graphql(desc = "Channel types to leave out.")] exclude_channel_types: Option<Vec<i32>>,
        #[graphql(desc = "At most this many changes, in order of version.")] first: Option<i32>,
    ) -> Result<ConversationSync> {
        let limits = &ctx.core().limits;
        let uid = ctx.viewer(uid.as_ref().map(|uid| uid.as_str()))?;
        let last_msg_seqs = last_msg_seqs.unwrap_or_default();
        if last_msg_seqs.split('|').count() > limits.last_msg_seqs {
            let problem = format!("must have at most {} entries", limits.last_msg_seqs);
            return Err(Error::bad_input("last_msg_seqs", problem).into());
        }
        let excluded = exclude_channel_types.unwrap_or_default().into_iter().map(|number| {
            u8::try_from(number).map_err(|_| Error::bad_input("exclude_channel_types", "must be numbers between 0 and 255"))
        });
        let first = first.map(|first| check_count("first", first, limits.page_size)).transpose()?;
        let request = SyncRequest {
            uid,
            version: version.signed(),
            last_msg_seqs: parse_last_msg_seqs(&last_msg_seqs),
            always: std::collections::HashSet::new(),
            msg_count: check_count("msg_count", msg_count, limits.msg_count)?,
            filter: Filter { only_unread, exclude_channel_types: excluded.collect::<std::result::Result<_, _>>()? },
            first: first.map(|first| first as usize),
        };
        let answer = conversations::sync(ctx.core(), &request).await?;
        Ok(ConversationSync::new(request, answer))
    }

    /// One conversation.
    async fn conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whose; a service must say.")] uid: Option<ID>,
        #[graphql(desc = "Which channel.")] channel: ChannelInput,
    ) -> Result<Option<Conversation>> {
        let uid = ctx.viewer(uid.as_ref().map(|uid| uid.as_str()))?;
        let found = conversations::find_conversation(ctx.core(), &uid, &channel.parse()?).await?;
        if found.is_none() {
            // Null in its place, and the reason beside it: the rest of the request goes on.
            let error = async_graphql::Error::from(GraphqlError(Error::NotFound("conversation")));
            ctx.add_error(ctx.set_error_path(error.into_server_error(ctx.item.pos)));
        }
        Ok(found.map(Conversation::from))
    }

    /// A channel's messages, oldest first, as far as the user may see them. Without `first` and `last`: the newest 20.
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments")]
    async fn messages(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who looks; a service must say.")] uid: Option<ID>,
        #[graphql(desc = "Which channel.")] channel: ChannelInput,
        #[graphql(desc = "At most this many, from the oldest on.")] first: Option<i32>,
        #[graphql(desc = "Only newer ones than this cursor's.")] after: Option<String>,
        #[graphql(desc = "At most this many, up to the newest.")] last: Option<i32>,
        #[graphql(desc = "Only older ones than this cursor's.")] before: Option<String>,
    ) -> Result<Messages> {
        let uid = ctx.viewer(uid.as_ref().map(|uid| uid.as_str()))?;
        let page = Page::parse(first, after.as_deref(), last, before.as_deref(), ctx.core().limits.page_size)?;
        let request = HistoryRequest {
            uid,
            channel: channel.parse()?,
            after: page.after,
            before: page.before,
            limit: page.limit,
            newest: page.newest,
        };
        Ok(Page::connection(list_history(ctx.core(), &request).await?))
    }

    /// Unread in all of the user's conversations.
    async fn unread_summary(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whose; a service must say.")] uid: Option<ID>,
    ) -> Result<UnreadSummary> {
        let uid = ctx.viewer(uid.as_ref().map(|uid| uid.as_str()))?;
        Ok(UnreadSummary(conversations::summarize(ctx.core(), &uid).await?))
    }
}
