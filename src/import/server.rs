//! Imports from a running `WuKongIM` v1 or v2: the conversations of given users with all their
//! messages, their unread counts, and their order. It uses the routes of its clients:
//! `/conversation/sync` and `/channel/messagesync`.
//!
//! The progress of each channel and user is kept in the database: an import can be interrupted and
//! run again, and it can run while webhooks arrive. Unread counts are those at the moment of the
//! answer; later messages are added to them.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Interval, MissedTickBehavior};

use crate::auth::TOKEN_HEADER;
use crate::config::{Secret, Url};
use crate::conversation::import_unread_count;
use crate::error::Error;
use crate::message::{IncomingMessage, IngestReport, MessageBatch, Recipients, ingest};
use crate::model::{ChannelKey, ChannelRef, Message, Uid};
use crate::outbound::{ReadBodyError, read_response_body};
use crate::services::Services;
use crate::wukongim::{LegacyBody, MessageDecoder, SourceDialect};

/// Messages of one request, and of one transaction.
const PAGE_SIZE: i64 = 500;
/// Delays before a failed request is retried, in seconds.
const RETRY_DELAYS: [u64; 4] = [1, 2, 5, 10];
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of an answer. A page of messages with the longest payloads that a `WuKongIM`
/// accepts (32 KiB) takes a third of it.
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Maximum number of characters shown of an error answer.
const MAX_SHOWN_CHARS: usize = 1000;

/// A client of a `WuKongIM`.
#[derive(Debug)]
pub struct WukongimClient {
    url: String,
    token: Secret,
    http: reqwest::Client,
    rate_limit: Interval,
}

/// The result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Number of requested users.
    pub users: u64,
    /// Users that an earlier import completed.
    pub imported_before: u64,
    /// Conversations of the remaining users.
    pub conversations: u64,
    /// Messages stored by this import.
    pub stored: u64,
    /// Messages that were stored before.
    pub repeated: u64,
    /// Messages that are invalid.
    pub refused: u64,
    /// Messages whose seq or id is taken by another message.
    pub conflicts: u64,
}

impl std::fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} users: {} imported before, {} conversations of the others",
            self.users, self.imported_before, self.conversations
        )?;
        write!(
            f,
            "messages: {} stored, {} already there, {} refused, {} in conflict",
            self.stored, self.repeated, self.refused, self.conflicts
        )
    }
}

impl WukongimClient {
    /// Creates a client. `url` is the address of the HTTP interface, `token` the manager token (or
    /// empty), and `rate` the maximum number of requests per second.
    ///
    /// # Errors
    /// Returns an error if the URL is invalid.
    pub fn new(url: &str, token: &str, rate: u32) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        reqwest::Url::parse(&url)
            .with_context(|| format!("{} is not a URL", Url::from(url.as_str()).redacted()))?;
        // A redirect could send the token to another server.
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .build()?;
        let mut rate_limit = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        rate_limit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            url,
            token: Secret::from(token),
            http,
            rate_limit,
        })
    }

    /// Returns the address without its password.
    fn display_url(&self) -> String {
        Url::from(self.url.as_str()).redacted()
    }

    /// Posts a request, and retries it after temporary failures.
    ///
    /// # Errors
    /// Returns the refusal of the server, or the last failure.
    pub(super) async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            self.rate_limit.tick().await;
            let failure = match self.post_once(path, body).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(refusal)) => bail!("{}{path}: {refusal}", self.display_url()),
                Err(failure) => failure,
            };
            let Some(delay) = delays.next() else {
                bail!(
                    "{}{path}: {failure}; run the import again to continue",
                    self.display_url()
                )
            };
            tracing::warn!(failure, path, "retrying in {delay} s");
            tokio::time::sleep(Duration::from_secs(*delay)).await;
        }
    }

    /// Returns the answer, a permanent refusal (the inner error), or a temporary failure (the outer
    /// error).
    async fn post_once(&self, path: &str, body: &Value) -> Result<Result<Value, String>, String> {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        if !self.token.reveal().is_empty() {
            request = request.header(TOKEN_HEADER, self.token.reveal());
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
                "status {status}: redirects are not followed, because the token must not reach another server"
            );
            return Ok(Err(text));
        }
        if status.as_u16() == 404 {
            return Ok(Err(
                "status 404: is it a WuKongIM v1 or v2? (v3 has no such route)".to_owned(),
            ));
        }
        let body = match read_response_body(response, MAX_RESPONSE_BYTES).await {
            Ok(body) => body,
            Err(error @ ReadBodyError::TooLong(_)) => return Ok(Err(error.to_string())),
            Err(error @ ReadBodyError::ConnectionLost(_)) => return Err(error.to_string()),
        };
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body)
                .chars()
                .take(MAX_SHOWN_CHARS)
                .collect();
            return Ok(Err(format!("status {status} {text}")));
        }
        Ok(serde_json::from_slice(&body)
            .map_err(|error| format!("the answer is not JSON: {error}")))
    }

    /// Returns the key that the progress of an item is kept under.
    fn progress_key(&self, of: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in [self.url.as_str()].iter().chain(of) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }
}

/// Imports the conversations of these users.
///
/// # Errors
/// Returns an error if the server does not answer or refuses, or if the database fails. Running the
/// import again continues it.
pub async fn import_server(
    core: &Arc<Services>,
    client: &mut WukongimClient,
    uids: &[Uid],
) -> anyhow::Result<ImportSummary> {
    let progress = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} users, {eta} left {msg}")?;
        ProgressBar::new(uids.len() as u64).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let mut summary = ImportSummary::default();
    for uid in uids {
        summary.users += 1;
        let progress_key = client.progress_key(&["user", uid.as_str()]);
        if core.base.store.count_imported_lines(&progress_key).await? > 0 {
            summary.imported_before += 1;
        } else {
            import_user(core, client, uid, &mut summary, &progress)
                .await
                .with_context(|| format!("user {uid}"))?;
            core.base
                .store
                .write_imported_lines(&progress_key, 1)
                .await
                .map_err(with_details)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(summary)
}

/// Adds the details of an error: texts for API callers hide details that the operator of an import
/// needs.
fn with_details(error: impl Into<Error>) -> anyhow::Error {
    let error = error.into();
    let details = format!("{error:?}");
    anyhow::Error::new(error).context(details)
}

async fn import_user(
    core: &Arc<Services>,
    client: &mut WukongimClient,
    uid: &Uid,
    summary: &mut ImportSummary,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let body = json!({"uid": uid.as_str(), "version": 0, "last_msg_seqs": "", "msg_count": 1});
    let response = client.post("/conversation/sync", &body).await?;
    let Value::Array(mut items) = response else {
        bail!("/conversation/sync did not answer with an array")
    };
    // The oldest come first, so that an interrupted import leaves a list in the right order.
    items.reverse();
    for item in items {
        let item = LegacyBody::from_element(item, "conversation")?;
        let (id, kind) = (item.string("channel_id")?, item.uint8("channel_type")?);
        let channel = match ChannelRef::parse(id, i64::from(kind)) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(error = %error, "skipped an invalid conversation");
                summary.refused += 1;
                continue;
            }
        };
        // v2 returns the read position, v1 does not; v2 loses red dots once a message has left its
        // memory.
        let is_v2 = item.has("readed_to_msg_seq");
        let (unread, last_seq) = (
            item.int64("unread")?,
            i64::from(item.uint32("last_msg_seq")?),
        );
        import_channel(core, client, uid, &channel, is_v2, summary)
            .await
            .with_context(|| format!("{channel:?}"))?;
        import_unread_count(&core.conversations, uid, &channel, last_seq, unread.max(0))
            .await
            .map_err(with_details)?;
        summary.conversations += 1;
        progress.set_message(format!("({} messages)", summary.stored));
    }
    Ok(())
}

/// Imports the messages of a channel that are missing, and makes the user a member.
async fn import_channel(
    core: &Arc<Services>,
    client: &mut WukongimClient,
    uid: &Uid,
    channel: &ChannelRef,
    is_v2: bool,
    summary: &mut ImportSummary,
) -> anyhow::Result<()> {
    let key = ChannelKey::new(uid, channel);
    let kind = key.channel_type.number().to_string();
    let progress_key = client.progress_key(&["channel", &kind, &key.key]);
    let decoder = MessageDecoder {
        dialect: SourceDialect {
            names_pairs: false,
            loses_red_dots: is_v2,
        },
        limits: &core.base.limits,
        clock: &core.base.clock,
    };
    let mut seq = i64::try_from(core.base.store.count_imported_lines(&progress_key).await?)?;
    let mut first: Option<FirstMessage> = None;
    loop {
        let body = json!({
            "login_uid": uid.as_str(), "channel_id": channel.channel_id, "channel_type": channel.channel_type.number(),
            "start_message_seq": seq + 1, "end_message_seq": 0, "limit": PAGE_SIZE, "pull_mode": 1,
        });
        let response =
            LegacyBody::from_element(client.post("/channel/messagesync", &body).await?, "history")?;
        let mut messages: Vec<IncomingMessage> = Vec::new();
        for message in response.objects("messages")? {
            match decoder.decode(&message) {
                // Messages of other channels than the requested one are ignored.
                Ok(incoming) if incoming.key == key => messages.push(incoming),
                Ok(_) => summary.refused += 1,
                Err(reason) => {
                    tracing::warn!(reason = reason.label(), channel = ?key, "skipped an invalid message");
                    summary.refused += 1;
                }
            }
        }
        let last = response
            .objects("messages")?
            .iter()
            .filter_map(|message| message.int64("message_seq").ok())
            .max();
        first = first.or_else(|| {
            messages
                .first()
                .map(|incoming| FirstMessage::of(&incoming.message))
        });
        let report: IngestReport = ingest(
            &core.messages,
            MessageBatch {
                messages,
                recipients: None,
            },
        )
        .await
        .map_err(with_details)?;
        summary.stored += report.stored;
        summary.repeated += report.repeated;
        summary.conflicts += report.conflicts;
        match last {
            Some(last) if last > seq => {
                seq = last;
                core.base
                    .store
                    .write_imported_lines(&progress_key, u64::try_from(seq)?)
                    .await
                    .map_err(with_details)?;
            }
            _ => break,
        }
        if response.int64("more")? == 0 {
            break;
        }
    }
    join(core, client, uid, channel, &key, first).await
}

/// The first message of a channel; imported members join below it.
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

    fn read(fields: &LegacyBody) -> Result<Self, Error> {
        Ok(Self {
            seq: fields.int64("message_seq")?,
            message_id: fields.int64("message_id")?,
            sent_at: fields.int64("timestamp")?.saturating_mul(1000),
        })
    }
}

/// Makes the user a member, below the channel's first message. Both users of a person channel are
/// members implicitly.
async fn join(
    core: &Arc<Services>,
    client: &mut WukongimClient,
    uid: &Uid,
    channel: &ChannelRef,
    key: &ChannelKey,
    first: Option<FirstMessage>,
) -> anyhow::Result<()> {
    if key.pair().is_some() {
        return Ok(());
    }
    // If the channel was imported for another user, its messages are known, and only the first one
    // is requested again.
    let first = match first {
        Some(first) => Some(first),
        None => {
            let body = json!({
                "login_uid": uid.as_str(), "channel_id": channel.channel_id, "channel_type": channel.channel_type.number(),
                "start_message_seq": 1, "end_message_seq": 0, "limit": 1, "pull_mode": 1,
            });
            let response = LegacyBody::from_element(
                client.post("/channel/messagesync", &body).await?,
                "history",
            )?;
            let first = response.objects("messages")?.into_iter().next();
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
    let recipients = Recipients {
        key: key.clone(),
        seq,
        message_id,
        sent_at,
        uids: vec![uid.clone()],
    };
    ingest(
        &core.messages,
        MessageBatch {
            messages: Vec::new(),
            recipients: Some(recipients),
        },
    )
    .await
    .map_err(with_details)?;
    Ok(())
}
