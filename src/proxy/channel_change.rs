//! Changes of channels and their members: there first, then here. Both interfaces make them with
//! [`change_channel`].

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::{Value, json};
use tracing::Instrument;

use super::WukongimProxy;
use crate::budget;
use crate::channel::{self, ChannelService, CreateChannel, Flags, find_channels};
use crate::error::Error;
use crate::model::{ChannelRef, Uid};

/// Maximum number of characters of the `WuKongIM`'s reason in an error of ours.
const MAX_REASON_CHARS: usize = 300;

/// A change of a channel or its members.
#[derive(Clone, Debug)]
pub(crate) enum ChannelChange {
    /// Create the channel, or change its flags; add members.
    Create(CreateChannel),
    /// Add members.
    AddMembers {
        channel: ChannelRef,
        uids: Vec<Uid>,
        /// True to remove all others.
        reset: bool,
    },
    /// Remove members.
    RemoveMembers { channel: ChannelRef, uids: Vec<Uid> },
    /// Remove all members.
    RemoveAllMembers(ChannelRef),
    /// Delete the channel.
    Delete(ChannelRef),
}

impl ChannelChange {
    fn channel(&self) -> &ChannelRef {
        match self {
            Self::Create(CreateChannel { channel, .. })
            | Self::AddMembers { channel, .. }
            | Self::RemoveMembers { channel, .. }
            | Self::RemoveAllMembers(channel)
            | Self::Delete(channel) => channel,
        }
    }

    fn uids(&self) -> &[Uid] {
        match self {
            Self::Create(CreateChannel { uids, .. })
            | Self::AddMembers { uids, .. }
            | Self::RemoveMembers { uids, .. } => uids,
            Self::RemoveAllMembers(_) | Self::Delete(_) => &[],
        }
    }

    /// Makes the change here.
    async fn apply(&self, channels: &ChannelService) -> Result<(), Error> {
        match self {
            Self::Create(request) => channel::create_channel(channels, request).await,
            Self::AddMembers {
                channel,
                uids,
                reset,
            } => channel::add_members(channels, channel, uids, *reset).await,
            Self::RemoveMembers { channel, uids } => {
                channel::remove_members(channels, channel, uids).await
            }
            Self::RemoveAllMembers(channel) => channel::remove_all_members(channels, channel).await,
            Self::Delete(channel) => channel::delete_channel(channels, channel).await,
        }
    }

    /// Returns the change as a call of the `WuKongIM`; `None` if there is nothing to do there.
    async fn to_call(&self, channels: &ChannelService) -> Result<Option<Request<Bytes>>, Error> {
        let channel = self.channel();
        let (path, fields) = match self {
            Self::Create(request) => (
                "/channel",
                self.creation(channels, &request.uids, request.reset)
                    .await?,
            ),
            // The WuKongIM refuses an empty list.
            Self::AddMembers {
                uids, reset: false, ..
            } if uids.is_empty() => ("/channel", self.creation(channels, &[], false).await?),
            Self::AddMembers {
                uids, reset: true, ..
            } if uids.is_empty() => ("/channel/subscriber_remove_all", json!({})),
            Self::AddMembers { uids, reset, .. } => (
                "/channel/subscriber_add",
                json!({"reset": i32::from(*reset), "subscribers": texts(uids)}),
            ),
            Self::RemoveMembers { uids, .. } if uids.is_empty() => return Ok(None),
            Self::RemoveMembers { uids, .. } => (
                "/channel/subscriber_remove",
                json!({"subscribers": texts(uids)}),
            ),
            Self::RemoveAllMembers(_) => ("/channel/subscriber_remove_all", json!({})),
            Self::Delete(_) => ("/channel/delete", json!({})),
        };
        let mut body = json!({
            "channel_id": channel.channel_id,
            "channel_type": channel.channel_type.number(),
        });
        if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
            body.extend(fields);
        }
        let mut request = Request::new(Bytes::from(body.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = axum::http::Uri::from_static(path);
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Ok(Some(request))
    }

    /// Returns the fields of `/channel`, which sets every flag: a flag that stays as it is has its
    /// value from here.
    async fn creation(
        &self,
        channels: &ChannelService,
        uids: &[Uid],
        reset: bool,
    ) -> Result<Value, Error> {
        let channel = self.channel();
        let changes = match self {
            Self::Create(request) => request.flags,
            _ => channel::FlagChanges::default(),
        };
        let known = find_channels(channels, None, std::slice::from_ref(channel)).await?;
        let before = known.get(channel).copied().unwrap_or_default();
        let Flags {
            large,
            ban,
            disband,
        } = changes.apply(before);
        Ok(json!({
            "large": i32::from(large),
            "ban": i32::from(ban),
            "disband": i32::from(disband),
            "reset": i32::from(reset),
            "subscribers": texts(uids),
        }))
    }
}

fn texts(uids: &[Uid]) -> Vec<&str> {
    uids.iter().map(Uid::as_str).collect()
}

/// The `WuKongIM`'s answer to a change.
#[derive(Clone, Debug)]
pub(crate) struct Answer(Response<Bytes>);

impl Answer {
    /// Returns the status, the headers and the body.
    pub(crate) fn into_parts(self) -> (StatusCode, HeaderMap, Bytes) {
        let (parts, body) = self.0.into_parts();
        (parts.status, parts.headers, body)
    }

    fn is_success(&self) -> bool {
        self.0.status().is_success()
    }

    /// Returns an error for a refusal, for callers that cannot get the answer itself.
    ///
    /// # Errors
    /// [`Error::WukongimRefused`] with the reason; [`Error::WukongimUnavailable`] for a failure of the
    /// `WuKongIM`, or if it does not accept `proxy.wukongim_token`.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let status = self.0.status();
        if self.is_success() {
            return Ok(());
        }
        if !status.is_client_error() || status == StatusCode::UNAUTHORIZED {
            tracing::warn!(
                status = status.as_u16(),
                "the WuKongIM at proxy.wukongim_url failed a change of a channel \
                 (401: it does not accept proxy.wukongim_token)"
            );
            return Err(Error::WukongimUnavailable);
        }
        let answer: Option<Value> = serde_json::from_slice(self.0.body()).ok();
        let reason = answer
            .as_ref()
            .and_then(|answer| answer["msg"].as_str())
            .filter(|reason| !reason.is_empty());
        let reason = reason.map_or_else(
            || format!("status {}", status.as_u16()),
            |reason| reason.chars().take(MAX_REASON_CHARS).collect(),
        );
        Err(Error::WukongimRefused(reason))
    }
}

/// Makes a change of a channel: without a proxy here alone; with one at the `WuKongIM` first and, if
/// it does not refuse, then here. Returns the `WuKongIM`'s answer, which may be a refusal; then
/// nothing changed here. `call` is the caller's request where it came over the `WuKongIM`'s own route,
/// and is passed on as it is.
///
/// Once the `WuKongIM` is asked, the change is finished here even if the caller hangs up. If it fails
/// here, the caller gets the error, and may repeat the change.
///
/// # Errors
/// Those of the change here, before the `WuKongIM` is asked where the change could never be made; and
/// those of [`WukongimProxy::forward`].
pub(crate) async fn change_channel(
    proxy: Option<&Arc<WukongimProxy>>,
    channels: &Arc<ChannelService>,
    change: ChannelChange,
    call: Option<Request<Bytes>>,
) -> Result<Option<Answer>, Error> {
    let Some(proxy) = proxy else {
        change.apply(channels).await?;
        return Ok(None);
    };
    channel::check_change(channels, change.channel(), change.uids())?;
    let turn = proxy.turns.wait(change.channel()).await;
    let call = match call {
        Some(call) => Some(call),
        None => change.to_call(channels).await?,
    };
    let reservation = budget::current();
    let (asked, channels) = (Arc::clone(proxy), Arc::clone(channels));
    let work = async move {
        let _turn = turn;
        let answer = match call {
            Some(call) => Some(asked.ask_whole(call, &channels).await?),
            None => None,
        };
        if answer.as_ref().is_none_or(Answer::is_success) {
            change.apply(&channels).await.inspect_err(|_| {
                metrics::counter!(crate::metrics::PROXY_HALF_CHANGES_TOTAL).increment(1);
            })?;
        }
        Ok(answer)
    };
    let work = async move {
        match reservation {
            Some(reservation) => reservation.scope(work).await,
            None => work.await,
        }
    };
    let task = proxy.changes.spawn(work.in_current_span());
    task.await
        .unwrap_or(Err(Error::Internal("a change of a channel panicked")))
}

impl WukongimProxy {
    /// Sends a call whose body is here, and returns the whole answer.
    ///
    /// # Errors
    /// Like [`WukongimProxy::forward`].
    pub(crate) async fn ask_whole(
        &self,
        call: Request<Bytes>,
        channels: &ChannelService,
    ) -> Result<Answer, Error> {
        self.ask(call, channels.base.limits.body_bytes)
            .await
            .map(Answer)
    }
}
