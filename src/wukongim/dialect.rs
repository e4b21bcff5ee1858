//! The dialects: versions of `WuKongIM` name person channels differently, and some lose red dots.

use std::sync::Once;

use crate::config::WukongimVersion;
use crate::model::{ChannelKey, ChannelRef, ChannelType, ID_BYTES, Uid};

/// The dialect of the server that messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceDialect {
    /// Whether person channels are named by the stored pair instead of by the recipient.
    pub(crate) names_pairs: bool,
    /// Whether red dots are not transmitted; then all messages have one.
    pub(crate) loses_red_dots: bool,
}

impl SourceDialect {
    /// Returns the dialect of the webhooks of this version.
    pub(crate) fn of_webhooks(version: WukongimVersion) -> Self {
        let is_v3 = version == WukongimVersion::V3;
        Self {
            names_pairs: is_v3,
            loses_red_dots: is_v3,
        }
    }

    /// Returns the key of the channel that a message from `from` names, or `None` if the channel is
    /// not one of this user.
    pub(super) fn channel_key(self, from: &Uid, channel: &ChannelRef) -> Option<ChannelKey> {
        Some(match (channel.channel_type, self.names_pairs) {
            (ChannelType::PERSON, true) => parse_stored_pair(from, &channel.channel_id)?,
            // v2 names a message to oneself by the pair in msg.notify, and by the uid in
            // msg.offline.
            (ChannelType::PERSON, false) if channel.channel_id == format!("{from}@{from}") => {
                ChannelKey::person(from.as_str(), from.as_str())
            }
            (ChannelType::PERSON, false) => {
                warn_if_stored_pair(from, &channel.channel_id);
                ChannelKey::new(from, channel)
            }
            _ => ChannelKey::new(from, channel),
        })
    }
}

/// Parses the stored pair that v3 uses as the name of a person channel: the uid with the larger
/// CRC32 first, joined with `@`. Uids may contain `@` themselves, so the pair is split at the
/// sender; if the sender matches both ends, the order of the pair decides.
fn parse_stored_pair(from: &Uid, stored: &str) -> Option<ChannelKey> {
    let from = from.as_str();
    let first = stored
        .strip_prefix(from)
        .and_then(|rest| rest.strip_prefix('@'));
    let second = stored
        .strip_suffix(from)
        .and_then(|rest| rest.strip_suffix('@'));
    let peers = first
        .into_iter()
        .chain(second)
        .filter(|peer| !peer.is_empty());
    let peer = peers
        .clone()
        .find(|peer| stored_pair(from, peer) == stored)
        .or_else(|| peers.clone().next())?;
    Some(ChannelKey::person(from, peer))
}

fn stored_pair(one: &str, other: &str) -> String {
    let rank = |uid: &str| (crc32fast::hash(uid.as_bytes()), uid.to_owned());
    if rank(one) >= rank(other) {
        format!("{one}@{other}")
    } else {
        format!("{other}@{one}")
    }
}

/// Returns the keys of the person channels that have this stored pair as their name. Uids may
/// contain `@` themselves, so there may be several.
pub(crate) fn split_stored_pair(stored: &str) -> Vec<ChannelKey> {
    // Longer than two uids: it would be split for nothing.
    if stored.len() > 2 * ID_BYTES + 1 {
        return Vec::new();
    }
    stored
        .match_indices('@')
        .map(|(at, _)| (&stored[..at], &stored[at + 1..]))
        .filter(|(first, second)| {
            let is_uid = |uid: &str| Uid::parse("channel_id", uid).is_ok();
            is_uid(first) && is_uid(second) && stored_pair(first, second) == stored
        })
        .map(|(first, second)| ChannelKey::person(first, second))
        .collect()
}

/// Warns if a channel id is a stored pair: v1 and v2 name the recipient, so the server is probably
/// a v3 and `ingest.wukongim` is wrong.
fn warn_if_stored_pair(from: &Uid, channel_id: &str) {
    static WARNING: Once = Once::new();
    let looks_like_v3 = parse_stored_pair(from, channel_id)
        .and_then(|key| {
            key.pair()
                .map(|(one, other)| stored_pair(one, other) == channel_id)
        })
        .unwrap_or(false);
    if looks_like_v3 {
        WARNING.call_once(|| {
            tracing::warn!(
                channel_id,
                "a person message names its channel by the pair of uids, as v3 does: check ingest.wukongim"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_pair_matches_wukongim() {
        assert_eq!(stored_pair("alice", "bob"), "bob@alice");
        assert_eq!(stored_pair("bob", "alice"), "bob@alice");
    }

    #[test]
    fn stored_pair_is_split_at_the_sender() {
        let uid = |text| Uid::parse("uid", text).unwrap();
        for (from, peer) in [
            ("alice", "bob"),
            ("bob", "alice"),
            ("a@b", "c"),
            ("c", "a@b"),
            ("a", "b@a"),
            ("b@a", "a"),
        ] {
            assert_eq!(
                parse_stored_pair(&uid(from), &stored_pair(from, peer)),
                Some(ChannelKey::person(from, peer)),
                "{from} {peer}"
            );
        }
        assert_eq!(parse_stored_pair(&uid("carol"), "bob@alice"), None);
    }

    #[test]
    fn stored_pair_is_split_where_it_can_be_one() {
        let both = [ChannelKey::person("alice", "bob")];
        assert_eq!(split_stored_pair("bob@alice"), both);
        for (one, other) in [("a@b", "c"), ("a", "b@a"), ("me", "me"), ("用户甲", "ann")] {
            let keys = split_stored_pair(&stored_pair(one, other));
            assert!(keys.contains(&ChannelKey::person(one, other)), "{keys:?}");
        }
        // The other order is no stored pair.
        for none in ["alice@bob", "@", "bob@", "@bob", "bob", "a\n@b"] {
            assert_eq!(split_stored_pair(none), [], "{none}");
        }
        assert_eq!(split_stored_pair(&"@".repeat(600)), []);
    }
}
