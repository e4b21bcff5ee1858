use async_graphql::connection::{CursorType, PageInfo};
use async_graphql::{Context, Object, SimpleObject};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Message;
use crate::error::Error;
use crate::graphql::context::ContextExt;
use crate::message::HistoryPage;
use crate::model;
use crate::model::Seq;

/// A page of messages.
#[derive(Clone, Debug)]
pub struct MessageConnection(pub HistoryPage);

/// A page of messages.
#[Object]
impl MessageConnection {
    /// The messages of the page with their cursors, oldest first.
    async fn edges(&self, ctx: &Context<'_>) -> Vec<MessageEdge> {
        let _permit = ctx.operation().acquire_permit().await;
        let all = self.0.messages.iter().cloned();
        all.map(|message| MessageEdge {
            cursor: SeqCursor(message.seq).encode_cursor(),
            node: message.into(),
        })
        .collect()
    }

    /// The messages of the page, oldest first.
    async fn nodes(&self, ctx: &Context<'_>) -> Vec<Message> {
        let _permit = ctx.operation().acquire_permit().await;
        self.0.messages.iter().cloned().map(Message::from).collect()
    }

    /// The cursors of this page's ends, and whether there are more pages.
    async fn page_info(&self) -> PageInfo {
        let cursor = |message: Option<&model::Message>| {
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

/// A message with its cursor in the channel.
#[derive(Clone, Debug, SimpleObject)]
pub struct MessageEdge {
    /// The cursor to pass as `after` or `before`.
    cursor: String,
    /// The message.
    node: Message,
}

/// A message's position in its channel: opaque to clients, versioned for the server.
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
        seq.map(|seq| Self(Seq(seq)))
            .ok_or_else(|| Error::bad_input("cursor", "must be one that messages returned"))
    }

    fn encode_cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("m1:{}", self.0.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_round_trip_and_invalid_ones_are_refused(seq in 0_i64.., text in ".*") {
            prop_assert_eq!(SeqCursor::decode_cursor(&SeqCursor(Seq(seq)).encode_cursor()).unwrap(), SeqCursor(Seq(seq)));
            let _ = SeqCursor::decode_cursor(&text);
        }
    }
}
