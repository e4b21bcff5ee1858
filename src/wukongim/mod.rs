//! The wire format of `WuKongIM`, without a transport: `rest` speaks it with clients and with a
//! `WuKongIM` that sends webhooks, `import` with recordings and with the server that it reads.

mod channel;
mod dialect;
pub mod dto;
mod json;
mod message;
mod online_state;
mod recipients;
mod timestamp;
mod webhook;
mod webhook_service;

pub use self::channel::{
    AddMembersBody, ChannelBody, ChannelInfoBody, ChannelNameBody, RemoveMembersBody,
};
pub(crate) use self::dialect::{SourceDialect, split_stored_pair};
pub use self::json::{Base64, Flag, JsonObject};
pub(crate) use self::json::{Checked, decode_value, parse_uids, parse_value};
pub(crate) use self::message::{MessageDecoder, SkipReason, StoredMessage};
pub(crate) use self::timestamp::parse_timestamp;
pub(crate) use self::webhook::decode_webhook;
pub(crate) use self::webhook_service::SEND_WEBHOOK;
pub use self::webhook_service::{EventReq, EventResp, EventStatus};
