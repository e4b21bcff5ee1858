use std::cmp::Reverse;

use async_graphql::connection::{CursorType, PageInfo};
use async_graphql::{Context, InputObject, Object, SimpleObject, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::context::ContextExt;
use super::super::error::{At, Result};
use super::super::scalars::UInt53;
use super::{Conversation, RECENTS, int, parse_channel_types};
use crate::conversation::{ListCursor, ListFilter, ListPage, SortKey};
use crate::error::Error;

/// Which conversations of a list. What is left out does not matter.
#[derive(Clone, Debug, Default, InputObject)]
pub struct ConversationFilter {
    /// Only those with unread messages.
    #[graphql(default_with = "Some(false)")]
    only_unread: Option<bool>,
    /// Only those of these channel types.
    channel_types: Option<Vec<i32>>,
    /// Only pinned ones, or only others.
    pinned: Option<bool>,
    /// Only muted ones, or only others.
    muted: Option<bool>,
    /// Only those whose channel id begins with this.
    channel_id_prefix: Option<String>,
}

impl ConversationFilter {
    pub(in crate::graphql) fn parse(self) -> Result<ListFilter> {
        let types = self
            .channel_types
            .map(|types| parse_channel_types("channel_types", &types))
            .transpose()
            .at("filter")?;
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
    version: i64,
}

impl ConversationConnection {
    /// With the messages that the document asks for: one read for the whole page.
    pub(in crate::graphql) async fn load(ctx: &Context<'_>, page: ListPage) -> Result<Self> {
        let count = messages_wanted(ctx);
        let (places, rows): (Vec<ListCursor>, Vec<_>) = page.conversations.into_iter().unzip();
        let rows = Conversation::load_all(ctx, rows, count).await?;
        Ok(Self {
            entries: places.into_iter().zip(rows).collect(),
            has_previous: page.has_previous,
            has_next: page.has_next,
            total: page.total,
            version: page.version,
        })
    }
}

/// How many of the newest messages of each conversation the document asks for.
fn messages_wanted(ctx: &Context<'_>) -> u32 {
    let page = ctx.look_ahead();
    let limit = ctx.core().limits.msg_count;
    let mut most = 0;
    for conversation in [page.field("nodes"), page.field("edges").field("node")] {
        if conversation.field("lastMessage").exists()
            || conversation.field("lastClientMsgNo").exists()
        {
            most = most.max(1);
        }
        for recents in conversation.field("recents").selection_fields() {
            let arguments = recents.arguments().unwrap_or_default();
            let last = arguments.into_iter().find_map(|(name, value)| match value {
                Value::Number(number) if name == "last" => number.as_u64(),
                _ => None,
            });
            let last = last.map_or(RECENTS.unsigned_abs().min(limit), |last| {
                u32::try_from(last).unwrap_or(u32::MAX)
            });
            // One that is out of range is refused where it stands: nothing is read for it.
            most = most.max(if last <= limit { last } else { 0 });
        }
    }
    most
}

/// A page of the list.
#[Object]
impl ConversationConnection {
    /// The conversations of the page with their cursors, in the order of the list.
    async fn edges(&self, ctx: &Context<'_>) -> Vec<ConversationEdge> {
        let _turn = ctx.work().turn().await;
        let all = self.entries.iter().cloned();
        all.map(|(place, conversation)| ConversationEdge {
            cursor: place.encode_cursor(),
            node: conversation,
        })
        .collect()
    }

    /// The conversations of the page, in the order of the list.
    async fn nodes(&self, ctx: &Context<'_>) -> Vec<Conversation> {
        let _turn = ctx.work().turn().await;
        self.entries
            .iter()
            .map(|(_, conversation)| conversation.clone())
            .collect()
    }

    /// What there is beside the page.
    async fn page_info(&self) -> PageInfo {
        let cursor =
            |entry: Option<&(ListCursor, _)>| entry.map(|(place, _)| place.encode_cursor());
        PageInfo {
            has_previous_page: self.has_previous,
            has_next_page: self.has_next,
            start_cursor: cursor(self.entries.first()),
            end_cursor: cursor(self.entries.last()),
        }
    }

    /// How many conversations there are on all pages.
    async fn total_count(&self) -> i32 {
        int(i64::try_from(self.total).unwrap_or(i64::MAX))
    }

    /// Pass the first page's to `conversations`, and what changes from then on comes.
    async fn version(&self) -> UInt53 {
        self.version.into()
    }
}

/// A conversation's place in the list.
#[derive(Clone, Debug, SimpleObject)]
pub struct ConversationEdge {
    /// For `after` and `before`.
    cursor: String,
    /// The conversation.
    node: Conversation,
}

/// How a place is written: opaque to clients, versioned for us.
type Written = (String, i64, bool, i64, u8, String);

const KIND: &str = "l2";

impl CursorType for ListCursor {
    type Error = Error;

    fn decode_cursor(cursor: &str) -> std::result::Result<Self, Error> {
        let written = URL_SAFE_NO_PAD
            .decode(cursor)
            .ok()
            .and_then(|text| serde_json::from_slice::<Written>(&text).ok());
        match written {
            Some((kind, version, unpinned, activity, channel_type, channel_id)) if kind == KIND => {
                Ok(Self {
                    key: SortKey {
                        unpinned,
                        activity: Reverse(activity),
                        channel_type,
                        channel_id,
                    },
                    version,
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
        let written = (
            KIND,
            self.version,
            unpinned,
            activity.0,
            channel_type,
            channel_id,
        );
        URL_SAFE_NO_PAD.encode(serde_json::json!(written).to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_come_back_and_others_are_refused(at in 0_i64.., unpinned: bool, channel_type: u8, channel_id in ".{1,50}", text in ".*") {
            let cursor = ListCursor { key: SortKey { unpinned, activity: Reverse(at), channel_type, channel_id }, version: at };
            prop_assert_eq!(&ListCursor::decode_cursor(&cursor.encode_cursor()).unwrap(), &cursor);
            prop_assert!(ListCursor::decode_cursor(&text).is_err());
            prop_assert!(ListCursor::decode_cursor(&super::super::history::SeqCursor(at).encode_cursor()).is_err());
        }
    }
}
