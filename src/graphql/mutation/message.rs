//! What is sent.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use super::super::context::ContextExt;
use super::super::error::{At, Result};
use super::super::scalars::{Base64, UInt53};
use super::super::types::{ChannelInput, Message, MessageHeaderInput};
use crate::error::Error;
use crate::ids::{COMMAND_SUFFIX, Uid};
use crate::message::{self as messages, Content, SendRequest};

/// What `sendMessage` takes.
#[derive(Clone, Debug, InputObject)]
pub struct SendMessageInput {
    /// Who sends it; left out, the user who asks. A service that leaves it out sends as the system.
    from_uid: Option<ID>,
    /// Where to; for a person channel the recipient's uid.
    channel: ChannelInput,
    /// The bytes.
    payload: Base64,
    /// The sender's deduplication key: the same one again returns the first message.
    client_msg_no: Option<String>,
    /// How it is to be treated.
    #[graphql(default)]
    header: MessageHeaderInput,
    /// The messaging system's setting bits, 0 to 255.
    #[graphql(default)]
    setting: i32,
    /// A topic inside the channel.
    topic: Option<String>,
    /// Seconds until it expires, 0 for never.
    #[graphql(default)]
    expire: UInt53,
}

/// What `sendMessage` returns.
#[derive(Clone, Debug, SimpleObject)]
pub struct SendMessagePayload {
    /// The message as stored.
    message: Message,
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
        #[graphql(desc = "What, and whose.")] input: SendMessageInput,
    ) -> Result<SendMessagePayload> {
        let _timed = ctx.timed();
        let from = input.from_uid.map(|uid| Uid::parse("from_uid", uid.0)).transpose().at("input")?;
        let from = ctx.caller().sender(from)?;
        let channel = input.channel.parse().at("input.channel")?;
        if input.payload.0.is_empty() {
            return Err(Error::bad_input("payload", "must not be empty")).at("input");
        }
        let content = Content {
            setting: u8::try_from(input.setting)
                .map_err(|_| Error::bad_input("setting", "must be between 0 and 255"))
                .at("input")?,
            topic: input.topic.unwrap_or_default(),
            expire: u32::try_from(input.expire.0)
                .map_err(|_| Error::bad_input("expire", format!("must be between 0 and {}", u32::MAX)))
                .at("input")?,
            payload: input.payload.0,
            ..Content::default()
        };
        let transient = input.header.no_persist || input.header.sync_once || channel.channel_id.ends_with(COMMAND_SUFFIX);
        let request = SendRequest {
            from,
            channel,
            client_msg_no: input.client_msg_no,
            red_dot: input.header.red_dot,
            transient,
            as_member: ctx.caller().user().is_some(),
            content,
        };
        Ok(SendMessagePayload { message: messages::send(ctx.core(), request).await.at("input")?.message.into() })
    }
}
