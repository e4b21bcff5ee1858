//! Detection of removed or replaced SQLite files. SQLite continues to write to such a file, and the
//! writes are lost when the process ends.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::StoreError;

/// Device and inode number of a file.
type Identity = (u64, u64);

/// The database, its log, and the log's index. Each identity is stored when the file is first seen:
/// the writer's connection stays open, so the files never change.
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
        // The database file exists already.
        if let (path, identity) = &files.0[0]
            && let Some(found) = identify(path)
        {
            let _ = identity.set(found);
        }
        files
    }

    /// # Errors
    /// [`StoreError::Unavailable`] if a file was removed or replaced.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, identity) in &self.0 {
            match (identify(path), identity.get()) {
                (Some(found), Some(known)) if found == *known => {}
                // Nothing was written to it yet.
                (None, None) => {}
                (Some(found), None) => {
                    let _ = identity.set(found);
                }
                (found, Some(_)) => {
                    let what = if found.is_some() {
                        "was replaced by another file"
                    } else {
                        "was removed"
                    };
                    let text = format!("{} {what}: writes would be lost", path.display());
                    return Err(StoreError::Unavailable(text.into()));
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
