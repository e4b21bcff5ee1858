//! Recipients of a message that a `WuKongIM` compressed: base64 of a gzip of a JSON array.

use std::fmt;
use std::io::Read;
use std::sync::Once;

use serde::de::{Deserializer as _, SeqAccess, Visitor};

use crate::budget::reserve_memory;
use crate::error::Error;

/// Decompresses a list of uids. v1 and v2 send the compressed data before they have completed it,
/// so most lists lack their end, and many are empty: every complete uid counts.
///
/// Returns the uids, and whether they are all of the list. At most `limit` bytes are decompressed;
/// the limit matters because gzip compresses up to a thousand to one.
///
/// # Errors
/// [`Error::Overloaded`] or [`Error::TooManyAtOnce`] if there is no memory left for the list.
pub(super) fn decompress_uids(packed: &[u8], limit: usize) -> Result<(Vec<String>, bool), Error> {
    let mut json = Vec::new();
    // What was read before an error is in the buffer, too.
    let _ = flate2::read::GzDecoder::new(packed)
        .take(limit as u64)
        .read_to_end(&mut json);
    let quotes = json.iter().filter(|byte| **byte == b'"').count();
    // The capacity of a vector is up to twice its length.
    reserve_memory(json.len() + quotes / 2 * 2 * size_of::<String>())?;
    let mut uids = Vec::new();
    let is_complete = serde_json::Deserializer::from_slice(&json)
        .deserialize_seq(UidCollector(&mut uids))
        .is_ok();
    Ok((uids, is_complete))
}

/// Counts a list of recipients that was not complete, and logs the first one.
pub(super) fn report_incomplete_recipients() {
    static WARNING: Once = Once::new();
    metrics::counter!(crate::metrics::WEBHOOK_RECIPIENTS_CUT_TOTAL).increment(1);
    WARNING.call_once(|| {
        tracing::warn!(
            "the compressed recipients of a message are not complete, as v1 and v2 send them, so members of large groups may be missing: \
             set channel.subscriberCompressOfCount to 0 in WuKongIM's configuration"
        );
    });
}

/// Collects the strings of an array up to the first error.
struct UidCollector<'a>(&'a mut Vec<String>);

impl<'de> Visitor<'de> for UidCollector<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(uid) = list.next_element()? {
            self.0.push(uid);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn decompressed_uids_are_bounded() {
        let packed = gzip(b"[\"ann\",\"bob\"]");
        let uids = |limit| decompress_uids(&packed, limit).unwrap();
        let both = vec!["ann".to_owned(), "bob".to_owned()];
        assert_eq!(uids(13), (both.clone(), true));
        assert_eq!(uids(12), (both.clone(), false));
        assert_eq!(uids(11), (both[..1].to_vec(), false));
        let bomb = gzip(&[b"[\"", vec![b'x'; 10 << 20].as_slice(), b"\"]"].concat());
        assert!(bomb.len() < 20_000);
        assert_eq!(decompress_uids(&bomb, 4 << 20).unwrap(), (vec![], false));
    }

    #[test]
    fn complete_uids_of_a_list_that_was_cut_are_kept() {
        let all: Vec<String> = (0..1000).map(|number| format!("u{number}é\"")).collect();
        let packed = gzip(serde_json::to_string(&all).unwrap().as_bytes());
        let mut most = 0;
        for length in 0..packed.len() {
            let (uids, _) = decompress_uids(&packed[..length], 1 << 20).unwrap();
            assert_eq!(uids, all[..uids.len()], "{length} bytes");
            assert!(uids.len() >= most, "{length} bytes");
            most = uids.len();
        }
        assert_eq!(decompress_uids(&packed, 1 << 20).unwrap(), (all, true));
    }

    #[test]
    fn what_is_no_list_has_no_uids() {
        for text in ["", "null", "{}", "\"ann\"", "[1]", "[", "x"] {
            let (uids, is_complete) = decompress_uids(&gzip(text.as_bytes()), 100).unwrap();
            assert!(uids.is_empty() && !is_complete, "{text}");
        }
        for packed in [&b""[..], b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"hello"] {
            assert_eq!(decompress_uids(packed, 100).unwrap(), (vec![], false));
        }
    }
}
