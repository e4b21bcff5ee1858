//! Mutations that send messages.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

use crate::error::Error;
use crate::graphql::context::ContextExt;
use crate::graphql::error::{InArgument, RootResult};
use crate::graphql::scalars::{Base64, UInt53};
use crate::graphql::types::{
    ChannelInput, LazyUnreadSummary, Message, MessageHeaderInput, parse_channel, parse_user,
};
use crate::message::{self as messages, SendRequest};
use crate::model::{COMMAND_SUFFIX, Content};

/// The input of `sendMessage`.
#[derive(Clone, Debug, InputObject)]
pub struct SendMessageInput {
    /// The sender's ID. Defaults to the user of `id`, or else to the authenticated user; for
    /// service tokens, to the system user.
    from_uid: Option<ID>,
    /// The global ID of the sender's conversation, or of the channel. Give this or `channel`.
    id: Option<ID>,
    /// The channel; a person channel is named by the recipient's uid. Give this or `id`.
    channel: Option<ChannelInput>,
    /// The content of the message.
    payload: Base64,
    /// The sender's deduplication key: a second message with the same key is not sent, and the
    /// first one is returned.
    client_msg_no: Option<String>,
    /// The delivery flags.
    #[graphql(default_with = "Some(MessageHeaderInput::default())")]
    header: Option<MessageHeaderInput>,
    /// The messaging system's setting bits, 0 to 255.
    #[graphql(default_with = "Some(0)")]
    setting: Option<i32>,
    /// A topic within the channel.
    topic: Option<String>,
    /// Seconds until the message expires, 0 for never.
    #[graphql(default_with = "Some(UInt53(0))")]
    expire: Option<UInt53>,
}

/// The result of `sendMessage`.
#[derive(Clone, Debug, SimpleObject)]
pub struct SendMessagePayload {
    /// The message as stored.
    message: Message,
    /// The unread totals of all of the sender's conversations after this message. Null for the
    /// system user, which has no conversations, and beside an error if they cannot be read.
    unread_summary: Option<LazyUnreadSummary>,
}

/// Mutations that send messages.
#[derive(Debug, Default)]
pub struct MessageMutation;

#[Object]
impl MessageMutation {
    /// Sends a message; returns when it is stored durably. FORBIDDEN where messages go through a
    /// WuKongIM (`proxy.wukongim_url`), which numbers them.
    async fn send_message(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The message.")] input: SendMessageInput,
    ) -> RootResult<SendMessagePayload> {
        let _timer = ctx.time_mutation();
        if ctx.core().proxy.is_some() {
            return Err(Error::Forbidden(
                "messages are sent through WuKongIM, which numbers them: with proxy.wukongim_url \
                 services send by POST /message/send"
                    .into(),
            )
            .into());
        }
        let (of_id, channel) = parse_channel(input.id, input.channel)?;
        let from = ctx
            .caller()
            .sender(parse_user("from_uid", input.from_uid.as_ref(), of_id)?)?;
        if input.payload.0.is_empty() {
            return Err(Error::bad_input("payload", "must not be empty")).in_argument("input");
        }
        let content = Content {
            setting: u8::try_from(input.setting.unwrap_or_default())
                .map_err(|_| Error::bad_input("setting", "must be between 0 and 255"))
                .in_argument("input")?,
            topic: input.topic.unwrap_or_default(),
            expire: u32::try_from(input.expire.unwrap_or_default().0)
                .map_err(|_| {
                    Error::bad_input("expire", format!("must be between 0 and {}", u32::MAX))
                })
                .in_argument("input")?,
            payload: input.payload.0,
            ..Content::default()
        };
        let header = input.header.unwrap_or_default();
        let transient = header.transient() || channel.channel_id.ends_with(COMMAND_SUFFIX);
        let unread_summary = (!from.is_system()).then(|| LazyUnreadSummary(from.clone()));
        let request = SendRequest {
            from,
            channel,
            client_msg_no: input.client_msg_no,
            red_dot: header.red_dot(),
            transient,
            as_member: ctx.caller().user().is_some(),
            content,
        };
        let message = messages::send(&ctx.core().messages, request)
            .await
            .in_argument("input")?
            .message
            .into();
        Ok(Some(SendMessagePayload {
            message,
            unread_summary,
        }))
    }
}
