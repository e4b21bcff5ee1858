//! Numbers that must not be confused with each other.

use std::fmt;

/// A user's strictly increasing number of a visible change, below 2^53; 0 before the first change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub i64);

impl Version {
    /// The version before the first change.
    pub const ZERO: Self = Self(0);

    /// Returns the version of the next change: larger than this one, and not below the clock.
    pub(crate) fn next(self, now_ms: EpochMs) -> Self {
        Self((self.0 + 1).max(now_ms.0))
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

/// A message's number in its channel: 1, 2, 3 …; 0 is the position before the first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub i64);

impl Seq {
    /// The position before the first message.
    pub const ZERO: Self = Self(0);
    /// Above every message.
    pub const MAX: Self = Self(i64::MAX);

    /// Returns the next seq.
    pub(crate) fn next(self) -> Self {
        self.plus(1)
    }

    /// Returns the previous seq.
    pub(crate) fn previous(self) -> Self {
        self.minus(1)
    }

    /// Returns the seq that is `count` higher, at most [`Self::MAX`].
    pub(crate) fn plus(self, count: i64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Returns the seq that is `count` lower.
    pub(crate) fn minus(self, count: i64) -> Self {
        Self(self.0.saturating_sub(count))
    }

    /// Returns how much higher this seq is than `other`.
    pub(crate) fn distance_from(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl From<u32> for Seq {
    fn from(seq: u32) -> Self {
        Self(seq.into())
    }
}

/// The global id of a message (snowflake).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub i64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time in milliseconds since 1970; 0 for an event that has not happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochMs(pub i64);

impl EpochMs {
    /// The time of an event that has not happened.
    pub const ZERO: Self = Self(0);

    /// Returns the time `ms` milliseconds later.
    pub(crate) fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Returns the whole seconds since 1970.
    pub(crate) fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// Primary key of a channel in the database.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ChannelPk(pub i64);
