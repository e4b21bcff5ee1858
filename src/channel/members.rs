//! Who is in a channel. Joining writes one row, leaving marks it: nobody is ever forgotten, so nobody misses being told.

use std::collections::HashSet;

use super::ChannelKey;
use crate::core::Core;
use crate::error::Error;
use crate::ids::{ChannelRef, ChannelType, Uid};
use crate::store::{NewConversation, State, StoreError};

/// Users that leave in one transaction: each of them is locked.
const LEAVING_AT_ONCE: usize = 500;

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
        Self { large: bits & 1 > 0, ban: bits & 2 > 0, disband: bits & 4 > 0 }
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
        Self { large: Some(flags.large), ban: Some(flags.ban), disband: Some(flags.disband) }
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
        return Err(Error::bad_input("channel_type", "must not be 1: a person channel has the two it is made of"));
    }
    Ok(ChannelKey { channel_type: channel.channel_type, key: channel.channel_id.clone() })
}

fn check_number(core: &Core, uids: &[Uid]) -> Result<(), Error> {
    if uids.len() > core.limits.members {
        return Err(Error::bad_input("subscribers", format!("must name at most {} users", core.limits.members)));
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
    join(core, &key, &request.uids, request.flags).await
}

/// Adds members, who see what is sent from now on; who is in it already is left alone. An unknown channel is made.
///
/// # Errors
/// As [`create_channel`].
pub async fn add_members(core: &Core, channel: &ChannelRef, uids: &[Uid], reset: bool) -> Result<(), Error> {
    let key = group_key(channel)?;
    check_number(core, uids)?;
    if reset {
        remove_others(core, &key, uids).await?;
    }
    join(core, &key, uids, FlagChanges::default()).await
}

/// Removes members; who is not in it is left alone.
///
/// # Errors
/// As [`create_channel`].
pub async fn remove_members(core: &Core, channel: &ChannelRef, uids: &[Uid]) -> Result<(), Error> {
    let key = group_key(channel)?;
    check_number(core, uids)?;
    match core.store.find_channel(&key).await? {
        Some(channel_id) => leave(core, channel_id, uids).await,
        None => Ok(()),
    }
}

/// Removes everybody; the channel stays.
///
/// # Errors
/// As [`create_channel`].
pub async fn remove_all_members(core: &Core, channel: &ChannelRef) -> Result<(), Error> {
    remove_others(core, &group_key(channel)?, &[]).await
}

pub(super) async fn remove_others(core: &Core, key: &ChannelKey, stay: &[Uid]) -> Result<(), Error> {
    let Some(channel_id) = core.store.find_channel(key).await? else { return Ok(()) };
    let stay: HashSet<&str> = stay.iter().map(Uid::as_str).collect();
    let members = core.store.list_members(channel_id).await?;
    let leaving = members.into_iter().filter(|uid| !stay.contains(uid.as_str()));
    let leaving = leaving.map(|uid| Uid::parse("uid", uid)).collect::<Result<Vec<Uid>, Error>>()?;
    leave(core, channel_id, &leaving).await
}

async fn join(core: &Core, key: &ChannelKey, uids: &[Uid], flags: FlagChanges) -> Result<(), Error> {
    let channels = core.store.ensure_channels(&core.ids, &[key]).await?;
    let channel_id = *channels.get(key).ok_or_else(|| StoreError::Broken("a channel that was made is not there".to_owned()))?;
    let joined = core
        .store
        .transaction(|tx| async move {
            // The lock keeps the channel's head still: a message in between would count as unread, or not show.
            let Some(mut head) = tx.lock_channel(channel_id).await? else { return Ok(Vec::new()) };
            let states = tx.list_states(channel_id, uids).await?;
            let members: HashSet<&str> =
                states.iter().filter(|(_, state, _)| *state != State::Left).map(|(uid, ..)| uid.as_str()).collect();
            let mut joining: Vec<&Uid> = uids.iter().filter(|uid| !members.contains(uid.as_str())).collect();
            joining.sort_unstable();
            joining.dedup();
            let new: Vec<NewConversation> = joining
                .into_iter()
                .map(|uid| NewConversation { uid: uid.clone(), channel_id, joined_seq: head.last_seq, read_mark: head.red_dots })
                .collect();
            tx.write_joined(&new).await?;
            let bits = flags.apply(head.flags);
            if head.flags != bits {
                head.flags = bits;
                tx.write_heads(&[&head]).await?;
            }
            let joined: Vec<Uid> = new.into_iter().map(|conversation| conversation.uid).collect();
            tx.commit(joined).await
        })
        .await?;
    core.bus.users_changed(&joined);
    Ok(())
}

async fn leave(core: &Core, channel_id: i64, uids: &[Uid]) -> Result<(), Error> {
    let mut uids = uids.to_vec();
    uids.sort_unstable();
    uids.dedup();
    for uids in uids.chunks(LEAVING_AT_ONCE) {
        leave_some(core, channel_id, uids).await?;
    }
    Ok(())
}

/// Leaving is a change of the user's list like any other: the users' locks, then the channel's, stamped at once.
async fn leave_some(core: &Core, channel_id: i64, uids: &[Uid]) -> Result<(), Error> {
    // Who is no member needs no cursor.
    let members: HashSet<String> = core.store.list_members_of(channel_id, uids).await?;
    let uids: Vec<Uid> = uids.iter().filter(|uid| members.contains(uid.as_str())).cloned().collect();
    if uids.is_empty() {
        return Ok(());
    }
    core.store.ensure_cursors(&uids).await?;
    let uids = uids.as_slice();
    core.store
        .transaction(|tx| async move {
            let cursors = tx.lock_users(uids).await?;
            let Some(head) = tx.lock_channel(channel_id).await? else { return Ok(()) };
            let now_ms = core.clock.now_ms();
            let states = tx.list_states(channel_id, uids).await?;
            let mut leaving: Vec<(&str, i64)> = states
                .iter()
                .filter(|(_, state, _)| *state != State::Left)
                .map(|(uid, ..)| (uid.as_str(), (cursors.get(uid).copied().unwrap_or(0) + 1).max(now_ms)))
                .collect();
            leaving.sort_unstable();
            tx.write_left(channel_id, head.last_seq, head.revision, &leaving).await?;
            tx.commit(()).await
        })
        .await?;
    core.bus.users_changed(uids);
    Ok(())
}
