//! What changes in users' lists, as it happens: one feed for each user who has subscribers,
//! whatever their number.
//!
//! A feed looks from the version it has to the present one and hands the answer to all of its
//! subscribers. A subscriber begins with a look of its own from the version *it* has, taken after
//! it began to listen to the feed; an event from `since` to `version` is for who stands between the
//! two. Who stands before it missed something and looks for itself again. So no change is lost
//! between the first look and the feed, nor by who reads slowly.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::{FutureExt, Stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::bus::{Bus, Watch};
use super::messages::{Chats, MessagesRequest};
use crate::budget;
use crate::conversation::{SyncAnswer, SyncRequest, follow, sync};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Uid, Version};
use crate::message::Message;

/// A user's events come at most this often for long, so that a busy group does not cost a look for
/// each of its messages; a few may come at once.
const PACE: Duration = Duration::from_millis(100);
const AT_ONCE: u32 = 10;
/// Events that a subscriber may be behind before it looks for itself.
const BEHIND: usize = 16;
/// Bytes of an event that is kept.
const KEPT_BYTES: usize = 128 * 1024;
/// The feed does not know yet where it stands.
const NOWHERE: Version = -1;
/// Pauses after a failure of the database, doubled each time.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// All feeds of this server.
#[derive(Debug)]
pub(crate) struct Feeds {
    core: Arc<Core>,
    bus: Arc<Bus>,
    feeds: Mutex<HashMap<Uid, Weak<Feed>>>,
    /// Looks at once: requests shall have connections to the database, too. Who waits for a turn
    /// sees more in one look.
    turns: Arc<Semaphore>,
    coalesce: Duration,
    /// Open chats: they are looked after together with the feeds.
    chats: Arc<Chats>,
}

/// One user's.
#[derive(Debug)]
struct Feed {
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug)]
struct State {
    uid: Uid,
    watch: Watch,
    events: broadcast::Sender<Arc<Event>>,
    /// What the last event brought its receivers to.
    version: AtomicI64,
    begun: Notify,
    /// The most messages that any of the subscribers wants.
    msg_count: AtomicU32,
    /// Whether all of the user's channels are watched.
    ready: watch::Sender<bool>,
}

/// What changed between two versions.
#[derive(Debug)]
struct Event {
    since: Version,
    /// Nothing where it is too long to be kept for subscribers that are behind: they look for
    /// themselves.
    answer: Option<SyncAnswer>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feeds {
    pub(crate) fn new(core: Arc<Core>, coalesce: Duration, looks_at_once: usize) -> Self {
        let bus = Arc::clone(&core.bus);
        let turns = Arc::new(Semaphore::new(looks_at_once.max(1)));
        let chats = Arc::new(Chats::new(Arc::clone(&core), coalesce, Arc::clone(&turns)));
        Self {
            core,
            bus,
            feeds: Mutex::default(),
            turns,
            coalesce,
            chats,
        }
    }

    /// A channel's messages as they are sent, see [`Chats::subscribe`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when the user is not in the channel.
    pub(crate) async fn messages_added(
        &self,
        request: MessagesRequest,
    ) -> Result<impl Stream<Item = Result<Message, Error>> + Send + use<>, Error> {
        self.chats.subscribe(request).await
    }

    /// First what changed since `version`, in pages where that is much, then every change. The
    /// first event always comes, also when nothing changed. Failures of the database that pass are
    /// waited for; any other ends the stream.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        uid: Uid,
        version: Version,
        msg_count: u32,
    ) -> impl Stream<Item = Result<SyncAnswer, Error>> + Send + use<> {
        let feed = self.feed(&uid, msg_count);
        let subscriber = Subscriber {
            events: feed.state.events.subscribe(),
            feeds: Arc::clone(self),
            feed,
            version: version.max(0),
            msg_count,
            stands: Stands::Before { is_first: true },
        };
        futures_util::stream::unfold(subscriber, |mut subscriber| async move {
            let event = subscriber.next().await?;
            metrics::counter!("recents_live_events_total").increment(1);
            Some((event, subscriber))
        })
    }

    fn feed(self: &Arc<Self>, uid: &Uid, msg_count: u32) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = feeds.get(uid).and_then(Weak::upgrade);
        let feed = known.unwrap_or_else(|| {
            let state = Arc::new(State {
                uid: uid.clone(),
                watch: Watch::of_user(&self.bus, uid),
                events: broadcast::Sender::new(BEHIND),
                version: AtomicI64::new(NOWHERE),
                begun: Notify::new(),
                msg_count: AtomicU32::new(0),
                ready: watch::Sender::new(false),
            });
            let task = tokio::spawn(run(Arc::clone(self), Arc::clone(&state))).abort_handle();
            let feed = Arc::new(Feed { state, task });
            feeds.insert(uid.clone(), Arc::downgrade(&feed));
            feed
        });
        feed.state.msg_count.fetch_max(msg_count, Ordering::Relaxed);
        feed
    }

    async fn look(&self, request: &SyncRequest) -> Result<SyncAnswer, Error> {
        let _turn_of_user = budget::turn().await;
        let _turn = self.turns.acquire().await;
        let mut answer = sync(&self.core, request).await?;
        if !answer.has_more {
            answer.sort_by_activity();
        }
        Ok(answer)
    }

    /// Looks after everybody at an interval, and at once when a hint says so: who is behind
    /// although nobody told them is woken.
    pub(crate) async fn poll(&self, interval: Duration) {
        loop {
            let is_called = tokio::select! {
                () = tokio::time::sleep(interval) => false,
                () = self.bus.everybody.notified() => true,
            };
            self.chats.look_after().await;
            let feeds = self.all();
            metrics::gauge!("recents_live_feeds").set(feeds.len() as f64);
            for some in feeds.chunks(500) {
                let known: Vec<(&Uid, Version)> = some
                    .iter()
                    .map(|feed| (&feed.state.uid, feed.state.version.load(Ordering::Relaxed)))
                    .collect();
                match self.core.store.list_behind(&known).await {
                    Ok(behind) => {
                        if !is_called {
                            metrics::counter!("recents_live_polled_total")
                                .increment(behind.len() as u64);
                        }
                        let woken = some
                            .iter()
                            .filter(|feed| behind.contains(feed.state.uid.as_str()));
                        woken.for_each(|feed| feed.state.watch.waiter.wake());
                    }
                    Err(error) => {
                        tracing::debug!(error = %error, "subscribers could not be looked after")
                    }
                }
            }
        }
    }

    fn all(&self) -> Vec<Arc<Feed>> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|_, feed| feed.strong_count() > 0);
        feeds.values().filter_map(Weak::upgrade).collect()
    }
}

impl State {
    /// Watches the channels that an answer tells of. What was said in a new one after the look and
    /// before it was watched woke nobody: so there is another look. Of person channels users are
    /// told by their names.
    fn learn(&self, answer: &SyncAnswer) {
        let is_person = |channel: &ChannelRef| channel.channel_type == ChannelType::PERSON;
        let shown = answer.conversations.iter().map(|item| &item.conversation);
        let shown = shown
            .filter(|shown| !is_person(&shown.channel))
            .map(|shown| shown.channel_id);
        let (stays, gone): (Vec<_>, Vec<_>) = answer
            .removed
            .iter()
            .filter(|removed| !is_person(&removed.channel))
            .partition(|removed| removed.is_member);
        let is_news = self
            .watch
            .add(shown.chain(stays.into_iter().map(|removed| removed.channel_id)));
        self.watch
            .remove(gone.into_iter().map(|removed| removed.channel_id));
        if is_news {
            self.watch.waiter.wake();
        }
    }

    /// The first subscriber who is up to date says where the feed stands.
    fn begin(&self, version: Version) {
        let begins =
            self.version
                .compare_exchange(NOWHERE, version, Ordering::Relaxed, Ordering::Relaxed);
        if begins.is_ok() {
            self.begun.notify_one();
        }
    }
}

/// Does `work` until it succeeds or fails for good.
pub(super) async fn persist<T, Work: Future<Output = Result<T, Error>>>(
    mut work: impl FnMut() -> Work,
) -> Result<T, Error> {
    let mut pause = PAUSE;
    loop {
        match work().await {
            Err(error) if error.is_passing() => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}

/// A feed's task. It ends with the last subscriber, or with a failure that does not pass:
/// subscribers then look for themselves, and are told by that.
async fn run(feeds: Arc<Feeds>, state: Arc<State>) {
    let channels = persist(async || Ok(feeds.core.store.list_channel_ids(&state.uid).await?)).await;
    match channels {
        Ok(channels) => drop(state.watch.add(channels)),
        Err(error) => error.log(),
    }
    state.ready.send_replace(true);
    // When the next event would come if they came at their pace.
    let mut due = Instant::now();
    loop {
        state.watch.waiter.woken().await;
        let at_once = PACE * AT_ONCE;
        let early = due.saturating_duration_since(Instant::now() + at_once);
        tokio::time::sleep(feeds.coalesce.max(early)).await;
        due = due.max(Instant::now()) + PACE;
        while state.version.load(Ordering::Relaxed) == NOWHERE {
            state.begun.notified().await;
        }
        // What was said until now is seen by the look that comes now.
        let _ = state.watch.waiter.woken().now_or_never();
        if let Err(error) = advance(&feeds, &state).await {
            error.log();
            // Nothing is lost: it is tried again with the next hint, or by the poll.
        }
    }
}

/// Brings the subscribers from the feed's version to the present one.
async fn advance(feeds: &Feeds, state: &State) -> Result<(), Error> {
    loop {
        let since = state.version.load(Ordering::Relaxed);
        let mut request = SyncRequest::new(state.uid.clone());
        request.version = since;
        request.msg_count = state.msg_count.load(Ordering::Relaxed);
        request.first = Some(feeds.core.limits.page_size as usize);
        let answer = persist(async || {
            let mut answer = follow(&feeds.core, &request).await?;
            if !answer.has_more {
                answer.sort_by_activity();
            }
            Ok(answer)
        })
        .await?;
        state.learn(&answer);
        if answer.reset || since == 0 {
            // A full answer does not tell of channels that show nothing.
            let channels =
                persist(async || Ok(feeds.core.store.list_channel_ids(&state.uid).await?)).await?;
            if state.watch.add(channels) {
                state.watch.waiter.wake();
            }
        }
        let (version, has_more) = (answer.version, answer.has_more);
        let is_news =
            !answer.conversations.is_empty() || !answer.removed.is_empty() || answer.reset;
        state.version.store(version, Ordering::Relaxed);
        if is_news || version != since {
            // Nobody there is no failure.
            let answer = (answer.bytes() <= KEPT_BYTES).then_some(answer);
            let _ = state.events.send(Arc::new(Event { since, answer }));
        }
        if !has_more {
            return Ok(());
        }
    }
}

/// Where a subscriber stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// Before what the feed will tell: it looks for itself.
    Before {
        /// Whether this is its first look, which is told in any case.
        is_first: bool,
    },
    /// With the feed.
    With,
    /// It was told of a failure.
    Ended,
}

#[derive(Debug)]
struct Subscriber {
    feeds: Arc<Feeds>,
    feed: Arc<Feed>,
    events: broadcast::Receiver<Arc<Event>>,
    version: Version,
    msg_count: u32,
    stands: Stands,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Result<SyncAnswer, Error>> {
        loop {
            match self.stands {
                Stands::Before { is_first } => match persist(|| self.look()).await {
                    Ok(answer) => {
                        let is_news = answer.reset
                            || answer.version != self.version
                            || !answer.conversations.is_empty()
                            || !answer.removed.is_empty();
                        self.version = answer.version;
                        self.stands = if answer.has_more {
                            Stands::Before { is_first: false }
                        } else {
                            Stands::With
                        };
                        self.feed.state.learn(&answer);
                        if !answer.has_more {
                            self.feed.state.begin(answer.version);
                        }
                        if is_news || is_first {
                            return Some(Ok(answer));
                        }
                    }
                    Err(error) => {
                        self.stands = Stands::Ended;
                        return Some(Err(error));
                    }
                },
                Stands::With => match self.events.recv().await {
                    Ok(event) => match &event.answer {
                        Some(news)
                            if news.reset
                                || event.since <= self.version && self.version < news.version =>
                        {
                            let answer = news.since(self.version, self.msg_count);
                            self.version = answer.version;
                            return Some(Ok(answer));
                        }
                        Some(_) if self.version >= event.since => {}
                        _ => self.stands = Stands::Before { is_first: false },
                    },
                    Err(RecvError::Lagged(_)) => self.stands = Stands::Before { is_first: false },
                    Err(RecvError::Closed) => return None,
                },
                Stands::Ended => return None,
            }
        }
    }

    async fn look(&self) -> Result<SyncAnswer, Error> {
        // From then on the feed is woken by everything.
        let mut ready = self.feed.state.ready.subscribe();
        let _ = ready.wait_for(|ready| *ready).await;
        let mut request = SyncRequest::new(self.feed.state.uid.clone());
        request.version = self.version;
        request.msg_count = self.msg_count;
        request.first = Some(self.feeds.core.limits.page_size as usize);
        self.feeds.look(&request).await
    }
}
