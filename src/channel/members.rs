//! Members of channels, as requests name them.

use std::collections::HashSet;

use super::ChannelKey;
use super::join::{MemberHint, Reason, join_members};
use super::leave::{Removal, leave};
use super::removal::{AT_ONCE, accept_all, accept_named, hasten};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Uid};
use crate::store::{Locks, StoreError};

/// What a channel is marked as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// A group of very many.
    pub large: bool,
    /// Banned.
    pub ban: bool,
    /// Disbanded.
    pub disband: bool,
}

impl Flags {
    fn bits(self) -> i64 {
        i64::from(self.large) | i64::from(self.ban) << 1 | i64::from(self.disband) << 2
    }

    /// As stored.
    pub(super) fn from_bits(bits: i64) -> Self {
        Self {
            large: bits & 1 > 0,
            ban: bits & 2 > 0,
            disband: bits & 4 > 0,
        }
    }
}

/// Changes of a channel's flags; `None` leaves a flag as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagChanges {
    /// A group of very many.
    pub large: Option<bool>,
    /// Banned.
    pub ban: Option<bool>,
    /// Disbanded.
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
    /// The stored flags after these changes.
    fn apply(self, bits: i64) -> i64 {
        let before = Flags::from_bits(bits);
        let after = Flags {
            large: self.large.unwrap_or(before.large),
            ban: self.ban.unwrap_or(before.ban),
            disband: self.disband.unwrap_or(before.disband),
        };
        after.bits()
    }
}

/// A channel to make, or to change.
#[derive(Clone, Debug)]
pub struct CreateChannel {
    /// Which channel.
    pub channel: ChannelRef,
    /// What it is marked as.
    pub flags: FlagChanges,
    /// Who is in it.
    pub uids: Vec<Uid>,
    /// Whether nobody else is.
    pub reset: bool,
}

pub(super) fn group_key(channel: &ChannelRef) -> Result<ChannelKey, Error> {
    if channel.channel_type == ChannelType::PERSON {
        return Err(Error::bad_input(
            "channel_type",
            "must not be 1: a person channel has the two it is made of",
        ));
    }
    Ok(ChannelKey {
        channel_type: channel.channel_type,
        key: channel.channel_id.clone(),
    })
}

fn check_number(core: &Core, uids: &[Uid]) -> Result<(), Error> {
    if uids.len() > core.limits.members {
        return Err(Error::bad_input(
            "subscribers",
            format!("must name at most {} users", core.limits.members),
        ));
    }
    Ok(())
}

/// Makes a channel, or changes one, and adds members.
///
/// # Errors
/// [`Error::BadInput`] for a person channel or too many users, [`Error::Store`].
pub async fn create_channel(core: &Core, request: &CreateChannel) -> Result<(), Error> {
    let key = group_key(&request.channel)?;
    check_number(core, &request.uids)?;
    if request.reset {
        remove_others(core, &key, &request.uids).await?;
    }
    set_flags(core, ensure_channel(core, &key).await?, request.flags).await?;
    add(core, &key, &request.uids).await
}

/// Adds members, who see what is sent from now on; who is in it already is left alone. An unknown
/// channel is made.
///
/// # Errors
/// As [`create_channel`].
pub async fn add_members(
    core: &Core,
    channel: &ChannelRef,
    uids: &[Uid],
    reset: bool,
) -> Result<(), Error> {
    let key = group_key(channel)?;
    check_number(core, uids)?;
    if reset {
        remove_others(core, &key, uids).await?;
    }
    add(core, &key, uids).await
}

/// Removes members, also those who are not known yet: a webhook that is late does not bring them
/// in. Where there are very many of them it is accepted for good, and happens within seconds.
///
/// # Errors
/// As [`create_channel`].
pub async fn remove_members(core: &Core, channel: &ChannelRef, uids: &[Uid]) -> Result<(), Error> {
    let key = group_key(channel)?;
    check_number(core, uids)?;
    let channel_id = ensure_channel(core, &key).await?;
    if uids.len() > AT_ONCE {
        return accept_named(core, channel_id, &key, uids).await;
    }
    leave(core, channel_id, uids, Removal::now(core)).await
}

/// Removes everybody; the channel stays.
///
/// # Errors
/// As [`create_channel`].
pub async fn remove_all_members(core: &Core, channel: &ChannelRef) -> Result<(), Error> {
    remove_others(core, &group_key(channel)?, &[]).await
}

/// Removes all members but some. The channel remembers when: users who have no conversation there
/// were no members then.
pub(super) async fn remove_others(
    core: &Core,
    key: &ChannelKey,
    stay: &[Uid],
) -> Result<(), Error> {
    let Some(channel_id) = core.store.find_channel(key).await? else {
        return Ok(());
    };
    let now_ms = core.clock.now_ms();
    core.store
        .waiting_transaction(|tx| async move {
            if let Some(mut head) = tx.lock_channel(channel_id).await? {
                head.cleared_at = head.cleared_at.max(now_ms);
                tx.write_heads(&[&head]).await?;
            }
            tx.commit(()).await
        })
        .await?;
    let names: HashSet<&Uid> = stay.iter().collect();
    let mut leaving = core
        .store
        .list_some_members(channel_id, names.len() + AT_ONCE + 1)
        .await?;
    leaving.retain(|uid| !names.contains(uid));
    if leaving.len() > AT_ONCE {
        return accept_all(core, channel_id, key, stay).await;
    }
    leave(core, channel_id, &leaving, Removal::now(core)).await
}

async fn add(core: &Core, key: &ChannelKey, uids: &[Uid]) -> Result<(), Error> {
    let channel_id = ensure_channel(core, key).await?;
    if !uids.is_empty() {
        hasten(core, channel_id, uids).await?;
    }
    let hint = |uid: &Uid| MemberHint {
        channel_id,
        uid: uid.clone(),
        reason: Reason::Request,
    };
    let _place = core.store.may_wait().await;
    join_members(
        core,
        &uids.iter().map(hint).collect::<Vec<_>>(),
        Locks::Wait,
    )
    .await?;
    Ok(())
}

async fn ensure_channel(core: &Core, key: &ChannelKey) -> Result<i64, Error> {
    let channels = core.store.ensure_channels(&[key]).await?;
    let id = channels.get(key).copied();
    Ok(id.ok_or_else(|| StoreError::Broken("a channel that was made is not there".to_owned()))?)
}

async fn set_flags(core: &Core, channel_id: i64, flags: FlagChanges) -> Result<(), Error> {
    let heads = core.store.list_heads(&[channel_id]).await?;
    if heads
        .first()
        .is_none_or(|head| head.flags == flags.apply(head.flags))
    {
        return Ok(());
    }
    core.store
        .waiting_transaction(|tx| async move {
            if let Some(mut head) = tx.lock_channel(channel_id).await? {
                head.flags = flags.apply(head.flags);
                tx.write_heads(&[&head]).await?;
            }
            tx.commit(()).await
        })
        .await
}
