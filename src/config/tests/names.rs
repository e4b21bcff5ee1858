//! Names of keys and of variables.

use super::load;
use crate::config::misspelled_variables;

#[test]
fn old_names_work_with_a_warning() {
    let settings = load("[limits]\nrequests = 7\n[live]\ninit_seconds = 8", &[]).unwrap();
    assert_eq!(settings.limits.max_concurrent_requests, 7);
    assert_eq!(settings.live.connection_init_timeout_seconds, 8);
    assert_eq!(settings.warnings.len(), 2, "{:?}", settings.warnings);
    let warning = settings
        .warnings
        .iter()
        .find(|warning| warning.contains("limits.requests"))
        .unwrap();
    assert!(
        warning.contains("given.toml") && warning.contains("limits.max_concurrent_requests"),
        "{warning}"
    );
    let settings = load("", &[("RECENTS__GRAPHQL__SLOW_MILLISECONDS", "9")]).unwrap();
    assert_eq!(settings.graphql.slow_operation_ms, 9);
    assert!(
        settings.warnings.len() == 1
            && settings.warnings[0].contains(
                "graphql.slow_milliseconds in the environment is now called \
                 graphql.slow_operation_ms"
            ),
        "{:?}",
        settings.warnings
    );
    let new_names = "[limits]\nmax_concurrent_requests = 7";
    assert!(load(new_names, &[]).unwrap().warnings.is_empty());
}

#[test]
fn the_environment_overrides_the_file_whichever_names_they_use() {
    for file in ["requests = 7", "max_concurrent_requests = 7"] {
        for variable in [
            "RECENTS__LIMITS__REQUESTS",
            "RECENTS__LIMITS__MAX_CONCURRENT_REQUESTS",
        ] {
            let settings = load(&format!("[limits]\n{file}"), &[(variable, "8")]).unwrap();
            let value = settings.limits.max_concurrent_requests;
            assert_eq!(value, 8, "{file}, {variable}");
        }
    }
}

#[test]
fn old_and_new_name_in_one_source_are_refused() {
    for (file, environment, source) in [
        (
            "[limits]\nrequests = 7\nmax_concurrent_requests = 7",
            vec![],
            "given.toml",
        ),
        (
            "'limits.requests' = 7\n[limits]\nmax_concurrent_requests = 7",
            vec![],
            "given.toml",
        ),
        (
            "",
            vec![
                ("RECENTS__LIMITS__REQUESTS", "7"),
                ("RECENTS__LIMITS__MAX_CONCURRENT_REQUESTS", "7"),
            ],
            "the environment",
        ),
    ] {
        let error = load(file, &environment).unwrap_err().to_string();
        assert!(
            error.contains("limits.requests and limits.max_concurrent_requests are both set")
                && error.contains(source),
            "{error}"
        );
    }
}

#[test]
fn unknown_keys_are_refused_with_their_source_and_the_nearest_key() {
    let error = load("[server]\nlisen = 'x'", &[]).unwrap_err().to_string();
    assert!(
        error.contains("server.lisen")
            && error.contains("given.toml")
            && error.contains("server.listen?"),
        "{error}"
    );
    let error = load("", &[("RECENTS__DATABSE__URL", "x")])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("databse.url")
            && error.contains("environment")
            && error.contains("database.url?"),
        "{error}"
    );
    let error = load("listen = 1", &[]).unwrap_err().to_string();
    assert!(error.contains("unknown key listen"), "{error}");
}

#[test]
fn keys_are_not_paths() {
    for file in [
        "'server[9223372036854775807]' = 1",
        "'server[-9223372036854775808].x' = 1",
        "'' = 1",
        "[nope]",
        "a.b.c.d = 1",
    ] {
        let error = load(file, &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("unknown key ") && error.contains("given.toml"),
            "{file}: {error}"
        );
    }
    let deep = format!("RECENTS__{}X", "X__".repeat(1000));
    for name in [
        deep.as_str(),
        "RECENTS__SERVER[9223372036854775807]",
        "RECENTS__SERVER__LISTEN__X",
        "RECENTS__",
    ] {
        let error = load("", &[(name, "1")]).unwrap_err().to_string();
        assert!(
            error.starts_with("unknown key ") && error.contains("the environment"),
            "{name}: {error}"
        );
    }
    let error = load("", &[("RECENTS__SERVER", "1")])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "server in the environment is a section, not a key");
}

#[test]
fn misspelled_variables_are_reported() {
    let given = [
        "RECENTS_DATABASE_URL",
        "RECENTS__DATABASE__URL",
        "RECENTS_IMPORT_TOKEN",
        "RECENTS_PORT_5001_TCP",
        "PATH",
    ];
    let warnings = misspelled_variables(given.into_iter().map(str::to_owned));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("RECENTS_DATABASE_URL means nothing")
            && warnings[0].ends_with("did you mean RECENTS__DATABASE__URL?")
    );
}
