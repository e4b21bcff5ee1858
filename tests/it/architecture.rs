//! Dependencies between modules point one way, and generated files are up to date.

use std::collections::{BTreeMap, BTreeSet};
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

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap()
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
            let code = without_comment(line);
            for word in words {
                let is_used = code.match_indices(word).any(|(at, _)| {
                    // A longer name that ends so is another name.
                    !code[..at].ends_with(char::is_alphabetic)
                });
                assert!(
                    !is_used,
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
        "model",
        "auth",
        "graphql",
        "rest",
        "conversation",
        "message",
        "channel",
        "live",
        "wukongim",
        "import",
        "forward",
        "proxy",
    ] {
        assert_free_of(folder, &SQL);
    }
}

#[test]
fn only_the_store_uses_entities() {
    for folder in [
        "model",
        "auth",
        "graphql",
        "rest",
        "conversation",
        "message",
        "channel",
        "live",
        "wukongim",
        "import",
        "forward",
        "proxy",
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
                "crate::wukongim",
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
            "crate::wukongim",
            "async_graphql",
            "axum",
        ],
    );
}

#[test]
fn proxy_does_not_depend_on_interfaces() {
    assert_free_of(
        "proxy",
        &[
            "crate::graphql",
            "crate::rest",
            "crate::server",
            "crate::state",
            "crate::wukongim",
            "async_graphql",
        ],
    );
}

#[test]
fn store_does_not_depend_on_use_cases() {
    assert_free_of(
        "store",
        &["crate::channel", "crate::conversation", "crate::message"],
    );
}

#[test]
fn model_depends_on_nothing() {
    assert_free_of("model", &["crate::"]);
}

#[test]
fn graphql_and_imports_do_not_depend_on_rest() {
    assert_free_of("graphql", &["crate::rest"]);
    assert_free_of("import", &["crate::rest"]);
}

/// Routes and imports share the wire format, so it knows neither of them, and no transport.
#[test]
fn wire_format_does_not_depend_on_its_users() {
    assert_free_of(
        "wukongim",
        &["axum", "crate::rest", "crate::import", "crate::store"],
    );
}

/// Requests are forwarded as they are, whatever they mean.
#[test]
fn forwarding_depends_on_no_interface_and_no_use_case() {
    assert_free_of(
        "forward",
        &[
            "axum",
            "crate::rest",
            "crate::graphql",
            "crate::server",
            "crate::state",
            "crate::store",
            "crate::conversation",
            "crate::message",
            "crate::channel",
        ],
    );
}

/// The modules that each module uses, with a file that uses them.
type ModuleUses = BTreeMap<String, BTreeMap<String, PathBuf>>;

/// Returns the names that follow `crate::`, alone or in braces.
fn names_in_crate(code: &str) -> BTreeSet<&str> {
    let name_end = |text: &str| {
        text.find(|character: char| !character.is_alphanumeric() && character != '_')
            .unwrap_or(text.len())
    };
    let mut names = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        // `$crate` in a macro is the crate as well, but a longer name that ends so is not.
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let path = &code[at + prefix.len()..];
        let Some(group) = path.strip_prefix('{') else {
            names.insert(&path[..name_end(path)]);
            continue;
        };
        let mut depth = 0;
        let mut expects_name = true;
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                _ if expects_name && character.is_alphabetic() => {
                    names.insert(&group[at..at + name_end(&group[at..])]);
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    names
}

/// Returns the uses among the top-level modules of `src/`. Unit tests may use any module.
fn module_uses() -> ModuleUses {
    let source = root().join("src");
    let mut codes = Vec::new();
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).unwrap().with_extension("");
        let mut parts = path.iter().map(|part| part.to_str().unwrap());
        let module = parts.next().unwrap().to_owned();
        if ["lib", "main"].contains(&module.as_str()) || path.iter().any(|part| part == "tests") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let code: Vec<&str> = text.lines().map(without_comment).collect();
        let code = code.join("\n");
        assert!(
            parts.next().is_some_and(|part| part != "mod") || !code.contains("super::"),
            "{}: another module of src/ is named by crate::, not by super::",
            file.display()
        );
        codes.push((module, file, code));
    }
    let mut uses: ModuleUses = codes
        .iter()
        .map(|(module, ..)| (module.clone(), BTreeMap::new()))
        .collect();
    for (module, file, code) in &codes {
        for other in names_in_crate(code) {
            if other != module && uses.contains_key(other) {
                let others = uses.get_mut(module).unwrap();
                others.insert(other.to_owned(), file.clone());
            }
        }
    }
    uses
}

/// Returns a path from one module to another, including both.
fn find_path(uses: &ModuleUses, from: &str, to: &str) -> Option<Vec<String>> {
    let mut paths = vec![vec![from.to_owned()]];
    let mut visited = BTreeSet::from([from]);
    while let Some(path) = paths.pop() {
        let last = path.last().unwrap();
        if last == to {
            return Some(path);
        }
        for next in uses.get(last).into_iter().flat_map(BTreeMap::keys) {
            if visited.insert(next) {
                paths.push([path.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

/// Uses of one module by another (`crate::other` in `src/one`) never close a circle, so the modules
/// form layers.
#[test]
fn modules_form_no_circles() {
    let uses = module_uses();
    for (module, others) in &uses {
        for (other, file) in others {
            if let Some(circle) = find_path(&uses, other, module) {
                panic!(
                    "{} uses crate::{other}, which closes a circle: {module} → {}",
                    file.display(),
                    circle.join(" → ")
                );
            }
        }
    }
}

#[test]
fn uses_of_modules_are_found() {
    let code = "use crate::{http, store::{Store, rows::Row}, telemetry};\n\
                pub(crate) fn f() { crate::message::send(); $crate::metrics!(); my_crate::x() }";
    let names: Vec<&str> = names_in_crate(code).into_iter().collect();
    assert_eq!(names, ["http", "message", "metrics", "store", "telemetry"]);
    let uses: ModuleUses = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
        .map(|(module, used)| {
            let used = BTreeMap::from([(used.to_owned(), PathBuf::new())]);
            (module.to_owned(), used)
        })
        .into();
    assert_eq!(find_path(&uses, "b", "a").unwrap(), ["b", "c", "a"]);
    assert_eq!(find_path(&uses, "a", "d"), None);
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
/// `module::tests::name` or `module::tests::part::name` in `src/`.
#[test]
fn tests_named_in_security_md_exist() {
    let text = std::fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let mut found = 0;
    for named in text.split('`').skip(1).step_by(2) {
        let Some((module, _)) = named.rsplit_once("::") else {
            continue;
        };
        let module = module.replace("::", "/");
        let files: Vec<String> = if named.contains("::tests::") {
            let code = module.trim_end_matches("/tests");
            [code, &module]
                .iter()
                .flat_map(|path| [format!("src/{path}.rs"), format!("src/{path}/mod.rs")])
                .collect()
        } else {
            vec![format!("tests/it/{module}.rs")]
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
