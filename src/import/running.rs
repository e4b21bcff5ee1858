//! From a `WuKongIM` v1 or v2 that runs: the conversations of given users with all their messages,
//! what is unread in them, and their order. It is asked for what its own clients ask:
//! `/conversation/sync` and `/channel/messagesync`.
//!
//! How far each channel came, and which users are done, is kept in the database: an import can be
//! interrupted and run again, and run while webhooks arrive. What is unread is set for the moment
//! of the answer; what came since counts on top of it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Interval, MissedTickBehavior};

use crate::auth::TOKEN;
use crate::channel::ChannelKey;
use crate::config::{Secret, Url};
use crate::conversation::import_unread_count;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, Uid};
use crate::message::{Incoming, IncomingMessage, Message, Receivers, Report, ingest};
use crate::outside::{NoAnswer, read_answer};
use crate::rest::legacy::Fields;
use crate::rest::wukong::webhook::{Sender, read_message};

/// Messages of one request, and of one transaction.
const PAGE: i64 = 500;
/// A request that fails is made again after these pauses.
const PAUSES: [u64; 4] = [1, 2, 5, 10];
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer: a page of messages with the longest payloads that a `WuKongIM` takes (32
/// KiB) is a third of it.
const ANSWER_BYTES: usize = 64 << 20;
/// Characters of an answer that is no success: it is shown.
const SHOWN: usize = 1000;

/// A server that is asked.
#[derive(Debug)]
pub struct Source {
    url: String,
    token: Secret,
    http: reqwest::Client,
    turn: Interval,
}

/// What came over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Users that were asked for.
    pub users: u64,
    /// Users among them whom an earlier import has brought over.
    pub before: u64,
    /// Conversations of the others.
    pub conversations: u64,
    /// Messages stored now.
    pub stored: u64,
    /// Messages stored before.
    pub repeated: u64,
    /// Messages that cannot be used.
    pub refused: u64,
    /// Messages whose place another one has.
    pub conflicts: u64,
}

impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} users: {} imported before, {} conversations of the others",
            self.users, self.before, self.conversations
        )?;
        write!(
            f,
            "messages: {} stored, {} already there, {} refused, {} in conflict",
            self.stored, self.repeated, self.refused, self.conflicts
        )
    }
}

impl Source {
    /// `url` is the address of its HTTP interface, `token` its manager token (or empty), `rate` how
    /// many requests it bears a second.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn new(url: &str, token: &str, rate: u32) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        reqwest::Url::parse(&url)
            .with_context(|| format!("{} is no URL", Url::from(url.as_str()).redacted()))?;
        // A redirection could lead the token to another server.
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .build()?;
        let mut turn = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            url,
            token: Secret::from(token),
            http,
            turn,
        })
    }

    /// The address, without a password that it may carry.
    fn shown(&self) -> String {
        Url::from(self.url.as_str()).redacted()
    }

    /// Asks, again when it cannot answer just now.
    ///
    /// # Errors
    /// What it says, or why it says nothing.
    pub(super) async fn ask(&mut self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut pauses = PAUSES.iter();
        loop {
            self.turn.tick().await;
            let failure = match self.ask_once(path, body).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(refusal)) => bail!("{}{path}: {refusal}", self.shown()),
                Err(failure) => failure,
            };
            let Some(pause) = pauses.next() else {
                bail!(
                    "{}{path}: {failure}; run the import again to go on",
                    self.shown()
                )
            };
            tracing::warn!(failure, path, "asking again in {pause} s");
            tokio::time::sleep(Duration::from_secs(*pause)).await;
        }
    }

    /// An answer; a refusal, which will not change; or a failure, which may.
    async fn ask_once(&self, path: &str, body: &Value) -> Result<Result<Value, String>, String> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        if !self.token.reveal().is_empty() {
            request = request.header(TOKEN, self.token.reveal());
        }
        let response = request
            .send()
            .await
            .map_err(|error| error.without_url().to_string())?;
        let status = response.status();
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(format!("status {status}"));
        }
        if status.is_redirection() {
            let text = format!(
                "status {status}: it leads to another address, and the token is sent to none but the one that is named"
            );
            return Ok(Err(text));
        }
        if status.as_u16() == 404 {
            return Ok(Err(
                "status 404: is it a WuKongIM v1 or v2? (v3 has no such route)".to_owned(),
            ));
        }
        let body = match read_answer(response, ANSWER_BYTES).await {
            Ok(body) => body,
            Err(error @ NoAnswer::TooLong(_)) => return Ok(Err(error.to_string())),
            Err(error @ NoAnswer::Broken(_)) => return Err(error.to_string()),
        };
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body).chars().take(SHOWN).collect();
            return Ok(Err(format!("status {status} {text}")));
        }
        Ok(
            serde_json::from_slice(&body)
                .map_err(|error| format!("the answer is no JSON: {error}")),
        )
    }

    /// Under what a thing's progress is kept.
    fn mark(&self, of: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in [self.url.as_str()].iter().chain(of) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }
}

/// Brings over the conversations of these users.
///
/// # Errors
/// A source that does not answer or refuses, a database that fails: run it again to go on.
pub async fn import_running(
    core: &Arc<Core>,
    source: &mut Source,
    uids: &[Uid],
) -> anyhow::Result<Carried> {
    let progress = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} users, {eta} left {msg}")?;
        ProgressBar::new(uids.len() as u64).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let mut carried = Carried::default();
    for uid in uids {
        carried.users += 1;
        let mark = source.mark(&["user", uid.as_str()]);
        if core.store.count_imported_lines(&mark).await? > 0 {
            carried.before += 1;
        } else {
            import_user(core, source, uid, &mut carried, &progress)
                .await
                .with_context(|| format!("user {uid:?}"))?;
            core.store
                .write_imported_lines(&mark, 1)
                .await
                .map_err(inner)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(carried)
}

/// What the caller of a route may read says too little for who runs an import.
fn inner(error: Error) -> anyhow::Error {
    let shown = format!("{error:?}");
    anyhow::Error::new(error).context(shown)
}

async fn import_user(
    core: &Arc<Core>,
    source: &mut Source,
    uid: &Uid,
    carried: &mut Carried,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let body = json!({"uid": uid.as_str(), "version": 0, "last_msg_seqs": "", "msg_count": 1});
    let answer = source.ask("/conversation/sync", &body).await?;
    let Value::Array(mut items) = answer else {
        bail!("/conversation/sync answered no array")
    };
    // Oldest first, so that an interrupted import leaves a list that is right as far as it goes.
    items.reverse();
    for item in items {
        let item = Fields::from_element(item, "conversation")?;
        let (id, kind) = (item.string("channel_id")?, item.uint8("channel_type")?);
        let channel = match ChannelRef::parse(id, i64::from(kind)) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(error = %error, "a conversation that cannot be");
                carried.refused += 1;
                continue;
            }
        };
        // v2 says up to where it was read, v1 does not; v2 loses red dots once a message has left
        // its memory.
        let is_v2 = item.has("readed_to_msg_seq");
        let (unread, last_seq) = (
            item.int64("unread")?,
            i64::from(item.uint32("last_msg_seq")?),
        );
        import_channel(core, source, uid, &channel, is_v2, carried)
            .await
            .with_context(|| format!("{channel:?}"))?;
        import_unread_count(core, uid, &channel, last_seq, unread.max(0))
            .await
            .map_err(inner)?;
        carried.conversations += 1;
        progress.set_message(format!("({} messages)", carried.stored));
    }
    Ok(())
}

/// All messages of a channel that did not come before, and the user's place in it.
async fn import_channel(
    core: &Arc<Core>,
    source: &mut Source,
    uid: &Uid,
    channel: &ChannelRef,
    is_v2: bool,
    carried: &mut Carried,
) -> anyhow::Result<()> {
    let key = ChannelKey::new(uid, channel);
    let kind = key.channel_type.number().to_string();
    let mark = source.mark(&["channel", &kind, &key.key]);
    let sender = Sender {
        names_pairs: false,
        loses_red_dots: is_v2,
    };
    let mut seq = i64::try_from(core.store.count_imported_lines(&mark).await?)?;
    let mut first: Option<FirstMessage> = None;
    loop {
        let body = json!({
            "login_uid": uid.as_str(), "channel_id": channel.channel_id, "channel_type": channel.channel_type.number(),
            "start_message_seq": seq + 1, "end_message_seq": 0, "limit": PAGE, "pull_mode": 1,
        });
        let answer =
            Fields::from_element(source.ask("/channel/messagesync", &body).await?, "history")?;
        let mut messages: Vec<IncomingMessage> = Vec::new();
        for message in answer.objects("messages")? {
            match read_message(core, sender, &message) {
                // A channel is asked for, and nothing else is taken.
                Ok(incoming) if incoming.key == key => messages.push(incoming),
                Ok(_) => carried.refused += 1,
                Err(reason) => {
                    tracing::warn!(reason, channel = ?key, "a message cannot be used");
                    carried.refused += 1;
                }
            }
        }
        let last = answer
            .objects("messages")?
            .iter()
            .filter_map(|message| message.int64("message_seq").ok())
            .max();
        first = first.or_else(|| {
            messages
                .first()
                .map(|incoming| FirstMessage::of(&incoming.message))
        });
        let report: Report = ingest(
            core,
            Incoming {
                messages,
                receivers: None,
            },
        )
        .await
        .map_err(inner)?;
        carried.stored += report.stored;
        carried.repeated += report.repeated;
        carried.conflicts += report.conflicts;
        match last {
            Some(last) if last > seq => {
                seq = last;
                core.store
                    .write_imported_lines(&mark, u64::try_from(seq)?)
                    .await
                    .map_err(inner)?;
            }
            _ => break,
        }
        if answer.int64("more")? == 0 {
            break;
        }
    }
    join(core, source, uid, channel, &key, first).await
}

/// The first message of a channel, below which its members join.
struct FirstMessage {
    seq: i64,
    message_id: i64,
    sent_at: i64,
}

impl FirstMessage {
    fn of(message: &Message) -> Self {
        Self {
            seq: message.seq,
            message_id: message.message_id,
            sent_at: message.sent_at,
        }
    }

    fn read(fields: &Fields) -> Result<Self, Error> {
        Ok(Self {
            seq: fields.int64("message_seq")?,
            message_id: fields.int64("message_id")?,
            sent_at: fields.int64("timestamp")?.saturating_mul(1000),
        })
    }
}

/// Makes the user a member, below the channel's first message. In a person channel both are by its
/// nature.
async fn join(
    core: &Arc<Core>,
    source: &mut Source,
    uid: &Uid,
    channel: &ChannelRef,
    key: &ChannelKey,
    first: Option<FirstMessage>,
) -> anyhow::Result<()> {
    if key.pair().is_some() {
        return Ok(());
    }
    // Who imported the channel for another user knows its messages already: the first one is asked
    // for again.
    let first = match first {
        Some(first) => Some(first),
        None => {
            let body = json!({
                "login_uid": uid.as_str(), "channel_id": channel.channel_id, "channel_type": channel.channel_type.number(),
                "start_message_seq": 1, "end_message_seq": 0, "limit": 1, "pull_mode": 1,
            });
            let answer =
                Fields::from_element(source.ask("/channel/messagesync", &body).await?, "history")?;
            let first = answer.objects("messages")?.into_iter().next();
            first
                .map(|message| FirstMessage::read(&message))
                .transpose()?
        }
    };
    let Some(FirstMessage {
        seq,
        message_id,
        sent_at,
    }) = first
    else {
        return Ok(());
    };
    let receivers = Receivers {
        key: key.clone(),
        seq,
        message_id,
        sent_at,
        uids: vec![uid.clone()],
    };
    ingest(
        core,
        Incoming {
            messages: Vec::new(),
            receivers: Some(receivers),
        },
    )
    .await
    .map_err(inner)?;
    Ok(())
}
