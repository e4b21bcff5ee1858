//! What is sent.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use super::super::context::ContextExt;
use super::super::error::{At, Root};
use super::super::scalars::{Base64, UInt53};
use super::super::types::{
    ChannelInput, Message, MessageHeaderInput, SummaryOf, parse_channel, parse_user,
};
use crate::error::Error;
use crate::ids::COMMAND_SUFFIX;
use crate::message::{self as messages, Content, SendRequest};

/// What `sendMessage` takes.
#[derive(Clone, Debug, InputObject)]
pub struct SendMessageInput {
    /// The sender's ID. Defaults to the user of `id`, or else to the authenticated user; a service
    /// sends as the system then.
    from_uid: Option<ID>,
    /// The global ID of the sender's conversation, or of the channel. Give this or `channel`.
    id: Option<ID>,
    /// The channel; a person channel has the recipient's uid. Give this or `id`.
    channel: Option<ChannelInput>,
    /// The bytes.
    payload: Base64,
    /// The sender's deduplication key: the same one again returns the first message.
    client_msg_no: Option<String>,
    /// How it is to be treated.
    #[graphql(default_with = "Some(MessageHeaderInput::default())")]
    header: Option<MessageHeaderInput>,
    /// The messaging system's setting bits, 0 to 255.
    #[graphql(default_with = "Some(0)")]
    setting: Option<i32>,
    /// A topic inside the channel.
    topic: Option<String>,
    /// Seconds until it expires, 0 for never.
    #[graphql(default_with = "Some(UInt53(0))")]
    expire: Option<UInt53>,
}

/// What `sendMessage` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct SendMessagePayload {
    /// The message as stored.
    message: Message,
    /// Unread in all of the sender's conversations, after this message. Null for the system, which
    /// has no conversations, or beside an error, if it cannot be read.
    unread_summary: Option<SummaryOf>,
}

/// What is sent.
#[derive(Debug, Default)]
pub struct MessageMutation;

#[Object]
impl MessageMutation {
    /// Sends a message; returns when it is stored for good.
    async fn send_message(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The message.")] input: SendMessageInput,
    ) -> Root<SendMessagePayload> {
        let _timed = ctx.changing();
        let (of_id, channel) = parse_channel(input.id, input.channel)?;
        let from = ctx
            .caller()
            .sender(parse_user("from_uid", input.from_uid.as_ref(), of_id)?)?;
        if input.payload.0.is_empty() {
            return Err(Error::bad_input("payload", "must not be empty")).at("input");
        }
        let content = Content {
            setting: u8::try_from(input.setting.unwrap_or_default())
                .map_err(|_| Error::bad_input("setting", "must be between 0 and 255"))
                .at("input")?,
            topic: input.topic.unwrap_or_default(),
            expire: u32::try_from(input.expire.unwrap_or_default().0)
                .map_err(|_| {
                    Error::bad_input("expire", format!("must be between 0 and {}", u32::MAX))
                })
                .at("input")?,
            payload: input.payload.0,
            ..Content::default()
        };
        let header = input.header.unwrap_or_default();
        let transient = header.transient() || channel.channel_id.ends_with(COMMAND_SUFFIX);
        let unread_summary = (!from.is_system()).then(|| SummaryOf(from.clone()));
        let request = SendRequest {
            from,
            channel,
            client_msg_no: input.client_msg_no,
            red_dot: header.red_dot(),
            transient,
            as_member: ctx.caller().user().is_some(),
            content,
        };
        let message = messages::send(ctx.core(), request)
            .await
            .at("input")?
            .message
            .into();
        Ok(Some(SendMessagePayload {
            message,
            unread_summary,
        }))
    }
}
