//! `/user/…`: what a business server says of its users at its start. recents keeps no sessions: it
//! is answered as `WuKongIM` does, and nothing comes of it.

use super::super::legacy::{Answer, DONE, Done, Fields};
use crate::auth::{Action, Caller};
use crate::core::Core;
use crate::error::Error;

/// `POST /user/token`: tokens of `WuKongIM`'s own protocol mean nothing here.
///
/// # Errors
/// [`Error::BadInput`] naming the field, [`Error::Forbidden`].
pub async fn token(_: &Core, caller: &Caller, fields: &Fields) -> Result<Answer<Done>, Error> {
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
    Ok(DONE)
}

/// `POST /user/device_quit`: nobody is connected here.
///
/// # Errors
/// As [`token`].
pub async fn device_quit(
    _: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Done>, Error> {
    caller.check(Action::ManageChannels)?;
    fields.string("uid")?;
    fields.int64("device_flag")?;
    Ok(DONE)
}

/// `POST /user/systemuids_add` and `/user/systemuids_remove`: who may write to everybody is for
/// `WuKongIM` to know.
///
/// # Errors
/// As [`token`].
pub async fn system_uids(
    _: &Core,
    caller: &Caller,
    fields: &Fields,
) -> Result<Answer<Done>, Error> {
    caller.check(Action::ManageChannels)?;
    fields.strings("uids")?;
    Ok(DONE)
}
