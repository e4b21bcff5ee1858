//! `recents migrate`

use crate::config::Settings;
use crate::server;

#[derive(clap::Subcommand, Clone, Copy)]
pub(crate) enum Direction {
    /// Apply the missing migrations
    Up,
    /// Revert the newest migrations
    Down {
        /// How many to revert
        #[arg(long, default_value_t = 1)]
        steps: u32,
    },
    /// List the migrations, and which of them are applied
    Status,
}

pub(crate) async fn run(settings: &Settings, direction: Direction) -> anyhow::Result<()> {
    let store = server::connect(settings).await?;
    match direction {
        Direction::Up => store.migrate_up().await?,
        Direction::Down { steps } => store.migrate_down(Some(steps)).await?,
        Direction::Status => {}
    }
    for migration in store.migration_status().await? {
        super::print(&format!(
            "{:8} {}",
            if migration.applied {
                "applied"
            } else {
                "missing"
            },
            migration.name
        ))?;
    }
    store.close().await;
    Ok(())
}
