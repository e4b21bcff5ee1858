//! Secrets, which no output shows.

use super::load;
use crate::config::Url;

#[test]
fn secrets_may_be_read_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (token, empty) = (file("token", "hush\n"), file("empty", "\n"));
    let settings = load(
        "[auth.jwt]\nsecret_file = 'SECRET'"
            .replace("SECRET", &token)
            .as_str(),
        &[
            ("RECENTS__AUTH__MANAGER_TOKEN_FILE", &token),
            ("RECENTS__INGEST__WEBHOOK_SECRET_FILE", &token),
            ("RECENTS__PROXY__WUKONGIM_URL", "http://wukongim"),
            ("RECENTS__PROXY__WUKONGIM_TOKEN_FILE", &token),
            (
                "RECENTS__DATABASE__URL_FILE",
                &file("url", "postgres://me:pass@host/db\r\n"),
            ),
            (
                "RECENTS__LIVE__REDIS_URL_FILE",
                &file("redis", "redis://:pass@host"),
            ),
        ],
    )
    .unwrap();
    assert_eq!(settings.auth.manager_token.reveal(), "hush");
    assert_eq!(settings.auth.jwt.secret.reveal(), "hush");
    assert_eq!(settings.ingest.webhook_secret.reveal(), "hush");
    assert_eq!(settings.proxy.wukongim_token.reveal(), "hush");
    assert_eq!(settings.database.url.reveal(), "postgres://me:pass@host/db");
    assert_eq!(settings.live.redis_url.reveal(), "redis://:pass@host");
    let shown = settings.to_toml().unwrap();
    assert!(
        !shown.contains("hush") && !shown.contains("pass"),
        "{shown}"
    );
    for (environment, text) in [
        (
            vec![("RECENTS__AUTH__MANAGER_TOKEN_FILE", "/nowhere/at/all")],
            "auth.manager_token_file = \"/nowhere/at/all\" cannot be read",
        ),
        (
            vec![("RECENTS__AUTH__MANAGER_TOKEN_FILE", empty.as_str())],
            "is empty",
        ),
        (
            vec![
                ("RECENTS__AUTH__MANAGER_TOKEN_FILE", token.as_str()),
                ("RECENTS__AUTH__MANAGER_TOKEN", "x"),
            ],
            "auth.manager_token and auth.manager_token_file are both set",
        ),
    ] {
        let error = load("", &environment).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn errors_show_no_secret() {
    for file in [
        "[auth]\nmanager_token = hush",
        "[auth]\nmanager_token = 'hush",
        "[auth.jwt]\nsecret = ['hush']",
        "[live]\nredis_url = ['hush']",
    ] {
        let error = load(file, &[]).unwrap_err().to_string();
        assert!(!error.contains("hush") && !error.is_empty(), "{error}");
    }
    let settings = load(
        "[ingest]\ndatasource_url = 'https://me:hush@host/x?key=hush'\nforward_url = 'https://me:hush@host/x?key=hush'\ndatasource_forward_url = 'https://me:hush@host/x?key=hush'\n[auth.jwt]\njwks_url = 'https://me:hush@host/keys?k=hush'",
        &[],
    )
    .unwrap();
    for shown in [settings.to_toml().unwrap(), format!("{settings:?}")] {
        assert!(
            !shown.contains("hush") && shown.contains("https://me:***@host/keys?k=***"),
            "{shown}"
        );
    }
}

#[test]
fn secrets_are_redacted() {
    let settings = load(
        "[auth]\nmanager_token = 'hush'\n[database]\nurl = 'postgres://user:p@ss:w@host:5432/db'\n[ingest]\nwebhook_secret='hush'",
        &[],
    )
    .unwrap();
    for shown in [settings.to_toml().unwrap(), format!("{settings:?}")] {
        assert!(
            !shown.contains("hush") && !shown.contains("p@ss"),
            "{shown}"
        );
        assert!(
            shown.contains("postgres://user:***@host:5432/db"),
            "{shown}"
        );
    }
    for (url, expected) in [
        (
            "postgres://host/db?user=me&password=hush&sslmode=require",
            "postgres://host/db?user=me&password=***&sslmode=require",
        ),
        ("mysql://me:hu/sh?x=hush@host/db", "mysql://me:hu/sh?x=***"),
        ("mysql://me:hu/sh@host/db", "mysql://me:***@host/db"),
        (
            "sqlite://recents.db?mode=rwc",
            "sqlite://recents.db?mode=rwc",
        ),
    ] {
        assert_eq!(Url::from(url).redacted(), expected, "{url}");
    }
}
