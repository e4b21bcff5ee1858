use std::sync::Arc;

use async_graphql::{Context, ID, Object};

use super::node_id::NodeId;
use super::{Message, MessageList, int};
use crate::conversation::{self as conversations, ConversationWithMessages, RecentMessagesKey};
use crate::graphql::context::ContextExt;
use crate::graphql::error::Result;
use crate::graphql::query::check_count;
use crate::graphql::scalars::{DateTime, UInt53};
use crate::message::MessageSlice;
use crate::model;
use crate::model::{EpochMs, Seq};

/// Number of messages that `recents` returns by default.
pub(in crate::graphql) const DEFAULT_RECENT_MESSAGES: i32 = 20;

/// One user's view of one channel.
#[derive(Clone, Debug)]
pub struct Conversation {
    conversation: conversations::Conversation,
    /// The messages that were loaded together with the conversation.
    preloaded: Option<PreloadedMessages>,
}

#[derive(Clone, Debug)]
struct PreloadedMessages {
    last: Option<Arc<model::Message>>,
    recents: MessageSlice,
    /// `recents` has the newest messages, up to this number; 0 if messages that the client holds
    /// are left out.
    complete_to: usize,
    /// True if `recents` without `last` returns these messages.
    default: bool,
}

impl From<conversations::Conversation> for Conversation {
    fn from(conversation: conversations::Conversation) -> Self {
        Self {
            conversation,
            preloaded: None,
        }
    }
}

impl Conversation {
    /// Creates a conversation of a sync with `msg_count` messages. With `partial`, messages that
    /// the client holds are left out.
    pub(super) fn from_sync(item: ConversationWithMessages, msg_count: u32, partial: bool) -> Self {
        let complete_to = if partial { 0 } else { msg_count as usize };
        let preloaded = PreloadedMessages {
            last: item.last_message,
            recents: item.recents,
            complete_to,
            default: true,
        };
        Self {
            conversation: item.conversation,
            preloaded: Some(preloaded),
        }
    }

    /// Loads the newest `count` messages of all conversations in one read.
    pub(super) async fn load_all(
        ctx: &Context<'_>,
        conversations: Vec<conversations::Conversation>,
        count: u32,
    ) -> Result<Vec<Self>> {
        if count == 0 {
            return Ok(conversations.into_iter().map(Self::from).collect());
        }
        let keys: Vec<RecentMessagesKey> = conversations
            .iter()
            .map(|conversation| RecentMessagesKey::of(conversation, count))
            .collect();
        let _permit = ctx.operation().acquire_permit().await;
        let found = conversations::list_recent_messages(
            &ctx.core().conversations,
            &keys,
            &ctx.operation().bytes,
        )
        .await?;
        let preloaded = conversations
            .into_iter()
            .zip(found)
            .map(|(conversation, recents)| {
                let preloaded = PreloadedMessages {
                    last: recents.first().cloned(),
                    recents,
                    complete_to: count as usize,
                    default: false,
                };
                Self {
                    conversation,
                    preloaded: Some(preloaded),
                }
            });
        Ok(preloaded.collect())
    }

    async fn newest(&self, ctx: &Context<'_>, count: u32) -> Result<MessageSlice> {
        let key = RecentMessagesKey::of(&self.conversation, count);
        Ok(ctx.loaders().load_one(key).await?.unwrap_or_default())
    }

    async fn last(&self, ctx: &Context<'_>) -> Result<Option<Arc<model::Message>>> {
        match &self.preloaded {
            Some(preloaded) => Ok(preloaded.last.clone()),
            None => Ok(self.newest(ctx, 1).await?.first().cloned()),
        }
    }
}

/// One user's view of one channel.
#[Object]
impl Conversation {
    /// The global ID: the same in every answer.
    pub(super) async fn id(&self) -> ID {
        NodeId::Conversation(
            self.conversation.uid.clone(),
            self.conversation.channel_ref.clone(),
        )
        .encode()
    }

    /// The channel's ID; for a person channel the other user's uid.
    async fn channel_id(&self) -> ID {
        ID(self.conversation.channel_ref.channel_id.clone())
    }

    /// 1 person, 2 group, 3 customer service, … up to 255.
    async fn channel_type(&self) -> i32 {
        i32::from(self.conversation.channel_ref.channel_type.number())
    }

    /// The number of red-dot messages of others above the read position, unless the user set a
    /// number.
    async fn unread(&self) -> i32 {
        int(self.conversation.unread)
    }

    /// When the last message was sent.
    async fn last_activity_at(&self) -> DateTime {
        DateTime(self.conversation.last_activity_at)
    }

    /// The last message's number in the channel.
    async fn last_msg_seq(&self) -> UInt53 {
        self.conversation.last_msg_seq.into()
    }

    /// The read position: the number of the last message that the user has read, sent or deleted.
    /// It is above `lastMsgSeq` if the user has read messages that have not arrived here yet.
    async fn read_seq(&self) -> UInt53 {
        self.conversation.read_seq.into()
    }

    /// The last message's deduplication key.
    async fn last_client_msg_no(&self, ctx: &Context<'_>) -> Result<String> {
        Ok(self
            .last(ctx)
            .await?
            .map(|message| message.client_msg_no.clone())
            .unwrap_or_default())
    }

    /// The user's version of the last change that was returned.
    async fn version(&self) -> UInt53 {
        self.conversation.version.into()
    }

    /// When the conversation was pinned; null if it is not pinned.
    async fn pinned_at(&self) -> Option<DateTime> {
        (self.conversation.pinned_at > EpochMs::ZERO)
            .then_some(DateTime(self.conversation.pinned_at))
    }

    /// True if the user muted the conversation.
    async fn muted(&self) -> bool {
        self.conversation.muted
    }

    /// The newest message.
    async fn last_message(&self, ctx: &Context<'_>) -> Option<Result<Message>> {
        // A failure makes this field null; the other fields are not affected.
        self.last(ctx)
            .await
            .transpose()
            .map(|last| last.map(Message))
    }

    /// The newest messages, newest first. Without `last`: as many as `msgCount` of `conversations`
    /// says, elsewhere 20.
    async fn recents(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The maximum number of messages.")] last: Option<i32>,
    ) -> Result<MessageList> {
        let messages = match (&self.preloaded, last) {
            (Some(preloaded), None) if preloaded.default => preloaded.recents.clone(),
            (preloaded, last) => {
                let limit = ctx.core().base.limits.max_messages_per_conversation;
                let count = check_count(
                    "last",
                    last.unwrap_or(DEFAULT_RECENT_MESSAGES.min(int(i64::from(limit)))),
                    limit,
                )?;
                match preloaded {
                    _ if count == 0 => MessageSlice::default(),
                    Some(preloaded) if count as usize <= preloaded.complete_to => {
                        preloaded.recents.clone().above(Seq::ZERO, count as usize)
                    }
                    _ => self.newest(ctx, count).await?,
                }
            }
        };
        Ok(MessageList(messages))
    }
}
