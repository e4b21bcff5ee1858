//! How many bytes the messages of one answer may have (`limits.answer_bytes`): decided by their
//! lengths, before their payloads are read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::budget;
use crate::error::Error;

use crate::store::Measured;

use super::Message;

/// Bytes of a message in an answer beside its payload and its client's texts. So many messages at
/// most are worth to be looked at.
pub(crate) const MESSAGE_BYTES: usize = 400;
/// A message is in memory so often while its answer is made.
const COPIES: usize = 3;
/// Payloads of so many bytes are read with their messages in any case.
const SHORT: usize = 256;

/// What is left of an answer's bytes. All lists of messages of one answer take from the same.
#[derive(Debug)]
pub struct AnswerBytes {
    left: Mutex<usize>,
    limit: usize,
    /// Bytes taken that the request holds memory for.
    held: AtomicUsize,
}

impl AnswerBytes {
    /// For an answer of which nothing is there yet.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            left: Mutex::new(limit),
            limit,
            held: AtomicUsize::new(0),
        }
    }

    /// For the next answer of a subscription.
    pub fn renew(&self) {
        self.with(|left| *left = self.limit);
        self.held.store(0, Ordering::Relaxed);
    }

    /// Holds memory for what was taken: messages as they are read, their values, and the answer
    /// that is written.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) fn hold(&self) -> Result<(), Error> {
        let taken = self.limit - self.left();
        let before = self.held.fetch_max(taken, Ordering::Relaxed);
        budget::hold(taken.saturating_sub(before).saturating_mul(COPIES))
    }

    /// Decides what fits, and takes it.
    pub(crate) fn with<T>(&self, decide: impl FnOnce(&mut usize) -> T) -> T {
        decide(&mut self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn left(&self) -> usize {
        self.with(|left| *left)
    }

    /// Up to which length payloads are read together with so many messages: nearly all messages are
    /// short, and one statement reads them then; of long ones only those are read that fit.
    pub(crate) fn short_enough(&self, messages: usize) -> usize {
        (self.left() / messages.max(1)).max(SHORT)
    }
}

/// Bytes of a message in an answer: its payload is base64.
fn weight(payload_bytes: usize, client_msg_no: &str, from_uid: &str) -> usize {
    MESSAGE_BYTES + payload_bytes.div_ceil(3) * 4 + client_msg_no.len() + from_uid.len()
}

/// What has a weight in an answer.
pub(crate) trait Weigh {
    fn weight(&self) -> usize;
}

impl Weigh for Measured {
    fn weight(&self) -> usize {
        weight(
            self.payload_bytes,
            &self.message.client_msg_no,
            &self.message.from_uid,
        )
    }
}

impl Weigh for Message {
    fn weight(&self) -> usize {
        weight(
            self.content.payload.len(),
            &self.client_msg_no,
            &self.from_uid,
        )
    }
}

/// How many of each list fit, where `lengths` are the lists' lengths and `weigh` weighs an entry of
/// one. The first entries of all lists go before the second ones, and so on; of equal ones those of
/// the list with the largest `rank` go first. A list ends with the first entry that does not fit.
/// Takes what fits from `left`.
pub(crate) fn fitting<Rank: Ord>(
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
    fn the_newest_of_all_come_before_the_older_ones_of_any() {
        let mut left = 100;
        assert_eq!(
            fitting(&[3, 0, 3], &mut left, std::cmp::Reverse, |_, _| 20),
            [3, 0, 2]
        );
        assert_eq!(left, 0);
        let mut left = 100;
        assert_eq!(fitting(&[3, 3], &mut left, |list| list, |_, _| 20), [2, 3]);
        // One that does not fit ends its own list.
        let mut left = 100;
        assert_eq!(
            fitting(
                &[2, 2],
                &mut left,
                |_| 0,
                |list, _| if list == 0 { 101 } else { 50 }
            ),
            [0, 2]
        );
        let mut left = 99;
        assert_eq!(
            fitting(
                &[2, 2],
                &mut left,
                |_| 0,
                |list, _| if list == 0 { 101 } else { 50 }
            ),
            [0, 1]
        );
    }

    #[test]
    fn what_was_taken_is_gone_until_the_next_answer() {
        let bytes = AnswerBytes::new(1000);
        bytes.with(|left| *left -= 900);
        assert_eq!(
            (bytes.left(), bytes.short_enough(1), bytes.short_enough(100)),
            (100, 256, 256)
        );
        bytes.renew();
        assert_eq!((bytes.left(), bytes.short_enough(2)), (1000, 500));
    }
}
