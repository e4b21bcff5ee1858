//! Arguments of pages, as in the specification of GraphQL cursor connections.

use async_graphql::connection::CursorType;

use crate::error::Error;
use crate::graphql::error::Result;
use crate::graphql::query::check_count;

/// Number of entries of a page by default.
pub(in crate::graphql) const DEFAULT_PAGE_SIZE: u32 = 20;

/// The validated paging arguments `first`/`after` or `last`/`before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageArguments<C> {
    /// Only entries after this cursor.
    pub after: Option<C>,
    /// Only entries before this cursor.
    pub before: Option<C>,
    /// Maximum number of entries.
    pub limit: u32,
    /// True takes entries from the end instead of the beginning.
    pub from_end: bool,
}

impl<C: CursorType<Error = Error>> PageArguments<C> {
    /// Validates the arguments. Without `first` and `last` a page has 20 entries, taken from the
    /// end if `from_end` is set and `after` is not given.
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
                DEFAULT_PAGE_SIZE.min(limit),
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
