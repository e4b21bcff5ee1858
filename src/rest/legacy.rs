//! Extracts requests of `WuKongIM`'s routes, and builds their responses: JSON, and one envelope for
//! all errors.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::{self, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::auth::Caller;
use crate::budget::{UserPermit, acquire_user_permit};
use crate::error::Error;
use crate::http::middleware::Interface;
use crate::http::read_body;
use crate::state::AppState;
use crate::wukongim::JsonObject;
use crate::wukongim::dto::{Envelope, StatusOk};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// `{"status":200}`
pub const OK: JsonResponse<StatusOk> = JsonResponse(StatusOk { status: 200 });

/// A JSON response with status 200.
#[derive(Clone, Copy, Debug)]
pub struct JsonResponse<T>(pub T);

/// A JSON response with status 200 that the handler has serialised, or failed to.
#[derive(Debug)]
pub struct RawJsonResponse(pub serde_json::Result<Vec<u8>>);

impl RawJsonResponse {
    /// Serialises a value in the handler, so that the work is done under the caller's permit.
    pub fn serialise<T: Serialize>(value: &T) -> Self {
        Self(serde_json::to_vec(value))
    }
}

impl<T: Serialize> IntoResponse for JsonResponse<T> {
    fn into_response(self) -> Response {
        RawJsonResponse::serialise(&self.0).into_response()
    }
}

impl IntoResponse for RawJsonResponse {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(body) => ([(header::CONTENT_TYPE, JSON)], body).into_response(),
            Err(error) => {
                tracing::error!(error = %error, "could not serialise a response as JSON");
                envelope(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal error".to_owned(),
                )
            }
        }
    }
}

/// An error response with [`Envelope`] as its body. It also contains the error as an extension, for
/// the log.
#[derive(Debug)]
pub struct ErrorResponse(pub Error);

impl<E: Into<Error>> From<E> for ErrorResponse {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        if matches!(self.0, Error::Unauthenticated(_)) {
            // WuKongIM sends the status without a body.
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let status = self.0.kind().status;
        let mut response = envelope(status, self.0.to_string());
        if let Some(seconds) = self.0.retry_after() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self.0);
        response
    }
}

/// The interface with `WuKongIM`'s routes, for middleware.
pub(crate) struct LegacyInterface;

impl Interface for LegacyInterface {
    const ALLOWS_EVERY_ORIGIN: bool = true;
    const TRUSTS_PEERS: bool = true;

    fn refuse(_: &HeaderMap, error: Error) -> Response {
        ErrorResponse(error).into_response()
    }
}

/// Extracts the caller that the middleware authenticated.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ErrorResponse> {
        parts
            .extensions
            .get()
            .cloned()
            .ok_or(ErrorResponse(Error::Unauthenticated("a token is required")))
    }
}

/// Extracts a JSON body. The caller's permit is acquired when the body has arrived, and
/// released after the handler.
pub struct LenientBody<T> {
    object: JsonObject,
    _permit: Option<UserPermit>,
    fields: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> LenientBody<T> {
    /// Decodes the fields. Handlers that serve only some callers check the caller first.
    ///
    /// # Errors
    /// [`Error::BadInput`] naming the field.
    pub fn decode(&mut self) -> Result<T, Error> {
        self.object.decode()
    }
}

impl<T> LenientBody<T> {
    /// Parses a body that has arrived, and acquires the caller's permit.
    ///
    /// # Errors
    /// Those of [`JsonObject::parse`].
    pub(super) async fn parse(body: &[u8]) -> Result<Self, Error> {
        Ok(Self::with_permit(JsonObject::parse(body)?).await)
    }

    async fn with_permit(object: JsonObject) -> Self {
        Self {
            object,
            _permit: acquire_user_permit().await,
            fields: PhantomData,
        }
    }
}

impl<T> FromRequest<AppState> for LenientBody<T> {
    type Rejection = ErrorResponse;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ErrorResponse> {
        let limits = &app.settings.limits;
        let body = read_body(request.into_body(), limits.body_bytes, limits).await?;
        let object = JsonObject::parse(&body)?;
        // The text is not needed while the request waits for the permit.
        drop(body);
        Ok(Self::with_permit(object).await)
    }
}

/// Extracts the query of a URL. The caller's permit is released after the handler.
pub struct LenientQuery<T> {
    /// The fields of the query.
    pub fields: T,
    _permit: Option<UserPermit>,
}

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for LenientQuery<T> {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ErrorResponse> {
        let mut object = JsonObject::from_query(parts.uri.query().unwrap_or_default());
        Ok(Self {
            fields: object.decode()?,
            _permit: acquire_user_permit().await,
        })
    }
}

/// Documents the errors of all routes for a caller.
impl IntoResponses for ErrorResponse {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let mut responses: BTreeMap<String, RefOr<openapi::Response>> = [
            ("400", "the request is invalid; msg names the field"),
            ("403", "the token does not permit this"),
            ("413", "the body is over the limit"),
            (
                "429",
                "too many requests of this user or address; see Retry-After",
            ),
            ("500", "internal error"),
            ("503", "temporarily unavailable; see Retry-After"),
        ]
        .map(|(status, description)| {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(Envelope::name())))
                .build();
            let response = ResponseBuilder::new()
                .description(description)
                .content("application/json", content)
                .build();
            (status.to_owned(), response.into())
        })
        .into();
        let unauthenticated = ResponseBuilder::new().description("no valid token").build();
        responses.insert("401".to_owned(), unauthenticated.into());
        responses
    }
}

fn envelope(status: StatusCode, msg: String) -> Response {
    let body = serde_json::to_vec(&Envelope {
        msg,
        status: status.as_u16(),
    })
    .unwrap_or_default();
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}
