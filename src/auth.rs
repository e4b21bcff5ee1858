//! Who may do what, decided in one place.
//!
//! So far there is one kind of caller: services, which may act for anybody. Without `auth.manager_token` everybody is one, and
//! the server listens on loopback only.

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use crate::config::Settings;
use crate::error::Error;

/// `WuKongIM`'s header for the manager token.
const TOKEN: &str = "token";

/// Lets a request pass that carries the manager token, in the header `token` or as a Bearer token.
///
/// # Errors
/// [`Error::Unauthenticated`].
pub fn authenticate(settings: &Settings, headers: &HeaderMap) -> Result<(), Error> {
    let expected = settings.auth.manager_token.reveal().as_bytes();
    if expected.is_empty() {
        return Ok(());
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let given = headers.get(TOKEN).map(|value| value.as_bytes()).or(bearer).unwrap_or_default();
    if bool::from(given.ct_eq(expected)) { Ok(()) } else { Err(Error::Unauthenticated) }
}

/// Lets a webhook pass whose path carries `ingest.webhook_secret`; what is not right looks like what does not exist.
///
/// # Errors
/// [`Error::NotFound`].
pub fn authenticate_webhook(settings: &Settings, secret: &str) -> Result<(), Error> {
    let expected = settings.ingest.webhook_secret.reveal().as_bytes();
    if !expected.is_empty() && bool::from(secret.as_bytes().ct_eq(expected)) { Ok(()) } else { Err(Error::NotFound("page")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        [(axum::http::HeaderName::from_static(name), value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn the_token_comes_in_its_header_or_as_a_bearer_token() {
        let mut settings = Settings::default();
        assert!(authenticate(&settings, &HeaderMap::new()).is_ok());
        settings.auth.manager_token = "hush".into();
        assert!(authenticate(&settings, &headers("token", "hush")).is_ok());
        assert!(authenticate(&settings, &headers("authorization", "Bearer hush")).is_ok());
        for (name, value) in [("token", "hus"), ("token", "hushh"), ("token", ""), ("authorization", "hush"), ("x-token", "hush")]
        {
            assert!(authenticate(&settings, &headers(name, value)).is_err(), "{name}: {value}");
        }
        assert!(authenticate(&settings, &HeaderMap::new()).is_err());
    }

    #[test]
    fn without_a_secret_no_secret_is_right() {
        let mut settings = Settings::default();
        assert!(authenticate_webhook(&settings, "").is_err());
        settings.ingest.webhook_secret = "hush".into();
        assert!(authenticate_webhook(&settings, "hush").is_ok());
        assert!(authenticate_webhook(&settings, "").is_err());
    }
}
