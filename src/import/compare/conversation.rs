//! Compares a conversation, and explains differences by the rules of docs/COMPATIBILITY.md.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Comparison, name};
use crate::conversation::ConversationWithMessages;
use crate::import::source::{Listed, seq_of};
use crate::model::{Message, Seq, Uid};

/// How the server lists a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceKind {
    /// Large groups of v1 may be listed with an old last message.
    pub(super) is_large: bool,
    /// v3 lists no other messages.
    pub(super) lists_last_message_only: bool,
}

pub(super) fn compare_conversation(
    result: &mut Comparison,
    uid: &Uid,
    our: &ConversationWithMessages,
    their: &Listed,
    source: SourceKind,
) {
    let conversation = &our.conversation;
    if source.is_large && conversation.last_msg_seq > their.last_seq {
        // v1 does not update the conversations of large groups.
        result.expect("large groups that are newer here", 1);
        return;
    }
    let mut differ = |kind: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
        result.record(kind, || {
            format!(
                "{uid:?} {}: {kind} is {ours:?} here, {theirs:?} there",
                name(&their.channel)
            )
        });
    };
    if conversation.last_msg_seq != their.last_seq {
        differ(
            "last_msg_seq",
            &conversation.last_msg_seq.0,
            &their.last_seq.0,
        );
    }
    let last = our.last_message.as_deref();
    let number = last.map_or("", |message| message.client_msg_no.as_str());
    if number != their.last_client_msg_no {
        differ("last_client_msg_no", &number, &their.last_client_msg_no);
    }
    let [our_second, their_second] =
        [conversation.last_activity_at, their.last_sent_at].map(|time| time.seconds());
    let is_webhooks_second = our_second == their_second + 1;
    if our_second != their_second && !is_webhooks_second {
        differ("timestamp", &our_second, &their_second);
    }
    let unread_rule = explain_unread(uid, our, their);
    let is_unread_different = conversation.unread != their.unread;
    if is_unread_different && unread_rule.is_none() {
        differ("unread", &conversation.unread, &their.unread);
    }
    let shown = if source.lists_last_message_only {
        &our.recents[..our.recents.len().min(1)]
    } else {
        &our.recents[..]
    };
    let difference = compare_recents(shown, their, conversation.deleted_to_seq);
    if difference == Recents::Different {
        result.record("messages", || {
            format!(
                "{uid:?} {}: the newest messages differ",
                name(&their.channel)
            )
        });
    }
    result.expect("timestamp", usize::from(is_webhooks_second));
    if let (true, Some(rule)) = (is_unread_different, unread_rule) {
        result.expect(rule, 1);
    }
    result.expect(
        "recents of deleted conversations",
        usize::from(difference == Recents::DeletedHere),
    );
}

/// Returns the rule that explains a different number of unread messages.
fn explain_unread(
    uid: &Uid,
    our: &ConversationWithMessages,
    their: &Listed,
) -> Option<&'static str> {
    let unread = our.conversation.unread;
    let is_others = |message: &&Arc<Message>| message.from_uid != uid.as_str();
    let own = our
        .recents
        .iter()
        .find(|message| message.from_uid == uid.as_str());
    if let Some(own) = own {
        let since = our
            .recents
            .iter()
            .filter(|message| message.seq > own.seq && message.red_dot)
            .count();
        if i64::try_from(since) == Ok(unread) && their.unread > unread {
            return Some("unread after an own message");
        }
    }
    let read_there = their.last_seq.minus(their.unread);
    let plain = our
        .recents
        .iter()
        .filter(is_others)
        .filter(|message| message.seq > read_there && !message.red_dot)
        .count();
    let is_plain =
        i64::try_from(plain).is_ok_and(|plain| plain > 0 && unread + plain == their.unread);
    (their.loses_red_dots && is_plain).then_some("unread of messages without a red dot")
}

/// The result of comparing the newest messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recents {
    Same,
    /// The older ones were deleted here.
    DeletedHere,
    Different,
}

/// Compares ids and contents. Red dots are left out, because some servers lose them.
fn compare_recents(ours: &[Arc<Message>], their: &Listed, deleted_to: Seq) -> Recents {
    let is_same = |(our, their): (&Arc<Message>, &Value)| {
        their["message_idstr"] == our.message_id.to_string()
            && seq_of(their) == Some(our.seq)
            && their["payload"] == STANDARD.encode(&our.content.payload)
    };
    let common = ours.len().min(their.recents.len());
    if !ours.iter().zip(&their.recents).all(is_same) {
        return Recents::Different;
    }
    let is_hidden = |message: &Value| seq_of(message).is_some_and(|seq| seq <= deleted_to);
    match ours.len().cmp(&their.recents.len()) {
        std::cmp::Ordering::Equal => Recents::Same,
        std::cmp::Ordering::Less if their.recents[common..].iter().all(is_hidden) => {
            Recents::DeletedHere
        }
        _ => Recents::Different,
    }
}
