//! Messages of conversations: there are thousands in one answer, so they are written as JSON
//! without a future and a tree of values for each of their fields. What the fields are says
//! [`Message`]; a test compares the two.

use std::borrow::Cow;

use async_graphql::parser::types::{Field, Selection, SelectionSet};
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, OutputType, Positioned, ServerError, ServerResult, Value,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::json::as_json;
use super::super::scalars::DateTime;
use super::super::selections::MARKER;
use super::super::written::{push, push_text, written};
use super::Message;
use super::id::NodeId;
use crate::message;

/// Some of a channel's newest messages, newest first.
#[derive(Clone, Debug)]
pub struct Messages(pub message::Recents);

/// What is asked of each message, with what stands before it: `"key":`.
type Column = (Vec<u8>, What);

enum What {
    Typename,
    Id,
    MessageId,
    MessageSeq,
    ClientMsgNo,
    FromUid,
    ChannelId,
    ChannelType,
    Header(Vec<Column>),
    NoPersist,
    RedDot,
    SyncOnce,
    Setting,
    Topic,
    SentAt,
    Expire,
    Payload,
    Content,
}

impl What {
    fn of(name: &str, parent: &'static str) -> Option<Self> {
        Some(match (parent, name) {
            (_, "__typename") => Self::Typename,
            ("Message", "id") => Self::Id,
            ("Message", "messageId") => Self::MessageId,
            ("Message", "messageSeq") => Self::MessageSeq,
            ("Message", "clientMsgNo") => Self::ClientMsgNo,
            ("Message", "fromUid") => Self::FromUid,
            ("Message", "channelId") => Self::ChannelId,
            ("Message", "channelType") => Self::ChannelType,
            ("Message", "setting") => Self::Setting,
            ("Message", "topic") => Self::Topic,
            ("Message", "sentAt") => Self::SentAt,
            ("Message", "expire") => Self::Expire,
            ("Message", "payload") => Self::Payload,
            ("Message", "content") => Self::Content,
            ("MessageHeader", "noPersist") => Self::NoPersist,
            ("MessageHeader", "redDot") => Self::RedDot,
            ("MessageHeader", "syncOnce") => Self::SyncOnce,
            _ => return None,
        })
    }

    fn write(&self, message: &message::Message, parent: &'static str, to: &mut Vec<u8>) {
        let content = &message.content;
        match self {
            Self::Typename => push_text(to, parent),
            Self::Id => push_text(
                to,
                &NodeId::Message(message.channel_key(), message.message_id).encode(),
            ),
            Self::MessageId => {
                to.push(b'"');
                push(to, &message.message_id);
                to.push(b'"');
            }
            Self::MessageSeq => push(to, &message.seq),
            Self::ClientMsgNo => push_text(to, &message.client_msg_no),
            Self::FromUid => push_text(to, &message.from_uid),
            Self::ChannelId => push_text(to, &message.channel.channel_id),
            Self::ChannelType => push(to, &message.channel.channel_type.number()),
            Self::Header(columns) => write_columns(columns, message, "MessageHeader", to),
            // A stored one was neither.
            Self::NoPersist | Self::SyncOnce => push(to, &false),
            Self::RedDot => push(to, &message.red_dot),
            Self::Setting => push(to, &content.setting),
            Self::Topic if content.topic.is_empty() => push(to, &()),
            Self::Topic => push_text(to, &content.topic),
            Self::SentAt => push_text(to, &DateTime(message.sent_at).text()),
            Self::Expire => push(to, &content.expire),
            Self::Payload => push_base64(to, &content.payload),
            Self::Content => to.extend_from_slice(as_json(&content.payload).unwrap_or(b"null")),
        }
    }
}

fn push_base64(to: &mut Vec<u8>, bytes: &[u8]) {
    to.push(b'"');
    let begin = to.len();
    to.resize(begin + bytes.len().div_ceil(3) * 4, 0);
    // It has just the room that it needs.
    let _ = STANDARD.encode_slice(bytes, &mut to[begin..]);
    to.push(b'"');
}

fn write_columns(
    columns: &[Column],
    message: &message::Message,
    parent: &'static str,
    to: &mut Vec<u8>,
) {
    to.push(b'{');
    for (at, (key, what)) in columns.iter().enumerate() {
        if at > 0 {
            to.push(b',');
        }
        to.extend_from_slice(key);
        what.write(message, parent, to);
    }
    to.push(b'}');
}

/// The fields that are asked for, each key once, in the order of the document; fragments are walked
/// into. Validation has seen to it that all of them are there and that those of one key are the
/// same field.
fn columns(
    ctx: &ContextSelectionSet<'_>,
    sets: &[&SelectionSet],
    parent: &'static str,
) -> ServerResult<Vec<Column>> {
    // Selections of `header` under one key are one.
    let mut fields: Vec<(&str, Vec<&Field>)> = Vec::new();
    for set in sets {
        collect(ctx, set, parent, &mut fields);
    }
    let columns = fields.into_iter().map(|(key, fields)| {
        let what = if fields[0].name.node.as_str() == "header" {
            let sets: Vec<&SelectionSet> = fields
                .iter()
                .map(|field| &field.selection_set.node)
                .collect();
            Some(What::Header(columns(ctx, &sets, "MessageHeader")?))
        } else {
            What::of(&fields[0].name.node, parent)
        };
        let what =
            what.ok_or_else(|| ServerError::new(format!("{parent} has no field {key}"), None))?;
        let mut prefix = Vec::new();
        push_text(&mut prefix, key);
        prefix.push(b':');
        Ok((prefix, what))
    });
    columns.collect()
}

fn collect<'a>(
    ctx: &ContextSelectionSet<'a>,
    set: &'a SelectionSet,
    parent: &'static str,
    fields: &mut Vec<(&'a str, Vec<&'a Field>)>,
) {
    let applies =
        |condition: &str| condition == parent || (condition == "Node" && parent == "Message");
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) if field.node.response_key().node == MARKER => {}
            Selection::Field(field) => {
                let field = &field.node;
                let key = field.response_key().node.as_str();
                match fields.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, same)) => same.push(field),
                    None => fields.push((key, vec![field])),
                }
            }
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = ctx.query_env.fragments.get(&spread.node.fragment_name.node)
                    && applies(&fragment.node.type_condition.node.on.node)
                {
                    collect(ctx, &fragment.node.selection_set.node, parent, fields);
                }
            }
            Selection::InlineFragment(fragment) => {
                let condition = fragment.node.type_condition.as_ref();
                if condition.is_none_or(|condition| applies(&condition.node.on.node)) {
                    collect(ctx, &fragment.node.selection_set.node, parent, fields);
                }
            }
        }
    }
}

impl OutputType for Messages {
    fn type_name() -> Cow<'static, str> {
        Vec::<Message>::type_name()
    }

    fn qualified_type_name() -> String {
        Vec::<Message>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Vec::<Message>::create_type_info(registry)
    }

    async fn resolve(
        &self,
        ctx: &ContextSelectionSet<'_>,
        _: &Positioned<Field>,
    ) -> ServerResult<Value> {
        let columns = columns(ctx, &[&ctx.item.node], "Message")?;
        let mut to =
            Vec::with_capacity(self.0.len() * (32 + columns.len() * 32) + self.0.json_bytes() / 4);
        to.push(b'[');
        for (at, message) in self.0.iter().enumerate() {
            if at > 0 {
                to.push(b',');
            }
            write_columns(&columns, message, "Message", &mut to);
        }
        to.push(b']');
        Ok(written(to))
    }
}
