//! Identifiers of users and channels, validated at the interfaces and trusted inside.

use std::fmt;

use super::InvalidValue;

/// Maximum length of an id in bytes.
pub const ID_BYTES: usize = 255;
/// The sender of messages without a sender (`WuKongIM`).
pub const SYSTEM_UID: &str = "____system";
/// Suffix of the id of a command channel (`WuKongIM`).
pub const COMMAND_SUFFIX: &str = "____cmd";

/// Validates a text that is stored as a key: at most [`ID_BYTES`] bytes of Unicode without control
/// characters.
///
/// # Errors
/// [`InvalidValue`] for `field`.
pub fn check_key(field: &'static str, text: &str) -> Result<(), InvalidValue> {
    if text.len() > ID_BYTES {
        return Err(InvalidValue::new(
            field,
            format!("must be at most {ID_BYTES} bytes long"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidValue::new(
            field,
            "must not contain control characters",
        ));
    }
    Ok(())
}

fn check_id(field: &'static str, text: &str) -> Result<(), InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::new(field, "must not be empty"));
    }
    check_key(field, text)
}

/// A user's id, chosen by the surrounding system: 1 to 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(String);

impl Uid {
    /// # Errors
    /// [`InvalidValue`] for `field` if the text is empty, too long, or contains control
    /// characters.
    pub fn parse(field: &'static str, text: impl Into<String>) -> Result<Self, InvalidValue> {
        let text = text.into();
        check_id(field, &text)?;
        Ok(Self(text))
    }

    /// Returns the sender of messages without a sender.
    #[must_use]
    pub fn system() -> Self {
        Self(SYSTEM_UID.to_owned())
    }

    /// Returns whether this is the system user, which has no conversations.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0 == SYSTEM_UID
    }

    /// Returns the id as text.
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

/// Type of a channel: 1 person, 2 group, 3 customer service, … (1 to 255).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelType(u8);

impl ChannelType {
    /// A channel of two users.
    pub const PERSON: Self = Self(1);
    /// A group; `WuKongIM`'s default type.
    pub const GROUP: Self = Self(2);
    /// Types whose channels are never listed: info and live room.
    pub const NEVER_LISTED: [Self; 2] = [Self(6), Self(9)];

    /// # Errors
    /// [`InvalidValue`] for `field` if the number is not between 1 and 255.
    pub fn parse(field: &'static str, number: i64) -> Result<Self, InvalidValue> {
        match u8::try_from(number) {
            Ok(0) | Err(_) => Err(InvalidValue::new(field, "must be between 1 and 255")),
            Ok(number) => Ok(Self(number)),
        }
    }

    /// Returns the number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns the stored number.
    #[must_use]
    pub fn stored(self) -> i16 {
        i16::from(self.0)
    }

    /// Converts a stored number, which was validated before it was stored.
    #[must_use]
    pub(crate) fn from_stored(number: i16) -> Self {
        Self(u8::try_from(number).unwrap_or_default())
    }

    /// Returns whether channels of this type can be listed.
    #[must_use]
    pub fn is_listed(self) -> bool {
        !Self::NEVER_LISTED.contains(&self)
    }
}

/// A channel as a user names it: the id of a person channel is the other user's uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelRef {
    /// Type of the channel.
    pub channel_type: ChannelType,
    /// Id of the channel, 1 to 255 bytes.
    pub channel_id: String,
}

impl ChannelRef {
    /// # Errors
    /// [`InvalidValue`] for `channel_id` or `channel_type`.
    pub fn parse(channel_id: impl Into<String>, channel_type: i64) -> Result<Self, InvalidValue> {
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
    fn ids_are_unicode_without_control_characters_up_to_255_bytes() {
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
                number,
                "{number}"
            );
        }
        for number in [0, -1, 256, i64::MAX, i64::MIN] {
            assert!(
                ChannelType::parse("channel_type", number).is_err(),
                "{number}"
            );
        }
    }
}
