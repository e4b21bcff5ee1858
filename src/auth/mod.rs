//! Who is calling. What a caller may do is decided in `permissions.rs`, and nowhere else.

mod jwks;
mod jwt;
mod permissions;
mod services;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

pub use self::permissions::{Action, Caller};
pub(crate) use self::services::ServiceAddresses;
use crate::config::{ConfigError, Secret, Settings};
use crate::error::Error;
use jwt::Verifier;

/// `WuKongIM`'s header for the manager token.
pub(crate) const TOKEN: &str = "token";

/// Tells callers apart.
#[derive(Debug)]
pub(crate) struct Auth {
    is_open: bool,
    manager_tokens: Vec<Secret>,
    webhook_secrets: Vec<Secret>,
    verifier: Verifier,
    users_may_send: bool,
}

impl Auth {
    /// # Errors
    /// A key file that cannot be read or holds no key.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let (auth, ingest) = (&settings.auth, &settings.ingest);
        let given = |secrets: [&Secret; 2]| {
            secrets
                .into_iter()
                .filter(|secret| !secret.reveal().is_empty())
                .cloned()
                .collect()
        };
        Ok(Self {
            is_open: auth.is_open(),
            manager_tokens: given([&auth.manager_token, &auth.previous_manager_token]),
            webhook_secrets: given([&ingest.webhook_secret, &ingest.previous_webhook_secret]),
            verifier: Verifier::new(&auth.jwt)?,
            users_may_send: auth.users_may_send,
        })
    }

    /// Fetches the keys of the issuer of users' tokens, where there is one.
    pub(crate) async fn fetch_keys(&self) {
        self.verifier.fetch_keys().await;
    }

    /// The credential in a request's headers: `token`, or else a Bearer token.
    pub(crate) fn credential(headers: &HeaderMap) -> Option<&[u8]> {
        let bearer = || {
            headers
                .get(header::AUTHORIZATION)
                .and_then(|value| strip_bearer(value.as_bytes()))
        };
        headers
            .get(TOKEN)
            .map(|value| value.as_bytes())
            .or_else(bearer)
    }

    /// Whether a credential makes its bearer a service; on an open server everybody is one. No
    /// user's token is looked at.
    pub(crate) fn is_service(&self, credential: Option<&[u8]>) -> bool {
        self.is_open || credential.is_some_and(|given| is_one_of(&self.manager_tokens, given))
    }

    /// Who brings this credential.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]; [`Error::KeysUnavailable`] when the issuer's keys cannot be
    /// fetched.
    pub(crate) async fn authenticate(&self, credential: Option<&[u8]>) -> Result<Caller, Error> {
        if self.is_service(credential) {
            return Ok(Caller::Service);
        }
        let Some(token) = credential else {
            jwt::log_refusal("there is none");
            return Err(Error::Unauthenticated("a token is required"));
        };
        let (uid, expires_at) = self.verifier.verify(token).await?;
        Ok(Caller::User {
            uid,
            expires_at,
            may_send: self.users_may_send,
        })
    }

    /// Whether webhooks come to a path with a secret in it.
    pub(crate) fn webhooks_are_secret(&self) -> bool {
        !self.webhook_secrets.is_empty()
    }

    /// Lets a webhook pass whose path carries `ingest.webhook_secret`; what is not right looks like
    /// what does not exist.
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

/// What stands after `Bearer `, in any case, as RFC 9110 has it for schemes.
pub(crate) fn strip_bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| rest.trim_ascii())
}

/// In a time that does not tell how much of a secret was right.
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

    fn auth(change: impl FnOnce(&mut Settings)) -> Auth {
        let mut settings = Settings::default();
        change(&mut settings);
        Auth::new(&settings).unwrap()
    }

    #[tokio::test]
    async fn the_token_comes_in_its_header_or_as_a_bearer_token() {
        let who = async |auth: &Auth, headers: &HeaderMap| {
            auth.authenticate(Auth::credential(headers)).await
        };
        assert!(
            who(&auth(|_| {}), &HeaderMap::new()).await.is_ok(),
            "an open server"
        );
        let auth = auth(|settings| {
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
                who(&auth, &headers(name, value)).await.unwrap(),
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
                who(&auth, &headers(name, value)).await.is_err(),
                "{name}: {value}"
            );
        }
        assert!(who(&auth, &HeaderMap::new()).await.is_err());
    }

    #[test]
    fn without_a_secret_no_secret_is_right() {
        assert!(auth(|_| {}).authenticate_webhook("").is_err());
        let auth = auth(|settings| {
            settings.ingest.webhook_secret = "hush".into();
            settings.ingest.previous_webhook_secret = "before".into();
        });
        assert!(
            auth.authenticate_webhook("hush").is_ok()
                && auth.authenticate_webhook("before").is_ok()
        );
        assert!(
            auth.authenticate_webhook("").is_err() && auth.authenticate_webhook("hus").is_err()
        );
    }
}
