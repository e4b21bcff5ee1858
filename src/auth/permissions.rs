//! What a caller may do: decided here, and nowhere else. `tests/permissions.rs` walks every route,
//! query, mutation and subscription with every kind of caller; an operation that is not in its
//! table fails it.
//!
//! How to add an operation: call [`Caller::check`] with what it does before anything is read, and
//! add it to the table. What only some users may see (a channel's messages) is asked of the
//! database, by the use case, as the user that [`Caller::viewer`] names.

use crate::error::Error;
use crate::ids::Uid;

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A server of the surrounding system: acts for anybody.
    Service,
    /// A user.
    User {
        /// Who.
        uid: Uid,
        /// When the token ends, epoch seconds.
        expires_at: u64,
        /// `auth.users_may_send`
        may_send: bool,
    },
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// See or change this user's conversations, and see the messages in them.
    ActFor(&'a Uid),
    /// Send as this user.
    SendAs(&'a Uid),
    /// Make, change and delete channels and their members; say what `WuKongIM` wants to know of
    /// users.
    ManageChannels,
    /// Say what was sent elsewhere.
    FeedMessages,
}

impl Caller {
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn check(&self, action: Action<'_>) -> Result<(), Error> {
        let Self::User { uid, may_send, .. } = self else {
            return Ok(());
        };
        match action {
            Action::ActFor(whose) if whose == uid => Ok(()),
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
            Action::FeedMessages => Err(Error::Forbidden(
                "only services may feed this server".into(),
            )),
        }
    }

    /// Whom a request is about: the user who asks, when it does not say; a service must.
    ///
    /// # Errors
    /// [`Error::BadInput`] of a service that names nobody, [`Error::Forbidden`].
    pub fn viewer(&self, named: Option<Uid>) -> Result<Uid, Error> {
        match (self, named) {
            (_, Some(uid)) => self.check(Action::ActFor(&uid)).map(|()| uid),
            (Self::User { uid, .. }, None) => Ok(uid.clone()),
            (Self::Service, None) => Err(Error::bad_input("uid", "must be given")),
        }
    }

    /// Who sends a message: the user who asks, or the system, when it does not say.
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

    /// Whether this caller may know of this user's conversations: what it may not know of looks
    /// like what does not exist.
    #[must_use]
    pub fn knows_of(&self, uid: &Uid) -> bool {
        self.check(Action::ActFor(uid)).is_ok()
    }

    /// The user whose membership decides, in what is not about one user; services are in
    /// everything.
    #[must_use]
    pub fn user(&self) -> Option<&Uid> {
        match self {
            Self::Service => None,
            Self::User { uid, .. } => Some(uid),
        }
    }

    /// When the right to be connected ends, epoch seconds.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        match self {
            Self::Service => None,
            Self::User { expires_at, .. } => Some(*expires_at),
        }
    }
}
