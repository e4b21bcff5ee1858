//! What changed since this client last looked.
//!
//! Versions are given at reading time, under the user's lock: a message raises only its channel's revision, so that a send
//! costs the same for any number of members, and nobody can read a version that is not larger than all before it.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::plan::{Plan, plan, shows};
use super::recents::{RecentsKey, list_recents};
use super::{Conversation, Removed};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid, Version};
use crate::message::Message;
use crate::store::ConversationRow;

/// Which conversations an answer is about. A cursor belongs to the filter it was asked with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only conversations with unread messages.
    pub only_unread: bool,
    /// Channel types to leave out.
    pub exclude_channel_types: Vec<u8>,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Who.
    pub uid: Uid,
    /// The version of the last answer, 0 for everything.
    pub version: Version,
    /// The newest message the client holds of each channel, when it says so.
    pub last_msg_seqs: HashMap<ChannelRef, Seq>,
    /// Channels to return whatever their version.
    pub always: HashSet<ChannelRef>,
    /// At most this many newest messages for each conversation.
    pub msg_count: u32,
    /// Which conversations.
    pub filter: Filter,
    /// At most this many changes, in order of version.
    pub first: Option<usize>,
}

impl SyncRequest {
    /// Everything of `uid`, without messages.
    #[must_use]
    pub fn new(uid: Uid) -> Self {
        Self {
            uid,
            version: 0,
            last_msg_seqs: HashMap::new(),
            always: HashSet::new(),
            msg_count: 0,
            filter: Filter::default(),
            first: None,
        }
    }
}

/// A conversation of the answer with its newest messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The conversation.
    pub conversation: Conversation,
    /// The message with `last_msg_seq`.
    pub last_message: Option<Message>,
    /// The newest messages, newest first.
    pub recents: Vec<Message>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncAnswer {
    /// What to ask with next time.
    pub version: Version,
    /// Whether the version asked with was none of ours: this is everything, forget what you have.
    pub reset: bool,
    /// Whether to ask again at once with `version`.
    pub has_more: bool,
    /// Without `first`: newest activity first. With it: by version.
    pub conversations: Vec<Item>,
    /// What does not show any more; empty when the answer is everything.
    pub removed: Vec<Removed>,
}

impl SyncAnswer {
    /// Newest activity first.
    pub(crate) fn sort_by_activity(&mut self) {
        self.conversations.sort_by(|a, b| order(&a.conversation).cmp(&order(&b.conversation)));
    }

    /// What is new in it for somebody who has seen everything up to `version`, and wants no more than so many messages.
    pub(crate) fn since(&self, version: Version, msg_count: u32) -> Self {
        let mut answer = self.clone();
        if !answer.reset {
            answer.conversations.retain(|item| item.conversation.version > version);
            answer.removed.retain(|removed| removed.version > version);
        }
        for item in &mut answer.conversations {
            item.recents.truncate(msg_count as usize);
        }
        answer
    }
}

/// What changed since `request.version`; every version given out is committed before this returns.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn sync(core: &Core, request: &SyncRequest) -> Result<SyncAnswer, Error> {
    core.check_conversations_on()?;
    let asked = request.version.max(0);
    // Rows that did not change are needed only to say what the client lacks of them.
    let needs_all = !request.last_msg_seqs.is_empty() || !request.always.is_empty();
    let mut read_from = if needs_all { 0 } else { asked };

    let mut found = core.store.list_changed(&request.uid, read_from).await?;
    let reset = asked > found.cursor.unwrap_or(0);
    let since = if reset { 0 } else { asked };
    if reset && read_from > 0 {
        read_from = 0;
        found = core.store.list_changed(&request.uid, read_from).await?;
    }
    let fast = found.cursor.map(|cursor| plan(found.rows, since, cursor, core.clock.now_ms(), request.first));
    let plan = match fast {
        Some(plan) if plan.stamps.is_empty() => plan,
        None if !core.store.has_conversations(&request.uid).await? => {
            Plan { rows: Vec::new(), stamps: Vec::new(), version: 0, has_more: false, rest: Vec::new() }
        }
        known => {
            if known.is_none() {
                core.store.ensure_cursors(std::slice::from_ref(&request.uid)).await?;
            }
            give_versions(core, request, since, read_from).await?
        }
    };
    answer(core, request, plan, since, reset).await
}

/// Gives versions to what changed: the user's lock first, then the read, so that it sees all that was committed before.
async fn give_versions(core: &Core, request: &SyncRequest, since: Version, read_from: Version) -> Result<Plan, Error> {
    let uid = &request.uid;
    core.store
        .transaction(|tx| async move {
            let cursor = tx.lock_user(uid).await?;
            let rows = tx.list_changed(uid, read_from).await?;
            let plan = plan(rows, since, cursor, core.clock.now_ms(), request.first);
            if let Some(last) = plan.stamps.last() {
                tx.stamp(uid, &plan.stamps).await?;
                tx.write_cursors(&[(uid.as_str(), last.version)]).await?;
            }
            tx.commit(plan).await
        })
        .await
}

async fn answer(core: &Core, request: &SyncRequest, plan: Plan, since: Version, reset: bool) -> Result<SyncAnswer, Error> {
    let Plan { mut rows, version, has_more, rest, .. } = plan;
    let uid = &request.uid;
    let name = |row: &ConversationRow| row.key.seen_by(uid.as_str());
    let mut removed = Vec::new();
    let shows = |row: &ConversationRow| shows(row, request.filter.only_unread, &request.filter.exclude_channel_types);
    rows.retain(|row| {
        let stays = shows(row);
        if !stays && since > 0 {
            removed.push(Removed::new(uid, row));
        }
        stays
    });
    if !has_more {
        // What the client says it lacks, although it did not change.
        rows.extend(rest.into_iter().filter(|row| {
            let named = name(row);
            shows(row)
                && (request.always.contains(&named) || request.last_msg_seqs.get(&named).is_some_and(|seq| *seq < row.last_seq))
        }));
    }

    let held = |row: &ConversationRow| request.last_msg_seqs.get(&name(row)).copied().unwrap_or(0);
    let conversations = items(core, uid, &rows, request.msg_count, held).await?;
    let mut answer = SyncAnswer { version, reset, has_more, conversations, removed };
    if request.first.is_none() {
        answer.sort_by_activity();
    }
    Ok(answer)
}

/// Rows with their newest `msg_count` messages, of these those above the seq that is held of each.
pub(super) async fn items(
    core: &Core,
    uid: &Uid,
    rows: &[ConversationRow],
    msg_count: u32,
    held: impl Fn(&ConversationRow) -> Seq,
) -> Result<Vec<Item>, Error> {
    let keys: Vec<RecentsKey> = rows
        .iter()
        .map(|row| RecentsKey {
            channel_id: row.channel_id,
            key: row.key.clone(),
            above: row.deleted_to_seq,
            last_seq: row.last_seq,
            // The last message is needed for its number, also when no messages are asked for.
            count: msg_count.max(1),
        })
        .collect();
    let mut recents = list_recents(core, &keys).await?;
    let item = |(row, key): (&ConversationRow, RecentsKey)| {
        let newest = recents.remove(&key).unwrap_or_default();
        let (last_message, held) = (newest.first().cloned(), held(row));
        let recents = newest.into_iter().take(msg_count as usize).filter(|message| message.seq > held).collect();
        Item { conversation: Conversation::new(uid, row), last_message, recents }
    };
    Ok(rows.iter().zip(keys).map(item).collect())
}

/// Newest second first, then by channel type and id.
pub(super) fn order(conversation: &Conversation) -> (Reverse<i64>, u8, &str) {
    (
        Reverse(conversation.last_activity_at.div_euclid(1000)),
        conversation.channel.channel_type.number(),
        &conversation.channel.channel_id,
    )
}
