//! `recents migrate`

use crate::config::Settings;
use crate::server;

#[derive(clap::Subcommand, Clone, Copy)]
pub(crate) enum MigrateCommand {
    /// Apply the missing migrations
    Up,
    /// Revert the newest migrations
    Down {
        /// Number of migrations to revert
        #[arg(long, default_value_t = 1)]
        steps: u32,
    },
    /// List the migrations, and which of them are applied
    Status,
}

pub(crate) async fn run(settings: &Settings, command: MigrateCommand) -> anyhow::Result<()> {
    let store = server::connect(settings).await?;
    match command {
        MigrateCommand::Up => store.migrate_up().await?,
        MigrateCommand::Down { steps } => store.migrate_down(Some(steps)).await?,
        MigrateCommand::Status => {}
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
