//! `recents check`: lists the messages that have not arrived.

use anyhow::bail;

use crate::config::Settings;
use crate::repair::list_gaps;
use crate::server;

/// Maximum number of channels that are listed.
const MAX_LISTED: usize = 100;

pub(crate) async fn run(settings: &Settings) -> anyhow::Result<()> {
    let store = server::open_store(settings).await?;
    let (mut channels, mut messages, mut lines) = (0_usize, 0, Vec::new());
    let result = list_gaps(&store, |report| {
        channels += 1;
        messages += report.missing();
        if lines.len() < MAX_LISTED {
            lines.push(report.to_string());
        }
    })
    .await;
    store.close().await;
    result?;
    if channels > lines.len() {
        lines.push(format!("and {} more channels", channels - lines.len()));
    }
    lines.push(format!(
        "{messages} messages of {channels} channels are missing"
    ));
    super::print(&lines.join("\n"))?;
    if channels > 0 {
        bail!("messages are missing: recents repair URL fetches them from the WuKongIM");
    }
    Ok(())
}
