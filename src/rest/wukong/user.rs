//! `/user/…`: calls that business servers make at startup. recents keeps no sessions, so these
//! routes respond as `WuKongIM` does and have no effect.

use crate::auth::{Action, Caller};
use crate::error::Error;
use crate::rest::legacy::{JsonResponse, OK};
use crate::services::Services;
use crate::wukongim::LegacyBody;
use crate::wukongim::dto::StatusOk;

/// Handles `POST /user/token`: tokens of `WuKongIM`'s own protocol are not used here.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`].
pub async fn token(
    _: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    caller.check(Action::ManageChannels)?;
    let (uid, token) = (fields.string("uid")?, fields.string("token")?);
    fields.uint8("device_flag")?;
    fields.uint8("device_level")?;
    if uid.is_empty() {
        return Err(Error::BadRequest("uid不能为空！".into()));
    }
    if token.is_empty() {
        return Err(Error::BadRequest("token不能为空！".into()));
    }
    Ok(OK)
}

/// Handles `POST /user/device_quit`: there are no device sessions to end.
///
/// # Errors
/// Like [`token`].
pub async fn device_quit(
    _: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    caller.check(Action::ManageChannels)?;
    fields.string("uid")?;
    fields.int64("device_flag")?;
    Ok(OK)
}

/// Handles `POST /user/systemuids_add` and `/user/systemuids_remove`: only `WuKongIM` needs the
/// list of system users.
///
/// # Errors
/// Like [`token`].
pub async fn system_uids(
    _: &Services,
    caller: &Caller,
    fields: &LegacyBody,
) -> Result<JsonResponse<StatusOk>, Error> {
    caller.check(Action::ManageChannels)?;
    fields.strings("uids")?;
    Ok(OK)
}
