//! Sync: returns what changed since the client's last sync.
//!
//! Versions are assigned when a client reads, under the user's lock. A message raises only its
//! channel's revision, so the cost of a send does not depend on the number of members, and every
//! new version is larger than all versions that were read before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::recent_messages::{RecentMessagesKey, list_recent_messages};
use super::sync_plan::{SyncPlan, matches_filter, plan_sync};
use super::visibility::is_stale;
use super::{Conversation, ConversationRemoval, ConversationService};
use crate::base::Base;
use crate::batching::{BatchHandler, BatchReply, BatchResult, row_hash, shard_of};
use crate::budget;
use crate::error::Error;
use crate::message::{AnswerSizeLimit, MessageSlice};
use crate::model::{ChannelRef, ConversationRow, Message, Seq, Uid, Version};
use crate::store::{ChangedConversations, LockPolicy, StoreError};

/// Estimated memory of a conversation in an answer, without its messages.
const CONVERSATION_BYTES: usize = 500;
/// Syncs with more rows than this run in a transaction of their own instead of a batch.
const MAX_BATCHED_ROWS: usize = 200;

/// Filters for a sync. A cursor is valid only for the filters it was requested with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncFilter {
    /// Only conversations with unread messages.
    pub only_unread: bool,
    /// Channel types to leave out.
    pub exclude_channel_types: Vec<u8>,
}

/// A sync request.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The user.
    pub uid: Uid,
    /// The version of the client's last answer; 0 requests everything.
    pub version: Version,
    /// The newest message that the client has of each channel, if known.
    pub last_msg_seqs: HashMap<ChannelRef, Seq>,
    /// Channels to return whatever their version is.
    pub force_include: HashSet<ChannelRef>,
    /// Maximum number of newest messages for each conversation.
    pub msg_count: u32,
    /// Filters.
    pub filter: SyncFilter,
    /// Maximum number of changes, in order of version.
    pub first: Option<usize>,
    /// The parts of the answer that are needed.
    pub detail: SyncDetail,
}

impl SyncRequest {
    /// Returns whether unchanged conversations may have to be returned.
    fn names_channels(&self) -> bool {
        !self.last_msg_seqs.is_empty() || !self.force_include.is_empty()
    }
}

/// The parts of an answer that are needed: nothing else is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncDetail {
    /// The version and the removed conversations.
    Version,
    /// Conversations without their messages.
    Conversations,
    /// Conversations with their messages.
    #[default]
    Messages,
}

impl SyncRequest {
    /// Requests all conversations of `uid`, without messages.
    #[must_use]
    pub fn new(uid: Uid) -> Self {
        Self {
            uid,
            version: Version::ZERO,
            last_msg_seqs: HashMap::new(),
            force_include: HashSet::new(),
            msg_count: 0,
            filter: SyncFilter::default(),
            first: None,
            detail: SyncDetail::Messages,
        }
    }
}

/// A conversation with its newest messages.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationWithMessages {
    /// The conversation.
    pub conversation: Conversation,
    /// The message with `last_msg_seq`.
    pub last_message: Option<Arc<Message>>,
    /// The newest messages, newest first.
    pub recents: MessageSlice,
}

impl ConversationWithMessages {
    fn without_messages(uid: &Uid, row: &ConversationRow) -> Self {
        Self {
            conversation: Conversation::new(uid, row),
            last_message: None,
            recents: MessageSlice::default(),
        }
    }
}

/// The changes since a version.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncAnswer {
    /// The version for the next request.
    pub version: Version,
    /// Whether the requested version is unknown: the answer contains everything, and the client
    /// must discard its state.
    pub reset: bool,
    /// Whether there are more changes: the client should request again with `version` at once.
    pub has_more: bool,
    /// Without `first`: newest activity first. With `first`: by version.
    pub conversations: Vec<ConversationWithMessages>,
    /// Conversations that are no longer listed; empty if the answer contains everything.
    pub removed: Vec<ConversationRemoval>,
}

impl SyncAnswer {
    /// Sorts by activity, newest first.
    pub(crate) fn sort_by_activity(&mut self) {
        self.conversations
            .sort_by(|a, b| activity_order(&a.conversation).cmp(&activity_order(&b.conversation)));
    }

    /// Returns the approximate size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let messages: usize = self
            .conversations
            .iter()
            .map(|item| item.recents.json_bytes())
            .sum();
        messages + (self.conversations.len() + self.removed.len()) * CONVERSATION_BYTES
    }

    /// Returns the part of the answer that is new to a client at `version`, with at most
    /// `msg_count` messages for each conversation.
    pub(crate) fn since(&self, version: Version, msg_count: u32) -> Self {
        let mut answer = self.clone();
        if !answer.reset {
            answer
                .conversations
                .retain(|item| item.conversation.version > version);
            answer.removed.retain(|removed| removed.version > version);
        }
        for item in &mut answer.conversations {
            item.recents = std::mem::take(&mut item.recents).above(Seq::ZERO, msg_count as usize);
        }
        answer
    }
}

/// Returns the changes since `request.version`. All versions in the answer are committed.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn sync(
    service: &ConversationService,
    request: &SyncRequest,
) -> Result<SyncAnswer, Error> {
    sync_with_size_limit(
        service,
        request,
        &AnswerSizeLimit::new(service.base.limits.answer_bytes),
    )
    .await
}

/// Like [`sync`], for an answer that contains other data as well.
///
/// # Errors
/// Like [`sync`].
pub async fn sync_with_size_limit(
    service: &ConversationService,
    request: &SyncRequest,
    bytes: &AnswerSizeLimit,
) -> Result<SyncAnswer, Error> {
    service.base.check_conversations_on()?;
    // Unchanged rows are needed only to find messages that the client does not have.
    let needs_all = request.names_channels();
    let (plan, client_version, reset) = plan_changes(
        service,
        &request.uid,
        request.version.max(Version::ZERO),
        needs_all,
        request.first,
    )
    .await?;
    answer_from_plan(service, request, plan, client_version, reset, bytes).await
}

/// Returns all conversations of a user, each with a version.
pub(super) async fn plan_all(service: &ConversationService, uid: &Uid) -> Result<SyncPlan, Error> {
    Ok(plan_changes(service, uid, Version::ZERO, false, None)
        .await?
        .0)
}

/// Returns the rows of an answer with their versions, the version that it starts from, and whether
/// that differs from the requested version.
async fn plan_changes(
    service: &ConversationService,
    uid: &Uid,
    asked: Version,
    needs_all: bool,
    first: Option<usize>,
) -> Result<(SyncPlan, Version, bool), Error> {
    let mut read_after = if needs_all { Version::ZERO } else { asked };
    let mut found = read_changed(service, uid, read_after).await?;
    let reset = asked > found.cursor.unwrap_or_default();
    let client_version = if reset { Version::ZERO } else { asked };
    if reset && read_after > Version::ZERO {
        read_after = Version::ZERO;
        found = read_changed(service, uid, read_after).await?;
    }
    let assignment = VersionAssignment {
        uid: uid.clone(),
        client_version,
        read_after,
        first,
    };
    let plan = match found.cursor {
        Some(cursor) if !found.rows.iter().any(is_stale) => plan_sync(
            Arc::unwrap_or_clone(found).rows,
            client_version,
            cursor,
            service.base.clock.now_ms(),
            first,
        ),
        None if !service.base.store.has_conversations(uid).await? => SyncPlan::default(),
        cursor => {
            if cursor.is_none() {
                service
                    .base
                    .store
                    .insert_cursors(std::slice::from_ref(uid))
                    .await?;
            }
            if found.rows.len() <= MAX_BATCHED_ROWS {
                let shard = shard_of(uid, service.base.store.write_shards());
                service
                    .version_assignments
                    .submit(shard, assignment)
                    .await?
            } else {
                // In a batch, other requests would wait for it.
                let alone = [Arc::new(assignment)];
                let _permit = service.base.store.acquire_lock_wait_permit().await;
                match assign_versions(&service.base, &alone, LockPolicy::Wait)
                    .await?
                    .pop()
                {
                    Some(BatchReply::Ready(plan)) => plan?,
                    _ => SyncPlan::default(),
                }
            }
        }
    };
    budget::hold((plan.rows.len() + plan.unchanged.len()).saturating_mul(CONVERSATION_BYTES))?;
    Ok((plan, client_version, reset))
}

/// Like [`sync`], for a live feed at `request.version`. A feed nearly always has conversations to
/// stamp, so this takes the lock at once instead of reading without it first.
///
/// # Errors
/// Like [`sync`].
pub(crate) async fn sync_under_lock(
    service: &ConversationService,
    request: &SyncRequest,
) -> Result<SyncAnswer, Error> {
    let client_version = request.version;
    if client_version == Version::ZERO {
        return sync(service, request).await;
    }
    let assignment = VersionAssignment {
        uid: request.uid.clone(),
        client_version,
        read_after: client_version,
        first: request.first,
    };
    let shard = shard_of(&request.uid, service.base.store.write_shards());
    match service.version_assignments.submit(shard, assignment).await {
        Ok(plan) if plan.cursor >= client_version => {
            answer_from_plan(
                service,
                request,
                plan,
                client_version,
                false,
                &AnswerSizeLimit::new(service.base.limits.answer_bytes),
            )
            .await
        }
        Err(error) if error.is_transient() => Err(error),
        // After a restore of the database the version is unknown, or the user is.
        _ => sync(service, request).await,
    }
}

/// A read of the conversations of a user, shared by concurrent requests.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct SharedRead {
    uid: Uid,
    read_after: Version,
}

/// Returns the user's cursor and what changed since a version. Requests that arrive during a read
/// share the next read, which starts after all of them.
async fn read_changed(
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
pub(super) struct ReadHandler(pub(super) Arc<Base>);

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

/// A request for new versions of a user's stale conversations.
#[derive(Debug)]
pub(crate) struct VersionAssignment {
    uid: Uid,
    client_version: Version,
    read_after: Version,
    first: Option<usize>,
}

/// Assigns versions to the conversations of several users in one transaction.
pub(super) struct VersionHandler(pub(super) Arc<Base>);

impl BatchHandler for VersionHandler {
    type Request = VersionAssignment;
    type Reply = SyncPlan;

    async fn run(
        &self,
        batch: Vec<Arc<VersionAssignment>>,
        lock_policy: LockPolicy,
    ) -> BatchResult<SyncPlan> {
        assign_versions(&self.0, &batch, lock_policy).await
    }
}

/// Assigns versions to changed conversations. Locks the users first and reads afterwards, so that
/// the read sees everything that was committed before.
async fn assign_versions(
    base: &Base,
    all: &[Arc<VersionAssignment>],
    lock_policy: LockPolicy,
) -> BatchResult<SyncPlan> {
    let mut plans: Vec<Option<BatchReply<SyncPlan>>> = all.iter().map(|_| None).collect();
    // Several requests of one user run one after the other: the second one sees the versions of the
    // first.
    loop {
        let mut users: BTreeMap<&Uid, usize> = BTreeMap::new();
        for (at, assignment) in all
            .iter()
            .enumerate()
            .filter(|(at, _)| plans[*at].is_none())
        {
            users.entry(&assignment.uid).or_insert(at);
        }
        if users.is_empty() {
            return Ok(plans
                .into_iter()
                .map(|plan| plan.unwrap_or_else(|| BatchReply::Ready(Ok(SyncPlan::default()))))
                .collect());
        }
        let some: &Vec<&VersionAssignment> = &users.values().map(|at| &*all[*at]).collect();
        let given = base
            .store
            .transaction(|tx| async move {
                let cursors = tx
                    .lock_users(
                        &some
                            .iter()
                            .map(|assignment| assignment.uid.clone())
                            .collect::<Vec<_>>(),
                        lock_policy,
                    )
                    .await?;
                let locked = some
                    .iter()
                    .filter(|assignment| cursors.contains_key(assignment.uid.as_str()));
                let wanted: Vec<(&Uid, Version)> = locked
                    .map(|assignment| (&assignment.uid, assignment.read_after))
                    .collect();
                let mut rows = tx.list_changed(&wanted).await?;
                let mut plans = Vec::with_capacity(some.len());
                for VersionAssignment {
                    uid,
                    client_version,
                    first,
                    ..
                } in some
                {
                    let Some(cursor) = cursors.get(uid.as_str()).copied() else {
                        if lock_policy == LockPolicy::Wait {
                            return Err(StoreError::Internal(
                                "cannot lock a user without a cursor".into(),
                            ));
                        }
                        plans.push(None);
                        continue;
                    };
                    let rows = rows.remove(uid).unwrap_or_default();
                    plans.push(Some(plan_sync(
                        rows,
                        *client_version,
                        cursor,
                        base.clock.now_ms(),
                        *first,
                    )));
                }
                let stamps = some.iter().zip(
                    plans
                        .iter()
                        .map(|plan| plan.iter().flat_map(SyncPlan::stamped_rows)),
                );
                let stamps =
                    stamps.flat_map(|(assignment, rows)| rows.map(|row| (&assignment.uid, row)));
                tx.stamp(stamps.collect()).await?;
                tx.commit(plans).await
            })
            .await?;
        let given: Vec<(Uid, usize, Option<SyncPlan>)> = users
            .into_iter()
            .zip(given)
            .map(|((uid, at), plan)| (uid.clone(), at, plan))
            .collect();
        for (uid, at, plan) in given {
            match plan {
                Some(plan) => plans[at] = Some(BatchReply::Ready(Ok(plan))),
                // All requests of this user wait for the lock.
                None => {
                    for (assignment, plan) in all
                        .iter()
                        .zip(&mut plans)
                        .filter(|(assignment, _)| assignment.uid == uid)
                    {
                        plan.get_or_insert(BatchReply::RowLocked(row_hash(&assignment.uid)));
                    }
                }
            }
        }
    }
}

async fn answer_from_plan(
    service: &ConversationService,
    request: &SyncRequest,
    plan: SyncPlan,
    client_version: Version,
    reset: bool,
    bytes: &AnswerSizeLimit,
) -> Result<SyncAnswer, Error> {
    let SyncPlan {
        rows,
        version,
        has_more,
        unchanged,
        ..
    } = &plan;
    let changes = SyncChanges {
        rows: rows.iter().collect(),
        unchanged,
        version: *version,
        has_more: *has_more,
        client_version,
        reset,
    };
    build_answer(service, request, changes, bytes).await
}

/// Input of [`build_answer`].
pub(super) struct SyncChanges<'a, Unchanged> {
    /// Changed conversations.
    pub(super) rows: Vec<&'a ConversationRow>,
    /// Unchanged conversations, of which the client may lack messages.
    pub(super) unchanged: Unchanged,
    pub(super) version: Version,
    pub(super) has_more: bool,
    /// The version that the client has; 0 for none.
    pub(super) client_version: Version,
    pub(super) reset: bool,
}

pub(super) async fn build_answer<'a>(
    service: &ConversationService,
    request: &SyncRequest,
    changes: SyncChanges<'a, impl IntoIterator<Item = &'a ConversationRow>>,
    bytes: &AnswerSizeLimit,
) -> Result<SyncAnswer, Error> {
    let SyncChanges {
        mut rows,
        unchanged,
        version,
        has_more,
        client_version,
        reset,
    } = changes;
    let uid = &request.uid;
    let name = |row: &ConversationRow| row.key.seen_by(uid.as_str());
    let mut removed = Vec::new();
    let shows = |row: &ConversationRow| {
        matches_filter(
            row,
            request.filter.only_unread,
            &request.filter.exclude_channel_types,
        )
    };
    rows.retain(|row| {
        let stays = shows(row);
        if !stays && client_version > Version::ZERO {
            removed.push(ConversationRemoval::new(uid, row));
        }
        stays
    });
    if !has_more && request.names_channels() {
        // Unchanged conversations of which the client lacks messages.
        rows.extend(unchanged.into_iter().filter(|row| {
            let named = name(row);
            shows(row)
                && (request.force_include.contains(&named)
                    || request
                        .last_msg_seqs
                        .get(&named)
                        .is_some_and(|seq| *seq < row.last_seq))
        }));
    }

    let client_last_seq = |row: &ConversationRow| {
        if request.last_msg_seqs.is_empty() {
            Seq::ZERO
        } else {
            request
                .last_msg_seqs
                .get(&name(row))
                .copied()
                .unwrap_or_default()
        }
    };
    let conversations = match request.detail {
        SyncDetail::Version => Vec::new(),
        SyncDetail::Conversations => rows
            .iter()
            .map(|row| ConversationWithMessages::without_messages(uid, row))
            .collect(),
        SyncDetail::Messages => {
            with_messages(
                service,
                uid,
                &rows,
                request.msg_count,
                client_last_seq,
                bytes,
            )
            .await?
        }
    };
    let mut answer = SyncAnswer {
        version,
        reset,
        has_more,
        conversations,
        removed,
    };
    if request.first.is_none() {
        answer.sort_by_activity();
    }
    Ok(answer)
}

/// Returns rows with their newest `msg_count` messages, without the messages up to the seq that the
/// client has.
pub(super) async fn with_messages(
    service: &ConversationService,
    uid: &Uid,
    rows: &[&ConversationRow],
    msg_count: u32,
    client_last_seq: impl Fn(&ConversationRow) -> Seq,
    bytes: &AnswerSizeLimit,
) -> Result<Vec<ConversationWithMessages>, Error> {
    // The last message is always needed for its number, even if no messages are requested.
    let keys: Vec<RecentMessagesKey> = rows
        .iter()
        .map(|row| RecentMessagesKey::new(row, msg_count.max(1)))
        .collect();
    let recents = list_recent_messages(service, &keys, bytes).await?;
    let item = |(row, newest): (&&ConversationRow, MessageSlice)| {
        let last_message = newest.first().cloned();
        let recents = newest.above(client_last_seq(row), msg_count as usize);
        ConversationWithMessages {
            conversation: Conversation::new(uid, row),
            last_message,
            recents,
        }
    };
    Ok(rows.iter().zip(recents).map(item).collect())
}

/// Sort key: newest second first, then by channel type and id.
pub(super) fn activity_order(conversation: &Conversation) -> (Reverse<i64>, u8, &str) {
    (
        Reverse(conversation.last_activity_at.seconds()),
        conversation.channel_ref.channel_type.number(),
        &conversation.channel_ref.channel_id,
    )
}
