//! Permissions: this module alone decides what a caller may do. `tests/it/security/permissions.rs`
//! calls every route, query, mutation and subscription as every kind of caller, and fails for an
//! operation that is not in its table.
//!
//! How to add an operation: call [`Caller::check`] with the operation's [`Action`] before anything
//! is read, and add the operation to the table. Permissions that depend on data, such as membership
//! of a channel, are checked by the use case, for the user that [`Caller::viewer`] returns.

use crate::error::Error;
use crate::model::Uid;

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A server of the surrounding system, which may act for every user.
    Service,
    /// A user.
    User {
        /// The user's id.
        uid: Uid,
        /// Expiry of the token, epoch seconds.
        expires_at: u64,
        /// Copy of `auth.users_may_send`.
        may_send: bool,
    },
}

/// An action that needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// See or change this user's conversations, and see the messages in them.
    ActFor(&'a Uid),
    /// Send as this user.
    SendAs(&'a Uid),
    /// Create, change and delete channels and their members; change `WuKongIM`'s settings of users.
    ManageChannels,
    /// Store messages that were sent through another system.
    IngestMessages,
    /// Call the `WuKongIM` behind this server, which checks nobody's permissions.
    CallWukongim,
}

impl Caller {
    /// Checks that the caller may perform an action.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn check(&self, action: Action<'_>) -> Result<(), Error> {
        let Self::User { uid, may_send, .. } = self else {
            return Ok(());
        };
        match action {
            Action::ActFor(target) if target == uid => Ok(()),
            Action::ActFor(_) => Err(Error::Forbidden(
                "you may see and change only your own conversations".into(),
            )),
            Action::SendAs(_) if !may_send => {
                Err(Error::Forbidden("users may not send here".into()))
            }
            Action::SendAs(sender) if sender == uid => Ok(()),
            Action::SendAs(_) => Err(Error::Forbidden("you may send only as yourself".into())),
            Action::ManageChannels => Err(Error::Forbidden(
                "only services may manage channels and users".into(),
            )),
            Action::IngestMessages => Err(Error::Forbidden(
                "only services may feed this server".into(),
            )),
            Action::CallWukongim => Err(Error::Forbidden(
                "only services may make calls that are passed on to WuKongIM".into(),
            )),
        }
    }

    /// Returns the user that a request is about. Defaults to the authenticated user; a service must
    /// name a user.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a service that names no user, [`Error::Forbidden`].
    pub fn viewer(&self, named: Option<Uid>) -> Result<Uid, Error> {
        match (self, named) {
            (_, Some(uid)) => self.check(Action::ActFor(&uid)).map(|()| uid),
            (Self::User { uid, .. }, None) => Ok(uid.clone()),
            (Self::Service, None) => Err(Error::bad_input("uid", "must be given")),
        }
    }

    /// Returns the sender of a message. Defaults to the authenticated user, or for a service to the
    /// system user.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn sender(&self, named: Option<Uid>) -> Result<Uid, Error> {
        let uid = match (self, named) {
            (_, Some(uid)) => uid,
            (Self::User { uid, .. }, None) => uid.clone(),
            (Self::Service, None) => Uid::system(),
        };
        self.check(Action::SendAs(&uid)).map(|()| uid)
    }

    /// Returns whether the caller may see this user's conversations. Conversations that a caller
    /// may not see are answered as if they did not exist.
    #[must_use]
    pub fn may_see(&self, uid: &Uid) -> bool {
        self.check(Action::ActFor(uid)).is_ok()
    }

    /// Returns the user whose memberships limit the answer; `None` for a service, which is not
    /// limited.
    #[must_use]
    pub fn user(&self) -> Option<&Uid> {
        match self {
            Self::Service => None,
            Self::User { uid, .. } => Some(uid),
        }
    }

    /// Returns when a connection of the caller must end, epoch seconds.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        match self {
            Self::Service => None,
            Self::User { expires_at, .. } => Some(*expires_at),
        }
    }
}
