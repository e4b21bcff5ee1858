//! The issuer's published keys (RFC 7517), fetched when they are needed and kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Semaphore;

use super::jwt::Key;
use crate::config::ConfigError;
use crate::error::Error;
use crate::outside::read_answer;

/// Keys that the issuer took back are forgotten within this time.
const FRESH_FOR: Duration = Duration::from_secs(300);
/// Tokens with unknown keys are anybody's to make up: the issuer is not asked more often than this.
const PAUSE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that wait for keys at once.
const WAITING: usize = 32;
/// For so long a request waits for keys.
const PATIENCE: Duration = Duration::from_secs(2);
/// Keys are a few hundred bytes each.
const LONGEST_SET: usize = 1 << 20;

/// The keys at a URL.
#[derive(Clone, Debug)]
pub(super) struct Jwks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: String,
    http: reqwest::Client,
    known: Mutex<Known>,
    /// Many requests at once are one request to the issuer.
    fetching: Arc<tokio::sync::Mutex<()>>,
    /// Places for requests that wait for the issuer.
    waiting: Semaphore,
}

#[derive(Clone, Debug, Default)]
struct Known {
    keys: Arc<Vec<Key>>,
    /// When they were fetched.
    fetched: Option<Instant>,
    /// When that was tried last.
    tried: Option<Instant>,
}

impl Known {
    fn has(&self, id: Option<&str>) -> bool {
        self.fetched.is_some()
            && id.is_none_or(|id| self.keys.iter().any(|key| key.id.as_deref() == Some(id)))
    }

    fn may_ask(&self) -> bool {
        self.tried.is_none_or(|tried| tried.elapsed() > PAUSE)
    }
}

impl Jwks {
    pub(super) fn new(url: &str) -> Result<Self, ConfigError> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let http = http
            .map_err(|error| ConfigError(format!("auth.jwt.jwks_url cannot be asked: {error}")))?;
        Ok(Self(Arc::new(Inner {
            url: url.to_owned(),
            http,
            known: Mutex::default(),
            fetching: Arc::default(),
            waiting: Semaphore::new(WAITING),
        })))
    }

    /// The keys to check a token with that names `id`. Only who brings a key that is not known
    /// waits for the issuer.
    ///
    /// # Errors
    /// [`Error::KeysUnavailable`] when they were never fetched.
    pub(super) async fn keys_for(&self, id: Option<&str>) -> Result<Arc<Vec<Key>>, Error> {
        let known = self.0.known();
        if known.has(id) {
            let is_old = known
                .fetched
                .is_some_and(|fetched| fetched.elapsed() > FRESH_FOR);
            if is_old
                && known.may_ask()
                && let Ok(alone) = Arc::clone(&self.0.fetching).try_lock_owned()
            {
                let inner = Arc::clone(&self.0);
                tokio::spawn(async move {
                    inner.fetch().await;
                    drop(alone);
                });
            }
            return Ok(known.keys);
        }
        // Anybody can make up names of keys: few wait for the issuer, and not for long.
        if let Ok(_place) = self.0.waiting.try_acquire() {
            let jwks = self.clone();
            let fetched = tokio::spawn(async move {
                let _alone = jwks.0.fetching.lock().await;
                let known = jwks.0.known();
                if known.may_ask() {
                    jwks.0.fetch().await;
                }
            });
            let _ = tokio::time::timeout(PATIENCE, fetched).await;
        }
        let known = self.0.known();
        if known.fetched.is_none() {
            Err(Error::KeysUnavailable)
        } else {
            Ok(known.keys)
        }
    }

    /// Fetches the keys before anybody needs them.
    pub(super) async fn prefetch(&self) {
        let _alone = self.0.fetching.lock().await;
        if self.0.known().may_ask() {
            self.0.fetch().await;
        }
    }
}

impl Inner {
    fn known(&self) -> Known {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn fetch(&self) {
        let result = self.ask().await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.tried = Some(Instant::now());
        let label = match result {
            Ok(keys) => {
                known.keys = Arc::new(keys);
                known.fetched = known.tried;
                "ok"
            }
            Err(error) => {
                tracing::warn!(error, "the keys of auth.jwt.jwks_url cannot be fetched");
                "failed"
            }
        };
        metrics::counter!("recents_jwks_fetches_total", "result" => label).increment(1);
    }

    async fn ask(&self) -> Result<Vec<Key>, String> {
        let response = self
            .http
            .get(&self.url)
            .send()
            .await
            .map_err(|error| format!("{:#}", anyhow::Error::from(error.without_url())))?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status()));
        }
        let keys = parse(
            &read_answer(response, LONGEST_SET)
                .await
                .map_err(|error| error.to_string())?,
        )?;
        if keys.is_empty() {
            return Err("no key for RS256, ES256 or EdDSA among them".to_owned());
        }
        Ok(keys)
    }
}

/// Keys that we cannot use are left out: an issuer may have others for other purposes.
fn parse(body: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(body)
        .map_err(|_| "it is no JWKS: a JSON object with keys".to_owned())?;
    let known = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    Ok(JwkSet {
        keys: known.collect(),
    }
    .keys
    .iter()
    .filter_map(key)
    .collect())
}

fn key(jwk: &Jwk) -> Option<Key> {
    if !matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let said = match jwk.common.key_algorithm {
        None => algorithm,
        Some(KeyAlgorithm::RS256) => Algorithm::RS256,
        Some(KeyAlgorithm::ES256) => Algorithm::ES256,
        Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
        Some(_) => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (said == algorithm).then(|| Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_other_purposes_are_left_out() {
        let set = serde_json::json!({"keys": [
            {"kty": "oct", "k": "c2VjcmV0", "kid": "a secret"},
            {"kty": "RSA", "n": "sXch", "e": "AQAB", "use": "enc", "kid": "for encryption"},
            {"kty": "RSA", "n": "sXch", "e": "AQAB", "alg": "PS256", "kid": "another algorithm"},
            {"kty": "RSA", "n": "sXch", "e": "AQAB", "alg": "ES256", "kid": "not of its kind"},
            {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "kid": "another curve"},
            {"kty": "new", "kid": "of the future"},
            {"kty": "RSA", "n": "sXch", "e": "AQAB", "kid": "one"},
            {"kty": "RSA", "n": "sXch", "e": "AQAB", "use": "sig", "alg": "RS256", "kid": "two"},
        ]});
        let keys = parse(set.to_string().as_bytes()).unwrap();
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["one", "two"]);
        assert!(keys.iter().all(|key| key.algorithm == Algorithm::RS256));
        assert!(parse(b"{}").is_err() && parse(b"[]").is_err() && parse(b"<html>").is_err());
    }
}
