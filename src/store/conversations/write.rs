//! Statements that write conversations. Existing rows are written only under the user's lock.
//! Missing rows are inserted; if two inserts compete, the first one wins.

use std::collections::HashMap;

use entity::conversation::{Column, Entity};
use sea_orm::Value;

use super::super::bulk::{self, UpsertSpec};
use super::super::{Store, StoreError, Tx};
use crate::model::{ChannelKey, ChannelPk, ConversationRow, Membership, Uid, Version};

const KEY: [Column; 2] = [Column::Uid, Column::ChannelId];

/// The key, then all columns that can change, in the order of [`values`].
const COLUMNS: [Column; 17] = [
    Column::Uid,
    Column::ChannelId,
    Column::ReadSeq,
    Column::ReadMark,
    Column::MarkedRevision,
    Column::MarkedSeq,
    Column::Version,
    Column::StampedRevision,
    Column::DeletedToSeq,
    Column::JoinedSeq,
    Column::LeftSeq,
    Column::LeftAt,
    Column::JoinedRemovals,
    Column::Membership,
    Column::PinnedAt,
    Column::Muted,
    Column::ActivatedAt,
];

/// Number of columns that a stamp writes: the first ones of [`COLUMNS`].
const STAMPED: usize = 8;

fn values(uid: &Uid, row: &ConversationRow) -> [Value; COLUMNS.len()] {
    [
        uid.as_str().into(),
        row.channel_id.into(),
        row.read_seq.into(),
        row.read_mark.into(),
        row.marked_revision.into(),
        row.marked_seq.into(),
        row.version.into(),
        row.stamped_revision.into(),
        row.deleted_to_seq.into(),
        row.joined_seq.into(),
        row.left_seq.into(),
        row.left_at.into(),
        row.joined_removals.into(),
        row.membership.stored().into(),
        row.pinned_at.into(),
        row.muted.into(),
        row.activated_at.into(),
    ]
}

/// Returns the conversations of both users of a person channel without messages; empty for other
/// channels.
pub(in super::super) fn person_conversations(
    key: &ChannelKey,
    channel_id: ChannelPk,
) -> Vec<(Uid, ConversationRow)> {
    let empty = ConversationRow::empty(channel_id, key.clone());
    key.implicit_members()
        .into_iter()
        .map(|uid| (uid, empty.clone()))
        .collect()
}

impl Store {
    /// Inserts missing conversations in a transaction of their own. Existing rows stay unchanged.
    pub(crate) async fn insert_conversations(
        &self,
        conversations: &[(Uid, ConversationRow)],
    ) -> Result<(), StoreError> {
        if conversations.is_empty() {
            return Ok(());
        }
        self.transaction(|tx| async move {
            let rows = conversations.iter().map(|(uid, row)| (uid, row)).collect();
            write(&tx, COLUMNS.len(), &[], rows).await?;
            tx.commit(()).await
        })
        .await
    }
}

impl Tx {
    /// Writes the new versions of locked users with the marks of the heads that they cover, and the
    /// users' cursors.
    pub(crate) async fn stamp(
        &self,
        rows: Vec<(&Uid, &ConversationRow)>,
    ) -> Result<(), StoreError> {
        let versions: Vec<(&str, Version)> = rows
            .iter()
            .map(|(uid, row)| (uid.as_str(), row.version))
            .collect();
        write(self, STAMPED, &COLUMNS[KEY.len()..STAMPED], rows).await?;
        self.write_cursors(versions.into_iter()).await
    }

    /// Writes changes by locked users, and the cursors of users whose versions are above the
    /// cursors that were read with the lock.
    pub(crate) async fn write_conversations(
        &self,
        rows: Vec<(&Uid, &ConversationRow)>,
        locked: &HashMap<String, Version>,
    ) -> Result<(), StoreError> {
        let versions = rows.iter().map(|(uid, row)| (uid.as_str(), row.version));
        let versions: Vec<(&str, Version)> = versions
            .filter(|(uid, version)| locked.get(*uid).is_none_or(|cursor| version > cursor))
            .collect();
        write(self, COLUMNS.len(), &COLUMNS[KEY.len()..], rows).await?;
        self.write_cursors(versions.into_iter()).await
    }
}

/// Upserts rows in the order of channel and user: inserts the first `columns` of [`COLUMNS`], and
/// overwrites only `update` in existing rows.
async fn write(
    tx: &Tx,
    columns: usize,
    update: &[Column],
    mut rows: Vec<(&Uid, &ConversationRow)>,
) -> Result<(), StoreError> {
    rows.sort_unstable_by_key(|(uid, row)| (row.channel_id, *uid));
    debug_assert!(
        rows.iter()
            .all(|(_, row)| row.membership != Membership::Absent),
        "an absent conversation cannot be written"
    );
    let values = rows
        .iter()
        .map(|(uid, row)| values(uid, row).into_iter().take(columns).collect());
    let spec = UpsertSpec {
        columns: &COLUMNS[..columns],
        key: &KEY,
        update,
        unchanged: Column::Version,
    };
    bulk::upsert::<Entity>(&tx.inner, &spec, values.collect()).await
}
