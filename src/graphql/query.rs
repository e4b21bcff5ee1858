//! What can be read.

use std::collections::BTreeSet;

use async_graphql::{Context, ID, Lookahead, Object};

use super::context::ContextExt;
use super::error::{At, Result, Root};
use super::scalars::UInt53;
use super::types::{
    ChannelInput, Conversation, ConversationConnection, ConversationFilter, ConversationSync,
    MessageConnection, Node, Page, SeqCursor, UnreadSummary,
};
use crate::conversation::{
    self as conversations, Filter, ListRequest, SyncRequest, Wanted, parse_last_msg_seqs,
};
use crate::error::Error;
use crate::message::{HistoryRequest, list_history};

/// A number of things asked for: from 0 to a limit.
pub(super) fn check_count(name: &'static str, count: i32, limit: u32) -> Result<u32> {
    match u32::try_from(count) {
        Ok(count) if count <= limit => Ok(count),
        _ => Err(Error::bad_input(name, format!("must be between 0 and {limit}")).into()),
    }
}

/// What the selection of a sync's conversations asks for.
fn wanted(conversations: &Lookahead<'_>) -> Wanted {
    if !conversations.exists() {
        return Wanted::Version;
    }
    let asks = |field| conversations.field(field).exists();
    let messages = ["recents", "lastMessage", "lastClientMsgNo"]
        .into_iter()
        .any(asks);
    if messages {
        Wanted::Messages
    } else {
        Wanted::Conversations
    }
}

/// What can be read.
pub struct Query;

/// What can be read.
#[Object]
impl Query {
    /// What changed since `version`. Store the returned `version` and pass it next time.
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments")]
    async fn conversations(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(
            desc = "The version of the last answer; 0 for everything.",
            default_with = "Some(UInt53(0))"
        )]
        version: Option<UInt53>,
        #[graphql(
            desc = "What the client holds: `channelId:channelType:lastMsgSeq`, joined by `|`."
        )]
        last_msg_seqs: Option<String>,
        #[graphql(
            desc = "At most this many newest messages for each conversation.",
            default_with = "Some(20)"
        )]
        msg_count: Option<i32>,
        #[graphql(
            desc = "Only conversations with unread messages.",
            default_with = "Some(false)"
        )]
        only_unread: Option<bool>,
        #[graphql(desc = "Channel types to leave out.")] exclude_channel_types: Option<Vec<i32>>,
        #[graphql(desc = "At most this many changes, in order of version.")] first: Option<i32>,
    ) -> Root<ConversationSync> {
        let _timed = ctx.timed();
        let limits = &ctx.core().limits;
        let uid = ctx.viewer(uid.as_ref())?;
        let last_msg_seqs = last_msg_seqs.unwrap_or_default();
        if last_msg_seqs.split('|').count() > limits.last_msg_seqs {
            let problem = format!("must have at most {} entries", limits.last_msg_seqs);
            return Err(Error::bad_input("last_msg_seqs", problem).into());
        }
        let excluded = exclude_channel_types
            .unwrap_or_default()
            .into_iter()
            .map(|number| {
                u8::try_from(number).map_err(|_| {
                    Error::bad_input("exclude_channel_types", "must be numbers between 0 and 255")
                })
            });
        let first = first
            .map(|first| check_count("first", first, limits.page_size))
            .transpose()?;
        let request = SyncRequest {
            uid,
            // A variable that the client leaves out is a null to async-graphql, so null means the
            // default everywhere.
            version: version.map_or(0, |version| version.signed()),
            last_msg_seqs: parse_last_msg_seqs(&last_msg_seqs),
            always: std::collections::HashSet::new(),
            msg_count: check_count("msg_count", msg_count.unwrap_or(20), limits.msg_count)?,
            filter: Filter {
                only_unread: only_unread.unwrap_or_default(),
                // Each once: they are looked through for every conversation.
                exclude_channel_types: excluded
                    .collect::<std::result::Result<BTreeSet<u8>, _>>()?
                    .into_iter()
                    .collect(),
            },
            first: first.map(|first| first as usize),
            wanted: wanted(&ctx.look_ahead().field("conversations")),
        };
        let work = ctx.work();
        let answer = if work.shares_lists() || (request.version == 0 && request.first.is_none()) {
            let list = work.list(&request.uid).await?;
            let _turn = work.turn().await;
            list.changes(ctx.core(), &request, &work.bytes).await?
        } else {
            let _turn = work.turn().await;
            conversations::sync_within(ctx.core(), &request, &work.bytes).await?
        };
        if request.first.is_none() {
            work.count_conversations(answer.conversations.len())?;
        }
        Ok(Some(ConversationSync::new(request, answer)))
    }

    /// The list as a screen shows it: pinned first, then latest activity. Without `first` and
    /// `last`: the first 20. A walk through the pages misses no conversation: one that moves to the
    /// top meanwhile comes with the next page, and may come twice.
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments")]
    async fn conversation_list(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(desc = "At most this many, from the top on.")] first: Option<i32>,
        #[graphql(desc = "Only what is below this cursor's.")] after: Option<String>,
        #[graphql(desc = "At most this many, up to the bottom.")] last: Option<i32>,
        #[graphql(desc = "Only what is above this cursor's.")] before: Option<String>,
        #[graphql(desc = "Which of the conversations.")] filter: Option<ConversationFilter>,
    ) -> Root<ConversationConnection> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(uid.as_ref())?;
        let page = Page::parse(
            (first, last),
            (after.as_deref(), before.as_deref()),
            ctx.core().limits.page_size,
            false,
        )?;
        let request = ListRequest {
            uid,
            filter: filter.unwrap_or_default().parse()?,
            after: page.after,
            before: page.before,
            limit: page.limit,
            from_end: page.from_end,
        };
        let list = ctx.work().list(&request.uid).await?;
        let turn = ctx.work().turn().await;
        let page = list.page(&request);
        drop(turn);
        Ok(Some(ConversationConnection::load(ctx, page).await?))
    }

    /// One conversation; null when the user has none in this channel.
    async fn conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(desc = "The channel.")] channel: ChannelInput,
    ) -> Root<Conversation> {
        let _timed = ctx.timed();
        let name = (ctx.viewer(uid.as_ref())?, channel.parse().at("channel")?);
        Ok(ctx.loaders().load_one(name).await?.map(Conversation::from))
    }

    /// A channel's messages, oldest first, as far as the user may see them; null when the user was
    /// never in the channel. Without `first` and `last`: the newest 20.
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments")]
    async fn messages(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(desc = "The channel.")] channel: ChannelInput,
        #[graphql(desc = "At most this many, from the oldest on.")] first: Option<i32>,
        #[graphql(desc = "Only newer ones than this cursor's.")] after: Option<String>,
        #[graphql(desc = "At most this many, up to the newest.")] last: Option<i32>,
        #[graphql(desc = "Only older ones than this cursor's.")] before: Option<String>,
    ) -> Root<MessageConnection> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(uid.as_ref())?;
        let page: Page<SeqCursor> = Page::parse(
            (first, last),
            (after.as_deref(), before.as_deref()),
            ctx.core().limits.page_size,
            true,
        )?;
        let request = HistoryRequest {
            uid,
            channel: channel.parse().at("channel")?,
            after: page.after.map(|SeqCursor(seq)| seq),
            before: page.before.map(|SeqCursor(seq)| seq),
            limit: page.limit,
            newest: page.from_end,
            as_service: false,
        };
        let _turn = ctx.work().turn().await;
        match list_history(ctx.core(), &request, &ctx.work().bytes).await {
            Ok(page) => Ok(Some(MessageConnection(page))),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Unread in all of the user's conversations.
    async fn unread_summary(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
    ) -> Root<UnreadSummary> {
        let _timed = ctx.timed();
        let uid = ctx.viewer(uid.as_ref())?;
        Ok(Some(UnreadSummary::load(ctx.work(), &uid).await?))
    }

    /// What has this global id; null when there is no such thing any more.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "An `id` that an answer returned.")] id: ID,
    ) -> Root<Node> {
        let _timed = ctx.timed();
        Ok(Node::load(ctx, &[Node::parse_id(&id, "id")?])
            .await?
            .pop()
            .flatten())
    }

    /// What has these global ids, each in its place; null for what does not exist any more.
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Each an `id` that an answer returned.")] ids: Vec<ID>,
    ) -> Root<Vec<Option<Node>>> {
        let _timed = ctx.timed();
        let limit = ctx.core().limits.page_size as usize;
        if ids.len() > limit {
            return Err(Error::bad_input("ids", format!("must be at most {limit}")).into());
        }
        let ids = ids
            .iter()
            .map(|id| Node::parse_id(id, "ids"))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Some(Node::load(ctx, &ids).await?))
    }
}
