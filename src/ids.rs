//! The words everything is named with, parsed once at the border and trusted inside.

use std::fmt;

use crate::error::Error;

/// Longest id in bytes.
pub const ID_BYTES: usize = 255;
/// The sender of messages without one (`WuKongIM`).
pub const SYSTEM_UID: &str = "____system";
/// What the id of a command channel ends with (`WuKongIM`).
pub const COMMAND_SUFFIX: &str = "____cmd";

/// A message's number in its channel: 1, 2, 3 …; 0 stands before the first.
pub type Seq = i64;
/// A user's strictly increasing number of a visible change, below 2^53.
pub type Version = i64;

/// Checks a text that is stored as a key: at most [`ID_BYTES`] bytes of any Unicode but control
/// characters.
///
/// # Errors
/// [`Error::BadInput`] naming `field`.
pub fn check_key(field: &'static str, text: &str) -> Result<(), Error> {
    if text.len() > ID_BYTES {
        return Err(Error::bad_input(
            field,
            format!("must be at most {ID_BYTES} bytes long"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::bad_input(
            field,
            "must not contain control characters",
        ));
    }
    Ok(())
}

fn check_id(field: &'static str, text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::bad_input(field, "must not be empty"));
    }
    check_key(field, text)
}

/// A user's id, chosen by the surrounding system: 1 to 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(String);

impl Uid {
    /// # Errors
    /// [`Error::BadInput`] naming `field` when the text is empty, too long, or holds control
    /// characters.
    pub fn parse(field: &'static str, text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        check_id(field, &text)?;
        Ok(Self(text))
    }

    /// The sender of messages without one.
    #[must_use]
    pub fn system() -> Self {
        Self(SYSTEM_UID.to_owned())
    }

    /// Whether this is the system itself, which has no conversations.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0 == SYSTEM_UID
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of channel: 1 person, 2 group, 3 customer service, … (1 to 255).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelType(u8);

impl ChannelType {
    /// The pair of two users.
    pub const PERSON: Self = Self(1);
    /// A group, the type `WuKongIM` takes where none is given.
    pub const GROUP: Self = Self(2);
    /// Types whose channels never show in anybody's list: info and live room.
    pub const NEVER_LISTED: [Self; 2] = [Self(6), Self(9)];

    /// # Errors
    /// [`Error::BadInput`] naming `field` for anything but 1 to 255.
    pub fn parse(field: &'static str, number: i64) -> Result<Self, Error> {
        match u8::try_from(number) {
            Ok(0) | Err(_) => Err(Error::bad_input(field, "must be between 1 and 255")),
            Ok(number) => Ok(Self(number)),
        }
    }

    /// As the number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// As stored.
    #[must_use]
    pub fn stored(self) -> i16 {
        i16::from(self.0)
    }

    /// From the database, where only numbers that were parsed are stored.
    #[must_use]
    pub(crate) fn from_stored(number: i16) -> Self {
        Self(u8::try_from(number).unwrap_or_default())
    }

    /// Whether channels of this type can show in a conversation list.
    #[must_use]
    pub fn is_listed(self) -> bool {
        !Self::NEVER_LISTED.contains(&self)
    }
}

/// A channel as somebody names it: for a person channel the id is the other one's uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelRef {
    /// What kind.
    pub channel_type: ChannelType,
    /// 1 to 255 bytes.
    pub channel_id: String,
}

impl ChannelRef {
    /// # Errors
    /// [`Error::BadInput`] naming `channel_id` or `channel_type`.
    pub fn parse(channel_id: impl Into<String>, channel_type: i64) -> Result<Self, Error> {
        let channel_id = channel_id.into();
        check_id("channel_id", &channel_id)?;
        Ok(Self {
            channel_type: ChannelType::parse("channel_type", channel_type)?,
            channel_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_any_unicode_but_control_characters_up_to_255_bytes() {
        for good in [
            "a",
            "用户甲",
            "a:b|c'd%e\"f g",
            " ",
            &"é".repeat(127),
            &"x".repeat(255),
        ] {
            assert!(Uid::parse("uid", good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "a\nb",
            "\0",
            "\u{7f}",
            "\u{85}",
            &"x".repeat(256),
            &"é".repeat(128),
        ] {
            assert!(Uid::parse("uid", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn channel_types_are_1_to_255() {
        for number in [1, 2, 255] {
            assert_eq!(
                i64::from(ChannelType::parse("channel_type", number).unwrap().number()),
                number
            );
        }
        for number in [0, -1, 256, i64::MAX, i64::MIN] {
            assert!(ChannelType::parse("channel_type", number).is_err());
        }
    }
}
