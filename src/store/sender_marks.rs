//! `sender_mark` and `late_message`: data about messages that is stored per channel, so that
//! sending does not write to rows of readers.

use entity::{late_message, sender_mark};
use sea_orm::sea_query::{Expr, ExprTrait, Query};

use super::bulk::{self, UpsertSpec};
use super::{StoreError, Tx};
use crate::model::{ChannelPk, Revision, SenderMark, Seq};

/// The newest own message of a user in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnMessage {
    pub(crate) channel_id: ChannelPk,
    pub(crate) uid: String,
    pub(crate) mark: SenderMark,
}

impl Tx {
    /// Returns the newest own message of a user in a locked channel.
    pub(crate) async fn find_sender_mark(
        &self,
        channel_id: ChannelPk,
        uid: &str,
    ) -> Result<SenderMark, StoreError> {
        use sender_mark::{Column, Entity};
        let select = Query::select()
            .columns([Column::Seq, Column::RedDots, Column::Revision])
            .from(Entity)
            .and_where(Expr::col(Column::ChannelId).eq(channel_id))
            .and_where(Expr::col(Column::Uid).eq(uid))
            .to_owned();
        let Some(row) = self.inner.query_one(&select).await? else {
            return Ok(SenderMark::default());
        };
        Ok(SenderMark {
            seq: row.try_get_by_index(0)?,
            red_dots: row.try_get_by_index(1)?,
            revision: row.try_get_by_index(2)?,
        })
    }

    /// Writes the newest own messages of senders in locked channels.
    pub(crate) async fn write_sender_marks(
        &self,
        mut own: Vec<OwnMessage>,
    ) -> Result<(), StoreError> {
        use sender_mark::{Column, Entity};
        const COLUMNS: [Column; 5] = [
            Column::ChannelId,
            Column::Uid,
            Column::Seq,
            Column::RedDots,
            Column::Revision,
        ];
        own.sort_unstable_by(|a, b| (a.channel_id, &a.uid).cmp(&(b.channel_id, &b.uid)));
        let rows = own.iter().map(
            |OwnMessage {
                 channel_id,
                 uid,
                 mark,
             }| {
                vec![
                    (*channel_id).into(),
                    uid.as_str().into(),
                    mark.seq.into(),
                    mark.red_dots.into(),
                    mark.revision.into(),
                ]
            },
        );
        let spec = UpsertSpec {
            columns: &COLUMNS,
            key: &COLUMNS[..2],
            update: &COLUMNS[2..],
            unchanged: Column::Seq,
        };
        bulk::upsert::<Entity>(&self.inner, &spec, rows.collect()).await
    }

    /// Records a late red-dot message in a locked channel.
    pub(crate) async fn insert_late_message(
        &self,
        channel_id: ChannelPk,
        revision: Revision,
        seq: Seq,
    ) -> Result<(), StoreError> {
        use late_message::{Column, Entity};
        let mut insert = Query::insert()
            .into_table(Entity)
            .columns([Column::ChannelId, Column::Revision, Column::Seq])
            .to_owned();
        self.inner
            .execute(insert.values_panic([channel_id.into(), revision.into(), seq.into()]))
            .await?;
        Ok(())
    }
}
