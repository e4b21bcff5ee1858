//! Authentication of callers. `permissions.rs` alone decides what a caller may do.

mod jwks;
mod jwt;
mod key;
mod permissions;
mod services;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use self::jwt::TokenVerifier;
pub use self::permissions::{Action, Caller};
pub(crate) use self::services::ServiceAddresses;
use crate::config::{ConfigError, Secret, Settings};
use crate::error::Error;

/// `WuKongIM`'s header for the manager token.
pub(crate) const TOKEN_HEADER: &str = "token";

/// Finds out who a caller is, by the credential of a request.
#[derive(Debug)]
pub(crate) struct Authenticator {
    is_open: bool,
    manager_tokens: Vec<Secret>,
    webhook_secrets: Vec<Secret>,
    token_verifier: TokenVerifier,
    users_may_send: bool,
}

impl Authenticator {
    /// # Errors
    /// A key file that cannot be read or contains no key.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let (auth, ingest) = (&settings.auth, &settings.ingest);
        let non_empty = |secrets: [&Secret; 2]| {
            secrets
                .into_iter()
                .filter(|secret| !secret.reveal().is_empty())
                .cloned()
                .collect()
        };
        Ok(Self {
            is_open: auth.is_open(),
            manager_tokens: non_empty([&auth.manager_token, &auth.previous_manager_token]),
            webhook_secrets: non_empty([&ingest.webhook_secret, &ingest.previous_webhook_secret]),
            token_verifier: TokenVerifier::new(&auth.jwt)?,
            users_may_send: auth.users_may_send,
        })
    }

    /// Fetches the token issuer's keys, if `auth.jwt.jwks_url` is set.
    pub(crate) async fn fetch_keys(&self) {
        self.token_verifier.fetch_keys().await;
    }

    /// Returns the credential in a request's headers: `token`, or else a Bearer token.
    pub(crate) fn credential(headers: &HeaderMap) -> Option<&[u8]> {
        let bearer = || {
            headers
                .get(header::AUTHORIZATION)
                .and_then(|value| strip_bearer(value.as_bytes()))
        };
        headers
            .get(TOKEN_HEADER)
            .map(|value| value.as_bytes())
            .or_else(bearer)
    }

    /// Returns whether a credential is that of a service. On an open server every caller is a
    /// service. Does not verify users' tokens.
    pub(crate) fn is_service(&self, credential: Option<&[u8]>) -> bool {
        self.is_open || credential.is_some_and(|given| is_one_of(&self.manager_tokens, given))
    }

    /// Returns the caller that a credential belongs to.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]; [`Error::KeysUnavailable`] if the issuer's keys cannot be
    /// fetched.
    pub(crate) async fn authenticate(&self, credential: Option<&[u8]>) -> Result<Caller, Error> {
        if self.is_service(credential) {
            return Ok(Caller::Service);
        }
        let Some(token) = credential else {
            jwt::log_rejection("there is none");
            return Err(Error::Unauthenticated("a token is required"));
        };
        let (uid, expires_at) = self.token_verifier.verify(token).await?;
        Ok(Caller::User {
            uid,
            expires_at,
            may_send: self.users_may_send,
        })
    }

    /// Returns whether `ingest.webhook_secret` is set, so that webhooks need the secret in their
    /// path.
    pub(crate) fn has_webhook_secret(&self) -> bool {
        !self.webhook_secrets.is_empty()
    }

    /// Authenticates a webhook by the secret in its path. A wrong secret is answered like a missing
    /// page.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn authenticate_webhook(&self, secret: &str) -> Result<Caller, Error> {
        if is_one_of(&self.webhook_secrets, secret.as_bytes()) {
            Ok(Caller::Service)
        } else {
            Err(Error::NotFound("page"))
        }
    }
}

/// Returns the token after `Bearer `, in any case, because RFC 9110 makes schemes case-insensitive.
pub(crate) fn strip_bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| rest.trim_ascii())
}

/// Compares in constant time, so that timing does not reveal a secret.
fn is_one_of(secrets: &[Secret], given: &[u8]) -> bool {
    secrets.iter().fold(false, |found, secret| {
        found | bool::from(secret.reveal().as_bytes().ct_eq(given))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        [(
            axum::http::HeaderName::from_static(name),
            value.parse().unwrap(),
        )]
        .into_iter()
        .collect()
    }

    fn authenticator(change: impl FnOnce(&mut Settings)) -> Authenticator {
        let mut settings = Settings::default();
        change(&mut settings);
        Authenticator::new(&settings).unwrap()
    }

    #[tokio::test]
    async fn the_token_comes_in_its_header_or_as_a_bearer_token() {
        let authenticate = async |authenticator: &Authenticator, headers: &HeaderMap| {
            authenticator
                .authenticate(Authenticator::credential(headers))
                .await
        };
        assert!(
            authenticate(&authenticator(|_| {}), &HeaderMap::new())
                .await
                .is_ok(),
            "an open server"
        );
        let authenticator = authenticator(|settings| {
            settings.auth.manager_token = "hush".into();
            settings.auth.previous_manager_token = "before".into();
        });
        for (name, value) in [
            ("token", "hush"),
            ("authorization", "Bearer hush"),
            ("authorization", "bearer hush"),
            ("token", "before"),
        ] {
            assert_eq!(
                authenticate(&authenticator, &headers(name, value))
                    .await
                    .unwrap(),
                Caller::Service,
                "{name}: {value}"
            );
        }
        for (name, value) in [
            ("token", "hus"),
            ("token", "hushh"),
            ("token", ""),
            ("authorization", "hush"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer "),
            ("authorization", "Basic hush"),
            ("x-token", "hush"),
        ] {
            assert!(
                authenticate(&authenticator, &headers(name, value))
                    .await
                    .is_err(),
                "{name}: {value}"
            );
        }
        assert!(
            authenticate(&authenticator, &HeaderMap::new())
                .await
                .is_err()
        );
    }

    #[test]
    fn without_a_configured_secret_every_secret_is_wrong() {
        assert!(authenticator(|_| {}).authenticate_webhook("").is_err());
        let authenticator = authenticator(|settings| {
            settings.ingest.webhook_secret = "hush".into();
            settings.ingest.previous_webhook_secret = "before".into();
        });
        assert!(
            authenticator.authenticate_webhook("hush").is_ok()
                && authenticator.authenticate_webhook("before").is_ok()
        );
        assert!(
            authenticator.authenticate_webhook("").is_err()
                && authenticator.authenticate_webhook("hus").is_err()
        );
    }
}
