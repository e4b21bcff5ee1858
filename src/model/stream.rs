//! Streams: messages whose text arrives in pieces, as that of a language model does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The flag at the end of a stream.
const FLAG_AT_END: u8 = 2;

/// The stream that a message begins; all empty if it begins none. The only part of
/// a message that a repeat may complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Stream number, or empty.
    pub no: String,
    /// Position in the stream.
    pub seq: u32,
    /// State: 0 at the start, 1 on the way, 2 at the end.
    pub flag: u8,
    /// A [`StreamState`] as JSON, or empty.
    pub state: Vec<u8>,
}

/// The text and the events of a stream so far, with the names of `WuKongIM` (v2; `streams`: v1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamState {
    /// 1 if the stream has ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub end: u8,
    /// Why it ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub end_reason: u8,
    /// The error that ended it, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The text so far, in standard base64 with padding.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream_data: String,
    /// The events of the stream, or null.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub event_meta: Value,
    /// From where to request more events, or null.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub event_sync_hint: Value,
    /// The pieces of the text, or null.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub streams: Value,
}

impl Stream {
    /// Returns whether the message begins no stream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the text so far, if it is known.
    #[must_use]
    pub fn data(&self) -> Option<Vec<u8>> {
        let data = self.state()?.stream_data;
        STANDARD.decode(data).ok().filter(|data| !data.is_empty())
    }

    /// Returns whether the stream has ended, if there is one: its state says it, or its flag.
    #[must_use]
    pub fn has_ended(&self) -> Option<bool> {
        if self.is_empty() {
            return None;
        }
        let is_end = self.state().is_some_and(|state| state.end != 0);
        Some(is_end || self.flag == FLAG_AT_END)
    }

    /// Returns the text and the events so far, if there are any.
    #[must_use]
    pub fn state(&self) -> Option<StreamState> {
        StreamState::from_json(&self.state)
    }

    /// Adds what a repeat of the message knows in addition: fields that are empty here, and a later
    /// state. Returns whether anything changed. The order of repeats does not matter.
    pub fn complete(&mut self, repeat: &Self) -> bool {
        let before = self.clone();
        if self.no.is_empty() {
            self.no.clone_from(&repeat.no);
        }
        self.seq = self.seq.max(repeat.seq);
        self.flag = self.flag.max(repeat.flag);
        if self.progress() < repeat.progress() {
            self.state.clone_from(&repeat.state);
        }
        *self != before
    }

    /// Grows with the stream.
    fn progress(&self) -> (u8, Option<u64>, usize, usize, Vec<u8>) {
        let state = self.state().unwrap_or_default();
        let pieces = state.streams.as_array().map_or(0, Vec::len);
        (
            state.end,
            state.event_meta["event_version"].as_u64(),
            state.stream_data.len(),
            pieces,
            self.state.clone(),
        )
    }
}

impl StreamState {
    /// Returns the state as JSON, or nothing if it is empty.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        // Writing strings and numbers to memory does not fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn from_json(json: &[u8]) -> Option<Self> {
        if json.is_empty() {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream(no: &str, state: &Value) -> Stream {
        let state: StreamState = serde_json::from_value(state.clone()).unwrap();
        Stream {
            no: no.to_owned(),
            state: state.to_json(),
            ..Stream::default()
        }
    }

    #[test]
    fn the_order_of_repeats_does_not_matter() {
        let known = [
            Stream::default(),
            stream("s1", &json!({})),
            stream(
                "",
                &json!({"stream_data": "YQ==", "event_meta": {"event_version": 1}}),
            ),
            stream(
                "s1",
                &json!({"stream_data": "YWI=", "event_meta": {"event_version": 2}}),
            ),
            stream(
                "s1",
                &json!({"stream_data": "YWI=", "end": 1, "event_meta": {"event_version": 2}}),
            ),
            Stream {
                seq: 3,
                flag: 2,
                ..Stream::default()
            },
        ];
        let all = |order: &[usize]| {
            let mut all = Stream::default();
            for number in order {
                all.complete(&known[*number]);
            }
            assert!(known.iter().all(|one| !all.clone().complete(one)));
            all
        };
        let expected = all(&[0, 1, 2, 3, 4, 5]);
        assert_eq!(
            (expected.no.as_str(), expected.seq, expected.flag),
            ("s1", 3, 2)
        );
        assert_eq!(expected.state().unwrap().end, 1);
        for order in [[5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2], [4, 2, 0, 3, 5, 1]] {
            assert_eq!(all(&order), expected, "{order:?}");
        }
    }

    #[test]
    fn empty_states_take_no_space() {
        assert_eq!(StreamState::default().to_json(), b"");
        assert_eq!(Stream::default().state(), None);
        let state = StreamState {
            end: 1,
            ..StreamState::default()
        };
        assert_eq!(state.to_json(), br#"{"end":1}"#);
        assert_eq!(StreamState::from_json(&state.to_json()), Some(state));
    }
}
