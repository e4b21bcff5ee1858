//! Imports a user: the messages of all conversations, the membership in groups, the read positions.

use futures_util::future::try_join_all;

use super::channel::import_channels;
use super::{Import, ImportSummary, with_details};
use crate::channel::{JoinReason, MemberHint, join_members};
use crate::conversation::{ImportedState, import_state};
use crate::import::progress::UserProgress;
use crate::import::source::{Listed, MANY_MESSAGES};
use crate::model::{ChannelKey, Seq, Uid};
use crate::store::LockPolicy;

/// Maximum number of conversations whose states are written at the same time.
const STATES_AT_ONCE: usize = 100;

/// Imports the listed conversations of a user. If the user was imported before, only missing
/// messages and memberships are added.
pub(super) async fn import_user(import: &Import, uid: &Uid) -> anyhow::Result<()> {
    let store = &import.core.base.store;
    let progress_key = import.source.progress_key(&["user", uid.as_str()]);
    let progress = UserProgress::read(store, &progress_key)
        .await
        .map_err(with_details)?;
    let is_new = progress == UserProgress::New;
    let msg_count = if is_new { MANY_MESSAGES } else { 1 };
    let listing = match import.source.list(uid, msg_count).await {
        Ok(listing) => listing,
        Err(error) => return import.accept_failure("the list of conversations", &error),
    };
    let conversations = &listing.conversations;
    import.add(&ImportSummary {
        imported_before: u64::from(progress == UserProgress::Complete),
        without_conversations: u64::from(conversations.is_empty()),
        conversations: conversations.len() as u64,
        refused: listing.refused,
        failed: listing.unresolved,
        ..ImportSummary::default()
    });
    if !import.groups.is_empty() {
        let listed = conversations.iter().map(|listed| &listed.key);
        let named = listed.filter(|key| import.groups.contains(*key)).cloned();
        import.listed_groups().extend(named);
    }
    let is_complete = import_channels(import, uid, conversations, is_new).await?;
    join_groups(import, uid, conversations).await?;
    if !is_new {
        return Ok(());
    }
    write_states(import, uid, conversations).await?;
    if is_complete && listing.unresolved == 0 {
        UserProgress::Imported
            .write(store, &progress_key)
            .await
            .map_err(with_details)?;
    }
    Ok(())
}

/// Makes the user a member of the listed groups, unless a removal is known here.
async fn join_groups(import: &Import, uid: &Uid, conversations: &[Listed]) -> anyhow::Result<()> {
    let groups = || {
        conversations
            .iter()
            .filter(|listed| listed.key.pair().is_none())
    };
    let keys: Vec<&ChannelKey> = groups().map(|listed| &listed.key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let store = &import.core.base.store;
    // Groups without a message that could be stored do not exist here.
    let ids = store.find_channels(&keys).await.map_err(with_details)?;
    let hints: Vec<MemberHint> = groups()
        .filter_map(|listed| {
            Some(MemberHint {
                channel_id: *ids.get(&listed.key)?,
                uid: uid.clone(),
                reason: JoinReason::Message {
                    seq: Seq(1),
                    sent_at: listed.last_sent_at,
                },
            })
        })
        .collect();
    let _permit = store.acquire_lock_wait_permit().await;
    join_members(&import.core.channels, &hints, LockPolicy::Wait)
        .await
        .map_err(with_details)?;
    Ok(())
}

/// Sets the read positions and deletions. The oldest conversations come first, because versions
/// ascend with the last activity.
async fn write_states(import: &Import, uid: &Uid, conversations: &[Listed]) -> anyhow::Result<()> {
    let mut by_activity: Vec<&Listed> = conversations.iter().collect();
    by_activity.sort_by_key(|listed| listed.last_sent_at);
    for some in by_activity.chunks(STATES_AT_ONCE) {
        let written = some.iter().map(|listed| {
            let state = ImportedState::from(*listed);
            import_state(&import.core.conversations, uid, &listed.channel, state)
        });
        try_join_all(written).await.map_err(with_details)?;
    }
    Ok(())
}

impl From<&Listed> for ImportedState {
    fn from(listed: &Listed) -> Self {
        Self {
            last_seq: listed.last_seq,
            unread: listed.unread,
            deleted_to: listed.deleted_to,
        }
    }
}
