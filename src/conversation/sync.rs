//! What changed since this client last looked.
//!
//! Versions are given at reading time, under the user's lock: a message raises only its channel's
//! revision, so that a send costs the same for any number of members, and nobody can read a version
//! that is not larger than all before it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::plan::{Plan, plan, shows};
use super::recents::{RecentsKey, list_recents};
use super::visibility::is_stale;
use super::{Conversation, Removed};
use crate::budget;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid, Version};
use crate::message::{AnswerBytes, Message, Recents};
use crate::store::{Changed, ConversationRow, Locks, StoreError};
use crate::together::{Answers, Done, lane, row};

/// Bytes of a conversation that is read and shown, without its messages.
const CONVERSATION_BYTES: usize = 500;
/// Rows of one sync that shares a transaction with others.
const FEW: usize = 200;

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
    /// The parts of the conversations that are wanted.
    pub wanted: Wanted,
}

impl SyncRequest {
    /// True if conversations may be returned that did not change.
    fn names_channels(&self) -> bool {
        !self.last_msg_seqs.is_empty() || !self.always.is_empty()
    }
}

/// The parts that an answer is asked for: nothing else is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The version, and what was removed.
    Version,
    /// The conversations without their messages.
    Conversations,
    /// Everything.
    #[default]
    Messages,
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
            wanted: Wanted::Messages,
        }
    }
}

/// A conversation of the answer with its newest messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The conversation.
    pub conversation: Conversation,
    /// The message with `last_msg_seq`.
    pub last_message: Option<Arc<Message>>,
    /// The newest messages, newest first.
    pub recents: Recents,
}

impl Item {
    fn without_messages(uid: &Uid, row: &ConversationRow) -> Self {
        Self {
            conversation: Conversation::new(uid, row),
            last_message: None,
            recents: Recents::default(),
        }
    }
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
        self.conversations
            .sort_by(|a, b| order(&a.conversation).cmp(&order(&b.conversation)));
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let messages: usize = self
            .conversations
            .iter()
            .map(|item| item.recents.json_bytes())
            .sum();
        messages + (self.conversations.len() + self.removed.len()) * CONVERSATION_BYTES
    }

    /// What is new in it for somebody who has seen everything up to `version`, and wants no more
    /// than so many messages.
    pub(crate) fn since(&self, version: Version, msg_count: u32) -> Self {
        let mut answer = self.clone();
        if !answer.reset {
            answer
                .conversations
                .retain(|item| item.conversation.version > version);
            answer.removed.retain(|removed| removed.version > version);
        }
        for item in &mut answer.conversations {
            item.recents = std::mem::take(&mut item.recents).above(0, msg_count as usize);
        }
        answer
    }
}

/// What changed since `request.version`; every version given out is committed before this returns.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn sync(core: &Arc<Core>, request: &SyncRequest) -> Result<SyncAnswer, Error> {
    sync_within(core, request, &AnswerBytes::new(core.limits.answer_bytes)).await
}

/// As [`sync`], of an answer that has more than these conversations.
///
/// # Errors
/// As [`sync`].
pub async fn sync_within(
    core: &Arc<Core>,
    request: &SyncRequest,
    bytes: &AnswerBytes,
) -> Result<SyncAnswer, Error> {
    core.check_conversations_on()?;
    // Rows that did not change are needed only to say what the client lacks of them.
    let needs_all = request.names_channels();
    let (plan, since, reset) = plan_changes(
        core,
        &request.uid,
        request.version.max(0),
        needs_all,
        request.first,
    )
    .await?;
    answer(core, request, plan, since, reset, bytes).await
}

/// All conversations of a user, each with a version.
pub(super) async fn plan_all(core: &Arc<Core>, uid: &Uid) -> Result<Plan, Error> {
    Ok(plan_changes(core, uid, 0, false, None).await?.0)
}

/// The rows of an answer with their versions, the version that it is based on, and whether that is
/// another one than was asked for.
async fn plan_changes(
    core: &Arc<Core>,
    uid: &Uid,
    asked: Version,
    needs_all: bool,
    first: Option<usize>,
) -> Result<(Plan, Version, bool), Error> {
    let mut read_from = if needs_all { 0 } else { asked };
    let mut found = read(core, uid, read_from).await?;
    let reset = asked > found.cursor.unwrap_or(0);
    let since = if reset { 0 } else { asked };
    if reset && read_from > 0 {
        read_from = 0;
        found = read(core, uid, read_from).await?;
    }
    let stamping = Stamping {
        uid: uid.clone(),
        since,
        read_from,
        first,
    };
    let plan = match found.cursor {
        Some(cursor) if !found.rows.iter().any(is_stale) => plan(
            Arc::unwrap_or_clone(found).rows,
            since,
            cursor,
            core.clock.now_ms(),
            first,
        ),
        None if !core.store.has_conversations(uid).await? => Plan::default(),
        cursor => {
            if cursor.is_none() {
                core.store.insert_cursors(std::slice::from_ref(uid)).await?;
            }
            if found.rows.len() <= FEW {
                let shared = Arc::clone(core);
                let lane = lane(uid, core.store.writers());
                core.stampings
                    .run(lane, stamping, move |all, locks| {
                        give_versions(Arc::clone(&shared), all, locks)
                    })
                    .await?
            } else {
                // Others would wait for it.
                let alone = vec![Arc::new(stamping)];
                let _place = core.store.may_wait().await;
                match give_versions(Arc::clone(core), alone, Locks::Wait)
                    .await?
                    .pop()
                {
                    Some(Done::Answer(plan)) => plan?,
                    _ => Plan::default(),
                }
            }
        }
    };
    budget::hold((plan.rows.len() + plan.rest.len()).saturating_mul(CONVERSATION_BYTES))?;
    Ok((plan, since, reset))
}

/// What changed of a user whose feed stands at `request.version`: as [`sync`], but where there is
/// nearly always something to stamp, so it is looked for under the lock at once.
///
/// # Errors
/// As [`sync`].
pub(crate) async fn follow(core: &Arc<Core>, request: &SyncRequest) -> Result<SyncAnswer, Error> {
    let since = request.version;
    if since == 0 {
        return sync(core, request).await;
    }
    let stamping = Stamping {
        uid: request.uid.clone(),
        since,
        read_from: since,
        first: request.first,
    };
    let shared = Arc::clone(core);
    let lane = lane(&request.uid, core.store.writers());
    match core
        .stampings
        .run(lane, stamping, move |all, locks| {
            give_versions(Arc::clone(&shared), all, locks)
        })
        .await
    {
        Ok(plan) if plan.cursor >= since => {
            answer(
                core,
                request,
                plan,
                since,
                false,
                &AnswerBytes::new(core.limits.answer_bytes),
            )
            .await
        }
        Err(error) if error.is_passing() => Err(error),
        // A database that was restored: it has given out less than that, or does not know the user.
        _ => sync(core, request).await,
    }
}

/// Conversations of a user that somebody waits for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reading {
    uid: Uid,
    read_from: Version,
}

/// The user's cursor and what changed since a version. Who asks for the same while it is being read
/// waits for the next reading, and shares it: it begins after all of them have asked.
async fn read(core: &Arc<Core>, uid: &Uid, read_from: Version) -> Result<Arc<Changed>, Error> {
    let reading = Reading {
        uid: uid.clone(),
        read_from,
    };
    let shared = Arc::clone(core);
    let work = move |all: Vec<Arc<Reading>>, _| {
        let core = Arc::clone(&shared);
        async move {
            let mut found: HashMap<&Reading, Arc<Changed>> = HashMap::new();
            for reading in &all {
                if !found.contains_key(&**reading) {
                    let changed = core
                        .store
                        .list_changed(&reading.uid, reading.read_from)
                        .await?;
                    found.insert(reading, Arc::new(changed));
                }
            }
            Ok(all
                .iter()
                .map(|reading| Done::Answer(Ok(Arc::clone(&found[&**reading]))))
                .collect())
        }
    };
    // A user's own lane.
    core.reads
        .run(lane(&(uid, read_from), u64::MAX), reading, work)
        .await
}

/// A user whose conversations want versions.
#[derive(Debug)]
pub(crate) struct Stamping {
    uid: Uid,
    since: Version,
    read_from: Version,
    first: Option<usize>,
}

/// Gives versions to what changed: the users' locks first, then the read, so that it sees all that
/// was committed before.
async fn give_versions(core: Arc<Core>, all: Vec<Arc<Stamping>>, locks: Locks) -> Answers<Plan> {
    let mut plans: Vec<Option<Done<Plan>>> = all.iter().map(|_| None).collect();
    // A user's second device sees what the first one was given.
    loop {
        let mut users: BTreeMap<&Uid, usize> = BTreeMap::new();
        for (at, stamping) in all
            .iter()
            .enumerate()
            .filter(|(at, _)| plans[*at].is_none())
        {
            users.entry(&stamping.uid).or_insert(at);
        }
        if users.is_empty() {
            return Ok(plans
                .into_iter()
                .map(|plan| plan.unwrap_or_else(|| Done::Answer(Ok(Plan::default()))))
                .collect());
        }
        let some: &Vec<&Stamping> = &users.values().map(|at| &*all[*at]).collect();
        let core = &core;
        let given = core
            .store
            .transaction(|tx| async move {
                let cursors = tx
                    .lock_users(
                        &some
                            .iter()
                            .map(|stamping| stamping.uid.clone())
                            .collect::<Vec<_>>(),
                        locks,
                    )
                    .await?;
                let locked = some
                    .iter()
                    .filter(|stamping| cursors.contains_key(stamping.uid.as_str()));
                let wanted: Vec<(&Uid, Version)> = locked
                    .map(|stamping| (&stamping.uid, stamping.read_from))
                    .collect();
                let mut rows = tx.list_changed(&wanted).await?;
                let mut plans = Vec::with_capacity(some.len());
                for Stamping {
                    uid, since, first, ..
                } in some
                {
                    let Some(cursor) = cursors.get(uid.as_str()).copied() else {
                        if locks == Locks::Wait {
                            return Err(StoreError::Broken(
                                "a user without a cursor cannot be locked".to_owned(),
                            )
                            .into());
                        }
                        plans.push(None);
                        continue;
                    };
                    let rows = rows.remove(uid).unwrap_or_default();
                    plans.push(Some(plan(
                        rows,
                        *since,
                        cursor,
                        core.clock.now_ms(),
                        *first,
                    )));
                }
                let stamps = some
                    .iter()
                    .zip(plans.iter().map(|plan| plan.iter().flat_map(Plan::stamps)));
                let stamps =
                    stamps.flat_map(|(stamping, rows)| rows.map(|row| (&stamping.uid, row)));
                tx.stamp(stamps.collect()).await?;
                tx.commit(plans).await
            })
            .await?;
        let given: Vec<(Uid, usize, Option<Plan>)> = users
            .into_iter()
            .zip(given)
            .map(|((uid, at), plan)| (uid.clone(), at, plan))
            .collect();
        for (uid, at, plan) in given {
            match plan {
                Some(plan) => plans[at] = Some(Done::Answer(Ok(plan))),
                // All devices of the user wait.
                None => {
                    for (stamping, plan) in all
                        .iter()
                        .zip(&mut plans)
                        .filter(|(stamping, _)| stamping.uid == uid)
                    {
                        plan.get_or_insert(Done::Held(row(&stamping.uid)));
                    }
                }
            }
        }
    }
}

async fn answer(
    core: &Core,
    request: &SyncRequest,
    plan: Plan,
    since: Version,
    reset: bool,
    bytes: &AnswerBytes,
) -> Result<SyncAnswer, Error> {
    let Plan {
        rows,
        version,
        has_more,
        rest,
        ..
    } = &plan;
    let changes = Changes {
        rows: rows.iter().collect(),
        rest,
        version: *version,
        has_more: *has_more,
        since,
        reset,
    };
    answer_with(core, request, changes, bytes).await
}

/// The parts of an answer.
pub(super) struct Changes<'a, Rest> {
    /// What changed.
    pub(super) rows: Vec<&'a ConversationRow>,
    /// Conversations that did not change, where the client may lack something of them.
    pub(super) rest: Rest,
    pub(super) version: Version,
    pub(super) has_more: bool,
    /// The version that the client has seen; 0 for none.
    pub(super) since: Version,
    pub(super) reset: bool,
}

pub(super) async fn answer_with<'a>(
    core: &Core,
    request: &SyncRequest,
    changes: Changes<'a, impl IntoIterator<Item = &'a ConversationRow>>,
    bytes: &AnswerBytes,
) -> Result<SyncAnswer, Error> {
    let Changes {
        mut rows,
        rest,
        version,
        has_more,
        since,
        reset,
    } = changes;
    let uid = &request.uid;
    let name = |row: &ConversationRow| row.key.seen_by(uid.as_str());
    let mut removed = Vec::new();
    let shows = |row: &ConversationRow| {
        shows(
            row,
            request.filter.only_unread,
            &request.filter.exclude_channel_types,
        )
    };
    rows.retain(|row| {
        let stays = shows(row);
        if !stays && since > 0 {
            removed.push(Removed::new(uid, row));
        }
        stays
    });
    if !has_more && request.names_channels() {
        // What the client says it lacks, although it did not change.
        rows.extend(rest.into_iter().filter(|row| {
            let named = name(row);
            shows(row)
                && (request.always.contains(&named)
                    || request
                        .last_msg_seqs
                        .get(&named)
                        .is_some_and(|seq| *seq < row.last_seq))
        }));
    }

    let held = |row: &ConversationRow| {
        if request.last_msg_seqs.is_empty() {
            0
        } else {
            request.last_msg_seqs.get(&name(row)).copied().unwrap_or(0)
        }
    };
    let conversations = match request.wanted {
        Wanted::Version => Vec::new(),
        Wanted::Conversations => rows
            .iter()
            .map(|row| Item::without_messages(uid, row))
            .collect(),
        Wanted::Messages => items(core, uid, &rows, request.msg_count, held, bytes).await?,
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

/// Rows with their newest `msg_count` messages, of these those above the seq that is held of each.
pub(super) async fn items(
    core: &Core,
    uid: &Uid,
    rows: &[&ConversationRow],
    msg_count: u32,
    held: impl Fn(&ConversationRow) -> Seq,
    bytes: &AnswerBytes,
) -> Result<Vec<Item>, Error> {
    // The last message is needed for its number, also when no messages are asked for.
    let keys: Vec<RecentsKey> = rows
        .iter()
        .map(|row| RecentsKey::new(row, msg_count.max(1)))
        .collect();
    let recents = list_recents(core, &keys, bytes).await?;
    let item = |(row, newest): (&&ConversationRow, Recents)| {
        let last_message = newest.first().cloned();
        let recents = newest.above(held(row), msg_count as usize);
        Item {
            conversation: Conversation::new(uid, row),
            last_message,
            recents,
        }
    };
    Ok(rows.iter().zip(recents).map(item).collect())
}

/// Newest second first, then by channel type and id.
pub(super) fn order(conversation: &Conversation) -> (Reverse<i64>, u8, &str) {
    (
        Reverse(conversation.last_activity_at.div_euclid(1000)),
        conversation.channel.channel_type.number(),
        &conversation.channel.channel_id,
    )
}
