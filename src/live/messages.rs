//! What is said in a channel, as it happens, for somebody who may see it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;

use super::bus::Watch;
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid};
use crate::message::{HistoryRequest, Message, list_history};
use crate::store::ConversationRow;

/// Which messages.
#[derive(Clone, Debug)]
pub(crate) struct MessagesRequest {
    /// Who looks.
    pub(crate) uid: Uid,
    /// At what.
    pub(crate) channel: ChannelRef,
    /// Those above this seq; `None`: those that come from now on.
    pub(crate) after: Option<Seq>,
    /// How long a message may go unnoticed when nobody tells of it.
    pub(crate) poll: Duration,
}

/// Messages in ascending order of seq. It ends when the user leaves the channel. A message that arrives late, below what was told
/// already, is not among them.
///
/// # Errors
/// [`Error::NotFound`] when the user is not in the channel.
pub(crate) async fn messages_added(
    core: Arc<Core>,
    request: MessagesRequest,
) -> Result<impl Stream<Item = Result<Message, Error>> + Send, Error> {
    core.check_conversations_on()?;
    let key = ChannelKey::new(&request.uid, &request.channel);
    let watch = Watch::new(&core.bus, None);
    let find = async || core.store.find_conversation(&request.uid, &key).await.map(|row| row.filter(ConversationRow::is_member));
    let mut row = find().await?.ok_or(Error::NotFound("conversation"))?;
    watch.add([row.channel_id]);
    if request.after.is_none() {
        // Again, now that nothing is missed.
        row = find().await?.ok_or(Error::NotFound("conversation"))?;
    }
    let after = request.after.unwrap_or(row.last_seq);
    let chat = Chat { core, request, key, watch, after, next: Vec::new().into_iter(), ended: false };
    Ok(futures_util::stream::unfold(chat, |mut chat| async move { Some((chat.next().await?, chat)) }))
}

struct Chat {
    core: Arc<Core>,
    request: MessagesRequest,
    key: ChannelKey,
    watch: Watch,
    after: Seq,
    next: std::vec::IntoIter<Message>,
    ended: bool,
}

impl Chat {
    async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            if let Some(message) = self.next.next() {
                self.after = message.seq;
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            match self.look().await {
                Ok(true) => {}
                Ok(false) => drop(tokio::time::timeout(self.request.poll, self.watch.waiter.woken()).await),
                Err(error) if error.is_passing() => tokio::time::sleep(Duration::from_millis(500)).await,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Whether there is something new.
    async fn look(&mut self) -> Result<bool, Error> {
        let row = self.core.store.find_conversation(&self.request.uid, &self.key).await?;
        let Some(row) = row else { return Err(Error::NotFound("conversation")) };
        let has_left = !row.is_member();
        if row.last_seq > self.after {
            let request = HistoryRequest {
                uid: self.request.uid.clone(),
                channel: self.request.channel.clone(),
                after: Some(self.after),
                before: None,
                limit: self.core.limits.page_size,
                newest: false,
                as_service: false,
            };
            let page = list_history(&self.core, &request).await?;
            if !page.messages.is_empty() {
                self.next = page.messages.into_iter();
                return Ok(true);
            }
            if !has_left {
                // Deleted before they could be told.
                self.after = row.last_seq;
            }
        }
        self.ended = has_left;
        Ok(has_left)
    }
}
