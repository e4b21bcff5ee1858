//! Permissions: every route, query, mutation and subscription with every kind of caller. An
//! operation that is missing in the table fails the test.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::server::{message, payload, webhook_message};
use crate::support::sse::{Event, Events};
use crate::support::tokens::{SECRET, in_seconds, signed, token};
use crate::support::upstream::Upstream;
use crate::support::{Engine, Server};

/// The result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// 401, `UNAUTHENTICATED`.
    Unauthenticated,
    /// 403, `FORBIDDEN`.
    Forbidden,
    /// 404, `NOT_FOUND`: as if the object did not exist.
    NotFound,
    /// A null, or an empty list.
    Null,
}

use Outcome::{Done, Forbidden, NotFound, Null, Unauthenticated};

/// How an operation is called.
#[derive(Clone, Copy)]
enum Call {
    /// A POST with this body.
    Post(&'static str, fn(&str) -> Value),
    /// A GET.
    Get(&'static str),
    /// A field of a root type, with its arguments and selection.
    Field(&'static str, &'static str, fn(&Case) -> String),
}

/// The user that the call is about, and objects of ann.
struct Case {
    uid: String,
    conversation_id: String,
    message_id: String,
    channel_id: String,
}

/// An operation with its results: for ann about herself; for bob (a member of the group), zoe (not
/// a member) and rex (a former member) about ann; for these three about themselves; for a service
/// about ann.
type Line = (Call, Outcome, [Outcome; 3], [Outcome; 3], Outcome);

const GROUP: &str = r#"channel: {channelId: "g", channelType: 2}"#;

fn target(uid: &str) -> Value {
    json!({"uid": uid, "channel_id": "g", "channel_type": 2})
}

fn members(_: &str) -> Value {
    json!({"channel_id": "other", "channel_type": 2, "subscribers": ["ann"]})
}

fn sender_list(_: &str) -> Value {
    json!({"channel_id": "g", "channel_type": 2, "uids": ["ann"]})
}

fn table() -> Vec<Line> {
    let own = |call| (call, Done, [Forbidden; 3], [Done; 3], Done);
    // About a group conversation: a user who is not a member has none.
    let in_group = |call| (call, Done, [Forbidden; 3], [Done, NotFound, NotFound], Done);
    let service = |call| (call, Forbidden, [Forbidden; 3], [Forbidden; 3], Done);
    let anybody = |call| (call, Done, [Done; 3], [Done; 3], Done);
    vec![
        // WuKongIM's routes. A change of a missing conversation succeeds without an effect there,
        // so it reveals nothing.
        own(Call::Post("/conversation/sync", |uid| json!({"uid": uid}))),
        own(Call::Post("/conversations/setUnread", |uid| {
            let mut body = target(uid);
            body["unread"] = json!(3);
            body
        })),
        own(Call::Post("/conversations/clearUnread", target)),
        own(Call::Post("/conversations/delete", target)),
        in_group(Call::Post("/message/send", |uid| {
            message(uid, "g", 2, &format!("{uid} over REST"))
        })),
        own(Call::Post(
            "/conversation/channels",
            |uid| json!({"uid": uid}),
        )),
        own(Call::Post(
            "/conversation/syncByChannels",
            |uid| json!({"uid": uid, "channels": [{"channel_id": "g", "channel_type": 2}]}),
        )),
        own(Call::Post(
            "/conversation/syncMessages",
            |uid| json!({"uid": uid, "channels": [{"channel_id": "g", "channel_type": 2}]}),
        )),
        // Its content for each caller is tested below.
        own(Call::Post(
            "/channel/messagesync",
            |uid| json!({"login_uid": uid, "channel_id": "g", "channel_type": 2, "limit": 10}),
        )),
        own(Call::Get(
            "/channel/max_message_seq?channel_id=g&channel_type=2&login_uid=",
        )),
        // Its content for each caller is tested below.
        own(Call::Post(
            "/channel/messagesyncbatch",
            |uid| json!({"login_uid": uid, "items": [{"channel_id": "g", "channel_type": 2}]}),
        )),
        own(Call::Post(
            "/messages",
            |uid| json!({"login_uid": uid, "channel_id": "g", "channel_type": 2, "message_seqs": [1]}),
        )),
        own(Call::Get(
            "/channel/last_message?channel_id=g&channel_type=2&login_uid=",
        )),
        own(Call::Get(
            "/message/byclientmsgno?channel_id=g&channel_type=2&client_msg_no=x&login_uid=",
        )),
        own(Call::Post("/conversation/list", |uid| json!({"uid": uid}))),
        own(Call::Post(
            "/conversation/retry",
            |uid| json!({"uid": uid, "channels": [{"channel_id": "g", "channel_type": 2}]}),
        )),
        own(Call::Post("/conversations/activate", target)),
        own(Call::Post("/message/sync", |uid| json!({"uid": uid}))),
        own(Call::Post(
            "/message/syncack",
            |uid| json!({"uid": uid, "last_message_seq": 1}),
        )),
        service(Call::Post("/user/onlinestatus", |uid| json!([uid]))),
        service(Call::Get("/user/systemuids")),
        service(Call::Post("/channel/blacklist_remove", sender_list)),
        service(Call::Post("/channel/blacklist_remove_all", sender_list)),
        service(Call::Post("/channel/whitelist_remove", sender_list)),
        service(Call::Post("/channel/whitelist_remove_all", sender_list)),
        service(Call::Get("/channel/whitelist?channel_id=g")),
        own(Call::Get("/conversations?uid=")),
        own(Call::Post(
            "/message/sendbatch",
            |uid| json!({"from_uid": uid, "subscribers": ["ann"], "payload": payload("x")}),
        )),
        service(Call::Post(
            "/channel/info",
            |_| json!({"channel_id": "other", "channel_type": 2}),
        )),
        service(Call::Post(
            "/channel/delete",
            |_| json!({"channel_id": "other", "channel_type": 2}),
        )),
        service(Call::Post(
            "/channel/subscriber_remove_all",
            |_| json!({"channel_id": "other", "channel_type": 2}),
        )),
        service(Call::Post(
            "/user/token",
            |uid| json!({"uid": uid, "token": "x"}),
        )),
        service(Call::Post("/user/device_quit", |uid| json!({"uid": uid}))),
        service(Call::Post(
            "/user/systemuids_add",
            |_| json!({"uids": ["sys"]}),
        )),
        service(Call::Post(
            "/user/systemuids_remove",
            |_| json!({"uids": ["sys"]}),
        )),
        service(Call::Post("/channel", members)),
        service(Call::Post("/channel/subscriber_add", members)),
        service(Call::Post("/channel/subscriber_remove", members)),
        service(Call::Post("/webhook?event=msg.notify", |_| {
            json!([webhook_message("bob", "hooked", 2, 1, 1)])
        })),
        service(Call::Post(
            "/datasource",
            |_| json!({"cmd": "getSystemUIDs"}),
        )),
        // GraphQL.
        own(Call::Field("query", "conversations", |case| {
            format!("(uid: \"{}\") {{ version }}", case.uid)
        })),
        own(Call::Field("query", "conversationList", |case| {
            format!("(uid: \"{}\") {{ totalCount }}", case.uid)
        })),
        own(Call::Field("query", "unreadSummary", |case| {
            format!("(uid: \"{}\") {{ total }}", case.uid)
        })),
        (
            Call::Field("query", "conversation", |case| {
                format!("(uid: \"{}\", {GROUP}) {{ id }}", case.uid)
            }),
            Done,
            [Forbidden; 3],
            [Done, Null, Null],
            Done,
        ),
        // A former member sees the messages up to leaving.
        (
            Call::Field("query", "messages", |case| {
                format!("(uid: \"{}\", {GROUP}) {{ nodes {{ id }} }}", case.uid)
            }),
            Done,
            [Forbidden; 3],
            [Done, Null, Done],
            Done,
        ),
        // A message that was sent after rex left.
        (
            Call::Field("query", "node", |case| {
                format!("(id: \"{}\") {{ id }}", case.message_id)
            }),
            Done,
            [Done, Null, Null],
            [Done, Null, Null],
            Done,
        ),
        (
            Call::Field("query", "nodes", |case| {
                format!(
                    "(ids: [\"{}\", \"{}\"]) {{ id }}",
                    case.conversation_id, case.conversation_id
                )
            }),
            Done,
            [Null; 3],
            [Null; 3],
            Done,
        ),
        in_group(Call::Field("mutation", "setUnread", |case| {
            format!(
                "(input: {{uid: \"{}\", {GROUP}, unread: 2}}) {{ conversation {{ id }} }}",
                case.uid
            )
        })),
        in_group(Call::Field("mutation", "clearUnread", |case| {
            format!(
                "(input: {{uid: \"{}\", {GROUP}}}) {{ conversation {{ id }} }}",
                case.uid
            )
        })),
        own(Call::Field("mutation", "markAllRead", |case| {
            format!(
                "(input: {{uid: \"{}\"}}) {{ conversations {{ id }} }}",
                case.uid
            )
        })),
        in_group(Call::Field("mutation", "pinConversation", |case| {
            format!(
                "(input: {{uid: \"{}\", {GROUP}}}) {{ conversation {{ id }} }}",
                case.uid
            )
        })),
        in_group(Call::Field("mutation", "muteConversation", |case| {
            format!(
                "(input: {{uid: \"{}\", {GROUP}}}) {{ conversation {{ id }} }}",
                case.uid
            )
        })),
        in_group(Call::Field("mutation", "deleteConversation", |case| {
            format!(
                "(input: {{uid: \"{}\", {GROUP}}}) {{ removed {{ id }} }}",
                case.uid
            )
        })),
        in_group(Call::Field("mutation", "sendMessage", |case| {
            let payload = payload("x");
            format!(
                "(input: {{fromUid: \"{}\", {GROUP}, payload: \"{payload}\"}}) {{ message {{ id }} }}",
                case.uid
            )
        })),
        service(Call::Field("mutation", "createChannel", |_| {
            format!("(input: {{{GROUP}, uids: []}}) {{ channel {{ id }} }}")
        })),
        service(Call::Field("mutation", "addMembers", |_| {
            "(input: {channel: {channelId: \"other\", channelType: 2}, uids: [\"ann\"]}) { channel { id } }".to_owned()
        })),
        service(Call::Field("mutation", "replaceMembers", |_| {
            "(input: {channel: {channelId: \"other\", channelType: 2}, uids: [\"ann\"]}) { channel { id } }".to_owned()
        })),
        service(Call::Field("mutation", "removeMembers", |_| {
            "(input: {channel: {channelId: \"other\", channelType: 2}, uids: [\"ann\"]}) { channel { id } }".to_owned()
        })),
        service(Call::Field("mutation", "deleteChannel", |_| {
            "(input: {channel: {channelId: \"other\", channelType: 2}}) { channel { id } }"
                .to_owned()
        })),
        own(Call::Field("subscription", "conversationChanges", |case| {
            format!("(uid: \"{}\") {{ version }}", case.uid)
        })),
        in_group(Call::Field("subscription", "messageAdded", |case| {
            format!("(uid: \"{}\", {GROUP}, after: 0) {{ id }}", case.uid)
        })),
        // For people, orchestrators and scrapers: contains no user data.
        anybody(Call::Get("/")),
        anybody(Call::Get("/graphiql")),
        anybody(Call::Get("/docs")),
        anybody(Call::Get("/openapi.json")),
        anybody(Call::Get("/health")),
        anybody(Call::Get("/livez")),
        anybody(Call::Get("/readyz")),
        anybody(Call::Get("/metrics")),
    ]
}

/// Routes that are not in the table because another row or test covers them.
const COVERED_ELSEWHERE: [(&str, &str); 2] = [
    (
        "/webhook/{secret}",
        "api::bad_input::webhook_secret_is_part_of_the_path",
    ),
    ("/datasource/{secret}", "the same"),
];

struct Fixture {
    server: Server,
    case: Case,
}

/// A server with a group of ann and bob; rex is a former member, and zoe is not a member.
async fn fixture() -> Fixture {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.manager_token = "hush".into();
        settings.auth.jwt.secret = SECRET.into();
        settings.auth.jwt.audience = "recents".to_owned();
        settings.auth.users_may_send = true;
        settings.limits.user_requests_per_second = 0;
        settings.limits.address_requests_per_second = 0;
    })
    .await;
    let post = async |path: &str, body: Value| {
        let answer = server
            .request(
                server
                    .http("POST", path)
                    .header("token", "hush")
                    .body(body.to_string()),
            )
            .await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    };
    post(
        "/channel",
        json!({"channel_id": "g", "channel_type": 2, "subscribers": ["ann", "bob", "rex"]}),
    )
    .await;
    post(
        "/message/send",
        message("bob", "g", 2, "all of them saw it"),
    )
    .await;
    post(
        "/channel/subscriber_remove",
        json!({"channel_id": "g", "channel_type": 2, "subscribers": ["rex"]}),
    )
    .await;
    post("/message/send", message("bob", "g", 2, "rex did not")).await;
    let query = format!("{{ conversation(uid: \"ann\", {GROUP}) {{ id lastMessage {{ id }} }} }}");
    let body = json!({"query": query}).to_string();
    let request = server
        .http("POST", "/graphql")
        .header("token", "hush")
        .header("content-type", "application/json")
        .body(body);
    let answer = server.request(request).await.json();
    let found = &answer["data"]["conversation"];
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    };
    use base64::Engine as _;
    let channel_id =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"[1,"Channel",["2","g"]]"#);
    let (conversation_id, message_id) = (text(&found["id"]), text(&found["lastMessage"]["id"]));
    Fixture {
        case: Case {
            uid: "ann".to_owned(),
            conversation_id,
            message_id,
            channel_id,
        },
        server,
    }
}

impl Fixture {
    /// Returns the result of a call with these credentials.
    async fn call(&self, call: Call, uid: &str, credential: Option<(&str, &str)>) -> Outcome {
        let with = |request: reqwest::RequestBuilder| match credential {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        match call {
            Call::Post(path, body) => {
                let answer = self
                    .server
                    .request(with(self.server.http("POST", path)).body(body(uid).to_string()))
                    .await;
                let outcome = by_status(answer.status);
                match outcome {
                    Unauthenticated => assert_eq!(answer.text, "", "{path}: as WuKongIM"),
                    Done => {}
                    _ => assert_eq!(answer.json()["status"], answer.status, "{path}: {answer:?}"),
                }
                outcome
            }
            Call::Get(path) => {
                let path = if path.ends_with('=') {
                    format!("{path}{uid}")
                } else {
                    path.to_owned()
                };
                by_status(
                    self.server
                        .request(with(self.server.http("GET", &path)))
                        .await
                        .status,
                )
            }
            Call::Field(root, name, rest) => {
                let case = Case {
                    uid: uid.to_owned(),
                    conversation_id: self.case.conversation_id.clone(),
                    message_id: self.case.message_id.clone(),
                    channel_id: self.case.channel_id.clone(),
                };
                let query = format!("{root} {{ {name}{} }}", rest(&case));
                let request = with(self.server.http("POST", "/graphql"));
                let answer = if root == "subscription" {
                    match Events::open(request, &query, json!({})).await {
                        Ok(mut events) => match events.next().await {
                            Event::Next(answer) => answer,
                            other => panic!("{query}: {other:?}"),
                        },
                        Err(refused) => {
                            serde_json::from_str(refused.split_once(": ").unwrap().1).unwrap()
                        }
                    }
                } else {
                    let body = json!({"query": query}).to_string();
                    self.server
                        .request(
                            request
                                .header("content-type", "application/json")
                                .body(body),
                        )
                        .await
                        .json()
                };
                match answer["errors"][0]["extensions"]["code"].as_str() {
                    Some("UNAUTHENTICATED") => Unauthenticated,
                    Some("FORBIDDEN") => Forbidden,
                    Some("NOT_FOUND") => NotFound,
                    Some(other) => panic!("{query}: {other}: {answer}"),
                    None => {
                        let value = &answer["data"][name];
                        let all_null = value
                            .as_array()
                            .is_some_and(|all| !all.is_empty() && all.iter().all(Value::is_null));
                        if value.is_null() || all_null {
                            Null
                        } else {
                            Done
                        }
                    }
                }
            }
        }
    }
}

fn by_status(status: u16) -> Outcome {
    match status {
        200 => Done,
        401 => Unauthenticated,
        403 => Forbidden,
        404 => NotFound,
        other => panic!("status {other}"),
    }
}

fn name(call: Call) -> String {
    match call {
        Call::Post(path, _) => path.to_owned(),
        Call::Get(path) => path.split('?').next().unwrap().to_owned(),
        Call::Field(root, name, _) => format!("{root} {name}"),
    }
}

fn users_token(uid: &str) -> String {
    format!(
        "Bearer {}",
        signed(
            &json!({"sub": uid, "exp": in_seconds(3600), "aud": "recents"}),
            SECRET
        )
    )
}

/// Invalid tokens, each with its defect.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let claims = json!({"sub": "ann", "exp": in_seconds(3600), "aud": "recents"});
    let of = |claims: Value| signed(&claims, SECRET);
    let with = |algorithm| {
        jsonwebtoken::encode(
            &Header::new(algorithm),
            &claims,
            &EncodingKey::from_secret(SECRET.as_bytes()),
        )
        .unwrap()
    };
    vec![
        (
            "expired",
            of(json!({"sub": "ann", "exp": in_seconds(-100), "aud": "recents"})),
        ),
        (
            "wrong key",
            signed(&claims, "another secret of thirty-two bytes or so"),
        ),
        ("wrong algorithm", with(Algorithm::HS512)),
        (
            "wrong audience",
            of(json!({"sub": "ann", "exp": in_seconds(3600), "aud": "somebody else"})),
        ),
        ("no audience", token("ann")),
        ("wrong manager token", "hus".to_owned()),
    ]
}

#[tokio::test]
async fn every_operation_with_every_caller() {
    let mut checked = 0;
    for (call, ann, about_ann, about_themselves, service) in table() {
        let what = name(call);
        // Each row starts with the same state.
        let fixture = fixture().await;
        let mut expect =
            async |caller: &str, uid: &str, credential: Option<(&str, &str)>, expected: Outcome| {
                assert_eq!(
                    fixture.call(call, uid, credential).await,
                    expected,
                    "{what}: {caller} about {uid}"
                );
                checked += 1;
            };
        let is_open = ann == Done && about_ann == [Done; 3] && matches!(call, Call::Get(_));
        let refused = if is_open { Done } else { Unauthenticated };
        expect("nobody", "ann", None, refused).await;
        for (kind, token) in bad_tokens() {
            expect(
                kind,
                "ann",
                Some(("authorization", &format!("Bearer {token}"))),
                refused,
            )
            .await;
            expect(kind, "ann", Some(("token", &token)), refused).await;
        }
        for (uid, (of_ann, of_own)) in ["bob", "zoe", "rex"]
            .into_iter()
            .zip(about_ann.into_iter().zip(about_themselves))
        {
            let token = users_token(uid);
            expect(uid, "ann", Some(("authorization", &token)), of_ann).await;
            expect(uid, uid, Some(("authorization", &token)), of_own).await;
        }
        expect(
            "ann",
            "ann",
            Some(("authorization", &users_token("ann"))),
            ann,
        )
        .await;
        expect("a service", "ann", Some(("token", "hush")), service).await;
        expect(
            "a service",
            "ann",
            Some(("authorization", "Bearer hush")),
            service,
        )
        .await;
    }
    println!("{} operations, {checked} calls", table().len());
}

#[tokio::test]
async fn table_covers_every_operation() {
    let fixture = fixture().await;
    let mut known: BTreeSet<String> = table().into_iter().map(|(call, ..)| name(call)).collect();
    known.extend(COVERED_ELSEWHERE.iter().map(|(path, _)| (*path).to_owned()));
    let mut all = BTreeSet::new();
    let introspection = "{ __schema { queryType { fields { name } } mutationType { fields { name } } subscriptionType { fields { name } } } }";
    let body = json!({"query": introspection}).to_string();
    let request = fixture
        .server
        .http("POST", "/graphql")
        .header("token", "hush")
        .header("content-type", "application/json");
    let schema =
        fixture.server.request(request.body(body)).await.json()["data"]["__schema"].clone();
    for root in ["query", "mutation", "subscription"] {
        let fields = schema[format!("{root}Type")]["fields"].as_array().unwrap();
        all.extend(
            fields
                .iter()
                .map(|field| format!("{root} {}", field["name"].as_str().unwrap())),
        );
    }
    let document: Value = fixture
        .server
        .request(fixture.server.http("GET", "/openapi.json"))
        .await
        .json();
    for path in document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .filter(|path| *path != "/graphql")
    {
        all.insert(if path == "/webhook" {
            "/webhook?event=msg.notify".to_owned()
        } else {
            path.clone()
        });
    }
    // Routes that the OpenAPI document leaves out are for people.
    all.extend(["/", "/docs", "/graphiql", "/openapi.json"].map(str::to_owned));
    assert_eq!(known, all);
}

/// The OpenAPI document has every route of the source. Routes with a description are in it by
/// themselves; this test notices routes without one.
#[tokio::test]
async fn openapi_covers_every_route() {
    let server = Server::start(Engine::Sqlite).await;
    let document: Value = server
        .request(server.http("GET", "/openapi.json"))
        .await
        .json();
    let source = [
        include_str!("../../../src/server/router.rs"),
        include_str!("../../../src/rest/health.rs"),
        include_str!("../../../src/rest/wukong/mod.rs"),
        include_str!("../../../src/rest/wukong/channel.rs"),
        include_str!("../../../src/rest/wukong/conversation/by_channel.rs"),
        include_str!("../../../src/rest/wukong/conversation/change.rs"),
        include_str!("../../../src/rest/wukong/conversation/list.rs"),
        include_str!("../../../src/rest/wukong/conversation/sync.rs"),
        include_str!("../../../src/rest/wukong/conversation/walk.rs"),
        include_str!("../../../src/rest/wukong/history.rs"),
        include_str!("../../../src/rest/wukong/inbound.rs"),
        include_str!("../../../src/rest/wukong/lookup.rs"),
        include_str!("../../../src/rest/wukong/message.rs"),
        include_str!("../../../src/rest/wukong/user.rs"),
        include_str!("../../../src/rest/wukong/without_wukongim.rs"),
    ]
    .concat();
    let routes = source.lines().filter_map(|line| {
        line.split_once(".route(\"")
            .or_else(|| line.split_once("    path = \""))
    });
    let mut compared = 0;
    for line in routes {
        let path = line.1.split_once('"').unwrap().0;
        if path == "/openapi.json" {
            continue;
        }
        compared += 1;
        assert!(
            document["paths"].get(path).is_some(),
            "{path} is not in the document, and so in no test of permissions"
        );
    }
    assert!(compared >= 30, "{compared}");
    // Only the events that carry messages need a body.
    for path in ["/webhook", "/webhook/{secret}"] {
        let body = &document["paths"][path]["post"]["requestBody"];
        assert!(
            body.is_object() && body["required"] != true,
            "{path}: {body}"
        );
    }
}

/// The table of routes in COMPATIBILITY.md has WuKongIM's routes that are served, and no others.
#[tokio::test]
async fn compatibility_md_lists_the_routes() {
    let server = Server::start(Engine::Sqlite).await;
    let document: Value = server
        .request(server.http("GET", "/openapi.json"))
        .await
        .json();
    let served: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let table = include_str!("../../../docs/COMPATIBILITY.md")
        .lines()
        .filter(|line| line.starts_with("| POST `") || line.starts_with("| GET `"))
        .map(|line| line.split('|').nth(1).unwrap());
    let listed: BTreeSet<String> = table
        .flat_map(|cell| cell.split('`').filter(|part| part.starts_with('/')))
        .map(str::to_owned)
        .collect();
    assert!(listed.len() > 20, "{listed:?}");
    // Routes that WuKongIM does not have.
    let own = [
        "/",
        "/graphiql",
        "/graphql",
        "/livez",
        "/metrics",
        "/readyz",
    ]
    .map(str::to_owned);
    let expected: BTreeSet<&String> = served.iter().filter(|path| !own.contains(path)).collect();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), expected);
}

/// Only members see the channel itself.
#[tokio::test]
async fn channel_is_visible_to_members_only() {
    let fixture = fixture().await;
    let query = format!("{{ node(id: \"{}\") {{ id }} }}", fixture.case.channel_id);
    for (uid, is_there) in [("ann", true), ("bob", true), ("zoe", false), ("rex", false)] {
        let body = json!({"query": query}).to_string();
        let request = fixture
            .server
            .http("POST", "/graphql")
            .header("authorization", users_token(uid));
        let answer = fixture
            .server
            .request(
                request
                    .header("content-type", "application/json")
                    .body(body),
            )
            .await
            .json();
        assert_eq!(
            answer["data"]["node"].is_object(),
            is_there,
            "{uid}: {answer}"
        );
        assert!(answer.get("errors").is_none(), "{answer}");
    }
}

/// Messages of a channel are for its members, and for former members up to leaving; a service sees
/// all of them.
#[tokio::test]
async fn former_members_read_up_to_leaving() {
    let fixture = fixture().await;
    for (uid, credential, expected) in [
        ("ann", ("authorization", users_token("ann")), vec![1, 2]),
        ("rex", ("authorization", users_token("rex")), vec![1]),
        ("zoe", ("authorization", users_token("zoe")), vec![]),
        ("rex", ("token", "hush".to_owned()), vec![1]),
        ("zoe", ("token", "hush".to_owned()), vec![1, 2]),
    ] {
        let with = |request: reqwest::RequestBuilder| request.header(credential.0, &credential.1);
        let body = json!({"login_uid": uid, "channel_id": "g", "channel_type": 2, "limit": 10})
            .to_string();
        let answer = fixture
            .server
            .request(with(fixture.server.http("POST", "/channel/messagesync")).body(body))
            .await
            .json();
        let seqs: Vec<i64> = answer["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["message_seq"].as_i64().unwrap())
            .collect();
        assert_eq!(seqs, expected, "{uid} with {}", credential.0);
        let get = async |path: &str| {
            let path = format!("{path}?channel_id=g&channel_type=2&login_uid={uid}");
            fixture
                .server
                .request(with(fixture.server.http("GET", &path)))
                .await
                .json()
        };
        let last = expected.last().copied();
        assert_eq!(
            get("/channel/max_message_seq").await["message_seq"],
            last.unwrap_or(0),
            "{uid} with {}",
            credential.0
        );
        assert_eq!(
            get("/channel/last_message").await["message_seq"].as_i64(),
            last,
            "{uid} with {}",
            credential.0
        );
        for (path, body, pointer) in [
            (
                "/messages",
                json!({"login_uid": uid, "channel_id": "g", "channel_type": 2, "message_seqs": [1, 2]}),
                "/messages",
            ),
            (
                "/messages",
                json!({"login_uid": uid, "channel_id": "g", "channel_type": 2, "client_msg_nos": ["all of them saw it", "rex did not"]}),
                "/messages",
            ),
            (
                "/channel/messagesyncbatch",
                json!({"login_uid": uid, "items": [{"channel_id": "g", "channel_type": 2}]}),
                "/items/0/messages",
            ),
        ] {
            let request = with(fixture.server.http("POST", path)).body(body.to_string());
            let answer = fixture.server.request(request).await.json();
            let messages = answer.pointer(pointer).unwrap().as_array().unwrap();
            let seqs: Vec<i64> = messages
                .iter()
                .map(|one| one["message_seq"].as_i64().unwrap())
                .collect();
            assert_eq!(seqs, expected, "{path}: {uid} with {}", credential.0);
        }
    }
}

/// The token identifies the user: `uid` may be omitted, and another uid is refused.
#[tokio::test]
async fn uid_defaults_to_the_token() {
    let fixture = fixture().await;
    let graphql = async |uid: &str, query: &str| {
        let body = json!({"query": query}).to_string();
        let request = fixture
            .server
            .http("POST", "/graphql")
            .header("authorization", users_token(uid));
        fixture
            .server
            .request(
                request
                    .header("content-type", "application/json")
                    .body(body),
            )
            .await
            .json()
    };
    let answer = graphql(
        "ann",
        &format!("{{ unreadSummary {{ total }} conversation({GROUP}) {{ unread }} }}"),
    )
    .await;
    assert_eq!(
        answer["data"],
        json!({"unreadSummary": {"total": 2}, "conversation": {"unread": 2}})
    );
    let send = format!(
        "mutation {{ sendMessage(input: {{{GROUP}, payload: \"{}\"}}) {{ message {{ fromUid }} }} }}",
        payload("x")
    );
    assert_eq!(
        graphql("ann", &send).await["data"]["sendMessage"]["message"]["fromUid"],
        "ann"
    );
    // Every user may write to a person; nobody creates a group by writing to it.
    let to = |kind: u8, id: &str| {
        let channel = format!("channel: {{channelId: \"{id}\", channelType: {kind}}}");
        format!(
            "mutation {{ sendMessage(input: {{{channel}, payload: \"{}\"}}) {{ message {{ messageSeq }} }} }}",
            payload("y")
        )
    };
    assert_eq!(
        graphql("zoe", &to(1, "ann")).await["data"]["sendMessage"]["message"]["messageSeq"],
        1
    );
    let answer = graphql("zoe", &to(2, "nowhere")).await;
    assert_eq!(
        answer["errors"][0]["extensions"]["code"], "NOT_FOUND",
        "{answer}"
    );
}

#[tokio::test]
async fn users_send_only_when_enabled() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.jwt.secret = SECRET.into()
    })
    .await;
    let bearer = format!("Bearer {}", token("ann"));
    let request = server
        .http("POST", "/message/send")
        .header("authorization", &bearer);
    let answer = server
        .request(request.body(message("ann", "bob", 1, "x").to_string()))
        .await;
    assert_eq!(
        (answer.status, answer.msg().as_str()),
        (403, "users may not send here")
    );
}

/// Calls that are passed on to a WuKongIM: it does whatever it is told, so only services may make
/// them, and nobody without a token.
#[tokio::test]
async fn only_services_make_calls_that_are_passed_on() {
    let upstream = Upstream::start().await;
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.auth.manager_token = "hush".into();
        settings.auth.jwt.secret = SECRET.into();
        settings.auth.jwt.audience = "recents".to_owned();
        settings.auth.users_may_send = true;
        settings.limits.address_requests_per_second = 0;
        settings.proxy.wukongim_url = upstream.url.as_str().into();
        settings.proxy.wukongim_token = "theirs".into();
    })
    .await;
    let group = json!({"channel_id": "g", "channel_type": 2, "subscribers": ["ann"]}).to_string();
    let calls = [
        ("POST", "/user/token"),
        ("POST", "/message/send"),
        ("POST", "/message/sendbatch"),
        ("POST", "/channel"),
        ("POST", "/channel/info"),
        ("POST", "/channel/subscriber_add"),
        ("POST", "/channel/subscriber_remove"),
        ("POST", "/channel/subscriber_remove_all"),
        ("POST", "/channel/delete"),
        ("POST", "/channel/blacklist_add"),
        ("GET", "/varz"),
        ("DELETE", "/anything"),
        ("POST", "/channel/%64elete"),
    ];
    for (method, path) in calls {
        let call = async |credential: Option<(&str, &str)>| {
            let mut request = server.http(method, path).body(group.clone());
            if let Some((name, value)) = credential {
                request = request.header(name, value);
            }
            server.request(request).await
        };
        let nobody = call(None).await;
        assert_eq!((nobody.status, nobody.text.as_str()), (401, ""), "{path}");
        for (kind, token) in bad_tokens() {
            let bearer = format!("Bearer {token}");
            for credential in [("authorization", bearer.as_str()), ("token", &token)] {
                assert_eq!(call(Some(credential)).await.status, 401, "{path}: {kind}");
            }
        }
        let user = call(Some(("authorization", &users_token("ann")))).await;
        assert_eq!(user.status, 403, "{path}: {user:?}");
        assert!(
            user.msg().starts_with("only services may"),
            "{path}: {user:?}"
        );
        assert!(upstream.take_calls().is_empty(), "{path}");
        let service = call(Some(("token", "hush"))).await;
        if path.contains('%') {
            assert_eq!(service.status, 400, "{path}");
        } else {
            assert_eq!(service.status, 200, "{path}: {service:?}");
            assert_eq!(upstream.take_call().target, path);
        }
    }
}

/// Where nobody has a token, every caller on this machine is a service, and no other one.
#[tokio::test]
async fn open_server_passes_calls_of_this_machine_on() {
    let upstream = Upstream::start().await;
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.proxy.wukongim_url = upstream.url.as_str().into();
    })
    .await;
    assert_eq!(server.post("/user/token", "{}").await.status, 200);
    upstream.take_call();
    for (name, value) in [
        ("host", "evil.example"),
        ("origin", "http://evil.example"),
        ("x-forwarded-for", "198.51.100.1"),
    ] {
        let request = server.http("POST", "/user/token").header(name, value);
        assert_eq!(server.request(request).await.status, 403, "{name}");
    }
    assert!(upstream.take_calls().is_empty());
}
