//! `recents config`

use crate::config::Settings;

pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    super::print(settings.to_toml()?.trim_end())
}
