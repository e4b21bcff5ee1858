//! The identity of a channel.

use sha2::{Digest, Sha256};

use super::{ChannelPk, ChannelRef, ChannelType, Uid};

/// The stored identity of a channel, the same for all users.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey {
    /// Type of the channel.
    pub channel_type: ChannelType,
    /// The channel's id. For a person channel: the length of the first uid, a colon, and both uids
    /// in byte order (`3:annbob`), which is unique for each pair whatever the uids contain.
    pub key: String,
}

impl ChannelKey {
    /// Returns the key of the channel that `viewer` names.
    #[must_use]
    pub fn new(viewer: &Uid, channel: &ChannelRef) -> Self {
        if channel.channel_type == ChannelType::PERSON {
            Self::person(viewer.as_str(), &channel.channel_id)
        } else {
            Self {
                channel_type: channel.channel_type,
                key: channel.channel_id.clone(),
            }
        }
    }

    /// Returns the key of the person channel of two users.
    #[must_use]
    pub fn person(one: &str, other: &str) -> Self {
        let (first, second) = if one <= other {
            (one, other)
        } else {
            (other, one)
        };
        Self {
            channel_type: ChannelType::PERSON,
            key: format!("{}:{first}{second}", first.len()),
        }
    }

    /// Returns the internal id of the channel. If another channel has it, the id of the next
    /// attempt is used.
    #[must_use]
    pub fn derived_id(&self, attempt: u32) -> ChannelPk {
        let mut hash = Sha256::new();
        hash.update([self.channel_type.number()]);
        hash.update(attempt.to_be_bytes());
        hash.update(&self.key);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.finalize()[..8]);
        ChannelPk((i64::from_be_bytes(bytes) & i64::MAX).max(1))
    }

    /// Returns the two users of a person channel.
    #[must_use]
    pub fn pair(&self) -> Option<(&str, &str)> {
        if self.channel_type != ChannelType::PERSON {
            return None;
        }
        let (length, uids) = self.key.split_once(':')?;
        uids.split_at_checked(length.parse().ok()?)
    }

    /// Returns the channel as `viewer` names it.
    #[must_use]
    pub fn seen_by(&self, viewer: &str) -> ChannelRef {
        let channel_id = match self.pair() {
            Some((first, second)) => if first == viewer { second } else { first }.to_owned(),
            None => self.key.clone(),
        };
        ChannelRef {
            channel_type: self.channel_type,
            channel_id,
        }
    }

    /// Returns the members of a person channel, which need no join. The system user, and users who
    /// talk to it, get no conversations.
    #[must_use]
    pub fn implicit_members(&self) -> Vec<Uid> {
        let Some((first, second)) = self.pair() else {
            return Vec::new();
        };
        let pair = [first, second].map(|uid| Uid::parse("uid", uid));
        match pair {
            [Ok(first), Ok(second)] if first.is_system() || second.is_system() => Vec::new(),
            [Ok(first), Ok(second)] if first == second => vec![first],
            [Ok(first), Ok(second)] => vec![first, second],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn person_keys_are_unambiguous_and_symmetric() {
        let pairs = [
            ("ann", "bob"),
            ("a@b", "c"),
            ("a", "b@c"),
            ("1:a", "b"),
            ("1", ":ab"),
            ("Ünï", "用户甲"),
            ("me", "me"),
        ];
        let mut keys = std::collections::HashSet::new();
        for (one, other) in pairs {
            let key = ChannelKey::person(one, other);
            assert_eq!(key, ChannelKey::person(other, one), "{one} and {other}");
            assert_eq!(key.seen_by(one).channel_id, other, "{one} and {other}");
            assert_eq!(key.seen_by(other).channel_id, one, "{one} and {other}");
            assert!(keys.insert(key), "{one} and {other}");
        }
    }

    #[test]
    fn derived_ids_are_positive_and_depend_on_type_key_and_attempt() {
        let group = |number, key: &str| ChannelKey {
            channel_type: ChannelType::parse("type", number).unwrap(),
            key: key.to_owned(),
        };
        let ids = [
            group(2, "g").derived_id(0),
            group(2, "g").derived_id(1),
            group(3, "g").derived_id(0),
            group(2, "h").derived_id(0),
        ];
        assert!(ids.iter().all(|id| id.0 > 0));
        assert_eq!(std::collections::HashSet::from(ids).len(), 4);
        // Stored permanently: a different derivation would lose every channel.
        assert_eq!(group(2, "g").derived_id(0).0, 3_905_543_392_029_918_174);
    }

    #[test]
    fn the_system_user_has_no_implicit_members() {
        assert!(
            ChannelKey::person("ann", super::super::SYSTEM_UID)
                .implicit_members()
                .is_empty()
        );
        assert_eq!(ChannelKey::person("me", "me").implicit_members().len(), 1);
        assert_eq!(ChannelKey::person("ann", "bob").implicit_members().len(), 2);
    }
}
