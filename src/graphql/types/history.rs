use async_graphql::connection::{CursorType, PageInfo};
use async_graphql::{Context, Object, SimpleObject};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::context::ContextExt;
use super::super::error::Result;
use super::super::query::check_count;
use super::Message;
use crate::error::Error;
use crate::ids::Seq;
use crate::message::{self, HistoryPage};

/// Entries of a page where nothing else is said.
pub(in crate::graphql) const PAGE: u32 = 20;

/// A page of messages.
#[derive(Clone, Debug)]
pub struct MessageConnection(pub HistoryPage);

/// A page of messages.
#[Object]
impl MessageConnection {
    /// The messages of the page with their cursors, oldest first.
    async fn edges(&self, ctx: &Context<'_>) -> Vec<MessageEdge> {
        let _turn = ctx.work().turn().await;
        let all = self.0.messages.iter().cloned();
        all.map(|message| MessageEdge {
            cursor: SeqCursor(message.seq).encode_cursor(),
            node: message.into(),
        })
        .collect()
    }

    /// The messages of the page, oldest first.
    async fn nodes(&self, ctx: &Context<'_>) -> Vec<Message> {
        let _turn = ctx.work().turn().await;
        self.0.messages.iter().cloned().map(Message::from).collect()
    }

    /// What there is beside the page.
    async fn page_info(&self) -> PageInfo {
        let cursor = |message: Option<&message::Message>| {
            message.map(|message| SeqCursor(message.seq).encode_cursor())
        };
        PageInfo {
            has_previous_page: self.0.has_previous,
            has_next_page: self.0.has_next,
            start_cursor: cursor(self.0.messages.first()),
            end_cursor: cursor(self.0.messages.last()),
        }
    }
}

/// A message's place in its channel.
#[derive(Clone, Debug, SimpleObject)]
pub struct MessageEdge {
    /// For `after` and `before`.
    cursor: String,
    /// The message.
    node: Message,
}

/// Where a message stands in its channel: opaque to clients, versioned for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqCursor(pub Seq);

impl CursorType for SeqCursor {
    type Error = Error;

    fn decode_cursor(cursor: &str) -> std::result::Result<Self, Error> {
        let decoded = URL_SAFE_NO_PAD
            .decode(cursor)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let seq = decoded
            .as_deref()
            .and_then(|text| text.strip_prefix("m1:"))
            .and_then(|seq| seq.parse().ok());
        seq.map(Self)
            .ok_or_else(|| Error::bad_input("cursor", "must be one that messages returned"))
    }

    fn encode_cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("m1:{}", self.0))
    }
}

/// `first`/`after` or `last`/`before`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<C> {
    /// Only what comes after this.
    pub after: Option<C>,
    /// Only what comes before this.
    pub before: Option<C>,
    /// At most this many.
    pub limit: u32,
    /// From the end; otherwise from the beginning.
    pub from_end: bool,
}

impl<C: CursorType<Error = Error>> Page<C> {
    /// Without `first` and `last`: 20, from the end if `from_end`, unless `after` says where to
    /// begin.
    pub(in crate::graphql) fn parse(
        (first, last): (Option<i32>, Option<i32>),
        (after, before): (Option<&str>, Option<&str>),
        limit: u32,
        from_end: bool,
    ) -> Result<Self> {
        let cursor = |name: &'static str, text: Option<&str>| {
            text.map(C::decode_cursor)
                .transpose()
                .map_err(|error| match error {
                    Error::BadInput { problem, .. } => Error::bad_input(name, problem),
                    other => other,
                })
        };
        let (after, before) = (cursor("after", after)?, cursor("before", before)?);
        let (limit, from_end) = match (first, last) {
            (Some(_), Some(_)) => {
                return Err(Error::bad_input("first", "and last cannot both be given").into());
            }
            (Some(first), None) => (check_count("first", first, limit)?, false),
            (None, Some(last)) => (check_count("last", last, limit)?, true),
            (None, None) => (
                PAGE.min(limit),
                before.is_some() || (from_end && after.is_none()),
            ),
        };
        Ok(Self {
            after,
            before,
            limit,
            from_end,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_come_back_and_others_are_refused(seq in 0_i64.., text in ".*") {
            prop_assert_eq!(SeqCursor::decode_cursor(&SeqCursor(seq).encode_cursor()).unwrap(), SeqCursor(seq));
            let _ = SeqCursor::decode_cursor(&text);
        }
    }
}
