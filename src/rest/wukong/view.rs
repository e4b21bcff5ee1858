//! The channel and the user that the routes for single messages name.

use crate::auth::{Action, Caller};
use crate::error::Error;
use crate::message::ChannelView;
use crate::model::{ChannelKey, ChannelRef, ChannelType, Uid};
use crate::wukongim::split_stored_pair;

/// `WuKongIM`'s errors of its GET routes, which have no exclamation mark.
const ERR_CHANNEL_ID_EMPTY: &str = "channel_id不能为空";
const ERR_LOGIN_UID_EMPTY: &str = "login_uid不能为空";

/// The channel of a request, as `WuKongIM` v2 names it.
pub(super) struct NamedView {
    pub(super) channel_id: String,
    pub(super) channel_type: u8,
    /// The user who reads; empty for the user of the token, or for a service that sees everything.
    pub(super) login_uid: String,
}

impl NamedView {
    /// Returns the channel, and whose view of it is read. Without `login_uid`, a service names a
    /// person channel by the pair of its uids (`bob@ann`).
    ///
    /// # Errors
    /// [`Error::BadRequest`] with `WuKongIM`'s text, [`Error::BadInput`], [`Error::Forbidden`].
    pub(super) fn parse(self, caller: &Caller) -> Result<ChannelView, Error> {
        if self.channel_id.is_empty() {
            return Err(Error::BadRequest(ERR_CHANNEL_ID_EMPTY.into()));
        }
        let uid = if self.login_uid.is_empty() {
            caller.user().cloned()
        } else {
            let uid = Uid::parse("login_uid", self.login_uid)?;
            caller.check(Action::ActFor(&uid))?;
            Some(uid)
        };
        let is_person = self.channel_type == ChannelType::PERSON.number();
        let keys = match &uid {
            None if is_person && self.channel_id.contains('@') => {
                split_stored_pair(&self.channel_id)
            }
            None if is_person => return Err(Error::BadRequest(ERR_LOGIN_UID_EMPTY.into())),
            None => {
                let channel = ChannelRef::parse(self.channel_id, i64::from(self.channel_type))?;
                vec![ChannelKey {
                    channel_type: channel.channel_type,
                    key: channel.channel_id,
                }]
            }
            Some(uid) => {
                let channel = ChannelRef::parse(self.channel_id, i64::from(self.channel_type))?;
                vec![ChannelKey::new(uid, &channel)]
            }
        };
        Ok(ChannelView {
            keys,
            uid,
            as_service: caller.user().is_none(),
        })
    }
}
