//! The progress of an import from a server, which is kept in the database.

use sha2::{Digest, Sha256};

use crate::store::{Store, StoreError};

/// How much of a user was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserProgress {
    /// Nothing, or only a part.
    New,
    /// All that is listed. Conversations that are not listed may still have to be removed, because
    /// the import of other users brought their messages.
    Imported,
    /// Everything: the user's read positions are never touched again.
    Complete,
}

/// Returns the key of the progress of an item of a server.
pub(super) fn key(url: &str, item: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in [url].iter().chain(item) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

impl UserProgress {
    pub(super) async fn read(store: &Store, key: &str) -> Result<Self, StoreError> {
        Ok(match store.count_imported_lines(key).await? {
            0 => Self::New,
            2 => Self::Imported,
            _ => Self::Complete,
        })
    }

    pub(super) async fn write(self, store: &Store, key: &str) -> Result<(), StoreError> {
        let number = match self {
            Self::New => 0,
            Self::Complete => 1,
            Self::Imported => 2,
        };
        store.write_imported_lines(key, number).await
    }
}
