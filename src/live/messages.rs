//! What is said in open chats, as it happens: one reader for each channel that somebody looks at,
//! whatever the number of those who look.
//!
//! The reader reads each message once and hands it, with what each of the users may see, to all
//! subscribers. A subscriber begins with a look of its own, taken after it began to listen; a batch
//! from `since` to `to` is for who stands between the two, and who stands before it looks for
//! itself again.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::AbortHandle;

use super::bus::Watch;
use super::feeds::persist;
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid};
use crate::message::{
    AnswerBytes, HistoryRequest, Message, list_after, list_history, seqs_seen_by,
};
use crate::store::ConversationRow;

/// Batches that a subscriber may be behind before it looks for itself.
const BEHIND: usize = 16;
/// Bytes of the messages of one batch, about: several are kept for those who read slowly.
const BATCH_BYTES: usize = 1 << 20;

/// Which messages.
#[derive(Clone, Debug)]
pub(crate) struct MessagesRequest {
    /// Who looks.
    pub(crate) uid: Uid,
    /// At what.
    pub(crate) channel: ChannelRef,
    /// Those above this seq; `None`: those that come from now on.
    pub(crate) after: Option<Seq>,
}

/// All chats that are open on this server.
#[derive(Debug)]
pub(super) struct Chats {
    core: Arc<Core>,
    chats: Mutex<HashMap<i64, Weak<Chat>>>,
    /// How long a message waits for others.
    coalesce: Duration,
    /// Looks at once, together with those of the feeds.
    turns: Arc<Semaphore>,
}

/// A channel that somebody looks at.
#[derive(Debug)]
struct Chat {
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug)]
struct State {
    channel_id: i64,
    key: ChannelKey,
    watch: Watch,
    /// Who looks, and with how many subscriptions.
    viewers: Mutex<HashMap<Uid, usize>>,
    /// The seq up to which messages were told.
    told: AtomicI64,
    batches: broadcast::Sender<Arc<Batch>>,
}

/// New messages.
#[derive(Debug)]
struct Batch {
    /// There are no others above this seq, …
    since: Seq,
    /// … up to this one.
    to: Seq,
    messages: Vec<Message>,
    /// What users may see, as it was after the messages were read.
    seen: HashMap<Uid, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    seqs: RangeInclusive<Seq>,
    is_member: bool,
}

impl Seen {
    fn of(row: &ConversationRow) -> Self {
        // Of a member the end is not the end: the row may be older than the message.
        let seqs = seqs_seen_by(row);
        let end = if row.is_member() {
            Seq::MAX
        } else {
            *seqs.end()
        };
        Self {
            seqs: *seqs.start()..=end,
            is_member: row.is_member(),
        }
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chats {
    pub(super) fn new(core: Arc<Core>, coalesce: Duration, turns: Arc<Semaphore>) -> Self {
        Self {
            core,
            chats: Mutex::default(),
            coalesce,
            turns,
        }
    }

    /// Messages in ascending order of seq. It ends when the user leaves the channel. A message that
    /// arrives late, below what was told already, is not among them.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the user is not in the channel.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        request: MessagesRequest,
    ) -> Result<impl Stream<Item = Result<Message, Error>> + Send + use<>, Error> {
        self.core.check_conversations_on()?;
        let key = ChannelKey::new(&request.uid, &request.channel);
        let row = self
            .find(&request.uid, &key)
            .await?
            .filter(ConversationRow::is_member)
            .ok_or(Error::NotFound("conversation"))?;
        let chat = self.chat(&row);
        let viewer = Viewer::enter(chat, request.uid.clone());
        let batches = viewer.chat.state.batches.subscribe();
        let after = match request.after {
            Some(after) => after,
            // Again, now that nothing is missed.
            None => {
                self.find(&request.uid, &key)
                    .await?
                    .ok_or(Error::NotFound("conversation"))?
                    .last_seq
            }
        };
        let subscriber = Subscriber {
            chats: Arc::clone(self),
            channel: request.channel,
            key,
            viewer,
            batches,
            after,
            next: Vec::new().into_iter(),
            stands: if request.after.is_some() {
                Stands::Before
            } else {
                Stands::With
            },
        };
        Ok(futures_util::stream::unfold(
            subscriber,
            |mut subscriber| async move { Some((subscriber.next().await?, subscriber)) },
        ))
    }

    async fn find(&self, uid: &Uid, key: &ChannelKey) -> Result<Option<ConversationRow>, Error> {
        let _turn = self.turns.acquire().await;
        Ok(self
            .core
            .store
            .find_uncounted(&[(uid, key)])
            .await?
            .pop()
            .map(|(_, row)| row))
    }

    fn chat(self: &Arc<Self>, row: &ConversationRow) -> Arc<Chat> {
        let mut chats = lock(&self.chats);
        let known = chats.get(&row.channel_id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let state = Arc::new(State {
                channel_id: row.channel_id,
                key: row.key.clone(),
                watch: Watch::of_many(&self.core.bus),
                viewers: Mutex::default(),
                told: AtomicI64::new(row.last_seq),
                batches: broadcast::Sender::new(BEHIND),
            });
            state.watch.add([row.channel_id]);
            let task = tokio::spawn(run(Arc::clone(self), Arc::clone(&state))).abort_handle();
            let chat = Arc::new(Chat { state, task });
            chats.insert(row.channel_id, Arc::downgrade(&chat));
            chat
        })
    }

    /// Wakes the chats in which something happened although nobody told, or whose viewers left: one
    /// read for all of them.
    pub(super) async fn look_after(&self) {
        let chats: HashMap<i64, Arc<Chat>> = {
            let mut chats = lock(&self.chats);
            chats.retain(|_, chat| chat.strong_count() > 0);
            chats
                .iter()
                .filter_map(|(id, chat)| Some((*id, chat.upgrade()?)))
                .collect()
        };
        metrics::gauge!("recents_live_chats").set(chats.len() as f64);
        let viewers: Vec<(Uid, i64)> = chats
            .iter()
            .flat_map(|(id, chat)| {
                lock(&chat.state.viewers)
                    .keys()
                    .map(|uid| (uid.clone(), *id))
                    .collect::<Vec<_>>()
            })
            .collect();
        if viewers.is_empty() {
            return;
        }
        let pairs: Vec<(&Uid, i64)> = viewers.iter().map(|(uid, id)| (uid, *id)).collect();
        match self.core.store.find_views(&pairs).await {
            Ok(views) => {
                for view in views {
                    let Some(chat) = chats.get(&view.row.channel_id) else {
                        continue;
                    };
                    if !view.row.is_member() {
                        chat.state.watch.waiter.name(view.uid.as_str());
                    } else if view.row.last_seq > chat.state.told.load(Ordering::Relaxed) {
                        chat.state.watch.waiter.wake();
                    }
                }
            }
            Err(error) => tracing::debug!(error = %error, "open chats could not be looked after"),
        }
    }
}

/// A chat's task. It ends with the last subscriber.
async fn run(chats: Arc<Chats>, state: Arc<State>) {
    loop {
        state.watch.waiter.woken().await;
        tokio::time::sleep(chats.coalesce).await;
        let named = state.watch.waiter.take_named();
        if let Err(error) = advance(&chats, &state, &named).await {
            error.log();
            // Nothing is lost: it is tried again with the next hint, or by the poll.
        }
    }
}

/// Tells everything that is new, and the users who were named what they may see from now on.
async fn advance(chats: &Chats, state: &State, named: &HashSet<String>) -> Result<(), Error> {
    let mut named = Some(named);
    loop {
        let since = state.told.load(Ordering::Relaxed);
        let (messages, has_more) = persist(async || {
            let _turn = chats.turns.acquire().await;
            let bytes = AnswerBytes::new(BATCH_BYTES.min(chats.core.limits.answer_bytes));
            list_after(&chats.core, state.channel_id, &state.key, since, &bytes).await
        })
        .await?;
        // After the messages: who left before one was stored must not be told of it.
        let viewers: Vec<Uid> = lock(&state.viewers).keys().cloned().collect();
        let is_asked = |uid: &&Uid| {
            !messages.is_empty() || named.is_some_and(|named| named.contains(uid.as_str()))
        };
        let pairs: Vec<(&Uid, i64)> = viewers
            .iter()
            .filter(is_asked)
            .map(|uid| (uid, state.channel_id))
            .collect();
        named = None;
        if pairs.is_empty() && messages.is_empty() {
            return Ok(());
        }
        let views = persist(async || {
            let _turn = chats.turns.acquire().await;
            Ok(chats.core.store.find_views(&pairs).await?)
        })
        .await?;
        let seen: HashMap<Uid, Seen> = views
            .into_iter()
            .map(|view| (view.uid, Seen::of(&view.row)))
            .collect();
        let to = messages.last().map_or(since, |message| message.seq);
        state.told.store(to, Ordering::Relaxed);
        if !messages.is_empty() || seen.values().any(|seen| !seen.is_member) {
            // Nobody there is no failure.
            let _ = state.batches.send(Arc::new(Batch {
                since,
                to,
                messages,
                seen,
            }));
        }
        if !has_more {
            return Ok(());
        }
    }
}

/// A subscription's place among those who look at a chat.
#[derive(Debug)]
struct Viewer {
    chat: Arc<Chat>,
    uid: Uid,
}

impl Viewer {
    fn enter(chat: Arc<Chat>, uid: Uid) -> Self {
        let mut viewers = lock(&chat.state.viewers);
        *viewers.entry(uid.clone()).or_default() += 1;
        chat.state.watch.add_user(&uid);
        drop(viewers);
        Self { chat, uid }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut viewers = lock(&self.chat.state.viewers);
        let Some(number) = viewers.get_mut(&self.uid) else {
            return;
        };
        *number -= 1;
        if *number == 0 {
            viewers.remove(&self.uid);
            self.chat.state.watch.remove_user(&self.uid);
        }
    }
}

/// Where a subscriber stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// Before what the chat will tell: it looks for itself.
    Before,
    /// With the chat.
    With,
    /// The user left, or was told of a failure.
    Ended,
}

#[derive(Debug)]
struct Subscriber {
    chats: Arc<Chats>,
    channel: ChannelRef,
    key: ChannelKey,
    viewer: Viewer,
    batches: broadcast::Receiver<Arc<Batch>>,
    after: Seq,
    next: std::vec::IntoIter<Message>,
    stands: Stands,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            if let Some(message) = self.next.next() {
                return Some(Ok(message));
            }
            match self.stands {
                Stands::Before => match persist(|| self.look()).await {
                    Ok(look) => {
                        self.after = look.after;
                        self.next = look.messages.into_iter();
                        self.stands = look.stands;
                    }
                    Err(error) => {
                        self.stands = Stands::Ended;
                        return Some(Err(error));
                    }
                },
                Stands::With => match self.batches.recv().await {
                    Ok(batch) => self.take(&batch),
                    Err(RecvError::Lagged(_)) => self.stands = Stands::Before,
                    Err(RecvError::Closed) => return None,
                },
                Stands::Ended => return None,
            }
        }
    }

    fn take(&mut self, batch: &Batch) {
        let is_news = batch.to > self.after;
        match batch.seen.get(&self.viewer.uid) {
            Some(_) if batch.since > self.after => self.stands = Stands::Before,
            Some(seen) => {
                let is_new = |message: &&Message| {
                    message.seq > self.after && seen.seqs.contains(&message.seq)
                };
                self.next = batch
                    .messages
                    .iter()
                    .filter(is_new)
                    .cloned()
                    .collect::<Vec<_>>()
                    .into_iter();
                self.after = self.after.max(batch.to);
                if !seen.is_member {
                    self.stands = Stands::Ended;
                }
            }
            // It is about others, or this one came after it was asked who looks.
            None if is_news => self.stands = Stands::Before,
            None => {}
        }
    }

    /// A page of what there is above `after`.
    async fn look(&self) -> Result<Look, Error> {
        let row = self
            .chats
            .find(&self.viewer.uid, &self.key)
            .await?
            .ok_or(Error::NotFound("conversation"))?;
        let stands = if row.is_member() {
            Stands::With
        } else {
            Stands::Ended
        };
        if row.last_seq <= self.after {
            return Ok(Look {
                messages: Vec::new(),
                after: self.after,
                stands,
            });
        }
        let request = HistoryRequest {
            uid: self.viewer.uid.clone(),
            channel: self.channel.clone(),
            after: Some(self.after),
            before: None,
            limit: self.chats.core.limits.page_size,
            newest: false,
            as_service: false,
        };
        let _turn = self.chats.turns.acquire().await;
        let bytes = AnswerBytes::new(BATCH_BYTES.min(self.chats.core.limits.answer_bytes));
        let page = list_history(&self.chats.core, &request, &bytes).await?;
        // Where nothing is left to be seen everything up to the head was deleted, or said after the
        // user left.
        let last = page.messages.last().map(|message| message.seq);
        let after = if page.has_next {
            last.unwrap_or(row.last_seq)
        } else {
            last.unwrap_or(0).max(row.last_seq)
        };
        Ok(Look {
            messages: page.messages,
            after,
            stands: if page.has_next {
                Stands::Before
            } else {
                stands
            },
        })
    }
}

/// What a subscriber found for itself.
struct Look {
    messages: Vec<Message>,
    after: Seq,
    stands: Stands,
}
