//! `/user/…`: calls that business servers make at startup. recents keeps no sessions, so these
//! routes respond as `WuKongIM` does and have no effect.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::auth::{Action, Caller};
use crate::error::Error;
use crate::rest::legacy::{ErrorResponse, JsonResponse, LenientBody, OK};
use crate::wukongim::dto::StatusOk;

/// The body of `POST /user/token`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct TokenBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// A token of `WuKongIM`'s own protocol.
    #[schema(examples("secret"))]
    pub token: String,
    /// The kind of device.
    #[serde(default)]
    #[schema(maximum = 255, examples(0))]
    pub device_flag: u8,
    /// 1 for the user's main device.
    #[serde(default)]
    #[schema(maximum = 255, examples(1))]
    pub device_level: u8,
}

/// The body of `POST /user/device_quit`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct DeviceQuitBody {
    /// The user.
    #[schema(examples("u02"))]
    pub uid: String,
    /// The kind of device; -1 for all.
    #[serde(default)]
    #[schema(examples(0))]
    pub device_flag: i64,
}

/// The body of `POST /user/systemuids_add` and `/user/systemuids_remove`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SystemUidsBody {
    /// Users.
    #[serde(default)]
    #[schema(examples("u01"))]
    pub uids: Vec<String>,
}

/// Accepted for business servers that call it at startup; has no effect.
#[utoipa::path(
    post,
    path = "/user/token",
    operation_id = "setUserToken",
    request_body = TokenBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn token(
    caller: Caller,
    mut body: LenientBody<TokenBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    let body = body.decode()?;
    if body.uid.is_empty() {
        return Err(Error::BadRequest("uid不能为空！".into()).into());
    }
    if body.token.is_empty() {
        return Err(Error::BadRequest("token不能为空！".into()).into());
    }
    Ok(OK)
}

/// Accepted for compatibility with WuKongIM; has no effect.
#[utoipa::path(
    post,
    path = "/user/device_quit",
    operation_id = "quitDevice",
    request_body = DeviceQuitBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn device_quit(
    caller: Caller,
    mut body: LenientBody<DeviceQuitBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    body.decode()?;
    Ok(OK)
}

/// Accepted for compatibility with WuKongIM; has no effect.
#[utoipa::path(
    post,
    path = "/user/systemuids_add",
    operation_id = "addSystemUids",
    request_body = SystemUidsBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn system_uids_add(
    caller: Caller,
    mut body: LenientBody<SystemUidsBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    body.decode()?;
    Ok(OK)
}

/// Accepted for compatibility with WuKongIM; has no effect.
#[utoipa::path(
    post,
    path = "/user/systemuids_remove",
    operation_id = "removeSystemUids",
    request_body = SystemUidsBody,
    responses((status = 200, description = "success", body = StatusOk), ErrorResponse)
)]
pub(super) async fn system_uids_remove(
    caller: Caller,
    mut body: LenientBody<SystemUidsBody>,
) -> Result<JsonResponse<StatusOk>, ErrorResponse> {
    caller.check(Action::ManageChannels)?;
    body.decode()?;
    Ok(OK)
}
