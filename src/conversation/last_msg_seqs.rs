//! Parser for `last_msg_seqs`: the newest message that a client has of each channel.

use std::collections::HashMap;

use crate::model::{ChannelRef, Seq};

/// Parses `channelID:channelType:last_msg_seq` joined by `|`. Entries are split from the right, so
/// that an id may contain `:`. Malformed entries are skipped and counted: without them the client
/// only gets messages that it already has.
#[must_use]
pub fn parse_last_msg_seqs(text: &str) -> HashMap<ChannelRef, Seq> {
    let mut seqs = HashMap::new();
    let mut skipped = 0;
    for part in text.split('|').filter(|part| !part.is_empty()) {
        match parse_part(part) {
            Some((channel, seq)) => {
                seqs.insert(channel, seq);
            }
            None => skipped += 1,
        }
    }
    if skipped > 0 {
        metrics::counter!(crate::metrics::LAST_MSG_SEQS_SKIPPED_TOTAL).increment(skipped);
    }
    seqs
}

fn parse_part(part: &str) -> Option<(ChannelRef, Seq)> {
    let (rest, seq) = part.rsplit_once(':')?;
    let (channel_id, channel_type) = rest.rsplit_once(':')?;
    let seq = seq.parse().ok().map(Seq).filter(|seq| *seq >= Seq::ZERO)?;
    Some((
        ChannelRef::parse(channel_id, channel_type.parse().ok()?).ok()?,
        seq,
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_may_contain_colons_and_malformed_parts_are_skipped() {
        let seqs = parse_last_msg_seqs(
            "bob:1:4|g:with:colon:2:7||bad|x:1|y:1:z|:1:2|u:0:3|v:1:-1|w:300:1",
        );
        let expected = [("bob", 1, 4), ("g:with:colon", 2, 7)]
            .map(|(id, kind, seq)| (ChannelRef::parse(id, kind).unwrap(), Seq(seq)))
            .into_iter()
            .collect();
        assert_eq!(seqs, expected);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            prop_assert!(parse_last_msg_seqs(&text).len() <= text.len());
        }

        #[test]
        fn formatted_entries_are_parsed(id in "[^|\\p{Cc}]{1,60}", kind in 1_i64..=255, seq in 0_i64..) {
            let seqs = parse_last_msg_seqs(&format!("{id}:{kind}:{seq}"));
            prop_assert_eq!(seqs.get(&ChannelRef::parse(id, kind).unwrap()), Some(&Seq(seq)));
        }
    }
}
