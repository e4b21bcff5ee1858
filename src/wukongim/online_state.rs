//! The online states of users in webhooks. They are only counted: recents keeps no sessions.

use serde_json::Value;

use super::json::parse_json;
use crate::error::Error;

/// Counts the entries of a body of `user.onlinestatus`. A body that is no JSON array counts as one
/// malformed entry: its sender could only repeat it.
///
/// # Errors
/// [`Error::Overloaded`] or [`Error::TooManyAtOnce`] if there is no memory left for the body.
pub(super) fn count_online_states(body: &[u8]) -> Result<(), Error> {
    let (read, malformed) = match parse_json(body) {
        Ok(Value::Array(entries)) => {
            let read = entries
                .iter()
                .filter(|entry| is_online_state(entry))
                .count();
            (read, entries.len() - read)
        }
        Ok(_) | Err(Error::BadRequest(_)) => (0, 1),
        Err(error) => return Err(error),
    };
    for (result, count) in [("read", read), ("malformed", malformed)] {
        metrics::counter!(crate::metrics::ONLINE_STATES_TOTAL, "result" => result)
            .increment(count as u64);
    }
    Ok(())
}

/// Returns whether an entry has the form
/// `uid-deviceFlag-online-connId-deviceOnlineCount-totalOnlineCount`. A uid may contain hyphens, so
/// the entry is split from the right.
fn is_online_state(entry: &Value) -> bool {
    let parts: Vec<&str> = entry.as_str().unwrap_or_default().rsplitn(6, '-').collect();
    let [total_count, device_count, connection, online, device, uid] = parts[..] else {
        return false;
    };
    let numbers = [total_count, device_count, connection, device];
    !uid.is_empty()
        && matches!(online, "0" | "1")
        && numbers.iter().all(|number| number.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_split_from_the_right() {
        for entry in ["ann-0-1-7-1-2", "a-n-n-1-0-0-0-0", "-----1-1-7-1-2"] {
            assert!(is_online_state(&json!(entry)), "{entry}");
        }
        for entry in [
            json!(""),
            json!("ann"),
            json!("-1-1-7-1-2"),
            json!("ann-1-2-7-1-2"),
            json!("ann-1-x-7-1-2"),
            json!("ann-1-1-7-1"),
            json!("1-1-7-1-2"),
            json!("ann-1-1--1-2"),
            json!(7),
            json!(null),
            json!(["ann-0-1-7-1-2"]),
        ] {
            assert!(!is_online_state(&entry), "{entry}");
        }
    }
}
