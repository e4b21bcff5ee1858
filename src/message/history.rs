//! A channel's messages, page by page, for one of its members.

use super::answer_bytes::{AnswerBytes, MESSAGE_BYTES, Weigh, fitting};
use super::{Message, seqs_seen_by};
use crate::channel::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Seq, Uid};
use crate::store::Window;

/// Which messages.
#[derive(Clone, Debug)]
pub struct HistoryRequest {
    /// Who looks.
    pub uid: Uid,
    /// At what.
    pub channel: ChannelRef,
    /// Only above this seq.
    pub after: Option<Seq>,
    /// Only below this seq.
    pub before: Option<Seq>,
    /// At most this many.
    pub limit: u32,
    /// From the end of the range; otherwise from its beginning.
    pub newest: bool,
    /// Whether a service asks, which may see all of a channel that `uid` was never in.
    pub as_service: bool,
}

/// A page of messages.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryPage {
    /// In ascending order of seq.
    pub messages: Vec<Message>,
    /// Whether there are older ones that the user may see.
    pub has_previous: bool,
    /// Whether there are newer ones that the user may see.
    pub has_next: bool,
    /// Whether there are more in the range asked for.
    pub is_cut: bool,
}

/// The messages that the user may see: above the deletion watermark, and up to where a former
/// member left. A page is cut where no more fit into the answer, but for its first one.
///
/// # Errors
/// [`Error::NotFound`] when the user is not, and never was, in the channel, and no service asks; or
/// when there is none.
pub async fn list_history(
    core: &Core,
    request: &HistoryRequest,
    bytes: &AnswerBytes,
) -> Result<HistoryPage, Error> {
    core.check_conversations_on()?;
    let key = ChannelKey::new(&request.uid, &request.channel);
    let row = core
        .store
        .find_uncounted(&[(&request.uid, &key)])
        .await?
        .pop()
        .map(|(_, row)| row);
    let (channel_id, seen) = match row {
        Some(row) => (row.channel_id, seqs_seen_by(&row)),
        None if request.as_service => core
            .store
            .find_seqs(&key)
            .await?
            .ok_or(Error::NotFound("channel"))?,
        None => return Err(Error::NotFound("conversation")),
    };
    let (lowest, highest) = seen.into_inner();
    let window = Window {
        channel_id,
        from: request
            .after
            .map_or(lowest, |after| lowest.max(after.saturating_add(1))),
        to: request
            .before
            .map_or(highest, |before| highest.min(before.saturating_sub(1))),
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
        read_page(core, &key, window, request.limit, request.newest, bytes).await?;
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

/// Messages of a channel above a seq, oldest first, and whether there are more than fit.
///
/// # Errors
/// [`Error::Store`].
pub(crate) async fn list_after(
    core: &Core,
    channel_id: i64,
    key: &ChannelKey,
    after: Seq,
    bytes: &AnswerBytes,
) -> Result<(Vec<Message>, bool), Error> {
    let window = Window {
        channel_id,
        from: after.saturating_add(1),
        to: Seq::MAX,
    };
    read_page(core, key, window, core.limits.page_size, false, bytes).await
}

/// At most `limit` messages of a range, from its end or its beginning on, and whether there are
/// more. At least one, if there is one: a page without messages leads nowhere.
async fn read_page(
    core: &Core,
    key: &ChannelKey,
    window: Window,
    limit: u32,
    newest: bool,
    bytes: &AnswerBytes,
) -> Result<(Vec<Message>, bool), Error> {
    // So many fit at most, however short they are.
    let limit = (limit as usize).min(bytes.left() / MESSAGE_BYTES + 1);
    let mut stored = core
        .store
        .list_page(window, limit as u64 + 1, newest, bytes.short_enough(limit))
        .await?;
    let mut more = stored.len() > limit;
    stored.truncate(limit);
    let fit = bytes.with(|left| {
        let fit = fitting(&[stored.len()], left, |_| 0, |_, at| stored[at].weight())[0];
        if fit == 0 && !stored.is_empty() {
            *left = 0;
            return 1;
        }
        fit
    });
    bytes.hold()?;
    if fit < stored.len() {
        metrics::counter!("recents_answers_cut_total").increment(1);
        more = true;
        stored.truncate(fit);
    }
    core.store
        .read_payloads(stored.iter_mut().collect())
        .await?;
    Ok((
        stored
            .into_iter()
            .map(|read| Message::new(read.message, key))
            .collect(),
        more,
    ))
}
