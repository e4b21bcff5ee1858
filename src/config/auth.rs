//! `[auth]` and `[auth.jwt]`

use serde::{Deserialize, Serialize};

use super::check::{DAY_SECONDS, check_http_url, check_previous_secret, check_ranges};
use super::{ConfigError, Secret, Url};

/// `[auth]`: authentication of services and users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// Token that services send in the header `token`, or as a Bearer token. If it is empty and
    /// `auth.jwt` has no key, the server has no authentication and listens on loopback only.
    pub manager_token: Secret,
    /// File that contains the token instead.
    pub manager_token_file: String,
    /// Previous token, still accepted during rotation.
    pub previous_manager_token: Secret,
    /// Lets users send messages, as themselves, to people and to channels that they are members of.
    pub users_may_send: bool,
    /// Keys of users' tokens.
    pub jwt: JwtConfig,
}

impl AuthConfig {
    /// Returns whether no authentication is configured, so that every caller may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.manager_token.reveal().is_empty() && !self.jwt.is_configured()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, token) in [
            ("auth.manager_token", &self.manager_token),
            ("auth.previous_manager_token", &self.previous_manager_token),
        ] {
            if !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ConfigError(format!(
                    "{key} is sent in a header and may contain only ASCII without spaces"
                )));
            }
        }
        check_previous_secret(
            ("auth.previous_manager_token", &self.previous_manager_token),
            ("auth.manager_token", &self.manager_token),
        )?;
        self.jwt.check()
    }
}

/// `[auth.jwt]`: Users' tokens: `Authorization: Bearer <JWT>`, where `sub` is the uid and `exp` is
/// required. Several kinds of keys may be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JwtConfig {
    /// Shared secret for HS256: at least 32 random bytes.
    pub secret: Secret,
    /// File that contains the secret instead.
    pub secret_file: String,
    /// Previous secret, whose tokens are still accepted.
    pub previous_secret: Secret,
    /// File with public keys in PEM, one after the other, for RS256, ES256 or EdDSA.
    pub public_key_file: String,
    /// URL at which the issuer publishes its keys (JWKS) for RS256, ES256 and EdDSA.
    pub jwks_url: Url,
    /// When set, `iss` must equal this.
    pub issuer: String,
    /// When set, `aud` must equal or contain this.
    pub audience: String,
    /// Tolerated difference between the clocks of issuer and server.
    pub leeway_seconds: u64,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            secret: Secret::default(),
            secret_file: String::new(),
            previous_secret: Secret::default(),
            public_key_file: String::new(),
            jwks_url: Url::default(),
            issuer: String::new(),
            audience: String::new(),
            leeway_seconds: 30,
        }
    }
}

impl JwtConfig {
    /// Returns whether any key is configured that tokens can be verified with.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.secret.reveal().is_empty()
            || !self.public_key_file.is_empty()
            || !self.jwks_url.reveal().is_empty()
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_ranges(
            "auth.jwt",
            &[("leeway_seconds", self.leeway_seconds, 0..=DAY_SECONDS)],
        )?;
        check_previous_secret(
            ("auth.jwt.previous_secret", &self.previous_secret),
            ("auth.jwt.secret", &self.secret),
        )?;
        check_http_url("auth.jwt.jwks_url", self.jwks_url.reveal())?;
        if !self.is_configured() && (!self.issuer.is_empty() || !self.audience.is_empty()) {
            return Err(ConfigError(
                "auth.jwt.issuer and auth.jwt.audience have no effect: set auth.jwt.secret, \
                 public_key_file or jwks_url"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}
