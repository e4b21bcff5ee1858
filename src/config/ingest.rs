//! `[ingest]`

use serde::{Deserialize, Serialize};

use super::check::{
    check_host_and_port, check_http_url, check_not_own_address, check_previous_secret,
};
use super::server::check_addresses;
use super::source::list_or_text;
use super::{ConfigError, Secret, Url};

/// `[ingest]`: messages that WuKongIM sends.
const MAX_REPAIR_SECONDS: u64 = 3600;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The server requests it when a webhook brings a message of a group that was not looked up for
    /// ten minutes, or whose receivers were cut. Empty disables these requests.
    pub datasource_url: Url,
    /// URL of the HTTP interface of the WuKongIM that sends webhooks, such as
    /// "http://127.0.0.1:5001". Messages that no webhook brought are fetched from there. Empty
    /// disables it.
    pub repair_url: Url,
    /// Manager token of that WuKongIM, if it has one.
    pub repair_token: Secret,
    /// File that contains the token instead.
    pub repair_token_file: String,
    /// How long a message may be missing, in seconds, before it is fetched.
    pub repair_seconds: u64,
    /// URL to which every webhook is forwarded unchanged, whatever its event: the business server's
    /// address, which WuKongIM's `webhook.httpAddr` named before. WuKongIM gets a success only when
    /// the business server and this server have taken the webhook. Empty disables it.
    pub forward_url: Url,
    /// Address to which every webhook is forwarded over gRPC, such as "business:6979" (WuKongIM's
    /// `webhook.grpcAddr` before). Beside `forward_url`, both get every webhook. Empty disables it.
    pub forward_grpc: String,
    /// URL to which WuKongIM's requests for members and channels (/datasource) are forwarded: the
    /// business server's address, which WuKongIM's `datasource.addr` named before. Its answers are
    /// returned unchanged, and the members in them become known. Empty: this server answers itself.
    pub datasource_forward_url: Url,
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

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            wukongim: WukongimVersion::default(),
            webhook_secret: Secret::default(),
            webhook_secret_file: String::new(),
            previous_webhook_secret: Secret::default(),
            datasource_url: Url::default(),
            datasource_forward_url: Url::default(),
            forward_url: Url::default(),
            forward_grpc: String::new(),
            repair_url: Url::default(),
            repair_token: Secret::default(),
            repair_token_file: String::new(),
            repair_seconds: 10,
            grpc_listen: String::new(),
            grpc_peers: Vec::new(),
        }
    }
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
        check_http_url("ingest.repair_url", self.repair_url.reveal())?;
        if !(1..=MAX_REPAIR_SECONDS).contains(&self.repair_seconds) {
            return Err(ConfigError(format!(
                "ingest.repair_seconds must be between 1 and {MAX_REPAIR_SECONDS}"
            )));
        }
        check_http_url("ingest.forward_url", self.forward_url.reveal())?;
        check_http_url(
            "ingest.datasource_forward_url",
            self.datasource_forward_url.reveal(),
        )?;
        check_host_and_port("ingest.forward_grpc", &self.forward_grpc)?;
        check_addresses("ingest.grpc_peers", &self.grpc_peers)
    }

    /// Checks that nothing is forwarded to this server itself. A server that is reached in another
    /// way (by its name, through a proxy) refuses what was forwarded already.
    pub(super) fn check_forwarding(&self, listen: &str) -> Result<(), ConfigError> {
        for (key, url) in [
            ("ingest.forward_url", &self.forward_url),
            (
                "ingest.datasource_forward_url",
                &self.datasource_forward_url,
            ),
        ] {
            if let Ok(url) = reqwest::Url::parse(url.reveal())
                && let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default())
            {
                check_not_own_address(key, (host, port), ("server.listen", listen))?;
            }
        }
        if let Some((host, port)) = self.forward_grpc.rsplit_once(':')
            && let Ok(port) = port.parse()
        {
            let listen = ("ingest.grpc_listen", self.grpc_listen.as_str());
            check_not_own_address("ingest.forward_grpc", (host, port), listen)?;
        }
        Ok(())
    }
}
