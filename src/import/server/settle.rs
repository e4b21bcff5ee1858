//! Deletes the conversations of a user that are not listed there. The server has no route that
//! names deleted conversations (v1, v2), and the import of other users brings their messages.

use std::collections::HashMap;

use super::{Import, ImportSummary, with_details};
use crate::conversation::{
    Conversation, ImportedState, import_deletion, import_state, list_unseen,
};
use crate::import::progress::UserProgress;
use crate::import::source::{Listed, MANY_MESSAGES};
use crate::model::{ChannelKey, Seq, Uid};

/// Completes the import of a user after all users were imported.
pub(super) async fn settle_user(import: &Import, uid: &Uid) -> anyhow::Result<()> {
    let store = &import.core.base.store;
    let progress_key = import.source.progress_key(&["user", uid.as_str()]);
    let progress = UserProgress::read(store, &progress_key)
        .await
        .map_err(with_details)?;
    if progress != UserProgress::Imported {
        return Ok(());
    }
    let mut unseen = list_unseen(&import.core.conversations, uid)
        .await
        .map_err(with_details)?;
    // Large groups are not listed for another reason.
    unseen.retain(|conversation| !import.groups.contains(&conversation.channel_key));
    if !unseen.is_empty() && !settle_unseen(import, uid, &unseen).await? {
        return Ok(());
    }
    UserProgress::Complete
        .write(store, &progress_key)
        .await
        .map_err(with_details)
}

/// Returns whether the server told which of the conversations are listed.
async fn settle_unseen(
    import: &Import,
    uid: &Uid,
    unseen: &[Conversation],
) -> anyhow::Result<bool> {
    // After the conversations were read here: a message that arrived before makes the conversation
    // listed, unless the user deleted it later.
    let listing = match import.source.list(uid, MANY_MESSAGES).await {
        Ok(listing) if listing.unresolved == 0 => listing,
        Ok(_) => return Ok(false),
        Err(error) => {
            import.accept_failure("the list of conversations", &error)?;
            return Ok(false);
        }
    };
    let listed: HashMap<&ChannelKey, &Listed> = listing
        .conversations
        .iter()
        .map(|listed| (&listed.key, listed))
        .collect();
    let service = &import.core.conversations;
    let mut deleted = 0;
    for conversation in unseen {
        let channel = &conversation.channel_ref;
        if let Some(listed) = listed.get(&conversation.channel_key) {
            let state = ImportedState::from(*listed);
            import_state(service, uid, channel, state)
                .await
                .map_err(with_details)?;
            continue;
        }
        let up_to = imported_to(import, conversation).await?;
        if up_to > Seq::ZERO
            && import_deletion(service, uid, channel, up_to)
                .await
                .map_err(with_details)?
        {
            deleted += 1;
        }
    }
    import.add(&ImportSummary {
        deleted,
        ..ImportSummary::default()
    });
    Ok(true)
}

/// Returns the newest message that was imported. A newer one, which came by webhook, keeps the
/// conversation.
async fn imported_to(import: &Import, conversation: &Conversation) -> anyhow::Result<Seq> {
    if import.source.is_v3() {
        // Its list of conversations is never behind its webhooks.
        return Ok(conversation.last_msg_seq);
    }
    let progress_key = super::channel::progress_key(import, &conversation.channel_key);
    let lines = import
        .core
        .base
        .store
        .count_imported_lines(&progress_key)
        .await
        .map_err(with_details)?;
    Ok(Seq(i64::try_from(lines)?))
}
