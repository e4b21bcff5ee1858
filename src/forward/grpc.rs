//! Requests to a target over gRPC: `wkhook.WebhookService/SendWebhook`, as `WuKongIM` sends them.

use std::error::Error as _;
use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::request::{FORWARDED, ForwardedRequest};
use super::target::SendError;
use crate::budget;
use crate::config::ConfigError;
use crate::telemetry::text_with_sources;
use crate::wukongim::{EventReq, EventResp, EventStatus, SEND_WEBHOOK};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The connection is closed when a ping is not answered in time, so that a target that vanished
/// without a word is connected to again.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers contain a status and an error text.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const MAX_ANSWER_HEADER_BYTES: u32 = 16 * 1024;

/// The connection to a target, which is opened by the first webhook.
#[derive(Debug)]
pub(super) struct GrpcClient(Channel);

impl GrpcClient {
    pub(super) fn new(key: &str, address: &str) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| ConfigError(format!("{key} must be a host and a port")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .http2_max_header_list_size(MAX_ANSWER_HEADER_BYTES);
        Ok(Self(endpoint.connect_lazy()))
    }

    /// Sends a webhook. Only `Success` is a success.
    pub(super) async fn send(&self, request: &ForwardedRequest) -> Result<(), SendError> {
        // The encoded message is a copy of the body.
        budget::reserve_memory(request.body.len()).map_err(|_| SendError::NoMemory)?;
        let mut call = Request::new(EventReq {
            event: request.event.clone(),
            data: request.body.clone(),
        });
        call.metadata_mut()
            .insert(FORWARDED, MetadataValue::from_static("1"));
        let mut client = Grpc::new(self.0.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        client
            .ready()
            .await
            .map_err(|error| SendError::Unreachable(text_with_sources(&error)))?;
        let codec: ProstCodec<EventReq, EventResp> = ProstCodec::default();
        let path = PathAndQuery::from_static(SEND_WEBHOOK);
        let answer = client.unary(call, path, codec).await.map_err(error_of)?;
        if answer.into_inner().status() == EventStatus::Success {
            Ok(())
        } else {
            Err(SendError::EventError)
        }
    }
}

/// Returns the error of a call. The texts of other servers are left out, because they may contain
/// parts of the webhook.
fn error_of(status: Status) -> SendError {
    match status.source() {
        Some(source) if status.code() == Code::Unavailable => {
            SendError::Unreachable(text_with_sources(source))
        }
        _ => SendError::GrpcStatus(status.code()),
    }
}
