//! `recents repair`: fetches missing messages from the `WuKongIM`.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::clock::{Clock, IdGenerator};
use crate::config::{ConfigError, Settings, Url};
use crate::repair::{Repairer, repair_all};
use crate::server;
use crate::services::Services;
use crate::upstream::WukongimClient;
use crate::wukongim::dto::write_message;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// URL of the HTTP interface of the WuKongIM that sends webhooks
    #[arg(value_name = "URL")]
    url: String,
    /// Manager token of the WuKongIM
    #[arg(
        long,
        env = "RECENTS_REPAIR_TOKEN",
        hide_env_values = true,
        default_value = "",
        value_name = "TOKEN"
    )]
    token: String,
    /// Maximum number of requests per second
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let client = WukongimClient::new(&args.url, &args.token, args.rate)
        .map_err(|error| ConfigError(format!("{error:#}")))?;
    let store = server::open_store(settings).await?;
    let services = Arc::new(Services::new(
        store.clone(),
        Clock::System,
        IdGenerator::random(),
        settings,
        write_message,
    ));
    let repairer = Repairer::new(services, Arc::new(client)).await?;
    let result = repair_all(&repairer).await;
    store.close().await;
    let shown = Url::from(args.url.as_str()).redacted();
    let summary = result.with_context(|| format!("{shown}: run it again to continue"))?;
    super::print(&format!("{shown}\n{summary}"))?;
    if summary.failed > 0 {
        bail!("{} channels could not be repaired", summary.failed);
    }
    Ok(())
}
