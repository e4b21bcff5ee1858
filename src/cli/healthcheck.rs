//! `recents healthcheck`

use std::time::Duration;

use crate::config::Settings;
use crate::outbound::read_response_body;
use anyhow::{Context, bail};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of the answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(crate) async fn run(settings: &Settings) -> anyhow::Result<()> {
    let url = format!("http://{}/readyz", settings.server.listen);
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let response = client
        .get(&url)
        .send()
        .await
        .with_context(|| format!("no answer from {url}"))?;
    let status = response.status();
    let body = read_response_body(response, MAX_ANSWER_BYTES)
        .await
        .with_context(|| format!("no answer from {url}"))?;
    let text = String::from_utf8_lossy(&body);
    if !status.is_success() {
        bail!("{} says {}", url, text.trim());
    }
    super::print(text.trim())
}
