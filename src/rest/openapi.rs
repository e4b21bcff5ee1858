//! `/openapi.json`: the description of the REST routes.

use axum::response::IntoResponse;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, Object, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr,
    Required, Response, ResponseBuilder, Schema,
};
use utoipa::{PartialSchema, ToSchema};

use super::legacy::JsonResponse;
use crate::auth::TOKEN_HEADER;
use crate::wukongim::dto::{
    ChannelDto, ChannelMessagesDto, ConversationDto, DataResponse, Envelope, HistoryDto,
    ListedConversationDto, MaxSeqDto, MessageDto, MessageHeaderDto, RemovedConversationDto,
    SendBatchDto, SentMessageDto, StatusOk, SyncEntryDto,
};

/// Handles `GET /openapi.json`.
pub async fn openapi_document() -> impl IntoResponse {
    JsonResponse(document())
}

fn text(example: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .examples([example])
        .build()
}

fn integer(example: i64) -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .examples([example])
        .build()
}

fn texts(example: &str) -> Schema {
    ArrayBuilder::new().items(text(example)).build().into()
}

/// Describes the seq up to which a route reads or deletes.
fn up_to() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some(
            "the last message that the request covers; 0 or missing: all messages",
        ))
        .examples([0])
        .build()
}

fn conversation_target(more: &[(&str, Object)]) -> ObjectBuilder {
    let builder = ObjectBuilder::new()
        .property("uid", text("u02"))
        .property("channel_id", text("team-1"))
        .property("channel_type", integer(2))
        .property("message_seq", up_to())
        .required("uid")
        .required("channel_id")
        .required("channel_type");
    more.iter().fold(builder, |builder, (name, schema)| {
        builder.property(*name, schema.clone())
    })
}

fn members() -> ObjectBuilder {
    ObjectBuilder::new()
        .property("channel_id", text("team-1"))
        .property("channel_type", integer(2))
        .property("subscribers", texts("u02"))
        .required("channel_id")
}

fn header() -> ObjectBuilder {
    ["no_persist", "red_dot", "sync_once"]
        .into_iter()
        .fold(ObjectBuilder::new(), |builder, flag| {
            builder.property(flag, integer(0))
        })
}

/// Describes a POST route: its summary, its body, and the schema of its response.
fn post(
    summary: &str,
    body: ObjectBuilder,
    response: impl Into<RefOr<Schema>>,
) -> OperationBuilder {
    let body = ContentBuilder::new()
        .schema(Some(Schema::from(body.build())))
        .build();
    with_responses(
        OperationBuilder::new()
            .summary(Some(summary))
            .request_body(Some(
                RequestBodyBuilder::new()
                    .required(Some(Required::True))
                    .content("application/json", body)
                    .build(),
            )),
        response,
    )
}

fn error_response(description: &str) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Envelope")))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content("application/json", content)
        .build()
}

fn with_responses(
    operation: OperationBuilder,
    response: impl Into<RefOr<Schema>>,
) -> OperationBuilder {
    let content = ContentBuilder::new().schema(Some(response.into())).build();
    let done = ResponseBuilder::new()
        .description("success")
        .content("application/json", content)
        .build();
    operation
        .response("200", done)
        .response(
            "400",
            error_response("the request is invalid; msg names the field"),
        )
        .response(
            "401",
            ResponseBuilder::new().description("no valid token").build(),
        )
        .response("403", error_response("the token does not permit this"))
        .response("413", error_response("the body is over the limit"))
        .response(
            "429",
            error_response("too many requests of this user or address; see Retry-After"),
        )
        .response("500", error_response("internal error"))
        .response(
            "503",
            error_response("temporarily unavailable; see Retry-After"),
        )
}

fn channel_object() -> Object {
    ObjectBuilder::new()
        .property("channel_id", text("team-1"))
        .property("channel_type", integer(2))
        .build()
}

/// Returns the routes with GET.
fn queries() -> [(&'static str, OperationBuilder); 2] {
    let parameter = |name: &str, schema: Object| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::True)
            .schema(Some(schema))
            .build()
    };
    let list = ArrayBuilder::new()
        .items(Ref::from_schema_name("ListedItem"))
        .build();
    let conversations = OperationBuilder::new()
        .summary(Some("The list as v1 returns it"))
        .parameter(parameter("uid", text("u02")));
    let max_seq = OperationBuilder::new()
        .summary(Some("A channel's largest message seq"))
        .parameter(parameter("channel_id", text("team-1")))
        .parameter(parameter("channel_type", integer(2)))
        .parameter(parameter("login_uid", text("u02")));
    [
        ("/conversations", with_responses(conversations, list)),
        (
            "/channel/max_message_seq",
            with_responses(max_seq, Ref::from_schema_name("MaxSeq")),
        ),
    ]
}

/// Builds the document.
#[must_use]
pub fn document() -> OpenApi {
    let sync = ObjectBuilder::new()
        .property("uid", text("u02"))
        .property("version", integer(0))
        .property("last_msg_seqs", text("team-1:2:17|u33:1:4"))
        .property("msg_count", integer(20))
        .property("only_unread", integer(0))
        .property(
            "exclude_channel_types",
            ArrayBuilder::new().items(integer(9)).build(),
        )
        .property("page", integer(0))
        .property("page_size", integer(100))
        .property(
            "larges",
            ArrayBuilder::new().items(channel_object()).build(),
        )
        .property("include_removed", integer(0))
        .required("uid");
    let send = ObjectBuilder::new()
        .property("header", header().build())
        .property("client_msg_no", text("m-1"))
        .property("from_uid", text("u01"))
        .property("channel_id", text("team-1"))
        .property("channel_type", integer(2))
        .property("expire", integer(0))
        .property("subscribers", texts("u02"))
        .property("payload", text("eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ=="))
        .required("payload");
    let channel = members()
        .property("large", integer(0))
        .property("ban", integer(0))
        .property("disband", integer(0));
    let done = || Ref::from_schema_name("Done");
    let array = |name: &str| {
        ArrayBuilder::new()
            .items(Ref::from_schema_name(name))
            .build()
    };
    let list = array("SyncEntry");
    let user = || {
        ObjectBuilder::new()
            .property("uid", text("u02"))
            .required("uid")
    };
    let named = |more: &[(&str, Object)]| {
        let channel = ObjectBuilder::new()
            .property("channel_id", text("team-1"))
            .property("channel_type", integer(2));
        let channel = more.iter().fold(channel, |channel, (name, schema)| {
            channel.property(*name, schema.clone())
        });
        ArrayBuilder::new().items(channel.build()).build()
    };
    let channel_only = || {
        ObjectBuilder::new()
            .property("channel_id", text("team-1"))
            .property("channel_type", integer(2))
            .required("channel_id")
            .required("channel_type")
    };
    let history = channel_only()
        .property("login_uid", text("u02"))
        .property("start_message_seq", integer(0))
        .property("end_message_seq", integer(0))
        .property("limit", integer(20))
        .property("pull_mode", integer(0))
        .required("login_uid")
        .required("limit");
    let batch = ObjectBuilder::new()
        .property("header", header().build())
        .property("from_uid", text("u01"))
        .property("subscribers", texts("u02"))
        .property("payload", text("eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ=="))
        .required("from_uid")
        .required("subscribers")
        .required("payload");
    let info = channel_only()
        .property("large", integer(0))
        .property("ban", integer(0))
        .property("disband", integer(0));
    let token = user()
        .property("token", text("secret"))
        .property("device_flag", integer(0))
        .property("device_level", integer(1))
        .required("token");
    let uids = || ObjectBuilder::new().property("uids", texts("u01"));
    let event = ParameterBuilder::new()
        .name("event")
        .parameter_in(ParameterIn::Query)
        .required(Required::True)
        .schema(Some(text("msg.notify")))
        .build();
    let message = Schema::OneOf(
        utoipa::openapi::OneOfBuilder::new()
            .item(
                ArrayBuilder::new()
                    .items(Ref::from_schema_name("MessageShape"))
                    .build(),
            )
            .item(Ref::from_schema_name("MessageShape"))
            .build(),
    );
    let webhook_body = ContentBuilder::new().schema(Some(message)).build();
    let webhook = |summary: &str| {
        let body = RequestBodyBuilder::new()
            .content("application/json", webhook_body.clone())
            .build();
        let operation = OperationBuilder::new()
            .summary(Some(summary))
            .parameter(event.clone());
        with_responses(operation.request_body(Some(body)), done())
    };
    let secret = ParameterBuilder::new()
        .name("secret")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(text("s3cret")))
        .build();
    let secret_webhook =
        webhook("Messages that a WuKongIM stored, authenticated by ingest.webhook_secret instead of a token")
            .parameter(secret.clone())
            .response("404", error_response("the secret is wrong"))
            .securities(Some([]));
    let datasource = || {
        let data = ObjectBuilder::new()
            .property("channel_id", text("team-1"))
            .property("channel_type", integer(2))
            .build();
        let question = ObjectBuilder::new()
            .property("cmd", text("getSubscribers"))
            .property("data", data)
            .required("cmd");
        // The answer is an array of uids or an object of flags.
        post(
            "Queries of a WuKongIM to its business server, answered from the members stored here",
            question,
            Schema::Object(Object::with_type(SchemaType::AnyValue)),
        )
    };
    let operations = [
        (
            "/conversation/sync",
            post(
                "The changes since `version`, with the newest messages",
                sync,
                list,
            ),
        ),
        (
            "/conversation/channels",
            post(
                "The channels of a user's conversations",
                user(),
                array("ChannelShape"),
            ),
        ),
        (
            "/conversation/syncByChannels",
            post(
                "Conversations by channel, in the requested order",
                user()
                    .property("channels", named(&[]))
                    .property("msg_count", integer(15))
                    .required("channels"),
                array("SyncItem"),
            ),
        ),
        (
            "/conversation/syncMessages",
            post(
                "The newest messages of each channel above a seq",
                user()
                    .property("channels", named(&[("last_msg_seq", integer(0))]))
                    .property("msg_count", integer(15)),
                array("ChannelMessages"),
            ),
        ),
        (
            "/conversations/setUnread",
            post(
                "Sets the unread count",
                conversation_target(&[("unread", integer(0))]),
                done(),
            ),
        ),
        (
            "/conversations/clearUnread",
            post(
                "Marks a conversation as read",
                conversation_target(&[]),
                done(),
            ),
        ),
        (
            "/conversations/delete",
            post(
                "Deletes a conversation up to its last message",
                conversation_target(&[]),
                done(),
            ),
        ),
        (
            "/message/send",
            post("Sends a message", send, Ref::from_schema_name("Sent")),
        ),
        (
            "/message/sendbatch",
            post(
                "Sends a person message to each of many users",
                batch,
                Ref::from_schema_name("BatchShape"),
            ),
        ),
        (
            "/channel/info",
            post("Sets the marks of a channel", info, done()),
        ),
        (
            "/channel/delete",
            post(
                "Deletes a channel; its conversations disappear from all lists",
                channel_only(),
                done(),
            ),
        ),
        (
            "/channel/messagesync",
            post(
                "A page of a channel's messages",
                history,
                Ref::from_schema_name("HistoryShape"),
            ),
        ),
        (
            "/channel/subscriber_remove_all",
            post("Removes all members", channel_only(), done()),
        ),
        (
            "/user/token",
            post(
                "Accepted for business servers that call it at startup; has no effect",
                token,
                done(),
            ),
        ),
        (
            "/user/device_quit",
            post(
                "Accepted for compatibility with WuKongIM; has no effect",
                user().property("device_flag", integer(0)),
                done(),
            ),
        ),
        (
            "/user/systemuids_add",
            post(
                "Accepted for compatibility with WuKongIM; has no effect",
                uids(),
                done(),
            ),
        ),
        (
            "/user/systemuids_remove",
            post(
                "Accepted for compatibility with WuKongIM; has no effect",
                uids(),
                done(),
            ),
        ),
        (
            "/channel",
            post(
                "Creates or changes a channel",
                channel.property("reset", integer(0)),
                done(),
            ),
        ),
        (
            "/channel/subscriber_add",
            post(
                "Adds members",
                members()
                    .property("reset", integer(0))
                    .required("subscribers"),
                done(),
            ),
        ),
        (
            "/channel/subscriber_remove",
            post("Removes members", members().required("subscribers"), done()),
        ),
        ("/webhook", webhook("Messages that a WuKongIM stored")),
        ("/webhook/{secret}", secret_webhook),
        ("/datasource", datasource()),
        (
            "/datasource/{secret}",
            datasource()
                .parameter(secret)
                .response("404", error_response("the secret is wrong"))
                .securities(Some([])),
        ),
    ];
    let plain = [
        (
            "/livez",
            "Whether the process is alive",
            "text/plain; charset=utf-8",
        ),
        (
            "/readyz",
            "Whether the server is ready: the database is reachable and accepts writes, and no shutdown has begun",
            "text/plain; charset=utf-8",
        ),
        (
            "/metrics",
            "Metrics in Prometheus' text format",
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (
            "/health",
            "Whether the process is alive, in the form of WuKongIM",
            "application/json; charset=utf-8",
        ),
    ];
    let paths = operations
        .into_iter()
        .fold(PathsBuilder::new(), |paths, (path, operation)| {
            paths.path(path, PathItem::new(HttpMethod::Post, operation.build()))
        });
    let paths = plain
        .into_iter()
        .fold(paths, |paths, (path, summary, kind)| {
            let content = ContentBuilder::new().schema(Some(Object::new())).build();
            let done = ResponseBuilder::new()
                .description("success")
                .content(kind, content)
                .build();
            let mut operation = OperationBuilder::new()
                .summary(Some(summary))
                .response("200", done)
                .securities(Some([]));
            if path == "/readyz" {
                operation = operation.response(
                    "503",
                    ResponseBuilder::new()
                        .description("not ready; the body has the reason")
                        .build(),
                );
            }
            paths.path(path, PathItem::new(HttpMethod::Get, operation.build()))
        });
    let paths = queries()
        .into_iter()
        .fold(paths, |paths, (path, operation)| {
            paths.path(path, PathItem::new(HttpMethod::Get, operation.build()))
        });
    let paths = paths.build();
    let components = ComponentsBuilder::new()
        .schema(Envelope::name(), Envelope::schema())
        .schema(StatusOk::name(), StatusOk::schema())
        .schema(MessageHeaderDto::name(), MessageHeaderDto::schema())
        .schema(MessageDto::name(), MessageDto::schema())
        .schema(ConversationDto::name(), ConversationDto::schema())
        .schema(SentMessageDto::name(), SentMessageDto::schema())
        .schema(SyncEntryDto::name(), SyncEntryDto::schema())
        .schema(
            RemovedConversationDto::name(),
            RemovedConversationDto::schema(),
        )
        .schema(
            ListedConversationDto::name(),
            ListedConversationDto::schema(),
        )
        .schema(ChannelDto::name(), ChannelDto::schema())
        .schema(ChannelMessagesDto::name(), ChannelMessagesDto::schema())
        .schema(HistoryDto::name(), HistoryDto::schema())
        .schema(MaxSeqDto::name(), MaxSeqDto::schema())
        .schema(SendBatchDto::name(), SendBatchDto::schema())
        .schema("Sent", DataResponse::<SentMessageDto>::schema())
        .security_scheme(
            "token",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(TOKEN_HEADER))),
        )
        .security_scheme(
            "bearer",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        )
        .build();
    let about = InfoBuilder::new()
        .title("recents")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("The WuKongIM routes that recents serves. All other features are in the GraphQL API at /graphql."))
        .build();
    let anonymous: [&str; 0] = [];
    let securities = ["token", "bearer"].map(|scheme| SecurityRequirement::new(scheme, anonymous));
    OpenApiBuilder::new()
        .info(about)
        .paths(paths)
        .components(Some(components))
        .security(Some(securities))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_references_resolve() {
        let document = serde_json::to_value(document()).unwrap();
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"].get(name).is_some(),
                "{name}"
            );
        }
    }
}
