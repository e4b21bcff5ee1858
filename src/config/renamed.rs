//! Old names of keys, which work for one release after a key is renamed.
//!
//! How to rename a key: rename its field and its line in `recents.toml`, and add a line to
//! [`RENAMED_KEYS`] and to the table in `docs/RELEASING.md` (a test compares the two). Remove both
//! lines after the next release.

use ::config::{Map, Value, ValueKind};

use super::ConfigError;

/// Sections, old names and new names of keys.
const RENAMED_KEYS: &[(&str, &str, &str)] = &[
    ("server", "shutdown_seconds", "shutdown_timeout_seconds"),
    ("database", "wait_seconds", "startup_timeout_seconds"),
    ("database", "acquire_seconds", "acquire_timeout_seconds"),
    ("database", "statement_seconds", "statement_timeout_seconds"),
    ("live", "poll_seconds", "poll_interval_seconds"),
    ("live", "coalesce_milliseconds", "debounce_ms"),
    ("live", "init_seconds", "connection_init_timeout_seconds"),
    ("live", "ping_seconds", "ping_interval_seconds"),
    ("live", "send_seconds", "write_timeout_seconds"),
    ("limits", "msg_count", "max_messages_per_conversation"),
    ("limits", "last_msg_seqs", "max_last_msg_seqs"),
    ("limits", "members", "max_members_per_request"),
    ("limits", "request_seconds", "request_timeout_seconds"),
    ("limits", "requests", "max_concurrent_requests"),
    ("limits", "header_seconds", "header_timeout_seconds"),
    ("limits", "idle_seconds", "idle_timeout_seconds"),
    ("limits", "connections", "max_live_connections"),
    ("limits", "user_connections", "max_user_live_connections"),
    ("limits", "subscriptions", "max_subscriptions"),
    ("graphql", "persisted_bytes", "apq_cache_bytes"),
    ("graphql", "manifest", "persisted_operations_file"),
    ("graphql", "slow_milliseconds", "slow_operation_ms"),
    ("cache", "messages_bytes", "recent_messages_bytes"),
];

/// Replaces the old names of keys in one source, and returns a warning for each. Runs before the
/// sources are merged: a variable overrides the file, whichever of the two names each of them uses.
///
/// # Errors
/// A key that has both names in the source.
pub(super) fn replace_old_names(
    source: &mut Map<String, Value>,
) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    for &(section, old, new) in RENAMED_KEYS {
        let (old_key, new_key) = (format!("{section}.{old}"), format!("{section}.{new}"));
        // The environment has keys with their sections, a file has tables of keys.
        let flat = source.remove(&old_key);
        let Some(value) = flat.or_else(|| keys_of(section, source)?.remove(old)) else {
            continue;
        };
        let origin = value.origin().unwrap_or("the configuration").to_owned();
        let keys = keys_of(section, source);
        let has_new_name = keys.is_some_and(|keys| keys.contains_key(new));
        if has_new_name || source.contains_key(&new_key) {
            return Err(ConfigError(format!(
                "{old_key} and {new_key} are both set in {origin}: {old_key} is the old name, \
                 remove it"
            )));
        }
        warnings.push(format!(
            "{old_key} in {origin} is now called {new_key}; the old name works in this release only"
        ));
        match keys_of(section, source) {
            Some(keys) => keys.insert(new.to_owned(), value),
            None => source.insert(new_key, value),
        };
    }
    Ok(warnings)
}

/// Returns the keys of a section of a file.
fn keys_of<'a>(
    section: &str,
    source: &'a mut Map<String, Value>,
) -> Option<&'a mut Map<String, Value>> {
    match &mut source.get_mut(section)?.kind {
        ValueKind::Table(keys) => Some(keys),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::source::known_keys;
    use super::*;

    #[test]
    fn every_new_name_is_a_key_and_no_old_name_is() {
        let known = known_keys(&serde_json::to_value(Settings::default()).unwrap());
        for (section, old, new) in RENAMED_KEYS {
            assert!(known.contains(&format!("{section}.{new}")), "{new}");
            assert!(!known.contains(&format!("{section}.{old}")), "{old}");
        }
    }

    #[test]
    fn the_documents_list_every_renamed_key() {
        let document = include_str!("../../docs/RELEASING.md");
        for (section, old, new) in RENAMED_KEYS {
            let row = format!("| `{section}.{old}` | `{section}.{new}` |");
            assert!(document.contains(&row), "docs/RELEASING.md lacks {row}");
        }
    }
}
