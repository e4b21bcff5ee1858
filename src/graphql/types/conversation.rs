use std::sync::Arc;

use async_graphql::{Context, ID, Object};

use super::super::context::ContextExt;
use super::super::error::Result;
use super::super::query::check_count;
use super::super::scalars::{DateTime, UInt53};
use super::id::NodeId;
use super::{Message, Messages, int};
use crate::conversation::{self as conversations, Item, RecentsKey};
use crate::message::{self, Recents};

/// Messages that `recents` returns where nothing else is said.
pub(in crate::graphql) const RECENTS: i32 = 20;

/// One user's view of one channel.
#[derive(Clone, Debug)]
pub struct Conversation {
    conversation: conversations::Conversation,
    /// What a sync loaded with it.
    loaded: Option<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    last: Option<Arc<message::Message>>,
    recents: Recents,
    /// `recents` are the newest of this many; 0 when the client left out those it holds.
    complete_to: usize,
    /// Whether they are what `recents` returns where nothing else is said.
    default: bool,
}

impl From<conversations::Conversation> for Conversation {
    fn from(conversation: conversations::Conversation) -> Self {
        Self {
            conversation,
            loaded: None,
        }
    }
}

impl Conversation {
    /// A conversation of a sync that asked for `msg_count` messages, and for those only that the
    /// client lacks if `partial`.
    pub(super) fn of_sync(item: Item, msg_count: u32, partial: bool) -> Self {
        let complete_to = if partial { 0 } else { msg_count as usize };
        let loaded = Loaded {
            last: item.last_message,
            recents: item.recents,
            complete_to,
            default: true,
        };
        Self {
            conversation: item.conversation,
            loaded: Some(loaded),
        }
    }

    /// Conversations with their newest `count` messages: one read for all of them.
    pub(super) async fn load_all(
        ctx: &Context<'_>,
        conversations: Vec<conversations::Conversation>,
        count: u32,
    ) -> Result<Vec<Self>> {
        if count == 0 {
            return Ok(conversations.into_iter().map(Self::from).collect());
        }
        let keys: Vec<RecentsKey> = conversations
            .iter()
            .map(|conversation| Self::key(conversation, count))
            .collect();
        let _turn = ctx.work().turn().await;
        let found = conversations::list_recents(ctx.core(), &keys, &ctx.work().bytes).await?;
        let loaded = conversations
            .into_iter()
            .zip(found)
            .map(|(conversation, recents)| {
                let loaded = Loaded {
                    last: recents.first().cloned(),
                    recents,
                    complete_to: count as usize,
                    default: false,
                };
                Self {
                    conversation,
                    loaded: Some(loaded),
                }
            });
        Ok(loaded.collect())
    }

    fn key(conversation: &conversations::Conversation, count: u32) -> RecentsKey {
        RecentsKey {
            channel_id: conversation.channel_id,
            key: conversation.key.clone(),
            above: conversation.deleted_to_seq,
            head: conversation.head,
            count,
        }
    }

    async fn newest(&self, ctx: &Context<'_>, count: u32) -> Result<Recents> {
        let key = Self::key(&self.conversation, count);
        Ok(ctx.loaders().load_one(key).await?.unwrap_or_default())
    }

    async fn last(&self, ctx: &Context<'_>) -> Result<Option<Arc<message::Message>>> {
        match &self.loaded {
            Some(loaded) => Ok(loaded.last.clone()),
            None => Ok(self.newest(ctx, 1).await?.first().cloned()),
        }
    }
}

/// One user's view of one channel.
#[Object]
impl Conversation {
    /// The global id: the same in every answer.
    pub(super) async fn id(&self) -> ID {
        NodeId::Conversation(
            self.conversation.uid.clone(),
            self.conversation.channel.clone(),
        )
        .encode()
    }

    /// The channel's id; for a person channel the other one's uid.
    async fn channel_id(&self) -> ID {
        ID(self.conversation.channel.channel_id.clone())
    }

    /// 1 person, 2 group, 3 customer service, … up to 255.
    async fn channel_type(&self) -> i32 {
        i32::from(self.conversation.channel.channel_type.number())
    }

    /// Red-dot messages of others above the read position, unless the user set a number.
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
    /// It is above `lastMsgSeq` where the user has read messages that have not arrived yet.
    async fn read_seq(&self) -> UInt53 {
        self.conversation.read_seq.into()
    }

    /// The last message's client number.
    async fn last_client_msg_no(&self, ctx: &Context<'_>) -> Result<String> {
        Ok(self
            .last(ctx)
            .await?
            .map(|message| message.client_msg_no.clone())
            .unwrap_or_default())
    }

    /// The user's version of the last change that was given out.
    async fn version(&self) -> UInt53 {
        self.conversation.version.into()
    }

    /// When it was pinned; null when it is not.
    async fn pinned_at(&self) -> Option<DateTime> {
        (self.conversation.pinned_at > 0).then_some(DateTime(self.conversation.pinned_at))
    }

    /// Whether the user muted it.
    async fn muted(&self) -> bool {
        self.conversation.muted
    }

    /// The newest message.
    async fn last_message(&self, ctx: &Context<'_>) -> Option<Result<Message>> {
        // Null in its place where it fails: what stands beside it goes on.
        self.last(ctx)
            .await
            .transpose()
            .map(|last| last.map(Message))
    }

    /// The newest messages, newest first. Without `last`: what `conversations` was asked for with
    /// `msgCount`, elsewhere 20.
    async fn recents(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "At most this many.")] last: Option<i32>,
    ) -> Result<Messages> {
        let messages = match (&self.loaded, last) {
            (Some(loaded), None) if loaded.default => loaded.recents.clone(),
            (loaded, last) => {
                let limit = ctx.core().limits.msg_count;
                let count = check_count(
                    "last",
                    last.unwrap_or(RECENTS.min(int(i64::from(limit)))),
                    limit,
                )?;
                match loaded {
                    _ if count == 0 => Recents::default(),
                    Some(loaded) if count as usize <= loaded.complete_to => {
                        loaded.recents.clone().above(0, count as usize)
                    }
                    _ => self.newest(ctx, count).await?,
                }
            }
        };
        Ok(Messages(messages))
    }
}
