//! Response bodies: names, order and types as recorded from `WuKongIM`. The names of their schemas
//! in the `OpenAPI` document (`schema(as = …)`) are published and stay.

mod conversation;
mod message;
mod walk;

use serde::Serialize;

pub use self::conversation::{
    ChannelDto, ChannelMessagesDto, ConversationDto, ListedConversationDto, RemovedConversationDto,
    SyncEntryDto, write_entries,
};
pub use self::message::{
    FoundMessageDto, HistoryBatchDto, HistoryDto, HistoryItemDto, MaxSeqDto, MessageDto,
    MessageHeaderDto, SendBatchDto, SendResponseDto, SentMessageDto, WebhookBody, write_message,
};
pub use self::walk::{LastMessageDto, WalkDto, WalkedConversationDto};

/// The body of a success without data.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Done)]
pub struct StatusOk {
    /// Always 200.
    #[schema(example = 200)]
    pub status: u16,
}

/// The body of every error.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Envelope {
    /// The problem, naming the field.
    #[schema(example = "uid must be a string")]
    pub msg: String,
    /// The HTTP status.
    #[schema(example = 400)]
    pub status: u16,
}

/// A connected user.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OnlineStatus)]
pub struct OnlineStatusDto {
    /// The user.
    pub uid: String,
    /// The kind of device.
    pub device_flag: u8,
    /// Always 1.
    #[schema(example = 1)]
    pub online: u8,
}

/// The response of `GET /health`.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub struct HealthDto {
    /// Always `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}
