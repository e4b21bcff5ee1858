//! Sending: one message, one channel, the sender's conversation. The size of the group does not matter.

use super::{Content, Message};
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Uid, check_key};
use crate::store::{Head, NewConversation, State, StoreError, Tx};

/// A message to send.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// Who sends it.
    pub from: Uid,
    /// Where to, as the sender names it.
    pub channel: ChannelRef,
    /// The sender's deduplication key; without one, two equal sends are two messages.
    pub client_msg_no: Option<String>,
    /// Whether it counts as unread.
    pub red_dot: bool,
    /// Whether it is only handed on, not stored (`no_persist` or `sync_once`).
    pub transient: bool,
    /// Whether only a member may send: a user who asks, in contrast to a service. Anybody may write to a person.
    pub as_member: bool,
    /// The rest.
    pub content: Content,
}

/// What a sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message as stored, or as it would have been (seq 0) when it is transient.
    pub message: Message,
    /// Whether it was stored by an earlier request under the same `client_msg_no`.
    pub repeated: bool,
}

/// Stores a message; returns after the commit. A repeated (sender, channel, `client_msg_no`) answers with the first message.
///
/// # Errors
/// [`Error::BadInput`] for a payload, number or topic that is too long, [`Error::NotFound`] for a channel that the sender is not
/// in where that matters, [`Error::Store`].
pub async fn send(core: &Core, request: SendRequest) -> Result<Sent, Error> {
    let given = request.client_msg_no.as_deref().filter(|no| !no.is_empty());
    if let Some(no) = given {
        check_key("client_msg_no", no)?;
    }
    request.content.check(core.limits.payload_bytes)?;
    let now_ms = core.clock.now_ms();
    let key = ChannelKey::new(&request.from, &request.channel);
    if request.as_member && request.channel.channel_type != ChannelType::PERSON {
        let conversation = core.store.find_conversation(&request.from, &key).await?;
        if conversation.is_none_or(|row| row.state == State::Left) {
            return Err(Error::NotFound("channel"));
        }
    }
    let draft = Message {
        channel: request.channel,
        message_id: core.ids.message_id(now_ms),
        seq: 0,
        client_msg_no: given.map_or_else(|| core.ids.client_msg_no(), str::to_owned),
        from_uid: request.from.as_str().to_owned(),
        sent_at: now_ms,
        red_dot: request.red_dot,
        content: request.content,
    };
    if request.transient {
        return Ok(Sent { message: draft, repeated: false });
    }

    let channel_id = match core.store.find_channel(&key).await? {
        Some(id) => id,
        None => {
            let made = core.store.ensure_channels(&core.ids, &[&key]).await?;
            made.get(&key).copied().ok_or_else(|| StoreError::Broken("a channel that was made is not there".to_owned()))?
        }
    };
    let may_repeat = given.is_some();
    let (draft, key) = (&draft, &key);
    let sent = core
        .store
        .transaction(|tx| async move {
            let Some(mut head) = tx.lock_channel(channel_id).await? else {
                return Err(StoreError::Broken("a channel that was found cannot be locked".to_owned()).into());
            };
            if may_repeat
                && let Some(stored) = tx.find_by_client_msg_no(channel_id, &draft.from_uid, &draft.client_msg_no).await?
            {
                return tx.commit(Sent { message: Message::new(stored, key), repeated: true }).await;
            }
            let mut message = draft.clone();
            // Another id in another attempt: a server that drew the same bits may have given this one.
            message.message_id = core.ids.message_id(now_ms);
            append(&tx, &mut head, &mut message).await?;
            tx.commit(Sent { message, repeated: false }).await
        })
        .await?;
    if !sent.repeated {
        core.bus.channels_moved([(channel_id, key)]);
    }
    metrics::counter!("recents_messages_total", "result" => if sent.repeated { "repeated" } else { "stored" }).increment(1);
    Ok(sent)
}

/// Stores a message at the end of a locked channel and lets its sender have read everything before it.
async fn append(tx: &Tx, head: &mut Head, message: &mut Message) -> Result<(), StoreError> {
    let is_first = head.last_seq == 0;
    head.last_seq += 1;
    head.revision += 1;
    head.red_dots += i64::from(message.red_dot);
    head.last_message_at = message.sent_at;
    message.seq = head.last_seq;
    tx.insert_messages(&[message.clone().into_stored(head.id)]).await?;
    tx.write_heads(&[head]).await?;
    if is_first {
        tx.write_joined(&born_conversations(head)).await?;
    }
    tx.write_read_mark(&message.from_uid, head.id, head.red_dots).await?;
    Ok(())
}

/// The conversations that a person channel's first message makes: both sides', with nothing read.
pub(super) fn born_conversations(head: &Head) -> Vec<NewConversation> {
    let members = head.key.born_members();
    members.into_iter().map(|uid| NewConversation { uid, channel_id: head.id, joined_seq: 0, read_mark: 0 }).collect()
}
