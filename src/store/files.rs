//! Whether SQLite's files are still those that it has open. One that was removed or replaced is
//! written to all the same, and what was written is gone with the process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::StoreError;

/// Device and number of a file.
type Identity = (u64, u64);

/// The database, its log, and the log's index. Each is remembered when it is first seen: the
/// writer's connection is there, and never goes, so the files stay what they are.
#[derive(Debug)]
pub(super) struct Files([(PathBuf, OnceLock<Identity>); 3]);

impl Files {
    pub(super) fn new(database: &Path) -> Self {
        let files = ["", "-wal", "-shm"].map(|end| {
            let mut path = database.as_os_str().to_owned();
            path.push(end);
            (PathBuf::from(path), OnceLock::new())
        });
        let files = Self(files);
        // The database is open already.
        if let (path, identity) = &files.0[0]
            && let Some(found) = identify(path)
        {
            let _ = identity.set(found);
        }
        files
    }

    /// # Errors
    /// [`StoreError::Unavailable`] when a file is gone, or is another one.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, identity) in &self.0 {
            match (identify(path), identity.get()) {
                (Some(found), Some(known)) if found == *known => {}
                // Not written to yet.
                (None, None) => {}
                (Some(found), None) => {
                    let _ = identity.set(found);
                }
                (found, Some(_)) => {
                    let what = if found.is_some() {
                        "is another file now"
                    } else {
                        "is gone"
                    };
                    return Err(StoreError::Unavailable(format!(
                        "{} {what}: nothing that is written lasts",
                        path.display()
                    )));
                }
            }
        }
        Ok(())
    }
}

fn identify(path: &Path) -> Option<Identity> {
    fs::metadata(path)
        .ok()
        .map(|found| (found.dev(), found.ino()))
}
