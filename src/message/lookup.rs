//! Look-up of messages in one channel: the last one, or those that a caller names.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use super::MessageService;
use super::answer_size::{AnswerSizeLimit, SizedInAnswer, fit_newest_first};
use super::history::{find_visible_seqs, read_page};
use crate::error::Error;
use crate::model::{ChannelKey, ChannelPk, Message, MessageId, Seq, Uid};
use crate::store::{FindMessages, PartialMessage, SeqRange};

/// A channel, and whose view of it is read.
#[derive(Clone, Debug)]
pub struct ChannelView {
    /// The channel. A person channel that is named by a pair of uids with `@` in them may have
    /// several keys; the first one that exists is meant.
    pub keys: Vec<ChannelKey>,
    /// The user; `None` for a service that sees everything.
    pub uid: Option<Uid>,
    /// True for a service. A service may see all of a channel that `uid` never joined.
    pub as_service: bool,
}

/// The names of messages in a channel.
#[derive(Clone, Debug, Default)]
pub struct MessageNames {
    /// Seqs.
    pub seqs: Vec<Seq>,
    /// Global ids.
    pub ids: Vec<MessageId>,
    /// Client numbers; each means the first message that has it.
    pub client_msg_nos: Vec<String>,
}

/// The messages that were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedMessages {
    /// In the order of the names: by seq, by id, by client number. Each message is there once.
    pub messages: Vec<Message>,
    /// True if the last ones are missing because they did not fit into the answer.
    pub is_cut: bool,
}

/// Returns the key of the channel that is meant, its internal id, and the visible seqs; `None` if
/// the user was never in the channel and no service asks, or if it does not exist.
async fn find_channel(
    service: &MessageService,
    view: &ChannelView,
) -> Result<Option<(ChannelKey, ChannelPk, RangeInclusive<Seq>)>, Error> {
    service.base.check_conversations_on()?;
    for key in &view.keys {
        match find_visible_seqs(service, view.uid.as_ref(), key, view.as_service).await {
            Ok((channel_id, visible)) => return Ok(Some((key.clone(), channel_id, visible))),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Returns the largest visible seq; 0 if there is no message.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn find_max_seq(service: &MessageService, view: &ChannelView) -> Result<Seq, Error> {
    Ok(match find_channel(service, view).await? {
        Some((.., visible)) if !visible.is_empty() => *visible.end(),
        _ => Seq::ZERO,
    })
}

/// Returns the last visible message.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn find_last_message(
    service: &MessageService,
    view: &ChannelView,
) -> Result<Option<Message>, Error> {
    let Some((key, channel_id, visible)) = find_channel(service, view).await? else {
        return Ok(None);
    };
    let (from, to) = visible.into_inner();
    let window = SeqRange {
        channel_id,
        from,
        to,
    };
    let bytes = AnswerSizeLimit::new(service.base.limits.answer_bytes);
    let (mut messages, _) = read_page(service, &key, window, 1, true, &bytes).await?;
    Ok(messages.pop())
}

/// Returns the visible messages with these names, as far as they fit into the answer, but always
/// one.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn find_named_messages(
    service: &MessageService,
    view: &ChannelView,
    names: &MessageNames,
    bytes: &AnswerSizeLimit,
) -> Result<NamedMessages, Error> {
    let Some((key, channel_id, visible)) = find_channel(service, view).await? else {
        return Ok(NamedMessages::default());
    };
    let seqs = find_seqs(service, channel_id, &visible, names).await?;
    let windows: Vec<SeqRange> = seqs
        .iter()
        .map(|seq| SeqRange {
            channel_id,
            from: *seq,
            to: *seq,
        })
        .collect();
    let mut stored: HashMap<Seq, PartialMessage> = service
        .base
        .store
        .list_windows(&windows, bytes.inline_payload_bytes(windows.len()))
        .await?
        .remove(&channel_id)
        .unwrap_or_default()
        .into_iter()
        .map(|partial| (partial.seq(), partial))
        .collect();
    let mut found: Vec<PartialMessage> = seqs.iter().filter_map(|seq| stored.remove(seq)).collect();
    let fit = bytes.take_with(|left| {
        fit_newest_first(
            &[found.len()],
            left,
            |_| 0,
            |_, at| found[at].size_in_answer(),
        )[0]
    });
    bytes.reserve_memory()?;
    let is_cut = fit < found.len();
    if is_cut {
        metrics::counter!(crate::metrics::ANSWERS_CUT_TOTAL).increment(1);
        found.truncate(fit.max(1));
    }
    service
        .base
        .store
        .read_payloads(found.iter_mut().collect())
        .await?;
    Ok(NamedMessages {
        messages: found
            .into_iter()
            .map(|partial| Message::from_stored(partial.message, &key))
            .collect(),
        is_cut,
    })
}

/// Returns the visible seqs of these names, in their order, each once.
async fn find_seqs(
    service: &MessageService,
    channel_id: ChannelPk,
    visible: &RangeInclusive<Seq>,
    names: &MessageNames,
) -> Result<Vec<Seq>, Error> {
    let store = &service.base.store;
    let ids: Vec<(ChannelPk, MessageId)> = names.ids.iter().map(|id| (channel_id, *id)).collect();
    let by_id = store.find_message_ids(&ids).await?;
    // An empty number is none: many messages have it.
    let numbers: Vec<&str> = names
        .client_msg_nos
        .iter()
        .map(String::as_str)
        .filter(|number| !number.is_empty())
        .collect();
    let by_number = store.find_client_msg_nos(channel_id, &numbers).await?;
    let all = names.seqs.iter().copied();
    let all = all.chain(ids.iter().filter_map(|id| by_id.get(id).copied()));
    let all = all.chain(
        numbers
            .iter()
            .filter_map(|number| by_number.get(*number).copied()),
    );
    let mut there = HashSet::new();
    Ok(all
        .filter(|seq| visible.contains(seq) && there.insert(*seq))
        .collect())
}
