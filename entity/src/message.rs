//! Messages.

use sea_orm::entity::prelude::*;

/// A stored message. Only its stream changes: a repeat of the message may complete it.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "message")]
pub struct Model {
    /// Internal id of the channel.
    #[sea_orm(primary_key, auto_increment = false)]
    pub channel_id: i64,
    /// The message's number in its channel, from 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    /// The global id (snowflake), unique within the channel.
    pub message_id: i64,
    /// The sender's deduplication key.
    pub client_msg_no: String,
    /// The sender's uid.
    pub from_uid: String,
    /// When the message was sent, epoch ms.
    pub sent_at: i64,
    /// True if it counts as unread.
    pub red_dot: bool,
    /// `WuKongIM`'s setting bits.
    pub setting: i16,
    /// A topic within the channel, or empty.
    pub topic: String,
    /// Seconds until the message expires; 0 for never.
    pub expire: i64,
    /// Stream number, or empty.
    pub stream_no: String,
    /// Position in the stream.
    pub stream_seq: i64,
    /// Stream state.
    pub stream_flag: i16,
    /// The text and the events of the stream so far as JSON, or empty.
    #[sea_orm(column_type = "Blob")]
    pub stream_state: Vec<u8>,
    /// The payload as sent.
    #[sea_orm(column_type = "Blob")]
    pub payload: Vec<u8>,
}

/// No relations: messages shard by channel.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
