//! Limit on the bytes of messages in one answer (`limits.answer_bytes`). It is enforced by the
//! lengths of payloads, before the payloads are read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::budget;
use crate::error::Error;

use crate::store::PartialMessage;

use crate::model::Message;

/// Size of a message in an answer without its payload and its client's texts. The limit divided by
/// this is the largest number of messages that need to be considered.
pub(crate) const MESSAGE_BYTES: usize = 400;
/// Number of copies of a message in memory while its answer is built.
const COPIES_IN_MEMORY: usize = 3;
/// Payloads up to this size are always read together with their messages.
const MIN_INLINE_PAYLOAD_BYTES: usize = 256;

/// The remaining bytes of an answer, shared by all lists of messages in it.
#[derive(Debug)]
pub struct AnswerSizeLimit {
    left: Mutex<usize>,
    limit: usize,
    /// Bytes for which the request has reserved memory.
    reserved: AtomicUsize,
}

impl AnswerSizeLimit {
    /// Creates the limit for a new answer.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            left: Mutex::new(limit),
            limit,
            reserved: AtomicUsize::new(0),
        }
    }

    /// Starts the next answer of a subscription.
    pub fn reset(&self) {
        self.take_with(|left| *left = self.limit);
        self.reserved.store(0, Ordering::Relaxed);
    }

    /// Reserves memory for the bytes taken so far: messages as read, their values, and the written
    /// answer.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) fn reserve_memory(&self) -> Result<(), Error> {
        let taken = self.limit - self.remaining();
        let before = self.reserved.fetch_max(taken, Ordering::Relaxed);
        budget::reserve_memory(
            taken
                .saturating_sub(before)
                .saturating_mul(COPIES_IN_MEMORY),
        )
    }

    /// Lets `decide` take from the remaining bytes.
    pub(crate) fn take_with<T>(&self, decide: impl FnOnce(&mut usize) -> T) -> T {
        decide(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn remaining(&self) -> usize {
        self.take_with(|left| *left)
    }

    /// Returns the payload size up to which payloads are read together with `messages` messages.
    /// Nearly all messages are short, so one statement reads them completely; of the long payloads
    /// only those that fit are read.
    pub(crate) fn inline_payload_bytes(&self, messages: usize) -> usize {
        (self.remaining() / messages.max(1)).max(MIN_INLINE_PAYLOAD_BYTES)
    }
}

/// Size of a message in an answer; the payload is base64.
fn weight(payload_bytes: usize, client_msg_no: &str, from_uid: &str) -> usize {
    MESSAGE_BYTES + payload_bytes.div_ceil(3) * 4 + client_msg_no.len() + from_uid.len()
}

/// A message with a known size in an answer.
pub(crate) trait SizedInAnswer {
    fn size_in_answer(&self) -> usize;
}

impl SizedInAnswer for PartialMessage {
    fn size_in_answer(&self) -> usize {
        weight(
            self.payload_bytes,
            &self.message.client_msg_no,
            &self.message.from_uid,
        )
    }
}

impl SizedInAnswer for Message {
    fn size_in_answer(&self) -> usize {
        weight(
            self.content.payload.len() + self.content.stream.state.len(),
            &self.client_msg_no,
            &self.from_uid,
        )
    }
}

/// Returns how many entries of each list fit, given the lists' lengths and the size of each entry
/// (`weigh`). The first entries of all lists come before the second ones, and so on; at the same
/// place, lists with a larger `rank` come first. A list ends at its first entry that does not fit.
/// Subtracts the size from `left`.
pub(crate) fn fit_newest_first<Rank: Ord>(
    lengths: &[usize],
    left: &mut usize,
    rank: impl Fn(usize) -> Rank,
    weigh: impl Fn(usize, usize) -> usize,
) -> Vec<usize> {
    let all: usize = (0..lengths.len())
        .map(|list| (0..lengths[list]).map(|at| weigh(list, at)).sum::<usize>())
        .sum();
    if let Some(rest) = left.checked_sub(all) {
        *left = rest;
        return lengths.to_vec();
    }
    let mut fit = vec![0; lengths.len()];
    let mut open: Vec<usize> = (0..lengths.len())
        .filter(|list| lengths[*list] > 0)
        .collect();
    open.sort_by_key(|list| std::cmp::Reverse(rank(*list)));
    while !open.is_empty() {
        open.retain(|list| {
            let entry = fit[*list];
            match left.checked_sub(weigh(*list, entry)) {
                Some(rest) => {
                    *left = rest;
                    fit[*list] += 1;
                    fit[*list] < lengths[*list]
                }
                None => false,
            }
        });
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_entries_of_all_lists_fit_first() {
        let mut left = 100;
        assert_eq!(
            fit_newest_first(&[3, 0, 3], &mut left, std::cmp::Reverse, |_, _| 20),
            [3, 0, 2]
        );
        assert_eq!(left, 0);
        let mut left = 100;
        assert_eq!(
            fit_newest_first(&[3, 3], &mut left, |list| list, |_, _| 20),
            [2, 3]
        );
        // An entry that does not fit ends its own list.
        let mut left = 100;
        assert_eq!(
            fit_newest_first(
                &[2, 2],
                &mut left,
                |_| 0,
                |list, _| if list == 0 { 101 } else { 50 }
            ),
            [0, 2]
        );
        let mut left = 99;
        assert_eq!(
            fit_newest_first(
                &[2, 2],
                &mut left,
                |_| 0,
                |list, _| if list == 0 { 101 } else { 50 }
            ),
            [0, 1]
        );
    }

    #[test]
    fn reset_restores_the_limit() {
        let bytes = AnswerSizeLimit::new(1000);
        bytes.take_with(|left| *left -= 900);
        assert_eq!(
            (
                bytes.remaining(),
                bytes.inline_payload_bytes(1),
                bytes.inline_payload_bytes(100)
            ),
            (100, 256, 256)
        );
        bytes.reset();
        assert_eq!(
            (bytes.remaining(), bytes.inline_payload_bytes(2)),
            (1000, 500)
        );
    }
}
