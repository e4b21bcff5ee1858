//! Sums of unread messages.

use std::collections::BTreeMap;

use super::ConversationService;
use super::visibility::is_listed;
use crate::error::Error;
use crate::model::unread::unread;
use crate::model::{ConversationRow, Uid};

/// Numbers of unread messages and of conversations that contain them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeSummary {
    /// Number of unread messages.
    pub unread: i64,
    /// Number of conversations with unread messages.
    pub conversations: i64,
}

/// Unread counts of all conversations of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadSummary {
    /// Sum over conversations that are not muted.
    pub total: TypeSummary,
    /// Sum over muted conversations.
    pub muted: TypeSummary,
    /// Sums over conversations that are not muted, by channel type; types without unread messages
    /// are left out.
    pub by_channel_type: BTreeMap<u8, TypeSummary>,
}

/// Sums up the unread messages of a user.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn summarize(service: &ConversationService, uid: &Uid) -> Result<UnreadSummary, Error> {
    service.base.check_conversations_on()?;
    Ok(sum_up(&service.base.store.list_conversations(uid).await?))
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
