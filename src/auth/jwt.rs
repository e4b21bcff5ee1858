//! Users' tokens: which keys there are, and what a token must say. The algorithm belongs to the
//! key, never to the token: a token that says `none`, or HS256 with a public key for the secret,
//! finds no key.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::jwks::Jwks;
use crate::config::{ConfigError, Jwt};
use crate::error::Error;
use crate::ids::Uid;

/// A token is shorter than the headers of a request may be.
const LONGEST: usize = 16 * 1024;
/// RFC 7518, 3.2: as long as the hash.
const SHORTEST_SECRET: usize = 32;
/// The log tells the same reason again after this time.
const PAUSE: Duration = Duration::from_secs(60);

/// Why a token is refused. Operators read it in the log and in the metrics; the caller is told
/// less.
pub(super) type Refusal = &'static str;

const EXPIRED: Refusal = "it has expired";
const NO_UID: Refusal = "its sub is no uid";
const NO_KEY: Refusal = "no key fits its alg and kid";
const OTHER_SIGNATURE: Refusal = "its signature is by another key";

/// A key and the one algorithm that it is for.
#[derive(Clone)]
pub(super) struct Key {
    /// The issuer's name for it.
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Never the key.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// What we read of a token. `exp`, `nbf`, `iss` and `aud` are the library's to check.
#[derive(Default, Deserialize)]
// Those that are missing are the library's to refuse.
#[serde(default)]
struct Claims {
    sub: String,
    /// It may have a fraction (RFC 7519, 2).
    exp: f64,
}

/// Checks users' tokens.
#[derive(Debug)]
pub(super) struct Verifier {
    keys: Vec<Key>,
    jwks: Option<Jwks>,
    issuer: String,
    audience: String,
    leeway_seconds: u64,
}

impl Verifier {
    pub(super) fn new(settings: &Jwt) -> Result<Self, ConfigError> {
        let mut keys = Vec::new();
        for secret in [&settings.secret, &settings.previous_secret] {
            let secret = secret.reveal().as_bytes();
            if secret.is_empty() {
                continue;
            }
            if secret.len() < SHORTEST_SECRET {
                tracing::warn!(
                    "auth.jwt.secret is shorter than {SHORTEST_SECRET} bytes: it can be guessed from any token"
                );
            }
            keys.push(Key {
                id: None,
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(secret),
            });
        }
        if !settings.public_key_file.is_empty() {
            keys.extend(read_public_keys(&settings.public_key_file)?);
        }
        let jwks = (!settings.jwks_url.reveal().is_empty())
            .then(|| Jwks::new(settings.jwks_url.reveal()))
            .transpose()?;
        Ok(Self {
            keys,
            jwks,
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            leeway_seconds: settings.leeway_seconds,
        })
    }

    /// The token's user, and when the token ends (epoch seconds, leeway included).
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::KeysUnavailable`].
    pub(super) async fn verify(&self, token: &[u8]) -> Result<(Uid, u64), Error> {
        self.examine(token).await?.map_err(|refusal| {
            log_refusal(refusal);
            Error::Unauthenticated(match refusal {
                EXPIRED => "the token has expired",
                NO_UID => "the token's sub is no uid",
                _ => "the token is not valid",
            })
        })
    }

    async fn examine(&self, token: &[u8]) -> Result<Result<(Uid, u64), Refusal>, Error> {
        if token.len() > LONGEST {
            return Ok(Err("it is too long"));
        }
        let Ok(header) = decode_header(token) else {
            return Ok(Err("it is no manager token, and no JWT with a known alg"));
        };
        // A server must understand the headers that a token calls critical (RFC 7515, 4.1.11); this
        // one understands none.
        if names_critical_headers(token) {
            return Ok(Err("its header has crit"));
        }
        let fits = |key: &&Key| {
            key.algorithm == header.alg
                && (key.id.is_none() || header.kid.is_none() || key.id == header.kid)
        };
        let mut refusal = NO_KEY;
        for key in self.keys.iter().filter(fits) {
            match self.check(token, key) {
                Ok(claims) => return Ok(self.user_of(claims)),
                Err(error) => refusal = more_telling(refusal, error),
            }
        }
        if let Some(jwks) = &self.jwks
            && header.alg != Algorithm::HS256
        {
            let keys = jwks.keys_for(header.kid.as_deref()).await?;
            for key in keys.iter().filter(fits) {
                match self.check(token, key) {
                    Ok(claims) => return Ok(self.user_of(claims)),
                    Err(error) => refusal = more_telling(refusal, error),
                }
            }
        }
        Ok(Err(refusal))
    }

    /// Fetches the issuer's keys, where there is one: the first users shall not wait for them.
    pub(super) async fn fetch_keys(&self) {
        if let Some(jwks) = &self.jwks {
            jwks.prefetch().await;
        }
    }

    fn user_of(&self, claims: Claims) -> Result<(Uid, u64), Refusal> {
        let uid = Uid::parse("sub", claims.sub).map_err(|_| NO_UID)?;
        // A float becomes the nearest number that there is.
        Ok((uid, (claims.exp as u64).saturating_add(self.leeway_seconds)))
    }

    fn check(&self, token: &[u8], key: &Key) -> Result<Claims, Refusal> {
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

fn names_critical_headers(token: &[u8]) -> bool {
    let header = token.split(|byte| *byte == b'.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&header)
        .is_ok_and(|header| header.get("crit").is_some())
}

/// Of several keys' refusals the one that says more: who looks at the claims has found the
/// signature to be right.
fn more_telling(before: Refusal, now: Refusal) -> Refusal {
    if matches!(before, NO_KEY | OTHER_SIGNATURE) {
        now
    } else {
        before
    }
}

/// Tells operators why tokens are refused, each reason now and then: anybody can bring bad ones.
/// The token is not shown.
pub(super) fn log_refusal(reason: Refusal) {
    static TOLD: Mutex<BTreeMap<Refusal, Instant>> = Mutex::new(BTreeMap::new());
    metrics::counter!("recents_unauthenticated_total", "reason" => reason).increment(1);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.get(reason).is_none_or(|told| told.elapsed() > PAUSE) {
        told.insert(reason, Instant::now());
        drop(told);
        tracing::info!(
            reason,
            "a token is refused; others are counted in recents_unauthenticated_total"
        );
    }
}

fn read_public_keys(file: &str) -> Result<Vec<Key>, ConfigError> {
    let problem = |what: String| ConfigError(format!("auth.jwt.public_key_file = {file:?} {what}"));
    let text = std::fs::read_to_string(file)
        .map_err(|error| problem(format!("cannot be read: {error}")))?;
    if text.contains("PRIVATE KEY-----") {
        return Err(problem(
            "holds a private key: it belongs to the issuer alone; give the public one".to_owned(),
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
                "must hold public keys in PEM (BEGIN PUBLIC KEY): RSA, P-256 or Ed25519".to_owned(),
            ));
        };
        keys.push(Key {
            id: None,
            algorithm,
            key,
        });
    }
    if keys.is_empty() {
        return Err(problem(
            "holds no key that begins with -----BEGIN PUBLIC KEY-----".to_owned(),
        ));
    }
    Ok(keys)
}
