//! Validation of the options in a database URL. Options that the library would ignore are refused,
//! because the operator relies on them. Error messages never contain values.

use sea_orm::SqlxError;

use super::StoreError;

const POSTGRES: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
const MYSQL: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "charset",
    "collation",
    "statement-cache-capacity",
    "socket",
    "timezone",
    "time-zone",
];
const SQLITE: &[&str] = &["mode", "cache", "immutable", "vfs"];

/// # Errors
/// Names the first unknown option, and the most similar known one.
pub(super) fn check(scheme: &str, url: &str) -> Result<(), String> {
    let known = match scheme {
        "sqlite" => SQLITE,
        "postgres" | "postgresql" => POSTGRES,
        _ => MYSQL,
    };
    // The text after a # is not an option, but may have been meant as one.
    if scheme != "sqlite" && url.contains('#') {
        return Err(
            "a # ends database.url: write a # in the password or in an option as %23".to_owned(),
        );
    }
    let Some((_, options)) = url.split_once('?') else {
        return Ok(());
    };
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let name = percent_decode(option.split('=').next().unwrap_or_default());
        let is_setting =
            scheme.starts_with("postgres") && name.starts_with("options[") && name.ends_with(']');
        if known.contains(&name.as_str()) || is_setting {
            continue;
        }
        // A part without a value may be a misplaced secret.
        let name = if option.contains('=') && is_name(&name) {
            format!(" {name}")
        } else {
            String::new()
        };
        let nearest = known
            .iter()
            .map(|known| (strsim::jaro_winkler(name.trim(), known), known));
        let nearest = nearest
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .filter(|(nearness, _)| *nearness > 0.8);
        let hint = nearest.map_or_else(
            || format!("known options are {}", known.join(", ")),
            |(_, known)| format!("did you mean {known}?"),
        );
        return Err(format!("unknown option{name} in database.url; {hint}"));
    }
    Ok(())
}

/// Converts the library's error about a URL, without the quoted values. The library's error itself
/// contains them, so it is not kept as the source.
pub(super) fn redacted_error(error: &SqlxError) -> StoreError {
    let text = error.to_string();
    let parts = text
        .split('"')
        .enumerate()
        .map(|(at, part)| if at % 2 == 1 { "…" } else { part });
    StoreError::Internal(parts.collect::<Vec<_>>().join("\"").into())
}

/// Returns whether the text looks like the name of an option.
fn is_name(text: &str) -> bool {
    text.len() <= 40
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_[].".contains(&byte))
}

fn percent_decode(name: &str) -> String {
    serde_urlencoded::from_str::<Vec<(String, String)>>(name)
        .ok()
        .and_then(|mut pairs| pairs.pop())
        .map_or_else(|| name.to_owned(), |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_options_are_refused_with_a_suggestion_and_without_values() {
        for (url, text) in [
            (
                "postgres://me:hush@host/db?ssl_mode=hush",
                "unknown option ssl_mode in database.url; did you mean sslmode?",
            ),
            (
                "postgresql://host/db?sslmode=require&connect_timeout=hush",
                "unknown option connect_timeout",
            ),
            ("postgres://host/db?SSLMODE=hush", "unknown option SSLMODE"),
            (
                "postgres://host/db?sslmode=require&hush",
                "unknown option in database.url",
            ),
            ("postgres://host/db?charset=hush", "unknown option charset"),
            ("mysql://host/db?ssl_mode=hush", "did you mean sslmode?"),
            (
                "mysql://host/db?application_name=hush",
                "unknown option application_name",
            ),
            ("mariadb://host/db?tls=hush", "unknown option tls"),
            (
                "mysql://host/db?options[x]=hush",
                "unknown option options[x]",
            ),
            (
                "sqlite://file?mod=hush",
                "unknown option mod in database.url; did you mean mode?",
            ),
            (
                "sqlite:file?mode=rwc&journal=hush",
                "unknown option journal",
            ),
            (
                "postgres://me:pass?hush@host/db",
                "unknown option in database.url",
            ),
            ("postgres://me:hush#hush@host/db", "%23"),
        ] {
            let refused = check(url.split(':').next().unwrap(), url).unwrap_err();
            assert!(
                refused.contains(text) && !refused.contains("hush"),
                "{url}: {refused}"
            );
        }
    }

    #[test]
    fn errors_do_not_contain_refused_values() {
        use std::error::Error;
        use std::str::FromStr;
        let errors = [
            sea_orm::sqlx::postgres::PgConnectOptions::from_str("postgres://host/db?sslmode=hush")
                .unwrap_err(),
            sea_orm::sqlx::mysql::MySqlConnectOptions::from_str("mysql://host/db?ssl-mode=hush")
                .unwrap_err(),
            sea_orm::sqlx::sqlite::SqliteConnectOptions::from_str("sqlite://file?mode=hush")
                .unwrap_err(),
        ];
        for error in errors {
            let redacted = redacted_error(&error);
            let text = format!("{redacted} {redacted:?}");
            assert!(redacted.source().is_none(), "{text}");
            assert!(
                error.to_string().contains("hush")
                    && !text.contains("hush")
                    && text.contains("mode"),
                "{text}"
            );
        }
    }

    #[test]
    fn known_options_are_accepted() {
        for url in [
            "postgres://me:p@host/db?sslmode=require&options[search_path]=x&statement-cache-capacity=0",
            "postgres://host/db?ssl%2Dmode=require&",
            "mysql://host/db?ssl-mode=REQUIRED&charset=utf8mb4",
            "mariadb://host/db?socket=/run/x",
            "sqlite://file?mode=rwc",
            "sqlite:file",
        ] {
            check(url.split(':').next().unwrap(), url).unwrap();
        }
    }
}
