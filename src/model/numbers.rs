//! Numbers that must not be confused with each other.

/// A user's strictly increasing number of a visible change, below 2^53; 0 before the first change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub i64);

impl Version {
    /// The version before the first change.
    pub const ZERO: Self = Self(0);

    /// Returns the version of the next change: larger than this one, and not below the clock.
    pub(crate) fn next(self, now_ms: i64) -> Self {
        Self((self.0 + 1).max(now_ms))
    }
}

/// A channel's number that grows with every change members can see; 0 before the first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision of an empty channel.
    pub const ZERO: Self = Self(0);
    /// Below every revision: no version covers the conversation yet.
    pub(crate) const UNSTAMPED: Self = Self(-1);

    /// Returns the revision of the next change.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Primary key of a channel in the database.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ChannelPk(pub i64);
