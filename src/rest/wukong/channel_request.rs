//! Requests that change a channel. With `proxy.wukongim_url` they are passed on as they came, first.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::auth::{Action, Caller};
use crate::error::Error;
use crate::http::read_body;
use crate::model::ChannelType;
use crate::proxy::{Answer, ChannelChange};
use crate::rest::legacy::{ErrorResponse, LenientBody, OK};
use crate::state::AppState;
use crate::wukongim::{
    AddMembersBody, ChannelBody, ChannelInfoBody, ChannelNameBody, RemoveMembersBody,
};

/// A body that names a channel.
pub(super) trait NamesChannel: DeserializeOwned {
    /// Returns the type of the channel.
    fn channel_type(&self) -> u8;
}

/// Implements [`NamesChannel`] for bodies with the field.
macro_rules! names_channel {
    ($($body:ty),*) => {
        $(impl NamesChannel for $body {
            fn channel_type(&self) -> u8 {
                self.channel_type
            }
        })*
    };
}

names_channel!(
    AddMembersBody,
    ChannelBody,
    ChannelInfoBody,
    ChannelNameBody,
    RemoveMembersBody
);

/// Extracts the body of a change and, where there is a proxy, the request itself.
pub(super) struct ChannelRequest<T> {
    body: LenientBody<T>,
    call: Option<axum::http::Request<Bytes>>,
}

impl<T> FromRequest<AppState> for ChannelRequest<T> {
    type Rejection = ErrorResponse;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ErrorResponse> {
        if app.core.proxy.is_none() {
            let body = LenientBody::from_request(request, app).await?;
            return Ok(Self { body, call: None });
        }
        let limits = &app.settings.limits;
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, limits.body_bytes, limits).await?;
        Ok(Self {
            body: LenientBody::parse(&bytes).await?,
            call: Some(axum::http::Request::from_parts(parts, bytes)),
        })
    }
}

impl<T: NamesChannel> ChannelRequest<T> {
    /// Makes the change that `into_change` reads from the body.
    pub(super) async fn apply(
        mut self,
        app: &AppState,
        caller: &Caller,
        into_change: impl FnOnce(T) -> Result<ChannelChange, Error>,
    ) -> Result<Response, ErrorResponse> {
        caller.check(Action::ManageChannels)?;
        let body = self.body.decode()?;
        if body.channel_type() == ChannelType::PERSON.number()
            && let Some((proxy, call)) = app.core.proxy.as_ref().zip(self.call.take())
        {
            // Person channels have flags and lists there, and nothing here.
            let answer = proxy.ask_whole(call, &app.core.channels).await?;
            return Ok(into_response(answer));
        }
        let change = into_change(body)?;
        let answer = app.core.change_channel(change, self.call).await?;
        Ok(answer.map_or_else(|| OK.into_response(), into_response))
    }
}

fn into_response(answer: Answer) -> Response {
    let (status, headers, body) = answer.into_parts();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
