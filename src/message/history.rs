//! The message history of a channel, page by page, for one of its members.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use super::MessageService;
use super::answer_size::{AnswerSizeLimit, MESSAGE_BYTES, SizedInAnswer, fit_newest_first};
use crate::error::Error;
use crate::model::{ChannelKey, ChannelPk, ChannelRef, ConversationRow, Message, Seq, Uid};
use crate::store::SeqRange;

/// A request for a page of messages.
#[derive(Clone, Debug)]
pub struct HistoryRequest {
    /// The user whose view is read.
    pub uid: Uid,
    /// The channel as this user names it.
    pub channel: ChannelRef,
    /// Only messages above this seq.
    pub after: Option<Seq>,
    /// Only messages below this seq.
    pub before: Option<Seq>,
    /// Maximum page size.
    pub limit: u32,
    /// True takes the page from the end of the range instead of its beginning.
    pub newest: bool,
    /// True if a service asks. A service may see all of a channel that `uid` never joined.
    pub as_service: bool,
}

/// A page of messages.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    /// In ascending order of seq.
    pub messages: Vec<Message>,
    /// True if there are older messages that the user may see.
    pub has_previous: bool,
    /// True if there are newer messages that the user may see.
    pub has_next: bool,
    /// True if the requested range has more messages.
    pub is_cut: bool,
}

/// Returns the messages that the user may see: above the deletion watermark, and for a former
/// member up to the point of leaving. A page is cut if the answer is full, but always has one
/// message.
///
/// # Errors
/// [`Error::NotFound`] if the user was never in the channel and no service asks, or if the channel
/// does not exist.
pub async fn list_history(
    service: &MessageService,
    request: &HistoryRequest,
    bytes: &AnswerSizeLimit,
) -> Result<HistoryPage, Error> {
    let key = ChannelKey::new(&request.uid, &request.channel);
    let (channel_id, visible) =
        find_visible_seqs(service, Some(&request.uid), &key, request.as_service).await?;
    list_visible(service, request, &key, channel_id, visible, bytes).await
}

/// The pages of several requests.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchedPage {
    /// A page.
    Page(HistoryPage),
    /// The user was never in the channel and no service asks, or the channel does not exist.
    Unknown,
    /// The earlier pages filled the answer.
    Full,
}

/// Like [`list_history`] for several requests of one user, whose pages share the answer. The
/// conversations are found by one statement; each page takes another one.
///
/// # Errors
/// [`Error::ConversationsOff`], [`Error::Store`].
pub async fn list_histories(
    service: &MessageService,
    requests: &[HistoryRequest],
    bytes: &AnswerSizeLimit,
) -> Result<Vec<BatchedPage>, Error> {
    service.base.check_conversations_on()?;
    let keys: Vec<ChannelKey> = requests
        .iter()
        .map(|request| ChannelKey::new(&request.uid, &request.channel))
        .collect();
    let names: HashSet<(&Uid, &ChannelKey)> = requests
        .iter()
        .zip(&keys)
        .map(|(request, key)| (&request.uid, key))
        .collect();
    let names: Vec<(&Uid, &ChannelKey)> = names.into_iter().collect();
    let rows = service.base.store.find_without_counts(&names).await?;
    let rows: HashMap<&ChannelKey, &ConversationRow> =
        rows.iter().map(|(_, row)| (&row.key, row)).collect();
    let mut pages = Vec::with_capacity(requests.len());
    for (request, key) in requests.iter().zip(&keys) {
        if bytes.remaining() < MESSAGE_BYTES {
            pages.push(BatchedPage::Full);
            continue;
        }
        let found = match rows.get(key) {
            Some(row) => Some((row.channel_id, row.visible_seqs())),
            None if request.as_service => service.base.store.find_channel_seqs(key).await?,
            None => None,
        };
        pages.push(match found {
            Some((channel_id, visible)) => BatchedPage::Page(
                list_visible(service, request, key, channel_id, visible, bytes).await?,
            ),
            None => BatchedPage::Unknown,
        });
    }
    Ok(pages)
}

/// Returns a channel with the range of seqs that are visible: for a user above the deletion
/// watermark, and for a former member up to the point of leaving. A service that names no user, or
/// one who was never in the channel, sees everything.
///
/// # Errors
/// [`Error::NotFound`] like [`list_history`]; [`Error::ConversationsOff`], [`Error::Store`].
pub(super) async fn find_visible_seqs(
    service: &MessageService,
    uid: Option<&Uid>,
    key: &ChannelKey,
    as_service: bool,
) -> Result<(ChannelPk, RangeInclusive<Seq>), Error> {
    service.base.check_conversations_on()?;
    let row = match uid {
        Some(uid) => service
            .base
            .store
            .find_without_counts(&[(uid, key)])
            .await?
            .pop()
            .map(|(_, row)| row),
        None => None,
    };
    match row {
        Some(row) => Ok((row.channel_id, row.visible_seqs())),
        None if as_service => service
            .base
            .store
            .find_channel_seqs(key)
            .await?
            .ok_or(Error::NotFound("channel")),
        None => Err(Error::NotFound("conversation")),
    }
}

/// Returns the part of a page that is within the visible seqs.
async fn list_visible(
    service: &MessageService,
    request: &HistoryRequest,
    key: &ChannelKey,
    channel_id: ChannelPk,
    visible: RangeInclusive<Seq>,
    bytes: &AnswerSizeLimit,
) -> Result<HistoryPage, Error> {
    let (lowest, highest) = visible.into_inner();
    let window = SeqRange {
        channel_id,
        from: request
            .after
            .map_or(lowest, |after| lowest.max(after.next())),
        to: request
            .before
            .map_or(highest, |before| highest.min(before.previous())),
    };
    if window.from > window.to {
        return Ok(HistoryPage {
            messages: Vec::new(),
            has_previous: window.from > lowest && lowest <= highest,
            has_next: window.to < highest && lowest <= highest,
            is_cut: false,
        });
    }
    let (mut messages, more) =
        read_page(service, key, window, request.limit, request.newest, bytes).await?;
    if request.newest {
        messages.reverse();
    }
    Ok(HistoryPage {
        messages,
        has_previous: if request.newest {
            more
        } else {
            window.from > lowest
        },
        has_next: if request.newest {
            window.to < highest
        } else {
            more
        },
        is_cut: more,
    })
}

/// Returns messages of a channel above a seq, oldest first, and whether there are more than fit.
///
/// # Errors
/// [`Error::Store`].
pub(crate) async fn list_after(
    service: &MessageService,
    channel_id: ChannelPk,
    key: &ChannelKey,
    after: Seq,
    bytes: &AnswerSizeLimit,
) -> Result<(Vec<Message>, bool), Error> {
    let window = SeqRange {
        channel_id,
        from: after.next(),
        to: Seq::MAX,
    };
    read_page(
        service,
        key,
        window,
        service.base.limits.page_size,
        false,
        bytes,
    )
    .await
}

/// Returns at most `limit` messages of a range, from its end or its beginning, and whether there
/// are more. Returns at least one message if there is one, because a client cannot continue from an
/// empty page.
pub(super) async fn read_page(
    service: &MessageService,
    key: &ChannelKey,
    window: SeqRange,
    limit: u32,
    newest: bool,
    bytes: &AnswerSizeLimit,
) -> Result<(Vec<Message>, bool), Error> {
    // No more messages than this can fit, even if they are empty.
    let limit = (limit as usize).min(bytes.remaining() / MESSAGE_BYTES + 1);
    let mut stored = service
        .base
        .store
        .list_page(
            window,
            limit as u64 + 1,
            newest,
            bytes.inline_payload_bytes(limit),
        )
        .await?;
    let mut more = stored.len() > limit;
    stored.truncate(limit);
    let fit = bytes.take_with(|left| {
        let fit = fit_newest_first(
            &[stored.len()],
            left,
            |_| 0,
            |_, at| stored[at].size_in_answer(),
        )[0];
        if fit == 0 && !stored.is_empty() {
            *left = 0;
            return 1;
        }
        fit
    });
    bytes.reserve_memory()?;
    if fit < stored.len() {
        metrics::counter!(crate::metrics::ANSWERS_CUT_TOTAL).increment(1);
        more = true;
        stored.truncate(fit);
    }
    service
        .base
        .store
        .read_payloads(stored.iter_mut().collect())
        .await?;
    Ok((
        stored
            .into_iter()
            .map(|read| Message::from_stored(read.message, key))
            .collect(),
        more,
    ))
}
