//! Opens the database that the configuration names.

use anyhow::{Context, bail};

use crate::config::{ConfigError, Settings};
use crate::store::{Store, StoreError};

/// Connects to `database.url`.
///
/// # Errors
/// [`ConfigError`] for a malformed URL, [`StoreError`] for a database file that cannot be opened.
pub async fn connect(settings: &Settings) -> anyhow::Result<Store> {
    let mut database = settings.database.clone();
    // A request that timed out must not leave a statement behind that runs on.
    database.statement_timeout_seconds = database
        .statement_timeout_seconds
        .min(settings.limits.request_timeout_seconds);
    let store = match Store::connect(&database).await {
        Err(StoreError::Internal(reason)) => {
            return Err(ConfigError(format!("database.url cannot be used: {reason}")).into());
        }
        result => result.context("the database cannot be opened")?,
    };
    store
        .wait_until_reachable(database.startup_timeout_seconds)
        .await?;
    Ok(store)
}

/// Connects and, if `database.migrate` is set, applies missing migrations.
///
/// # Errors
/// Errors of the database; migrations that are missing while `database.migrate` is off.
pub async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let store = connect(settings).await?;
    if settings.database.migrate {
        store
            .migrate_up()
            .await
            .context("the migrations cannot be applied")?;
    } else if let Some(missing) = store
        .migration_status()
        .await?
        .into_iter()
        .find(|migration| !migration.applied)
    {
        bail!(
            "the migration {} is not applied, and database.migrate is off: run `recents migrate up`",
            missing.name
        );
    }
    Ok(store)
}
