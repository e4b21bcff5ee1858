use std::cmp::Reverse;

use async_graphql::connection::{CursorType, PageInfo};
use async_graphql::{Context, InputObject, Object, SimpleObject, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Conversation, DEFAULT_RECENT_MESSAGES, int, parse_channel_types};
use crate::conversation::{ListCursor, ListFilter, ListPage, SortKey};
use crate::error::Error;
use crate::graphql::context::ContextExt;
use crate::graphql::error::{InArgument, Result};
use crate::graphql::scalars::UInt53;
use crate::model::{EpochMs, Version};

/// Selects conversations of a list. Omitted fields select all.
#[derive(Clone, Debug, Default, InputObject)]
pub struct ConversationFilter {
    /// Only conversations with unread messages.
    #[graphql(default_with = "Some(false)")]
    only_unread: Option<bool>,
    /// Only conversations of these channel types.
    channel_types: Option<Vec<i32>>,
    /// Only pinned conversations, or only those that are not pinned.
    pinned: Option<bool>,
    /// Only muted conversations, or only those that are not muted.
    muted: Option<bool>,
    /// Only conversations whose channel ID begins with this text.
    channel_id_prefix: Option<String>,
}

impl ConversationFilter {
    pub(in crate::graphql) fn parse(self) -> Result<ListFilter> {
        let types = self
            .channel_types
            .map(|types| parse_channel_types("channel_types", &types))
            .transpose()
            .in_argument("filter")?;
        Ok(ListFilter {
            only_unread: self.only_unread.unwrap_or_default(),
            channel_types: types,
            pinned: self.pinned,
            muted: self.muted,
            channel_id_prefix: self.channel_id_prefix.unwrap_or_default(),
        })
    }
}

/// A page of the list.
#[derive(Clone, Debug)]
pub struct ConversationConnection {
    entries: Vec<(ListCursor, Conversation)>,
    has_previous: bool,
    has_next: bool,
    total: usize,
    version: Version,
}

impl ConversationConnection {
    /// Loads the messages that the document selects, in one read for the whole page.
    pub(in crate::graphql) async fn load(ctx: &Context<'_>, page: ListPage) -> Result<Self> {
        let count = selected_message_count(ctx);
        let (cursors, rows): (Vec<ListCursor>, Vec<_>) = page.conversations.into_iter().unzip();
        let rows = Conversation::load_all(ctx, rows, count).await?;
        Ok(Self {
            entries: cursors.into_iter().zip(rows).collect(),
            has_previous: page.has_previous,
            has_next: page.has_next,
            total: page.total,
            version: page.version,
        })
    }
}

/// Returns how many of the newest messages of each conversation the document selects.
fn selected_message_count(ctx: &Context<'_>) -> u32 {
    let page = ctx.look_ahead();
    let limit = ctx.core().base.limits.max_messages_per_conversation;
    let mut count = 0;
    for conversation in [page.field("nodes"), page.field("edges").field("node")] {
        if conversation.field("lastMessage").exists()
            || conversation.field("lastClientMsgNo").exists()
        {
            count = count.max(1);
        }
        for recents in conversation.field("recents").selection_fields() {
            let arguments = recents.arguments().unwrap_or_default();
            let last = arguments.into_iter().find_map(|(name, value)| match value {
                Value::Number(number) if name == "last" => number.as_u64(),
                _ => None,
            });
            let last = last.map_or(DEFAULT_RECENT_MESSAGES.unsigned_abs().min(limit), |last| {
                u32::try_from(last).unwrap_or(u32::MAX)
            });
            // A number out of range is refused by its resolver, so nothing is read for it.
            count = count.max(if last <= limit { last } else { 0 });
        }
    }
    count
}

/// A page of the list.
#[Object]
impl ConversationConnection {
    /// The conversations of the page with their cursors, in the order of the list.
    async fn edges(&self, ctx: &Context<'_>) -> Vec<ConversationEdge> {
        let _permit = ctx.operation().acquire_permit().await;
        let all = self.entries.iter().cloned();
        all.map(|(cursor, conversation)| ConversationEdge {
            cursor: cursor.encode_cursor(),
            node: conversation,
        })
        .collect()
    }

    /// The conversations of the page, in the order of the list.
    async fn nodes(&self, ctx: &Context<'_>) -> Vec<Conversation> {
        let _permit = ctx.operation().acquire_permit().await;
        self.entries
            .iter()
            .map(|(_, conversation)| conversation.clone())
            .collect()
    }

    /// The cursors of this page's ends, and whether there are more pages.
    async fn page_info(&self) -> PageInfo {
        let cursor =
            |entry: Option<&(ListCursor, _)>| entry.map(|(cursor, _)| cursor.encode_cursor());
        PageInfo {
            has_previous_page: self.has_previous,
            has_next_page: self.has_next,
            start_cursor: cursor(self.entries.first()),
            end_cursor: cursor(self.entries.last()),
        }
    }

    /// The number of conversations on all pages.
    async fn total_count(&self) -> i32 {
        int(i64::try_from(self.total).unwrap_or(i64::MAX))
    }

    /// The version of the list. Pass the first page's version to `conversations` to get the changes
    /// since.
    async fn version(&self) -> UInt53 {
        self.version.into()
    }
}

/// A conversation with its cursor in the list.
#[derive(Clone, Debug, SimpleObject)]
pub struct ConversationEdge {
    /// The cursor to pass as `after` or `before`.
    cursor: String,
    /// The conversation.
    node: Conversation,
}

/// The content of an encoded cursor: opaque to clients, versioned for the server.
type CursorParts = (String, i64, bool, i64, u8, String);

const CURSOR_VERSION: &str = "l2";

impl CursorType for ListCursor {
    type Error = Error;

    fn decode_cursor(cursor: &str) -> std::result::Result<Self, Error> {
        let parts = URL_SAFE_NO_PAD
            .decode(cursor)
            .ok()
            .and_then(|text| serde_json::from_slice::<CursorParts>(&text).ok());
        match parts {
            Some((kind, version, unpinned, activity, channel_type, channel_id))
                if kind == CURSOR_VERSION =>
            {
                Ok(Self {
                    key: SortKey {
                        unpinned,
                        activity: Reverse(EpochMs(activity)),
                        channel_type,
                        channel_id,
                    },
                    version: Version(version),
                })
            }
            _ => Err(Error::bad_input(
                "cursor",
                "must be one that conversationList returned",
            )),
        }
    }

    fn encode_cursor(&self) -> String {
        let SortKey {
            unpinned,
            activity,
            channel_type,
            channel_id,
        } = &self.key;
        let parts = (
            CURSOR_VERSION,
            self.version.0,
            unpinned,
            activity.0.0,
            channel_type,
            channel_id,
        );
        URL_SAFE_NO_PAD.encode(serde_json::json!(parts).to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_round_trip_and_invalid_ones_are_refused(at in 0_i64.., unpinned: bool, channel_type: u8, channel_id in ".{1,50}", text in ".*") {
            let cursor = ListCursor { key: SortKey { unpinned, activity: Reverse(EpochMs(at)), channel_type, channel_id }, version: Version(at) };
            prop_assert_eq!(&ListCursor::decode_cursor(&cursor.encode_cursor()).unwrap(), &cursor);
            prop_assert!(ListCursor::decode_cursor(&text).is_err());
            prop_assert!(ListCursor::decode_cursor(&crate::graphql::types::SeqCursor(crate::model::Seq(at)).encode_cursor()).is_err());
        }
    }
}
