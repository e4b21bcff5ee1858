//! `[ingest]`

use serde::{Deserialize, Serialize};

use super::check::{check_http_url, check_previous_secret};
use super::server::check_addresses;
use super::source::list_or_text;
use super::{ConfigError, Secret, Url};

/// `[ingest]`: messages that WuKongIM sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngestConfig {
    /// Version of the WuKongIM that sends webhooks: "v1", "v2", or "v3" (whose messages carry no
    /// red dot and name person channels by the pair).
    pub wukongim: WukongimVersion,
    /// When set, webhooks come to /webhook/SECRET instead of /webhook.
    pub webhook_secret: Secret,
    /// File that contains the secret instead.
    pub webhook_secret_file: String,
    /// Previous secret, still accepted during rotation.
    pub previous_webhook_secret: Secret,
    /// URL of a business server that lists the members of groups (WuKongIM's `datasource.addr`).
    /// The server requests it when a webhook brings a message of a group without known members.
    /// Empty disables these requests.
    pub datasource_url: Url,
    /// Address to listen on for webhooks over gRPC (WuKongIM's `webhook.grpcAddr`), such as
    /// "0.0.0.0:5002". Empty disables it.
    pub grpc_listen: String,
    /// Addresses and ranges (10.0.0.0/8) that may send webhooks over gRPC, besides this machine
    /// itself. They send no token.
    #[serde(deserialize_with = "list_or_text")]
    pub grpc_peers: Vec<String>,
}

/// A version of `WuKongIM`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WukongimVersion {
    /// v1.2
    #[serde(rename = "v1")]
    V1,
    /// v2.2
    #[default]
    #[serde(rename = "v2")]
    V2,
    /// v3: messages without red dots; person channels are identified by the stored pair.
    #[serde(rename = "v3")]
    V3,
}

impl IngestConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, secret) in [
            ("ingest.webhook_secret", &self.webhook_secret),
            (
                "ingest.previous_webhook_secret",
                &self.previous_webhook_secret,
            ),
        ] {
            if !secret
                .reveal()
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c))
            {
                return Err(ConfigError(format!(
                    "{key} is a part of a path and may contain only letters, digits, and - _ . ~"
                )));
            }
        }
        check_previous_secret(
            (
                "ingest.previous_webhook_secret",
                &self.previous_webhook_secret,
            ),
            ("ingest.webhook_secret", &self.webhook_secret),
        )?;
        check_http_url("ingest.datasource_url", self.datasource_url.reveal())?;
        check_addresses("ingest.grpc_peers", &self.grpc_peers)
    }
}
