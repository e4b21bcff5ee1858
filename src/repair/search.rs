//! Searches all channels and all users for messages that no webhook brought.

use std::collections::HashSet;

use super::{RepairError, RepairSummary, Repairer};
use crate::conversation::import_unread_count;
use crate::message::{MessageBatch, Recipients, ingest};
use crate::model::{ChannelHead, ChannelKey, ChannelPk, EpochMs, Seq, Uid, unread};
use crate::store::Feeder;
use crate::upstream::{UpstreamConversation, list_conversations};

/// Number of channels, or users, between two looks at other work.
const PAGE_SIZE: u64 = 100;
/// Conversations that changed shortly before a search began may have been missed by the one before.
const OVERLAP_MS: i64 = 3_600_000;

/// A search of all channels, then of the conversations of all users. It can be continued after a
/// failure.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) began_at: EpochMs,
    /// The number of requests that this search answers.
    pub(super) answers: i64,
    /// Conversations without a newer message are not looked at.
    changed_since: EpochMs,
    position: Position,
    pub(super) summary: RepairSummary,
}

/// The next part of a search.
#[derive(Debug)]
enum Position {
    Channels {
        after: Option<ChannelPk>,
    },
    Users {
        after: String,
        /// The number of messages stored before all users were listed.
        stored_before: u64,
    },
    End,
}

impl Position {
    fn users(stored: u64) -> Self {
        Self::Users {
            after: String::new(),
            stored_before: stored,
        }
    }
}

impl Search {
    pub(super) fn new(now: EpochMs, feeder: &Feeder) -> Self {
        Self {
            began_at: now,
            answers: feeder.search_requests,
            changed_since: EpochMs((feeder.searched_at.0 - OVERLAP_MS).max(feeder.began_at.0)),
            position: Position::Channels { after: None },
            summary: RepairSummary::default(),
        }
    }

    /// Searches the next part. Returns whether this was the last one.
    ///
    /// # Errors
    /// The `WuKongIM` or the database does not answer; the same part can be searched again.
    pub(super) async fn step(&mut self, repairer: &Repairer) -> Result<bool, RepairError> {
        let store = &repairer.services.base.store;
        match &mut self.position {
            Position::Channels { after } => {
                let heads = store.list_channels_after(*after, PAGE_SIZE).await?;
                for head in &heads {
                    let result = repairer.fetch_newest(head).await;
                    self.summary.add(repairer.accept(head, result)?);
                    *after = Some(head.id);
                }
                if heads.is_empty() {
                    self.position = Position::users(self.summary.stored);
                }
            }
            Position::Users {
                after,
                stored_before,
            } => {
                let uids = store.list_users_after(after, PAGE_SIZE).await?;
                for uid in &uids {
                    if let Ok(user) = Uid::parse("uid", uid.as_str())
                        && !user.is_system()
                    {
                        let result = repairer.search_user(&user, self.changed_since).await?;
                        self.summary.add(result);
                    }
                    after.clone_from(uid);
                }
                if uids.is_empty() {
                    // The stored messages may be those of users who were not listed.
                    self.position = if self.summary.stored > *stored_before {
                        Position::users(self.summary.stored)
                    } else {
                        Position::End
                    };
                }
            }
            Position::End => {}
        }
        Ok(matches!(self.position, Position::End))
    }
}

impl Repairer {
    /// Counts a channel that could not be repaired, so that the others are.
    pub(super) fn accept(
        &self,
        head: &ChannelHead,
        result: Result<RepairSummary, RepairError>,
    ) -> Result<RepairSummary, RepairError> {
        match result {
            Err(RepairError::Channel(reason)) => {
                tracing::warn!(reason, channel = ?head.key, "cannot fetch the missing messages of a channel");
                Ok(RepairSummary {
                    channels: 1,
                    failed: 1,
                    ..RepairSummary::default()
                })
            }
            result => result,
        }
    }

    /// Looks for conversations of the user that are not known here.
    async fn search_user(
        &self,
        uid: &Uid,
        changed_since: EpochMs,
    ) -> Result<RepairSummary, RepairError> {
        let mut summary = RepairSummary::default();
        let listed = match list_conversations(&self.client, self.version, uid, changed_since).await
        {
            Err(error) => match RepairError::from(error) {
                RepairError::Channel(reason) => {
                    tracing::warn!(reason, %uid, "cannot list the conversations of a user");
                    summary.failed += 1;
                    return Ok(summary);
                }
                error => return Err(error),
            },
            Ok(listed) => listed,
        };
        let recent: Vec<(ChannelKey, UpstreamConversation)> = listed
            .into_iter()
            .filter(|listed| listed.last_seq > Seq::ZERO && listed.last_message_at >= self.began_at)
            .map(|listed| (ChannelKey::new(uid, &listed.channel), listed))
            .collect();
        if recent.is_empty() {
            return Ok(summary);
        }
        let store = &self.services.base.store;
        let names: Vec<(&Uid, &ChannelKey)> = recent.iter().map(|(key, _)| (uid, key)).collect();
        let known: HashSet<ChannelPk> = store
            .find_without_counts(&names)
            .await?
            .into_iter()
            .filter(|(_, row)| row.last_seq > Seq::ZERO)
            .map(|(_, row)| row.channel_id)
            .collect();
        let keys: Vec<&ChannelKey> = recent.iter().map(|(key, _)| key).collect();
        let ids = store.find_channels(&keys).await?;
        for (key, listed) in &recent {
            if ids.get(key).is_some_and(|id| known.contains(id)) {
                continue;
            }
            summary.add(self.add_conversation(uid, key, listed).await?);
        }
        Ok(summary)
    }

    /// Fetches the messages of a conversation that is not known here, and makes the user a member.
    async fn add_conversation(
        &self,
        uid: &Uid,
        key: &ChannelKey,
        listed: &UpstreamConversation,
    ) -> Result<RepairSummary, RepairError> {
        let store = &self.services.base.store;
        let ids = store.ensure_channels(&[key]).await?;
        let id = ids[key];
        let Some(head) = store.list_heads(&[id]).await?.pop() else {
            return Ok(RepairSummary::default());
        };
        let result = self.fetch_newest(&head).await;
        let summary = self.accept(&head, result)?;
        if key.pair().is_some() {
            return Ok(summary);
        }
        let range = Seq(1)..=listed.last_seq;
        let first = store.list_seqs(id, &range, 1).await?;
        let Some(first) = first.first().copied() else {
            return Ok(summary);
        };
        let Some(place) = store.list_places(id, &(first..=first)).await?.pop() else {
            return Ok(summary);
        };
        let batch = MessageBatch {
            messages: Vec::new(),
            recipients: Some(Recipients {
                key: key.clone(),
                seq: place.seq,
                message_id: place.message_id,
                sent_at: place.sent_at,
                uids: vec![uid.clone()],
            }),
        };
        ingest(&self.services.messages, batch).await?;
        self.lower_unread(uid, key, listed).await?;
        Ok(summary)
    }

    /// A user who read messages on the `WuKongIM` has fewer unread ones there than a new member has
    /// here.
    async fn lower_unread(
        &self,
        uid: &Uid,
        key: &ChannelKey,
        listed: &UpstreamConversation,
    ) -> Result<(), RepairError> {
        let store = &self.services.base.store;
        let Some((_, row)) = store.find_conversations(&[(uid, key)]).await?.pop() else {
            return Ok(());
        };
        let there = listed.unread.max(0);
        if self.services.base.conversations_on && unread::unread(&row) > there {
            let conversations = &self.services.conversations;
            import_unread_count(conversations, uid, &listed.channel, listed.last_seq, there)
                .await?;
        }
        Ok(())
    }
}

/// Fetches all missing messages now: between stored ones, and the newest of all channels.
///
/// # Errors
/// The `WuKongIM` or the database does not answer. Running it again continues.
pub async fn repair_all(repairer: &Repairer) -> Result<RepairSummary, RepairError> {
    let store = &repairer.services.base.store;
    let now = repairer.services.base.clock.now_ms();
    let mut total = RepairSummary::default();
    let mut after = None;
    loop {
        let heads = store.list_channels_after(after, PAGE_SIZE).await?;
        let Some(last) = heads.last() else { break };
        after = Some(last.id);
        for head in heads.iter().filter(|head| head.gaps.since > EpochMs::ZERO) {
            let result = repairer.fill_gaps(head).await;
            total.add(repairer.accept(head, result)?);
        }
    }
    // Without webhooks there is nothing to compare with.
    if let Some(feeder) = store.find_feeder().await? {
        let all = Feeder {
            searched_at: EpochMs::ZERO,
            ..feeder
        };
        let mut search = Search::new(now, &all);
        while !search.step(repairer).await? {}
        total.add(search.summary);
        store.record_search(search.began_at, search.answers).await?;
    }
    Ok(total)
}
