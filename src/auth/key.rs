//! Keys that signatures of tokens are verified with.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey};

/// A key, and the one algorithm that it may be used for.
#[derive(Clone)]
pub(super) struct VerificationKey {
    /// The issuer's id of the key (`kid`).
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl VerificationKey {
    /// Returns whether a token with this `alg` and `kid` may be signed with the key.
    pub(super) fn matches(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.algorithm == algorithm
            && (self.id.is_none() || id.is_none() || self.id.as_deref() == id)
    }
}

/// Leaves the key itself out.
impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
