//! Lists of messages, which make up most of an answer. They are serialised as JSON directly,
//! without a future and a tree of values for each field. [`Message`] defines the fields; a test
//! compares the two.

use std::borrow::Cow;

use async_graphql::parser::types::{Field, Selection, SelectionSet};
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, OutputType, Positioned, ServerError, ServerResult, Value,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Message;
use super::node_id::NodeId;
use crate::graphql::empty_selections::MARKER;
use crate::graphql::json::as_json;
use crate::graphql::raw_json::{push_json, push_string, raw_json};
use crate::graphql::scalars::DateTime;
use crate::message::MessageSlice;
use crate::model;

/// Some of a channel's newest messages, newest first.
#[derive(Clone, Debug)]
pub struct MessageList(pub MessageSlice);

/// A selected field, with the prefix of its output: `"key":`.
type FieldWriter = (Vec<u8>, MessageField);

enum MessageField {
    Typename,
    Id,
    MessageId,
    MessageSeq,
    ClientMsgNo,
    FromUid,
    ChannelId,
    ChannelType,
    Header(Vec<FieldWriter>),
    NoPersist,
    RedDot,
    SyncOnce,
    Setting,
    Topic,
    StreamNo,
    StreamData,
    StreamEnded,
    SentAt,
    Expire,
    Payload,
    Content,
}

impl MessageField {
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
            ("Message", "streamNo") => Self::StreamNo,
            ("Message", "streamData") => Self::StreamData,
            ("Message", "streamEnded") => Self::StreamEnded,
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

    fn write(&self, message: &model::Message, parent: &'static str, to: &mut Vec<u8>) {
        let content = &message.content;
        match self {
            Self::Typename => push_string(to, parent),
            Self::Id => push_string(
                to,
                &NodeId::Message(message.channel_key(), message.message_id).encode(),
            ),
            Self::MessageId => {
                to.push(b'"');
                push_json(to, &message.message_id.0);
                to.push(b'"');
            }
            Self::MessageSeq => push_json(to, &message.seq.0),
            Self::ClientMsgNo => push_string(to, &message.client_msg_no),
            Self::FromUid => push_string(to, &message.from_uid),
            Self::ChannelId => push_string(to, &message.channel.channel_id),
            Self::ChannelType => push_json(to, &message.channel.channel_type.number()),
            Self::Header(field_writers) => {
                write_object(field_writers, message, "MessageHeader", to)
            }
            // Stored messages have neither flag.
            Self::NoPersist | Self::SyncOnce => push_json(to, &false),
            Self::RedDot => push_json(to, &message.red_dot),
            Self::Setting => push_json(to, &content.setting),
            Self::Topic if content.topic.is_empty() => push_json(to, &()),
            Self::Topic => push_string(to, &content.topic),
            Self::StreamNo if content.stream.no.is_empty() => push_json(to, &()),
            Self::StreamNo => push_string(to, &content.stream.no),
            Self::StreamData => match content.stream.data() {
                Some(data) => push_base64(to, &data),
                None => push_json(to, &()),
            },
            Self::StreamEnded => push_json(to, &content.stream.has_ended()),
            Self::SentAt => push_string(to, &DateTime(message.sent_at).text()),
            Self::Expire => push_json(to, &content.expire),
            Self::Payload => push_base64(to, &content.payload),
            Self::Content => to.extend_from_slice(as_json(&content.payload).unwrap_or(b"null")),
        }
    }
}

fn push_base64(to: &mut Vec<u8>, bytes: &[u8]) {
    to.push(b'"');
    let start = to.len();
    to.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The slice has exactly the required length.
    let _ = STANDARD.encode_slice(bytes, &mut to[start..]);
    to.push(b'"');
}

fn write_object(
    field_writers: &[FieldWriter],
    message: &model::Message,
    parent: &'static str,
    to: &mut Vec<u8>,
) {
    to.push(b'{');
    for (at, (key, field)) in field_writers.iter().enumerate() {
        if at > 0 {
            to.push(b',');
        }
        to.extend_from_slice(key);
        field.write(message, parent, to);
    }
    to.push(b'}');
}

/// Collects the selected fields, also from fragments, each key once and in the order of the
/// document. Validation has checked that all fields exist and that fields with the same key are
/// identical.
fn field_writers(
    ctx: &ContextSelectionSet<'_>,
    sets: &[&SelectionSet],
    parent: &'static str,
) -> ServerResult<Vec<FieldWriter>> {
    // Selections of `header` with the same key are merged.
    let mut fields: Vec<(&str, Vec<&Field>)> = Vec::new();
    for set in sets {
        collect(ctx, set, parent, &mut fields);
    }
    let field_writers = fields.into_iter().map(|(key, fields)| {
        let field = if fields[0].name.node.as_str() == "header" {
            let sets: Vec<&SelectionSet> = fields
                .iter()
                .map(|field| &field.selection_set.node)
                .collect();
            Some(MessageField::Header(field_writers(
                ctx,
                &sets,
                "MessageHeader",
            )?))
        } else {
            MessageField::of(&fields[0].name.node, parent)
        };
        let field =
            field.ok_or_else(|| ServerError::new(format!("{parent} has no field {key}"), None))?;
        let mut prefix = Vec::new();
        push_string(&mut prefix, key);
        prefix.push(b':');
        Ok((prefix, field))
    });
    field_writers.collect()
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

impl OutputType for MessageList {
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
        let field_writers = field_writers(ctx, &[&ctx.item.node], "Message")?;
        let mut to = Vec::with_capacity(
            self.0.len() * (32 + field_writers.len() * 32) + self.0.json_bytes() / 4,
        );
        to.push(b'[');
        for (at, message) in self.0.iter().enumerate() {
            if at > 0 {
                to.push(b',');
            }
            write_object(&field_writers, message, "Message", &mut to);
        }
        to.push(b']');
        Ok(raw_json(to))
    }
}
