use async_graphql::connection::{Connection, CursorType, Edge, EmptyFields};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::error::Result;
use super::super::query::check_count;
use super::{Message, int};
use crate::error::Error;
use crate::ids::Seq;
use crate::message::HistoryPage;

/// Messages of a page where nothing else is said.
const PAGE: i32 = 20;

/// A page of messages, oldest first.
pub type Messages = Connection<SeqCursor, Message>;

/// Where a message stands in its channel: opaque to clients, versioned for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqCursor(pub Seq);

impl CursorType for SeqCursor {
    type Error = Error;

    fn decode_cursor(cursor: &str) -> std::result::Result<Self, Error> {
        let decoded = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let seq = decoded.as_deref().and_then(|text| text.strip_prefix("m1:")).and_then(|seq| seq.parse().ok());
        seq.map(Self).ok_or_else(|| Error::bad_input("cursor", "must be one that messages returned"))
    }

    fn encode_cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("m1:{}", self.0))
    }
}

/// `first`/`after` or `last`/`before`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Only above this.
    pub after: Option<Seq>,
    /// Only below this.
    pub before: Option<Seq>,
    /// At most this many.
    pub limit: u32,
    /// From the end.
    pub newest: bool,
}

impl Page {
    /// Without `first` and `last`: the newest 20.
    pub(in crate::graphql) fn parse(
        first: Option<i32>,
        after: Option<&str>,
        last: Option<i32>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Self> {
        let cursor = |name: &'static str, text: Option<&str>| {
            let seq = text.map(SeqCursor::decode_cursor).transpose();
            seq.map(|cursor| cursor.map(|SeqCursor(seq)| seq))
                .map_err(|_| Error::bad_input(name, "must be a cursor that messages returned"))
        };
        let (after, before) = (cursor("after", after)?, cursor("before", before)?);
        let (limit, newest) = match (first, last) {
            (Some(_), Some(_)) => return Err(Error::bad_input("first", "and last cannot both be given").into()),
            (Some(first), None) => (check_count("first", first, limit)?, false),
            (None, Some(last)) => (check_count("last", last, limit)?, true),
            (None, None) => (check_count("first", PAGE.min(int(i64::from(limit))), limit)?, after.is_none()),
        };
        Ok(Self { after, before, limit, newest })
    }

    /// The connection of a page of messages.
    pub(in crate::graphql) fn connection(page: HistoryPage) -> Messages {
        let mut connection = Connection::with_additional_fields(page.has_previous, page.has_next, EmptyFields);
        connection.edges.extend(page.messages.into_iter().map(|message| Edge::new(SeqCursor(message.seq), Message(message))));
        connection
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
