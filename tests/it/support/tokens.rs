//! User tokens, and the keys that sign them.

use std::path::{Path, PathBuf};
use std::process::Command;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// The shared secret that tests configure.
pub const SECRET: &str = "a secret of thirty-two bytes or more";

/// Returns the time this many seconds from now, in seconds since the epoch.
pub fn in_seconds(seconds: i64) -> i64 {
    jsonwebtoken::get_current_timestamp() as i64 + seconds
}

/// Returns a token with HS256.
pub fn signed(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// Returns a user's token that is valid for an hour.
pub fn token(uid: &str) -> String {
    signed(&json!({"sub": uid, "exp": in_seconds(3600)}), SECRET)
}

/// A key pair in files.
pub struct Pair {
    pub algorithm: Algorithm,
    pub private: Vec<u8>,
    pub public_file: PathBuf,
}

impl Pair {
    pub fn make(folder: &Path, algorithm: Algorithm, name: &str) -> Self {
        let kind: &[&str] = match algorithm {
            Algorithm::RS256 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Algorithm::ES256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Algorithm::EdDSA => &["-algorithm", "ED25519"],
            other => panic!("{other:?}"),
        };
        let (private_file, public_file) = (
            folder.join(format!("{name}.key")),
            folder.join(format!("{name}.pem")),
        );
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl")
                .args(arguments)
                .output()
                .expect("openssl is not installed");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        openssl(
            &[
                &["genpkey"],
                kind,
                &["-out", private_file.to_str().unwrap()],
            ]
            .concat(),
        );
        openssl(&[
            "pkey",
            "-in",
            private_file.to_str().unwrap(),
            "-pubout",
            "-out",
            public_file.to_str().unwrap(),
        ]);
        Self {
            algorithm,
            private: std::fs::read(private_file).unwrap(),
            public_file,
        }
    }

    pub fn key(&self) -> EncodingKey {
        match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&self.private),
            Algorithm::ES256 => EncodingKey::from_ec_pem(&self.private),
            _ => EncodingKey::from_ed_pem(&self.private),
        }
        .unwrap()
    }

    pub fn public(&self) -> String {
        std::fs::read_to_string(&self.public_file).unwrap()
    }

    pub fn sign(&self, claims: &Value, id: Option<&str>) -> String {
        let header = Header {
            kid: id.map(str::to_owned),
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, claims, &self.key()).unwrap()
    }

    /// Returns the key as an issuer publishes it.
    pub fn jwk(&self, id: &str) -> Value {
        let mut jwk = serde_json::to_value(
            jsonwebtoken::jwk::Jwk::from_encoding_key(&self.key(), self.algorithm).unwrap(),
        )
        .unwrap();
        jwk["kid"] = json!(id);
        jwk
    }
}
