//! Requests that create channels and change their members.

use std::collections::HashSet;

use super::ChannelService;
use super::bulk_removal::{
    MAX_IMMEDIATE_REMOVALS, apply_pending_removals, enqueue_removal_of_all,
    enqueue_removal_of_users,
};
use super::join::{JoinReason, MemberHint, join_members};
use super::leave::{Removal, leave};
use crate::error::Error;
use crate::model::{ChannelKey, ChannelPk, ChannelRef, ChannelType, Uid};
use crate::store::{LockPolicy, StoreError};

/// Flags of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// A very large group.
    pub large: bool,
    /// The channel is banned.
    pub ban: bool,
    /// The channel is disbanded.
    pub disband: bool,
}

impl Flags {
    fn bits(self) -> i64 {
        i64::from(self.large) | i64::from(self.ban) << 1 | i64::from(self.disband) << 2
    }

    /// Converts from the stored form.
    pub(super) fn from_bits(bits: i64) -> Self {
        Self {
            large: bits & 1 > 0,
            ban: bits & 2 > 0,
            disband: bits & 4 > 0,
        }
    }
}

/// Changes of a channel's flags; `None` leaves a flag unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagChanges {
    /// A very large group.
    pub large: Option<bool>,
    /// The channel is banned.
    pub ban: Option<bool>,
    /// The channel is disbanded.
    pub disband: Option<bool>,
}

impl From<Flags> for FlagChanges {
    fn from(flags: Flags) -> Self {
        Self {
            large: Some(flags.large),
            ban: Some(flags.ban),
            disband: Some(flags.disband),
        }
    }
}

impl FlagChanges {
    /// Returns the flags after these changes.
    pub(crate) fn apply(self, before: Flags) -> Flags {
        Flags {
            large: self.large.unwrap_or(before.large),
            ban: self.ban.unwrap_or(before.ban),
            disband: self.disband.unwrap_or(before.disband),
        }
    }

    /// Returns the stored flags after these changes.
    fn apply_to_bits(self, bits: i64) -> i64 {
        self.apply(Flags::from_bits(bits)).bits()
    }
}

/// A request to create or change a channel.
#[derive(Clone, Debug)]
pub struct CreateChannel {
    /// The channel.
    pub channel: ChannelRef,
    /// Changes of its flags.
    pub flags: FlagChanges,
    /// Members to add.
    pub uids: Vec<Uid>,
    /// True removes all other members.
    pub reset: bool,
}

pub(super) fn group_key(channel: &ChannelRef) -> Result<ChannelKey, Error> {
    if channel.channel_type == ChannelType::PERSON {
        return Err(Error::bad_input(
            "channel_type",
            "must not be 1: a person channel always has its two users as members",
        ));
    }
    Ok(ChannelKey {
        channel_type: channel.channel_type,
        key: channel.channel_id.clone(),
    })
}

fn check_member_count(service: &ChannelService, uids: &[Uid]) -> Result<(), Error> {
    if uids.len() > service.base.limits.max_members_per_request {
        return Err(Error::bad_input(
            "subscribers",
            format!(
                "must name at most {} users",
                service.base.limits.max_members_per_request
            ),
        ));
    }
    Ok(())
}

/// Checks that a change of a channel can be made: for callers that do something else before it.
///
/// # Errors
/// [`Error::BadInput`] for a person channel or too many users.
pub(crate) fn check_change(
    service: &ChannelService,
    channel: &ChannelRef,
    uids: &[Uid],
) -> Result<(), Error> {
    group_key(channel)?;
    check_member_count(service, uids)
}

/// Creates or changes a channel, and adds members.
///
/// # Errors
/// [`Error::BadInput`] for a person channel or too many users, [`Error::Store`].
pub async fn create_channel(
    service: &ChannelService,
    request: &CreateChannel,
) -> Result<(), Error> {
    let key = group_key(&request.channel)?;
    check_member_count(service, &request.uids)?;
    if request.reset {
        remove_others(service, &key, &request.uids).await?;
    }
    set_flags(service, ensure_channel(service, &key).await?, request.flags).await?;
    add(service, &key, &request.uids).await
}

/// Adds members, who see the messages sent from now on. Existing members are left unchanged.
/// Creates an unknown channel.
///
/// # Errors
/// Like [`create_channel`].
pub async fn add_members(
    service: &ChannelService,
    channel: &ChannelRef,
    uids: &[Uid],
    reset: bool,
) -> Result<(), Error> {
    let key = group_key(channel)?;
    check_member_count(service, uids)?;
    if reset {
        remove_others(service, &key, uids).await?;
    }
    add(service, &key, uids).await
}

/// Removes members, including users who are not known as members yet: a late webhook does not add
/// them. Large removals are accepted durably and take effect within seconds.
///
/// # Errors
/// Like [`create_channel`].
pub async fn remove_members(
    service: &ChannelService,
    channel: &ChannelRef,
    uids: &[Uid],
) -> Result<(), Error> {
    let key = group_key(channel)?;
    check_member_count(service, uids)?;
    let channel_id = ensure_channel(service, &key).await?;
    if uids.len() > MAX_IMMEDIATE_REMOVALS {
        return enqueue_removal_of_users(service, channel_id, &key, uids).await;
    }
    leave(service, channel_id, uids, Removal::now(service)).await
}

/// Removes all members; the channel stays.
///
/// # Errors
/// Like [`create_channel`].
pub async fn remove_all_members(
    service: &ChannelService,
    channel: &ChannelRef,
) -> Result<(), Error> {
    remove_others(service, &group_key(channel)?, &[]).await
}

/// Removes all members except `stay`. The channel stores the time: users without a conversation
/// were not members then.
pub(super) async fn remove_others(
    service: &ChannelService,
    key: &ChannelKey,
    stay: &[Uid],
) -> Result<(), Error> {
    let Some(channel_id) = service.base.store.find_channel(key).await? else {
        return Ok(());
    };
    let now_ms = service.base.clock.now_ms();
    service
        .base
        .store
        .lock_waiting_transaction(|tx| async move {
            if let Some(mut head) = tx.lock_channel(channel_id).await? {
                head.cleared_at = head.cleared_at.max(now_ms);
                tx.write_heads(&[&head]).await?;
            }
            tx.commit(()).await
        })
        .await?;
    let names: HashSet<&Uid> = stay.iter().collect();
    let mut leaving = service
        .base
        .store
        .list_some_members(channel_id, names.len() + MAX_IMMEDIATE_REMOVALS + 1)
        .await?;
    leaving.retain(|uid| !names.contains(uid));
    if leaving.len() > MAX_IMMEDIATE_REMOVALS {
        return enqueue_removal_of_all(service, channel_id, key, stay).await;
    }
    leave(service, channel_id, &leaving, Removal::now(service)).await
}

async fn add(service: &ChannelService, key: &ChannelKey, uids: &[Uid]) -> Result<(), Error> {
    let channel_id = ensure_channel(service, key).await?;
    if !uids.is_empty() {
        apply_pending_removals(service, channel_id, uids).await?;
    }
    let hint = |uid: &Uid| MemberHint {
        channel_id,
        uid: uid.clone(),
        reason: JoinReason::Request,
    };
    let _permit = service.base.store.acquire_lock_wait_permit().await;
    join_members(
        service,
        &uids.iter().map(hint).collect::<Vec<_>>(),
        LockPolicy::Wait,
    )
    .await?;
    Ok(())
}

pub(super) async fn ensure_channel(
    service: &ChannelService,
    key: &ChannelKey,
) -> Result<ChannelPk, Error> {
    let channels = service.base.store.ensure_channels(&[key]).await?;
    let id = channels.get(key).copied();
    Ok(id.ok_or_else(|| StoreError::Internal("a created channel does not exist".into()))?)
}

async fn set_flags(
    service: &ChannelService,
    channel_id: ChannelPk,
    flags: FlagChanges,
) -> Result<(), Error> {
    let heads = service.base.store.list_heads(&[channel_id]).await?;
    if heads
        .first()
        .is_none_or(|head| head.flags == flags.apply_to_bits(head.flags))
    {
        return Ok(());
    }
    service
        .base
        .store
        .lock_waiting_transaction(|tx| async move {
            if let Some(mut head) = tx.lock_channel(channel_id).await? {
                head.flags = flags.apply_to_bits(head.flags);
                tx.write_heads(&[&head]).await?;
            }
            tx.commit(()).await
        })
        .await?;
    Ok(())
}
