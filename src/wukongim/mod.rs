//! The wire format of `WuKongIM`, without a transport: `rest` speaks it with clients and with a
//! `WuKongIM` that sends webhooks, `import` with recordings and with the server that it reads.

mod channel;
mod dialect;
pub mod dto;
mod fields;
mod message;
mod webhook;

pub(crate) use self::channel::{
    ChannelSettings, decode_channel, decode_flags, decode_member_change,
};
pub(crate) use self::dialect::SourceDialect;
pub use self::fields::LegacyBody;
pub(crate) use self::message::{MessageDecoder, SkipReason};
pub(crate) use self::webhook::decode_webhook;
