//! Dependencies between modules point one way, and generated files are up to date.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn assert_free_of(folder: &str, words: &[&str]) {
    let files = rust_files(&root().join("src").join(folder));
    assert!(
        !files.is_empty(),
        "there is no {folder}: this test needs the new layout"
    );
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in words {
                assert!(
                    !code.contains(word),
                    "{}:{}: {word} does not belong here: {line}",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

const SQL: [&str; 4] = ["sea_orm", "sqlx", "sea_query", "migration::"];

#[test]
fn only_the_store_uses_sql() {
    for folder in [
        "auth",
        "graphql",
        "rest",
        "conversation",
        "message",
        "channel",
        "live",
        "import",
    ] {
        assert_free_of(folder, &SQL);
    }
}

#[test]
fn interfaces_do_not_use_entities() {
    for folder in [
        "auth",
        "graphql",
        "rest",
        "conversation",
        "channel",
        "live",
        "import",
    ] {
        assert_free_of(folder, &["entity::"]);
    }
}

#[test]
fn use_cases_do_not_depend_on_interfaces() {
    for folder in ["conversation", "message", "channel", "store"] {
        assert_free_of(
            folder,
            &[
                "crate::graphql",
                "crate::rest",
                "crate::server",
                "crate::state",
                "async_graphql",
                "axum",
            ],
        );
    }
}

#[test]
fn live_does_not_depend_on_interfaces() {
    assert_free_of(
        "live",
        &[
            "crate::graphql",
            "crate::rest",
            "crate::server",
            "crate::state",
            "async_graphql",
            "axum",
        ],
    );
}

#[test]
fn store_does_not_depend_on_use_cases() {
    assert_free_of("store", &["crate::conversation", "crate::message"]);
}

#[test]
fn schema_file_is_up_to_date() {
    let file = std::fs::read_to_string(root().join("schema.graphql")).unwrap();
    assert_eq!(
        file,
        recents::graphql::sdl(),
        "generate it again: cargo run -- schema > schema.graphql"
    );
}

/// With the features `raw_value` or `arbitrary_precision`, `serde_json` gives private keys in
/// foreign JSON a meaning, and nested text of a few kilobytes overflows the stack. Cargo unites the
/// features of all dependencies, so this test notices any dependency that enables one of them.
#[test]
fn private_json_keys_have_no_meaning() {
    for key in [
        "$serde_json::private::RawValue",
        "$serde_json::private::Number",
    ] {
        let text = serde_json::json!({ key: "[1]" }).to_string();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value.to_string(),
            text,
            "a dependency switches on a feature of serde_json: see Cargo.toml"
        );
    }
}

/// docs/SECURITY.md names a test for each promise: `folder::module::name` in `tests/it/`, or
/// `module::tests::name` in `src/`.
#[test]
fn tests_named_in_security_md_exist() {
    let text = std::fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let mut found = 0;
    for named in text.split('`').skip(1).step_by(2) {
        let files = if let Some((module, _)) = named.split_once("::tests::") {
            let module = module.replace("::", "/");
            [format!("src/{module}.rs"), format!("src/{module}/mod.rs")]
        } else if let Some((module, _)) = named.rsplit_once("::") {
            let module = module.replace("::", "/");
            [format!("tests/it/{module}.rs"), String::new()]
        } else {
            continue;
        };
        let name = named.rsplit("::").next().unwrap();
        let is_there = |file: &String| {
            std::fs::read_to_string(root().join(file))
                .is_ok_and(|code| code.contains(&format!("fn {name}(")))
        };
        assert!(
            files.iter().any(is_there),
            "docs/SECURITY.md names {named}, which is not in {files:?}"
        );
        found += 1;
    }
    assert!(found > 60, "{found}");
    for file in ["tests/browser/rebinding.mjs", "benches/load/siege.py"] {
        assert!(text.contains(file) && root().join(file).is_file(), "{file}");
    }
}
