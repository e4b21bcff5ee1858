//! Messages that have not arrived: the columns of `channel` that count them, and the seqs of the
//! stored messages between which they are missing.

use std::ops::RangeInclusive;

use entity::channel::{Column as Channel, Entity as ChannelEntity};
use entity::conversation::{Column as Conversation, Entity as ConversationEntity};
use entity::message::{Column as Message, Entity as MessageEntity};
use sea_orm::sea_query::{Expr, ExprTrait, Func, Order, Query, SelectStatement};
use sea_orm::{DbBackend, DbErr};

use super::channels::{HEAD_COLUMNS, head};
use super::{Store, StoreError, Tx};
use crate::model::{ChannelHead, ChannelPk, EpochMs, MessageId, Seq};

/// Numbers of all channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingMessages {
    /// Number of channels without some message.
    pub channels: i64,
    /// Number of messages that have not arrived.
    pub messages: i64,
}

/// The identity of a stored message, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredPlace {
    pub(crate) seq: Seq,
    pub(crate) message_id: MessageId,
    pub(crate) red_dot: bool,
    pub(crate) sent_at: EpochMs,
}

/// Selects a range of messages of a channel.
fn messages(channel_id: ChannelPk, range: &RangeInclusive<Seq>) -> SelectStatement {
    Query::select()
        .from(MessageEntity)
        .and_where(Expr::col(Message::ChannelId).eq(channel_id))
        .and_where(Expr::col(Message::Seq).between(*range.start(), *range.end()))
        .to_owned()
}

impl Store {
    /// Counts the messages that have not arrived.
    pub(crate) async fn count_missing(&self) -> Result<MissingMessages, StoreError> {
        // The sum of integers is a decimal on PostgreSQL and MySQL.
        let integer = if self.backend() == DbBackend::MySql {
            "signed"
        } else {
            "bigint"
        };
        let sum = Func::coalesce([Expr::col(Channel::Missing).sum(), Expr::value(0_i64)]);
        let select = Query::select()
            .expr(Expr::col(Channel::Id).count())
            .expr(Expr::expr(sum).cast_as(integer))
            .from(ChannelEntity)
            .and_where(Expr::col(Channel::GapsSince).gt(0))
            .and_where(Expr::col(Channel::Missing).gt(0))
            .to_owned();
        let Some(row) = self.query_one(&select).await? else {
            return Ok(MissingMessages::default());
        };
        Ok(MissingMessages {
            channels: row.try_get_by_index(0)?,
            messages: row.try_get_by_index(1)?,
        })
    }

    /// Returns whether messages have been missing since `until` or longer.
    pub(crate) async fn has_missing_since(&self, until: EpochMs) -> Result<bool, StoreError> {
        let select = Query::select()
            .column(Channel::Id)
            .from(ChannelEntity)
            .and_where(Expr::col(Channel::GapsSince).between(EpochMs(1), until))
            .and_where(Expr::col(Channel::Missing).gt(0))
            .limit(1)
            .to_owned();
        Ok(self.query_one(&select).await?.is_some())
    }

    /// Returns channels whose messages have not all arrived, or whose earlier messages were not
    /// asked for, since `until` or longer; the longest first.
    pub(crate) async fn list_incomplete_channels(
        &self,
        until: EpochMs,
        limit: u64,
    ) -> Result<Vec<ChannelHead>, StoreError> {
        let select = Query::select()
            .columns(HEAD_COLUMNS)
            .from(ChannelEntity)
            .and_where(Expr::col(Channel::GapsSince).between(EpochMs(1), until))
            .order_by(Channel::GapsSince, Order::Asc)
            .limit(limit)
            .to_owned();
        self.heads(&select).await
    }

    /// Returns channels in the order of their ids, after a channel.
    pub(crate) async fn list_channels_after(
        &self,
        after: Option<ChannelPk>,
        limit: u64,
    ) -> Result<Vec<ChannelHead>, StoreError> {
        let mut select = Query::select()
            .columns(HEAD_COLUMNS)
            .from(ChannelEntity)
            .order_by(Channel::Id, Order::Asc)
            .limit(limit)
            .to_owned();
        if let Some(after) = after {
            select.and_where(Expr::col(Channel::Id).gt(after));
        }
        self.heads(&select).await
    }

    async fn heads(&self, select: &SelectStatement) -> Result<Vec<ChannelHead>, StoreError> {
        let rows = self.query_all(select).await?;
        Ok(rows.iter().map(head).collect::<Result<_, _>>()?)
    }

    /// Returns users that have conversations, in the order of their uids, after a uid.
    pub(crate) async fn list_users_after(
        &self,
        after: &str,
        limit: u64,
    ) -> Result<Vec<String>, StoreError> {
        let select = Query::select()
            .distinct()
            .column(Conversation::Uid)
            .from(ConversationEntity)
            .and_where(Expr::col(Conversation::Uid).gt(after))
            .order_by(Conversation::Uid, Order::Asc)
            .limit(limit)
            .to_owned();
        let rows = self.query_all(&select).await?;
        Ok(rows
            .iter()
            .map(|row| row.try_get_by_index(0))
            .collect::<Result<_, _>>()?)
    }

    /// Returns the first seqs of stored messages in a range, in ascending order.
    pub(crate) async fn list_seqs(
        &self,
        channel_id: ChannelPk,
        range: &RangeInclusive<Seq>,
        limit: u64,
    ) -> Result<Vec<Seq>, StoreError> {
        let select = messages(channel_id, range)
            .column(Message::Seq)
            .order_by(Message::Seq, Order::Asc)
            .limit(limit)
            .to_owned();
        let rows = self.query_all(&select).await?;
        Ok(rows
            .iter()
            .map(|row| row.try_get_by_index(0))
            .collect::<Result<_, _>>()?)
    }

    /// Returns the stored messages of a range, without their contents.
    pub(crate) async fn list_places(
        &self,
        channel_id: ChannelPk,
        range: &RangeInclusive<Seq>,
    ) -> Result<Vec<StoredPlace>, StoreError> {
        let columns = [
            Message::Seq,
            Message::MessageId,
            Message::RedDot,
            Message::SentAt,
        ];
        let select = messages(channel_id, range).columns(columns).to_owned();
        let rows = self.query_all(&select).await?;
        let places = rows.iter().map(|row| {
            Ok(StoredPlace {
                seq: row.try_get_by_index(0)?,
                message_id: row.try_get_by_index(1)?,
                red_dot: row.try_get_by_index(2)?,
                sent_at: row.try_get_by_index(3)?,
            })
        });
        Ok(places.collect::<Result<_, DbErr>>()?)
    }
}

impl Tx {
    /// Counts the stored messages of a range.
    pub(crate) async fn count_messages(
        &self,
        channel_id: ChannelPk,
        range: &RangeInclusive<Seq>,
    ) -> Result<i64, StoreError> {
        let select = messages(channel_id, range)
            .expr(Expr::col(Message::Seq).count())
            .to_owned();
        let row = self.inner.query_one(&select).await?;
        Ok(row.map_or(Ok(0), |row| row.try_get_by_index(0))?)
    }
}
