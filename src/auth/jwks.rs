//! The issuer's published keys (JWKS, RFC 7517), fetched on demand and cached.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Semaphore;

use super::key::VerificationKey;
use crate::config::ConfigError;
use crate::error::Error;
use crate::outage::OutageLog;
use crate::outbound::read_response_body;

/// Age at which the keys are fetched again, so that keys that the issuer revoked disappear.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Minimum time between fetches: anyone can send tokens with unknown keys.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(10);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of requests that wait for keys at once.
const MAX_WAITING_REQUESTS: usize = 32;
/// How long a request waits for keys.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of the issuer's answer. A key takes a few hundred bytes.
const MAX_SET_BYTES: usize = 1 << 20;

/// A cache of the keys at `auth.jwt.jwks_url`.
#[derive(Clone, Debug)]
pub(super) struct JwksCache(Arc<JwksCacheInner>);

#[derive(Debug)]
struct JwksCacheInner {
    url: String,
    http: reqwest::Client,
    cached: Mutex<CachedKeys>,
    /// Held during a fetch, so that concurrent requests share one.
    fetch_lock: Arc<tokio::sync::Mutex<()>>,
    /// Permits for requests that wait for a fetch.
    wait_permits: Semaphore,
    outages: OutageLog,
}

#[derive(Clone, Debug, Default)]
struct CachedKeys {
    keys: Arc<Vec<VerificationKey>>,
    /// Time of the last successful fetch.
    fetched_at: Option<Instant>,
    /// Time of the last fetch, successful or not.
    attempted_at: Option<Instant>,
}

impl CachedKeys {
    fn has(&self, id: Option<&str>) -> bool {
        self.fetched_at.is_some()
            && id.is_none_or(|id| self.keys.iter().any(|key| key.id.as_deref() == Some(id)))
    }

    fn may_fetch(&self) -> bool {
        self.attempted_at
            .is_none_or(|at| at.elapsed() > MIN_FETCH_INTERVAL)
    }
}

impl JwksCache {
    pub(super) fn new(url: &str) -> Result<Self, ConfigError> {
        let http = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let http = http.map_err(|error| {
            ConfigError(format!("auth.jwt.jwks_url cannot be fetched: {error}"))
        })?;
        Ok(Self(Arc::new(JwksCacheInner {
            url: url.to_owned(),
            http,
            cached: Mutex::default(),
            fetch_lock: Arc::default(),
            wait_permits: Semaphore::new(MAX_WAITING_REQUESTS),
            outages: OutageLog::new(
                "the keys of auth.jwt.jwks_url cannot be fetched",
                "the keys of auth.jwt.jwks_url are fetched again",
            ),
        })))
    }

    /// Returns the keys for a token with the key id `id`. Known keys are returned at once, even if
    /// they are old; then they are fetched in the background. For an unknown key the request waits.
    ///
    /// # Errors
    /// [`Error::KeysUnavailable`] if no fetch has succeeded yet.
    pub(super) async fn keys_for(
        &self,
        id: Option<&str>,
    ) -> Result<Arc<Vec<VerificationKey>>, Error> {
        let cached = self.0.cached();
        if cached.has(id) {
            let is_old = cached.fetched_at.is_some_and(|at| at.elapsed() > MAX_AGE);
            if is_old
                && cached.may_fetch()
                && let Ok(guard) = Arc::clone(&self.0.fetch_lock).try_lock_owned()
            {
                let inner = Arc::clone(&self.0);
                tokio::spawn(async move {
                    inner.fetch().await;
                    drop(guard);
                });
            }
            return Ok(cached.keys);
        }
        // Anyone can invent key ids, so few requests wait for the issuer, and only shortly.
        if let Ok(_permit) = self.0.wait_permits.try_acquire() {
            let jwks = self.clone();
            let fetch = tokio::spawn(async move { jwks.fetch_unless_recent().await });
            let _ = tokio::time::timeout(WAIT_TIMEOUT, fetch).await;
        }
        let cached = self.0.cached();
        if cached.fetched_at.is_none() {
            Err(Error::KeysUnavailable)
        } else {
            Ok(cached.keys)
        }
    }

    /// Fetches the keys, unless that was attempted a moment ago.
    pub(super) async fn fetch_unless_recent(&self) {
        let _guard = self.0.fetch_lock.lock().await;
        if self.0.cached().may_fetch() {
            self.0.fetch().await;
        }
    }
}

impl JwksCacheInner {
    fn cached(&self) -> CachedKeys {
        self.cached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn fetch(&self) {
        let result = self.request_keys().await;
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.attempted_at = Some(Instant::now());
        let label = match result {
            Ok(keys) => {
                cached.keys = Arc::new(keys);
                cached.fetched_at = cached.attempted_at;
                self.outages.worked();
                "ok"
            }
            Err(error) => {
                self.outages.failed(&error);
                "failed"
            }
        };
        metrics::counter!(crate::metrics::JWKS_FETCHES_TOTAL, "result" => label).increment(1);
    }

    async fn request_keys(&self) -> Result<Vec<VerificationKey>, String> {
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
            &read_response_body(response, MAX_SET_BYTES)
                .await
                .map_err(|error| error.to_string())?,
        )?;
        if keys.is_empty() {
            return Err("it has no key for RS256, ES256 or EdDSA".to_owned());
        }
        Ok(keys)
    }
}

/// Parses a JWKS. Keys for other purposes and algorithms are left out.
fn parse(body: &[u8]) -> Result<Vec<VerificationKey>, String> {
    #[derive(serde::Deserialize)]
    struct RawJwkSet {
        keys: Vec<serde_json::Value>,
    }
    let set: RawJwkSet = serde_json::from_slice(body)
        .map_err(|_| "it is not a JWKS: a JSON object with keys".to_owned())?;
    Ok(set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
        .filter_map(|jwk| verification_key(&jwk))
        .collect())
}

/// Returns the key if it is for signatures of a supported algorithm.
fn verification_key(jwk: &Jwk) -> Option<VerificationKey> {
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
    let declared = match jwk.common.key_algorithm {
        None => algorithm,
        Some(KeyAlgorithm::RS256) => Algorithm::RS256,
        Some(KeyAlgorithm::ES256) => Algorithm::ES256,
        Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
        Some(_) => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (declared == algorithm).then(|| VerificationKey {
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
