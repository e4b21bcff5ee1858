//! How much is unread in all.

use std::collections::BTreeMap;

use super::unread::unread;
use super::visibility::is_listed;
use crate::core::Core;
use crate::error::Error;
use crate::ids::Uid;
use crate::store::ConversationRow;

/// Unread messages and the conversations they are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeSummary {
    /// Unread messages.
    pub unread: i64,
    /// Conversations with unread messages.
    pub conversations: i64,
}

/// Unread in all of a user's conversations; muted ones apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadSummary {
    /// Of conversations that are not muted.
    pub total: TypeSummary,
    /// Of muted conversations.
    pub muted: TypeSummary,
    /// Of conversations that are not muted, by channel type; types without unread messages are left
    /// out.
    pub by_channel_type: BTreeMap<u8, TypeSummary>,
}

/// Sums up what is unread, by the same formula as everywhere.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn summarize(core: &Core, uid: &Uid) -> Result<UnreadSummary, Error> {
    core.check_conversations_on()?;
    Ok(sum_up(&core.store.list_conversations(uid).await?))
}

pub(super) fn sum_up(rows: &[ConversationRow]) -> UnreadSummary {
    let mut summary = UnreadSummary::default();
    for row in rows {
        let unread = unread(row);
        if !is_listed(row) || unread == 0 {
            continue;
        }
        let by_type = summary.by_channel_type.entry(row.key.channel_type.number());
        let sums = if row.muted {
            vec![&mut summary.muted]
        } else {
            vec![&mut summary.total, by_type.or_default()]
        };
        for sum in sums {
            sum.unread += unread;
            sum.conversations += 1;
        }
    }
    summary
}
