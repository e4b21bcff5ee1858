//! Reads changed conversations; concurrent requests share reads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::Base;
use crate::batching::{BatchHandler, BatchReply, BatchResult, shard_of};
use crate::conversation::ConversationService;
use crate::error::Error;
use crate::model::{Uid, Version};
use crate::store::{ChangedConversations, LockPolicy};

/// A read of the conversations of a user, shared by concurrent requests.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct SharedRead {
    uid: Uid,
    read_after: Version,
}

/// Returns the user's cursor and what changed since a version. Requests that arrive during a read
/// share the next read, which starts after all of them.
pub(super) async fn read_changed(
    service: &ConversationService,
    uid: &Uid,
    read_after: Version,
) -> Result<Arc<ChangedConversations>, Error> {
    let request = SharedRead {
        uid: uid.clone(),
        read_after,
    };
    // A shard for each user and version. If two of them have the same hash, they share a shard.
    let shard = shard_of(&(uid, read_after), u64::MAX);
    service.reads.submit(shard, request).await
}

/// Reads each distinct request of a batch once.
pub(in crate::conversation) struct ReadHandler(pub(in crate::conversation) Arc<Base>);

impl BatchHandler for ReadHandler {
    type Request = SharedRead;
    type Reply = Arc<ChangedConversations>;

    async fn run(
        &self,
        batch: Vec<Arc<SharedRead>>,
        _: LockPolicy,
    ) -> BatchResult<Arc<ChangedConversations>> {
        let mut found: HashMap<&SharedRead, Arc<ChangedConversations>> = HashMap::new();
        for request in &batch {
            if !found.contains_key(&**request) {
                let changed = self
                    .0
                    .store
                    .list_changed(&request.uid, request.read_after)
                    .await?;
                found.insert(request, Arc::new(changed));
            }
        }
        Ok(batch
            .iter()
            .map(|request| BatchReply::Ready(Ok(Arc::clone(&found[&**request]))))
            .collect())
    }
}
