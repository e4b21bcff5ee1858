//! The root type of queries.

use std::collections::BTreeSet;

use async_graphql::{Context, ID, Lookahead, Object};

use super::context::ContextExt;
use super::error::{InArgument, Result, RootResult};
use super::scalars::UInt53;
use super::types::{
    ChannelInput, Conversation, ConversationConnection, ConversationFilter, ConversationSync,
    MessageConnection, Node, PageArguments, SeqCursor, UnreadSummary,
};
use crate::conversation::{
    self as conversations, ListOrder, ListRequest, SyncDetail, SyncFilter, SyncRequest,
    parse_last_msg_seqs,
};
use crate::error::Error;
use crate::message::{HistoryRequest, list_history};
use crate::model::Version;

/// Checks a number of items that a client asks for: from 0 to `limit`.
pub(super) fn check_count(name: &'static str, count: i32, limit: u32) -> Result<u32> {
    match u32::try_from(count) {
        Ok(count) if count <= limit => Ok(count),
        _ => Err(Error::bad_input(name, format!("must be between 0 and {limit}")).into()),
    }
}

/// Returns which parts of the conversations the selection needs.
fn selected_content(conversations: &Lookahead<'_>) -> SyncDetail {
    if !conversations.exists() {
        return SyncDetail::Version;
    }
    let asks = |field| conversations.field(field).exists();
    let messages = ["recents", "lastMessage", "lastClientMsgNo"]
        .into_iter()
        .any(asks);
    if messages {
        SyncDetail::Messages
    } else {
        SyncDetail::Conversations
    }
}

/// Queries.
pub struct Query;

/// Queries.
#[Object]
impl Query {
    /// The changes since `version`. Store the returned `version` and pass it next time.
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
            desc = "The last message that the client holds of each channel: `channelId:channelType:lastMsgSeq`, joined by `|`."
        )]
        last_msg_seqs: Option<String>,
        #[graphql(
            desc = "The maximum number of newest messages of each conversation.",
            default_with = "Some(20)"
        )]
        msg_count: Option<i32>,
        #[graphql(
            desc = "Only conversations with unread messages.",
            default_with = "Some(false)"
        )]
        only_unread: Option<bool>,
        #[graphql(desc = "Channel types to leave out.")] exclude_channel_types: Option<Vec<i32>>,
        #[graphql(desc = "The maximum number, in order of version.")] first: Option<i32>,
    ) -> RootResult<ConversationSync> {
        let _timer = ctx.time_field();
        let limits = &ctx.core().base.limits;
        let uid = ctx.viewer(uid.as_ref())?;
        let last_msg_seqs = last_msg_seqs.unwrap_or_default();
        if last_msg_seqs.split('|').count() > limits.max_last_msg_seqs {
            let problem = format!("must have at most {} entries", limits.max_last_msg_seqs);
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
            // async-graphql passes an omitted variable as null, so null means the default
            // everywhere.
            version: version.map_or(Version::ZERO, |version| Version(version.signed())),
            last_msg_seqs: parse_last_msg_seqs(&last_msg_seqs),
            force_include: std::collections::HashSet::new(),
            msg_count: check_count(
                "msg_count",
                msg_count.unwrap_or(20),
                limits.max_messages_per_conversation,
            )?,
            filter: SyncFilter {
                only_unread: only_unread.unwrap_or_default(),
                // Duplicates are removed because the types are compared with every conversation.
                exclude_channel_types: excluded
                    .collect::<std::result::Result<BTreeSet<u8>, _>>()?
                    .into_iter()
                    .collect(),
                include_activated: false,
            },
            first: first.map(|first| first as usize),
            detail: selected_content(&ctx.look_ahead().field("conversations")),
        };
        let operation = ctx.operation();
        let answer = if operation.shares_lists()
            || (request.version == Version::ZERO && request.first.is_none())
        {
            let list = operation.list(&request.uid).await?;
            let _permit = operation.acquire_permit().await;
            list.changes(&ctx.core().conversations, &request, &operation.bytes)
                .await?
        } else {
            let _permit = operation.acquire_permit().await;
            conversations::sync_with_size_limit(
                &ctx.core().conversations,
                &request,
                &operation.bytes,
            )
            .await?
        };
        if request.first.is_none() {
            operation.count_conversations(answer.conversations.len())?;
        }
        Ok(Some(ConversationSync::new(request, answer)))
    }

    /// The list as a screen shows it: pinned conversations first, then by latest activity. Without
    /// `first` and `last`: the first 20. Paging misses no conversation: one that moves to the top
    /// meanwhile comes with the next page, and may come twice.
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments")]
    async fn conversation_list(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(desc = "The maximum number, from the top.")] first: Option<i32>,
        #[graphql(desc = "Only conversations below this cursor.")] after: Option<String>,
        #[graphql(desc = "The maximum number, up to the bottom.")] last: Option<i32>,
        #[graphql(desc = "Only conversations above this cursor.")] before: Option<String>,
        #[graphql(desc = "Selects conversations.")] filter: Option<ConversationFilter>,
    ) -> RootResult<ConversationConnection> {
        let _timer = ctx.time_field();
        let uid = ctx.viewer(uid.as_ref())?;
        let page = PageArguments::parse(
            (first, last),
            (after.as_deref(), before.as_deref()),
            ctx.core().base.limits.page_size,
            false,
        )?;
        let request = ListRequest {
            uid,
            filter: filter.unwrap_or_default().parse()?,
            after: page.after,
            before: page.before,
            limit: page.limit,
            from_end: page.from_end,
            order: ListOrder::PinnedFirst,
        };
        let list = ctx.operation().list(&request.uid).await?;
        let permit = ctx.operation().acquire_permit().await;
        let page = list.page(&request);
        drop(permit);
        Ok(Some(ConversationConnection::load(ctx, page).await?))
    }

    /// One conversation; null if the user has none in this channel.
    async fn conversation(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(desc = "The channel.")] channel: ChannelInput,
    ) -> RootResult<Conversation> {
        let _timer = ctx.time_field();
        let name = (
            ctx.viewer(uid.as_ref())?,
            channel.parse().in_argument("channel")?,
        );
        Ok(ctx.loaders().load_one(name).await?.map(Conversation::from))
    }

    /// A channel's messages that the user may see, oldest first; null if the user was never in the
    /// channel. Without `first` and `last`: the newest 20.
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments")]
    async fn messages(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
        #[graphql(desc = "The channel.")] channel: ChannelInput,
        #[graphql(desc = "The maximum number, from the oldest.")] first: Option<i32>,
        #[graphql(desc = "Only messages newer than this cursor.")] after: Option<String>,
        #[graphql(desc = "The maximum number, up to the newest.")] last: Option<i32>,
        #[graphql(desc = "Only messages older than this cursor.")] before: Option<String>,
    ) -> RootResult<MessageConnection> {
        let _timer = ctx.time_field();
        let uid = ctx.viewer(uid.as_ref())?;
        let page: PageArguments<SeqCursor> = PageArguments::parse(
            (first, last),
            (after.as_deref(), before.as_deref()),
            ctx.core().base.limits.page_size,
            true,
        )?;
        let request = HistoryRequest {
            uid,
            channel: channel.parse().in_argument("channel")?,
            after: page.after.map(|SeqCursor(seq)| seq),
            before: page.before.map(|SeqCursor(seq)| seq),
            limit: page.limit,
            newest: page.from_end,
            as_service: false,
        };
        let _permit = ctx.operation().acquire_permit().await;
        match list_history(&ctx.core().messages, &request, &ctx.operation().bytes).await {
            Ok(page) => Ok(Some(MessageConnection(page))),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The unread totals of all of the user's conversations.
    async fn unread_summary(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "The user's ID. Defaults to the authenticated user; required for service tokens."
        )]
        uid: Option<ID>,
    ) -> RootResult<UnreadSummary> {
        let _timer = ctx.time_field();
        let uid = ctx.viewer(uid.as_ref())?;
        Ok(Some(UnreadSummary::load(ctx.operation(), &uid).await?))
    }

    /// The object with this global ID; null if it does not exist any more.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A global ID from an answer.")] id: ID,
    ) -> RootResult<Node> {
        let _timer = ctx.time_field();
        Ok(Node::load(ctx, &[Node::parse_id(&id, "id")?])
            .await?
            .pop()
            .flatten())
    }

    /// The objects with these global IDs, in the same order; null for those that do not exist any
    /// more.
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Global IDs from answers.")] ids: Vec<ID>,
    ) -> RootResult<Vec<Option<Node>>> {
        let _timer = ctx.time_field();
        let limit = ctx.core().base.limits.page_size as usize;
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
