//! Who may do what: every route, query, mutation and subscription with every kind of caller. An
//! operation that is not in the table fails the test.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::events::{Event, Events};
use crate::support::server::{hooked, message, payload};
use crate::support::tokens::{SECRET, in_seconds, signed, token};
use crate::support::{Engine, Server};

/// What comes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// 401, `UNAUTHENTICATED`.
    Who,
    /// 403, `FORBIDDEN`.
    No,
    /// 404, `NOT_FOUND`: as if there were nothing.
    Nothing,
    /// A null, or an empty list.
    Null,
}

use Outcome::{Done, No, Nothing, Null, Who};

/// How an operation is called.
#[derive(Clone, Copy)]
enum Call {
    /// A POST with this body.
    Post(&'static str, fn(&str) -> Value),
    /// A GET.
    Get(&'static str),
    /// A field of a root, with its arguments and selection.
    Field(&'static str, &'static str, fn(&Case) -> String),
}

/// Who it is about, and things of ann's.
struct Case {
    uid: String,
    conversation_id: String,
    message_id: String,
    channel_id: String,
}

/// An operation, and what comes of it: for ann about herself; for bob, who is in the group, zoe,
/// who is not, and rex, who was, about ann; for these three about themselves; for a service about
/// ann.
type Line = (Call, Outcome, [Outcome; 3], [Outcome; 3], Outcome);

const GROUP: &str = r#"channel: {channelId: "g", channelType: 2}"#;

fn target(uid: &str) -> Value {
    json!({"uid": uid, "channel_id": "g", "channel_type": 2})
}

fn members(_: &str) -> Value {
    json!({"channel_id": "other", "channel_type": 2, "subscribers": ["ann"]})
}

fn table() -> Vec<Line> {
    let own = |call| (call, Done, [No; 3], [Done; 3], Done);
    // About a group's conversation: who is not in the group has none.
    let in_group = |call| (call, Done, [No; 3], [Done, Nothing, Nothing], Done);
    let service = |call| (call, No, [No; 3], [No; 3], Done);
    let anybody = |call| (call, Done, [Done; 3], [Done; 3], Done);
    vec![
        // WuKongIM's routes. What one does not have needs no change there: that is done, and tells
        // nothing.
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
        // What it shows to whom is looked at below.
        own(Call::Post(
            "/channel/messagesync",
            |uid| json!({"login_uid": uid, "channel_id": "g", "channel_type": 2, "limit": 10}),
        )),
        own(Call::Get(
            "/channel/max_message_seq?channel_id=g&channel_type=2&login_uid=",
        )),
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
            json!([hooked("bob", "hooked", 2, 1, 1)])
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
            [No; 3],
            [Done, Null, Null],
            Done,
        ),
        // Who was in the group sees what was said until then.
        (
            Call::Field("query", "messages", |case| {
                format!("(uid: \"{}\", {GROUP}) {{ nodes {{ id }} }}", case.uid)
            }),
            Done,
            [No; 3],
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
        // For people, orchestrators and scrapers: nothing of any user is in it.
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

/// Things that are not in the table because another line is about the same.
const ALSO: [(&str, &str); 2] = [
    (
        "/webhook/{secret}",
        "a_webhook_secret_is_a_part_of_the_path in bad_input.rs",
    ),
    ("/datasource/{secret}", "the same"),
];

struct World {
    server: Server,
    case: Case,
}

/// A server with a group of ann and bob, where rex was and zoe is not.
async fn world() -> World {
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
    World {
        case: Case {
            uid: "ann".to_owned(),
            conversation_id,
            message_id,
            channel_id,
        },
        server,
    }
}

impl World {
    /// What comes of a call with these credentials.
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
                    Who => assert_eq!(answer.text, "", "{path}: as WuKongIM"),
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
                    Some("UNAUTHENTICATED") => Who,
                    Some("FORBIDDEN") => No,
                    Some("NOT_FOUND") => Nothing,
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
        401 => Who,
        403 => No,
        404 => Nothing,
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

/// Tokens that are none, by what is wrong with them.
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
async fn everybody_may_do_what_is_theirs_and_nothing_else() {
    let mut checked = 0;
    for (call, ann, about_ann, about_themselves, service) in table() {
        let what = name(call);
        // Each line begins with the same state.
        let world = world().await;
        let mut expect =
            async |caller: &str, uid: &str, credential: Option<(&str, &str)>, expected: Outcome| {
                assert_eq!(
                    world.call(call, uid, credential).await,
                    expected,
                    "{what}: {caller} about {uid}"
                );
                checked += 1;
            };
        let is_open = ann == Done && about_ann == [Done; 3] && matches!(call, Call::Get(_));
        let refused = if is_open { Done } else { Who };
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
async fn no_operation_is_missing_in_the_table() {
    let world = world().await;
    let mut known: BTreeSet<String> = table().into_iter().map(|(call, ..)| name(call)).collect();
    known.extend(ALSO.iter().map(|(path, _)| (*path).to_owned()));
    let mut all = BTreeSet::new();
    let introspection = "{ __schema { queryType { fields { name } } mutationType { fields { name } } subscriptionType { fields { name } } } }";
    let body = json!({"query": introspection}).to_string();
    let request = world
        .server
        .http("POST", "/graphql")
        .header("token", "hush")
        .header("content-type", "application/json");
    let schema = world.server.request(request.body(body)).await.json()["data"]["__schema"].clone();
    for root in ["query", "mutation", "subscription"] {
        let fields = schema[format!("{root}Type")]["fields"].as_array().unwrap();
        all.extend(
            fields
                .iter()
                .map(|field| format!("{root} {}", field["name"].as_str().unwrap())),
        );
    }
    let document: Value = world
        .server
        .request(world.server.http("GET", "/openapi.json"))
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
    // What the document does not have is for people.
    all.extend(["/", "/docs", "/graphiql", "/openapi.json"].map(str::to_owned));
    assert_eq!(known, all);
}

/// The document has every route: those that the source routes.
#[test]
fn no_route_is_missing_in_the_document() {
    let document = recents::rest::openapi::document();
    let source = [
        include_str!("../src/app.rs"),
        include_str!("../src/rest/wukong/mod.rs"),
        include_str!("../src/rest/wukong/feed.rs"),
    ]
    .concat();
    for line in source
        .lines()
        .filter_map(|line| line.split_once(".route(\""))
    {
        let path = line.1.split_once('"').unwrap().0;
        if path == "/openapi.json" {
            continue;
        }
        assert!(
            document.paths.paths.contains_key(path),
            "{path} is not in the document, and so in no test of permissions"
        );
    }
}

/// The channel itself is its members' to see.
#[tokio::test]
async fn a_channel_is_there_for_who_is_in_it() {
    let world = world().await;
    let query = format!("{{ node(id: \"{}\") {{ id }} }}", world.case.channel_id);
    for (uid, is_there) in [("ann", true), ("bob", true), ("zoe", false), ("rex", false)] {
        let body = json!({"query": query}).to_string();
        let request = world
            .server
            .http("POST", "/graphql")
            .header("authorization", users_token(uid));
        let answer = world
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

/// What was said in a channel is for who is in it, and for who was until then; a service sees all
/// of it.
#[tokio::test]
async fn messages_are_for_who_was_there() {
    let world = world().await;
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
        let answer = world
            .server
            .request(with(world.server.http("POST", "/channel/messagesync")).body(body))
            .await
            .json();
        let seqs: Vec<i64> = answer["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["message_seq"].as_i64().unwrap())
            .collect();
        assert_eq!(seqs, expected, "{uid} with {}", credential.0);
        let path = format!("/channel/max_message_seq?channel_id=g&channel_type=2&login_uid={uid}");
        let answer = world
            .server
            .request(with(world.server.http("GET", &path)))
            .await
            .json();
        assert_eq!(
            answer["message_seq"],
            expected.last().copied().unwrap_or(0),
            "{uid} with {}",
            credential.0
        );
    }
}

/// Users are who their tokens say: they need not say it, and cannot say otherwise.
#[tokio::test]
async fn what_a_user_does_not_say_the_token_does() {
    let world = world().await;
    let graphql = async |uid: &str, query: &str| {
        let body = json!({"query": query}).to_string();
        let request = world
            .server
            .http("POST", "/graphql")
            .header("authorization", users_token(uid));
        world
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
    // Anybody may write to a person; nobody makes a group by writing to it.
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
async fn users_send_only_where_it_is_allowed() {
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
