mod names;
mod secrets;
mod values;

use super::source::known_keys;
use super::*;

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given.toml");
    std::fs::write(&path, file).unwrap();
    let variables = environment
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Settings::load_from(
        Some(&path),
        Environment::with_prefix(ENVIRONMENT_PREFIX).source(Some(variables)),
    )
}

#[test]
fn the_shipped_file_has_every_default_and_enables_conversations() {
    let shipped = include_str!("../../../recents.toml");
    let mut expected = Settings::default();
    expected.conversation.on = true;
    assert_eq!(load(shipped, &[]).unwrap(), expected);
    let keys: toml::Table = shipped.parse().unwrap();
    let all = known_keys(&serde_json::to_value(Settings::default()).unwrap());
    for key in &all {
        let mut found = Some(&toml::Value::Table(keys.clone())).cloned();
        for name in key.split('.') {
            found = found.and_then(|table| table.get(name).cloned());
        }
        assert!(found.is_some(), "recents.toml lacks {key}");
    }
}

/// Returns the comments before the keys, without line breaks and backticks, by key. `is_key`
/// returns the name of the key in a line.
fn comments<'a>(
    text: &'a str,
    marker: &str,
    is_key: impl Fn(&'a str) -> Option<&'a str>,
) -> Vec<(&'a str, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix(marker) {
            comment += &(text.trim().replace('`', "") + " ");
        } else if let Some(key) = is_key(line) {
            found.push((key, std::mem::take(&mut comment)));
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
    found
}

#[test]
fn the_shipped_file_explains_every_key_as_its_field_does() {
    let in_file = comments(include_str!("../../../recents.toml"), "# ", |line| {
        line.split_once(" = ").map(|(key, _)| key)
    });
    let sections = [
        include_str!("../server.rs"),
        include_str!("../database.rs"),
        include_str!("../conversation.rs"),
        include_str!("../ingest.rs"),
        include_str!("../proxy.rs"),
        include_str!("../auth.rs"),
        include_str!("../live.rs"),
        include_str!("../limits.rs"),
        include_str!("../graphql.rs"),
        include_str!("../cache.rs"),
        include_str!("../log.rs"),
    ];
    let in_code: Vec<_> = sections
        .iter()
        .flat_map(|text| {
            comments(text, "/// ", |line| {
                let (key, _) = line.strip_prefix("pub ")?.split_once(": ")?;
                // The section [auth.jwt] follows.
                (key != "jwt").then_some(key)
            })
        })
        .collect();
    assert_eq!(in_file, in_code);
}

#[test]
fn the_environment_overrides_the_file() {
    let settings = load(
        "[server]\nlisten = '127.0.0.1:1'\n[limits]\nmax_messages_per_conversation = 7",
        &[
            ("RECENTS__SERVER__LISTEN", "127.0.0.1:2"),
            ("RECENTS__CONVERSATION__ON", "true"),
            ("RECENTS__AUTH__MANAGER_TOKEN", "123"),
        ],
    )
    .unwrap();
    assert_eq!(settings.server.listen, "127.0.0.1:2");
    assert_eq!(settings.limits.max_messages_per_conversation, 7);
    assert!(settings.conversation.on);
    assert_eq!(settings.auth.manager_token.reveal(), "123");
}

#[test]
fn lists_are_read_from_files_and_from_the_environment() {
    let expected = ["https://a.example.com", "http://localhost:3000"];
    let in_file = load(
        "[server]\ncors_origins = ['https://a.example.com', 'http://localhost:3000']",
        &[],
    )
    .unwrap();
    let in_environment = load(
        "",
        &[(
            "RECENTS__SERVER__CORS_ORIGINS",
            "https://a.example.com, http://localhost:3000",
        )],
    )
    .unwrap();
    assert_eq!(
        (
            in_file.server.cors_origins.as_slice(),
            in_environment.server.cors_origins
        ),
        (
            expected.map(str::to_owned).as_slice(),
            expected.map(str::to_owned).to_vec()
        )
    );
    assert!(
        load("", &[("RECENTS__SERVER__CORS_ORIGINS", "")])
            .unwrap()
            .server
            .cors_origins
            .is_empty()
    );
}
