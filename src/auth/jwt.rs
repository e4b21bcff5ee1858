//! Verifies users' tokens (JWT). Each key is bound to one algorithm, whatever the token's header
//! says: a token with `none`, or with HS256 and a public key as the secret, matches no key.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::jwks::JwksCache;
use super::key::VerificationKey;
use crate::config::{ConfigError, JwtConfig};
use crate::error::Error;
use crate::model::Uid;

/// Maximum length of a token; the headers of a request may be longer.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Minimum length of a secret: the length of the hash (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// Minimum time between log lines with the same reason.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The reason why a token is rejected. It appears in the log and the metrics; callers get a less
/// detailed text.
pub(super) type RejectionReason = &'static str;

const EXPIRED: RejectionReason = "it has expired";
const NO_UID: RejectionReason = "its sub is no uid";
const NO_KEY: RejectionReason = "no key fits its alg and kid";
const OTHER_SIGNATURE: RejectionReason = "its signature is by another key";

/// The claims that are read here. The library checks `exp`, `nbf`, `iss` and `aud`.
#[derive(Default, Deserialize)]
// The library refuses tokens with missing claims.
#[serde(default)]
struct Claims {
    sub: String,
    /// Epoch seconds, possibly with a fraction (RFC 7519, 2).
    exp: f64,
}

/// Verifies users' tokens against the configured keys.
#[derive(Debug)]
pub(super) struct TokenVerifier {
    keys: Vec<VerificationKey>,
    jwks: Option<JwksCache>,
    issuer: String,
    audience: String,
    leeway_seconds: u64,
}

impl TokenVerifier {
    pub(super) fn new(settings: &JwtConfig) -> Result<Self, ConfigError> {
        let mut keys = Vec::new();
        for secret in [&settings.secret, &settings.previous_secret] {
            let secret = secret.reveal().as_bytes();
            if secret.is_empty() {
                continue;
            }
            if secret.len() < MIN_SECRET_BYTES {
                tracing::warn!(
                    "auth.jwt.secret is shorter than {MIN_SECRET_BYTES} bytes: anyone with a token can \
                     guess it"
                );
            }
            keys.push(VerificationKey {
                id: None,
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(secret),
            });
        }
        if !settings.public_key_file.is_empty() {
            keys.extend(read_public_keys(&settings.public_key_file)?);
        }
        let jwks = (!settings.jwks_url.reveal().is_empty())
            .then(|| JwksCache::new(settings.jwks_url.reveal()))
            .transpose()?;
        Ok(Self {
            keys,
            jwks,
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            leeway_seconds: settings.leeway_seconds,
        })
    }

    /// Returns the token's user and its expiry (epoch seconds, leeway included).
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::KeysUnavailable`].
    pub(super) async fn verify(&self, token: &[u8]) -> Result<(Uid, u64), Error> {
        self.check_token(token).await?.map_err(|reason| {
            log_rejection(reason);
            Error::Unauthenticated(match reason {
                EXPIRED => "the token has expired",
                NO_UID => "the token's sub is no uid",
                _ => "the token is not valid",
            })
        })
    }

    async fn check_token(
        &self,
        token: &[u8],
    ) -> Result<Result<(Uid, u64), RejectionReason>, Error> {
        if token.len() > MAX_TOKEN_BYTES {
            return Ok(Err("it is too long"));
        }
        let Ok(header) = decode_header(token) else {
            return Ok(Err("it is no manager token, and no JWT with a known alg"));
        };
        // A server must refuse critical headers that it does not support (RFC 7515, 4.1.11); this
        // server supports none.
        if has_critical_headers(token) {
            return Ok(Err("its header has crit"));
        }
        let matches = |key: &&VerificationKey| key.matches(header.alg, header.kid.as_deref());
        let mut reason = NO_KEY;
        for key in self.keys.iter().filter(matches) {
            match self.check_claims(token, key) {
                Ok(claims) => return Ok(self.user_and_expiry(claims)),
                Err(now) => reason = more_specific(reason, now),
            }
        }
        if let Some(jwks) = &self.jwks
            && header.alg != Algorithm::HS256
        {
            let keys = jwks.keys_for(header.kid.as_deref()).await?;
            for key in keys.iter().filter(matches) {
                match self.check_claims(token, key) {
                    Ok(claims) => return Ok(self.user_and_expiry(claims)),
                    Err(now) => reason = more_specific(reason, now),
                }
            }
        }
        Ok(Err(reason))
    }

    /// Fetches the issuer's keys, if `auth.jwt.jwks_url` is set, so that the first users need not
    /// wait for them.
    pub(super) async fn fetch_keys(&self) {
        if let Some(jwks) = &self.jwks {
            jwks.fetch_unless_recent().await;
        }
    }

    fn user_and_expiry(&self, claims: Claims) -> Result<(Uid, u64), RejectionReason> {
        let uid = Uid::parse("sub", claims.sub).map_err(|_| NO_UID)?;
        // The cast saturates.
        Ok((uid, (claims.exp as u64).saturating_add(self.leeway_seconds)))
    }

    fn check_claims(&self, token: &[u8], key: &VerificationKey) -> Result<Claims, RejectionReason> {
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = self.leeway_seconds;
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if self.audience.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&[&self.audience]);
            required.push("aud");
        }
        if !self.issuer.is_empty() {
            validation.set_issuer(&[&self.issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        decode::<Claims>(token, &key.key, &validation)
            .map(|token| token.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => EXPIRED,
                ErrorKind::ImmatureSignature => "its nbf is in the future",
                ErrorKind::InvalidIssuer => "its iss is not auth.jwt.issuer",
                ErrorKind::InvalidAudience => "its aud is not auth.jwt.audience",
                ErrorKind::MissingRequiredClaim(_) => {
                    "it lacks exp, sub, or an iss or aud that is configured"
                }
                ErrorKind::InvalidSignature => OTHER_SIGNATURE,
                _ => "its claims cannot be read",
            })
    }
}

fn has_critical_headers(token: &[u8]) -> bool {
    let header = token.split(|byte| *byte == b'.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&header)
        .is_ok_and(|header| header.get("crit").is_some())
}

/// Returns the more specific of two keys' reasons: a reason about the claims implies that the
/// signature was valid.
fn more_specific(before: RejectionReason, now: RejectionReason) -> RejectionReason {
    if matches!(before, NO_KEY | OTHER_SIGNATURE) {
        now
    } else {
        before
    }
}

/// Counts a rejected token, and logs the reason without the token. Each reason is logged once in a
/// while only, because anyone can send invalid tokens.
pub(super) fn log_rejection(reason: RejectionReason) {
    static LAST_LOGGED: Mutex<BTreeMap<RejectionReason, Instant>> = Mutex::new(BTreeMap::new());
    metrics::counter!(crate::metrics::UNAUTHENTICATED_TOTAL, "reason" => reason).increment(1);
    let mut last_logged = LAST_LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if last_logged
        .get(reason)
        .is_none_or(|at| at.elapsed() > LOG_INTERVAL)
    {
        last_logged.insert(reason, Instant::now());
        drop(last_logged);
        tracing::info!(
            reason,
            "a token is refused; others are counted in recents_unauthenticated_total"
        );
    }
}

fn read_public_keys(file: &str) -> Result<Vec<VerificationKey>, ConfigError> {
    let problem = |text: String| ConfigError(format!("auth.jwt.public_key_file = {file:?} {text}"));
    let text = std::fs::read_to_string(file)
        .map_err(|error| problem(format!("cannot be read: {error}")))?;
    if text.contains("PRIVATE KEY-----") {
        return Err(problem(
            "holds a private key, which only the issuer should have: give the public key"
                .to_owned(),
        ));
    }
    let mut keys = Vec::new();
    for block in text.split_inclusive("-----END PUBLIC KEY-----") {
        let Some(start) = block.find("-----BEGIN") else {
            continue;
        };
        let pem = &block.as_bytes()[start..];
        let key = DecodingKey::from_rsa_pem(pem)
            .map(|key| (Algorithm::RS256, key))
            .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
            .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)));
        let Ok((algorithm, key)) = key else {
            return Err(problem(
                "must contain public keys in PEM (BEGIN PUBLIC KEY): RSA, P-256 or Ed25519"
                    .to_owned(),
            ));
        };
        keys.push(VerificationKey {
            id: None,
            algorithm,
            key,
        });
    }
    if keys.is_empty() {
        return Err(problem(
            "contains no key that begins with -----BEGIN PUBLIC KEY-----".to_owned(),
        ));
    }
    Ok(keys)
}
