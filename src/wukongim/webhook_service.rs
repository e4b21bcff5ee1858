//! The messages of the webhook over gRPC: `wkhook.WebhookService/SendWebhook`. They are written by
//! hand in the form of generated code: for one call with four fields that is simpler than a
//! dependency on a protobuf compiler.

use bytes::Bytes;

/// The path of the one method.
pub(crate) const SEND_WEBHOOK: &str = "/wkhook.WebhookService/SendWebhook";

/// `wkhook.EventReq`
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventReq {
    /// `msg.notify`, `msg.offline`, …
    #[prost(string, tag = "1")]
    pub event: String,
    /// The body of the webhook over HTTP.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// `wkhook.EventResp`
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventResp {
    /// Whether the event was processed.
    #[prost(enumeration = "EventStatus", tag = "1")]
    pub status: i32,
    /// The error text.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

/// `wkhook.EventStatus`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EventStatus {
    /// The event was not processed; sending it again may help.
    Error = 0,
    /// The event was processed.
    Success = 1,
}
