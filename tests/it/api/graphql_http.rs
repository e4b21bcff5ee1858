//! GraphQL over HTTP.

use serde_json::{Value, json};

use crate::support::{Engine, Server};

async fn ask(
    server: &Server,
    content_type: &str,
    accept: &str,
    body: &str,
) -> (u16, String, Value) {
    let request = server
        .http("POST", "/graphql")
        .header("content-type", content_type)
        .header("accept", accept)
        .body(body.to_owned());
    let answer = server.request(request).await;
    (answer.status, answer.content_type.clone(), answer.json())
}

#[tokio::test]
async fn malformed_requests_get_graphql_errors() {
    let server = Server::start(Engine::Sqlite).await;
    let code = |answer: &Value| {
        answer["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (content_type, body, status) in [
        ("text/plain", r#"{"query":"{ __typename }"}"#, 415),
        (
            "application/x-www-form-urlencoded",
            "query={__typename}",
            415,
        ),
        ("multipart/form-data; boundary=x", "--x--", 415),
        ("application/json", "", 400),
        ("application/json", "[]", 400),
        ("application/json", "{}", 400),
        ("application/json", r#"{"query":7}"#, 400),
        (
            "application/json",
            r#"{"query":"{ __typename }","variables":7}"#,
            400,
        ),
        ("application/json", r#"{"query":"{ __typename }"} x"#, 400),
    ] {
        let (got, kind, answer) = ask(&server, content_type, "*/*", body).await;
        assert_eq!(
            (got, kind.as_str()),
            (status, "application/json; charset=utf-8"),
            "{content_type} {body}: {answer}"
        );
        assert_eq!(code(&answer), "BAD_USER_INPUT", "{body}: {answer}");
        assert!(
            answer.get("data").is_none_or(Value::is_null),
            "{body}: {answer}"
        );
    }
    let answer = server.request(server.http("PUT", "/graphql")).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn status_depends_on_accept_header() {
    let server = Server::start(Engine::Sqlite).await;
    let modern = "application/graphql-response+json";
    for (query, expected_code, modern_status) in [
        ("{ __typename }", None, 200),
        ("{ nope }", Some("GRAPHQL_VALIDATION_FAILED"), 400),
        ("{", Some("GRAPHQL_PARSE_FAILED"), 400),
        (
            "{ conversation(uid: \"a\", channel: {channelId: \"b\", channelType: 1}) { id } }",
            None,
            200,
        ),
        (
            "mutation { clearUnread(input: {uid: \"a\", channel: {channelId: \"b\", channelType: 1}}) { conversation { id } } }",
            Some("NOT_FOUND"),
            200,
        ),
        (
            "query ($n: Int!) { __typename }",
            Some("BAD_USER_INPUT"),
            400,
        ),
        (
            "{ conversations(uid: \"a\", version: -1) { version } }",
            Some("BAD_USER_INPUT"),
            200,
        ),
        ("{ conversations { version } }", Some("BAD_USER_INPUT"), 200),
    ] {
        let body = json!({"query": query}).to_string();
        let (status, kind, answer) = ask(&server, "application/json", modern, &body).await;
        assert_eq!(
            (status, kind.as_str()),
            (
                modern_status,
                "application/graphql-response+json; charset=utf-8"
            ),
            "{query}: {answer}"
        );
        assert_eq!(
            answer["errors"][0]["extensions"]["code"].as_str(),
            expected_code,
            "{query}: {answer}"
        );
        let (status, kind, _) = ask(
            &server,
            "application/json; charset=utf-8",
            "application/json",
            &body,
        )
        .await;
        assert_eq!(
            (status, kind.as_str()),
            (200, "application/json; charset=utf-8"),
            "{query}"
        );
    }
}

#[tokio::test]
async fn get_runs_queries_only() {
    let server = Server::start(Engine::Sqlite).await;
    let get = async |pairs: &[(&str, &str)]| {
        server
            .request(server.http("GET", "/graphql").query(pairs))
            .await
    };
    let query = "query Q($uid: ID) { conversations(uid: $uid) { version } }";
    let answer = get(&[
        ("query", query),
        ("variables", r#"{"uid":"ann"}"#),
        ("operationName", "Q"),
    ])
    .await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"data": {"conversations": {"version": 0}}}))
    );
    let mutation = "mutation { sendMessage(input: {fromUid: \"a\", channel: {channelId: \"b\", channelType: 1}, payload: \"eA==\"}) { message { id } } }";
    let answer = get(&[("query", mutation)]).await;
    assert_eq!(answer.status, 405);
    let both = format!(
        "{query} mutation M {{ clearUnread(input: {{uid: \"a\", channel: {{channelId: \"b\", channelType: 1}}}}) {{ conversation {{ id }} }} }}"
    );
    assert_eq!(
        get(&[("query", &both), ("operationName", "M")])
            .await
            .status,
        405
    );
    assert_eq!(
        get(&[
            ("query", &both),
            ("operationName", "Q"),
            ("variables", r#"{"uid":"ann"}"#)
        ])
        .await
        .status,
        200
    );
    assert_eq!(
        get(&[("query", query), ("variables", "{")]).await.status,
        400
    );
    assert_eq!(get(&[]).await.status, 400);
    assert_eq!(server.full("b").await, Vec::<Value>::new());
}

#[tokio::test]
async fn hostile_documents_are_refused_quickly() {
    let server = Server::start(Engine::Sqlite).await;
    let mut bomb = String::from("{...f0}");
    for level in 0..30 {
        bomb += &format!("fragment f{level} on Query{{...f{0} ...f{0}}}", level + 1);
    }
    bomb += "fragment f30 on Query{__typename}";
    let aliases: String = (0..2000)
        .map(|number| format!("a{number}:__typename "))
        .collect();
    let deep = "{a".repeat(60) + &"}".repeat(60);
    for document in [
        bomb,
        format!("{{{aliases}}}"),
        deep,
        "{".repeat(60_000),
        "[".repeat(60_000),
        format!("{{a{}}}", " @x".repeat(20_000)),
        "x".repeat(70_000),
    ] {
        let begun = std::time::Instant::now();
        let code = server.graphql_code(&document, json!({})).await;
        assert_eq!(code, "QUERY_TOO_COMPLEX", "{}", &document[..40]);
        assert!(
            begun.elapsed().as_millis() < 2000,
            "{} took {:?}",
            &document[..40],
            begun.elapsed()
        );
    }
    // The server still answers afterwards.
    assert_eq!(
        server.graphql("{ __typename }", json!({})).await,
        json!({"__typename": "Query"})
    );
}

#[tokio::test]
async fn introspection_fits_the_limits() {
    let server = Server::start(Engine::Sqlite).await;
    let of_type = (0..9).fold("kind name".to_owned(), |inner, _| {
        format!("kind name ofType {{ {inner} }}")
    });
    let query = format!(
        "query IntrospectionQuery {{ __schema {{ queryType {{ name }} mutationType {{ name }} types {{ ...FullType }}
            directives {{ name description locations args {{ ...InputValue }} }} }} }}
         fragment FullType on __Type {{ kind name description specifiedByURL fields(includeDeprecated: true) {{ name description
            args {{ ...InputValue }} type {{ ...TypeRef }} isDeprecated deprecationReason }} inputFields {{ ...InputValue }}
            interfaces {{ ...TypeRef }} enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }}
            possibleTypes {{ ...TypeRef }} }}
         fragment InputValue on __InputValue {{ name description type {{ ...TypeRef }} defaultValue }}
         fragment TypeRef on __Type {{ {of_type} }}"
    );
    let schema = server.graphql(&query, json!({})).await["__schema"].clone();
    for kind in schema["types"].as_array().unwrap() {
        if kind["name"].as_str().unwrap().starts_with("__") {
            continue;
        }
        if ["Boolean", "Float", "ID", "Int", "String"].contains(&kind["name"].as_str().unwrap()) {
            continue;
        }
        assert!(
            !kind["description"].as_str().unwrap_or_default().is_empty(),
            "{} has no description",
            kind["name"]
        );
        let inner = ["inputFields", "enumValues"]
            .into_iter()
            .flat_map(|list| kind[list].as_array().into_iter().flatten());
        for value in inner {
            assert!(
                !value["description"].as_str().unwrap_or_default().is_empty(),
                "{}.{}",
                kind["name"],
                value["name"]
            );
        }
        let specified = kind["kind"] != "SCALAR" || kind["specifiedByURL"].is_string();
        assert!(specified, "{} is specified nowhere", kind["name"]);
        for field in kind["fields"].as_array().into_iter().flatten() {
            let name = format!("{}.{}", kind["name"], field["name"]);
            assert!(
                !field["description"].as_str().unwrap_or_default().is_empty(),
                "{name} has no description"
            );
            for argument in field["args"].as_array().unwrap() {
                assert!(
                    !argument["description"]
                        .as_str()
                        .unwrap_or_default()
                        .is_empty(),
                    "{name}({})",
                    argument["name"]
                );
            }
        }
    }
}

#[tokio::test]
async fn global_ids_are_stable_and_unique() {
    let server = Server::start(Engine::Sqlite).await;
    server.group("bob", &["ann"]).await;
    server.send("bob", "ann", 1, "one").await;
    server.send("cid", "bob", 2, "two").await;
    let all = server
        .graphql(
            "{ conversations(uid: \"ann\") { conversations { id channelType recents { id } } } }",
            json!({}),
        )
        .await;
    let all = all["conversations"]["conversations"]
        .as_array()
        .unwrap()
        .clone();
    assert_ne!(all[0]["id"], all[1]["id"]);
    assert_ne!(all[0]["recents"][0]["id"], all[1]["recents"][0]["id"]);
    let person = all
        .iter()
        .find(|conversation| conversation["channelType"] == 1)
        .unwrap();
    let set = "mutation { setUnread(input: {uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}, unread: 0}) { conversation { id unread recents(last: 1) { id } } } }";
    let set = server.graphql(set, json!({})).await["setUnread"]["conversation"].clone();
    assert_eq!(
        (&set["id"], &set["recents"]),
        (&person["id"], &person["recents"])
    );
    let delete = "mutation { deleteConversation(input: {uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}}) { removed { id } } }";
    assert_eq!(
        server.graphql(delete, json!({})).await["deleteConversation"]["removed"]["id"],
        person["id"]
    );
}

#[tokio::test]
async fn field_error_keeps_other_fields() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let query = "{ wrong: conversation(uid: \"ann\", channel: {channelId: \"cid\", channelType: 0}) { id }
        here: conversation(uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}) { unread } }";
    let answer = server.graphql_raw(query, json!({})).await;
    assert_eq!(
        answer["data"],
        json!({"wrong": null, "here": {"unread": 1}})
    );
    assert_eq!(answer["errors"].as_array().unwrap().len(), 1, "{answer}");
    let error = &answer["errors"][0];
    assert_eq!(
        (&error["path"], &error["extensions"]["code"]),
        (&json!(["wrong"]), &json!("BAD_USER_INPUT"))
    );
}

#[tokio::test]
async fn unacceptable_media_types_get_406() {
    let server = Server::start(Engine::Sqlite).await;
    let modern = "application/graphql-response+json; charset=utf-8";
    let legacy = "application/json; charset=utf-8";
    for (accept, status, kind) in [
        ("application/graphql-response+json", 200, modern),
        ("application/json", 200, legacy),
        ("*/*", 200, legacy),
        ("application/*;q=0.5", 200, legacy),
        (
            "application/json;q=0.9, application/graphql-response+json",
            200,
            modern,
        ),
        (
            "application/graphql-response+json;q=0.1, application/json",
            200,
            legacy,
        ),
        ("text/html, application/json;q=0", 406, legacy),
        ("text/html", 406, legacy),
    ] {
        let (got, content_type, _) = ask(
            &server,
            "application/json",
            accept,
            r#"{"query":"{ __typename }"}"#,
        )
        .await;
        assert_eq!((got, content_type.as_str()), (status, kind), "{accept}");
    }
    for (content_type, status) in [
        ("application/json; charset=UTF-8", 200),
        ("APPLICATION/JSON;charset=\"utf-8\"", 200),
        ("application/json; charset=utf-16", 415),
        ("application/jsonp", 415),
        ("", 415),
    ] {
        assert_eq!(
            ask(
                &server,
                content_type,
                "*/*",
                r#"{"query":"{ __typename }"}"#
            )
            .await
            .0,
            status,
            "{content_type}"
        );
    }
}

#[tokio::test]
async fn etag_revalidation_returns_304() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let get = async |etag: Option<&str>, query: &str| {
        let request = server.http("GET", "/graphql").query(&[("query", query)]);
        etag.map_or(request.try_clone().unwrap(), |etag| {
            request.header("if-none-match", etag)
        })
        .send()
        .await
        .unwrap()
    };
    let query = "{ unreadSummary(uid: \"ann\") { total } }";
    let first = get(None, query).await;
    assert_eq!(first.headers()["cache-control"], "private, no-cache");
    assert!(
        first.headers()["vary"]
            .to_str()
            .unwrap()
            .contains("authorization")
    );
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let known = get(Some(&format!("W/\"other\", {etag}")), query).await;
    assert_eq!(
        (
            known.status().as_u16(),
            known.headers()["etag"].to_str().unwrap()
        ),
        (304, etag.as_str())
    );
    assert_eq!(known.bytes().await.unwrap().len(), 0);
    server.send("bob", "ann", 1, "two").await;
    assert_eq!(get(Some(&etag), query).await.status(), 200);
    let wrong = get(None, "{ nope }").await;
    assert_eq!(
        (
            wrong.headers().get("etag"),
            wrong.headers()["cache-control"].to_str().unwrap()
        ),
        (None, "no-store")
    );
}

#[tokio::test]
async fn responses_are_compressed_on_request() {
    let server = Server::start(Engine::Sqlite).await;
    for number in 0..50 {
        server.send(&format!("u{number}"), "ann", 1, "one").await;
    }
    let body = json!({"uid": "ann", "msg_count": 1}).to_string();
    let plain = server
        .request(server.http("POST", "/conversation/sync").body(body.clone()))
        .await
        .text
        .len();
    for encoding in ["gzip", "br", "zstd"] {
        let request = server
            .http("POST", "/conversation/sync")
            .header("accept-encoding", encoding)
            .body(body.clone());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], encoding, "{encoding}");
        let packed = answer.bytes().await.unwrap().len();
        assert!(packed * 5 < plain, "{encoding}: {packed} of {plain}");
    }
}

#[tokio::test]
async fn batches_run_only_where_enabled() {
    let server = Server::start(Engine::Sqlite).await;
    let one = json!({"query": "{ __typename }"});
    let body = |number: usize| Value::Array(vec![one.clone(); number]).to_string();
    let (status, _, answer) = ask(&server, "application/json", "*/*", &body(1)).await;
    assert_eq!(
        (status, &answer["errors"][0]["extensions"]["code"]),
        (400, &json!("BAD_USER_INPUT"))
    );
    let server = server
        .restart(|settings| settings.limits.batch_operations = 3)
        .await;
    let (status, _, answer) = ask(&server, "application/json", "*/*", &body(3)).await;
    assert_eq!(
        (status, answer),
        (
            200,
            Value::Array(vec![json!({"data": {"__typename": "Query"}}); 3])
        )
    );
    let (status, _, answer) = ask(&server, "application/json", "*/*", &body(4)).await;
    assert_eq!(
        (status, &answer["errors"][0]["extensions"]["code"]),
        (400, &json!("QUERY_TOO_COMPLEX"))
    );
    let mixed = json!([one, {"query": "{ nope }"}]).to_string();
    let (_, _, answer) = ask(&server, "application/json", "*/*", &mixed).await;
    assert_eq!(
        (&answer[0]["data"]["__typename"], answer[1].get("data")),
        (&json!("Query"), None)
    );
}

#[tokio::test]
async fn automatic_persisted_queries() {
    let server = Server::start(Engine::Sqlite).await;
    let query = "query Sum($uid: ID!) { unreadSummary(uid: $uid) { total } }";
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(query.as_bytes()));
    let extensions = json!({"persistedQuery": {"version": 1, "sha256Hash": hash}});
    let variables = json!({"uid": "ann"});
    let get = async |server: &Server| {
        let pairs = [
            ("extensions", extensions.to_string()),
            ("variables", variables.to_string()),
        ];
        server
            .request(server.http("GET", "/graphql").query(&pairs))
            .await
    };
    let unknown = get(&server).await;
    assert_eq!(
        (
            unknown.status,
            unknown.json()["errors"][0]["message"].clone()
        ),
        (200, json!("PersistedQueryNotFound"))
    );
    assert_eq!(
        unknown.json()["errors"][0]["extensions"]["code"],
        "PERSISTED_QUERY_NOT_FOUND"
    );
    let sent =
        json!({"query": query, "variables": variables, "extensions": extensions}).to_string();
    let total = json!({"data": {"unreadSummary": {"total": 0}}});
    assert_eq!(
        ask(&server, "application/json", "*/*", &sent).await.2,
        total
    );
    assert_eq!(get(&server).await.json(), total);
    let other = json!({"query": "{ __typename }", "extensions": extensions}).to_string();
    assert_eq!(ask(&server, "application/json", "*/*", &other).await.0, 400);

    // Documents past a limit are not cached, so that callers cannot fill the memory with them.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    std::fs::write(&path, json!({"any name": query}).to_string()).unwrap();
    let server = server
        .restart(|settings| settings.graphql.persisted_operations_file = path.display().to_string())
        .await;
    assert_eq!(get(&server).await.json(), total);
    assert_eq!(
        ask(&server, "application/json", "*/*", &sent).await.2,
        total
    );
    let (status, _, answer) = ask(
        &server,
        "application/json",
        "*/*",
        r#"{"query":"{ __typename }"}"#,
    )
    .await;
    assert_eq!(
        (status, &answer["errors"][0]["extensions"]["code"]),
        (403, &json!("FORBIDDEN"))
    );
}

#[tokio::test]
async fn introspection_can_be_disabled() {
    let server = Server::start_with(Engine::Sqlite, |settings| {
        settings.graphql.introspection = false
    })
    .await;
    for query in [
        "{ __schema { types { name } } }",
        "{ ...f } fragment f on Query { __type(name: \"Query\") { name } }",
    ] {
        assert_eq!(
            server.graphql_code(query, json!({})).await,
            "FORBIDDEN",
            "{query}"
        );
    }
    assert_eq!(
        server.graphql("{ __typename }", json!({})).await["__typename"],
        "Query"
    );
}

#[tokio::test]
async fn internal_error_shows_only_the_request_id() {
    let server = Server::start(Engine::Sqlite).await;
    let connection = server.database.connect().await;
    sea_orm::ConnectionTrait::execute_unprepared(&connection, "DROP TABLE conversation")
        .await
        .unwrap();
    let body = json!({"query": "{ conversationList(uid: \"ann\") { totalCount } }"}).to_string();
    let request = server
        .http("POST", "/graphql")
        .header("content-type", "application/json")
        .header("x-request-id", "abc-1")
        .body(body);
    let answer = server.request(request).await.json();
    let error = &answer["errors"][0];
    assert_eq!(
        (&error["message"], &error["extensions"]),
        (
            &json!("internal error"),
            &json!({"code": "INTERNAL_SERVER_ERROR", "requestId": "abc-1"})
        )
    );
}

#[tokio::test]
async fn operation_metrics_have_bounded_labels() {
    let server = Server::start(Engine::Sqlite).await;
    server
        .graphql(
            "query Screen { unreadSummary(uid: \"ann\") { total } }",
            json!({}),
        )
        .await;
    server
        .graphql_raw(
            "query Wrong { x: conversation(uid: \"ann\", channel: {channelId: \"b\", channelType: 0}) { id } }",
            json!({}),
        )
        .await;
    for number in 0..300 {
        server
            .graphql(&format!("query N{number} {{ __typename }}"), json!({}))
            .await;
        server
            .graphql_raw(
                &format!("query Invalid{number} {{ nope{number} }}"),
                json!({}),
            )
            .await;
    }
    let metrics = server.request(server.http("GET", "/metrics")).await.text;
    for line in [
        "recents_graphql_operations_total{operation=\"Screen\",kind=\"query\",outcome=\"ok\"}",
        "recents_graphql_operation_seconds_count{operation=\"Screen\"}",
        "recents_graphql_field_seconds_count{field=\"unreadSummary\"}",
        "recents_graphql_errors_total{operation=\"Wrong\",field=\"conversation\",code=\"BAD_USER_INPUT\"}",
        "recents_graphql_operations_total{operation=\"other\",kind=\"query\",outcome=\"ok\"}",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("Invalid") && !metrics.contains("nope"));
    let names = metrics
        .lines()
        .filter(|line| line.starts_with("recents_graphql_operations_total{operation=\"N"))
        .count();
    assert!((100..=200).contains(&names), "{names}");
}

#[tokio::test]
async fn nulls_propagate_to_the_next_nullable_field() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let one = "conversation(uid: \"ann\", channel: {channelId: \"bob\", channelType: 1})";
    let id = server
        .graphql(&format!("{{ {one} {{ id }} }}"), json!({}))
        .await["conversation"]["id"]
        .clone();
    let recents = "id ... on Conversation { recents(last: -1) { id } }";
    for (query, data) in [
        (
            "{ unreadSummary { total } conversationList(uid: \"ann\") { totalCount } }".to_owned(),
            json!({"unreadSummary": null, "conversationList": {"totalCount": 1}}),
        ),
        ("{ unreadSummary { total } }".to_owned(), json!({"unreadSummary": null})),
        (
            format!("{{ a: {one} {{ id recents(last: -1) {{ id }} }} b: {one} {{ unread }} }}"),
            json!({"a": null, "b": {"unread": 1}}),
        ),
        (
            format!("{{ ...f __typename }} fragment f on Query {{ node(id: {id}) {{ {recents} }} }}"),
            json!({"node": null, "__typename": "Query"}),
        ),
        (format!("{{ nodes(ids: [{id}]) {{ {recents} }} }}"), json!({"nodes": [null]})),
        (
            format!("{{ nodes(ids: [{id}, \"nope\"]) {{ id }} {one} {{ id }} }}"),
            json!({"nodes": null, "conversation": {"id": id}}),
        ),
        (
            "{ conversationList(uid: \"ann\") { totalCount nodes { id recents(last: -1) { id } } } }".to_owned(),
            json!({"conversationList": null}),
        ),
    ] {
        let answer = server.graphql_raw(&query, json!({})).await;
        assert_eq!(answer["data"], data, "{query}: {answer}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{query}");
    }
}

/// Fields are in the order of the document on every level, whichever takes longer.
#[tokio::test]
async fn fields_are_in_the_order_of_the_document() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let query = "{ z: conversationList(uid: \"ann\") { nodes { recents(last: 1) { id } ...f id } totalCount } __typename a: unreadSummary(uid: \"ann\") { total } }
        fragment f on Conversation { lastMessage { payload content } unread }";
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    for round in 0..20 {
        let answer = server.graphql_raw(query, json!({})).await;
        let data = &answer["data"];
        for (object, expected) in [
            (data, &["z", "__typename", "a"][..]),
            (&data["z"], &["nodes", "totalCount"]),
            (
                &data["z"]["nodes"][0],
                &["recents", "lastMessage", "unread", "id"],
            ),
        ] {
            assert_eq!(keys(object), expected, "round {round}: {answer}");
        }
    }
}

#[tokio::test]
async fn slow_operation_log_omits_variable_values() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut server = crate::support::process::recents()
        .current_dir(folder.path())
        .args(["serve"])
        .envs([
            ("RECENTS__SERVER__LISTEN", "127.0.0.1:0"),
            ("RECENTS__CONVERSATION__ON", "true"),
        ])
        .envs([
            ("RECENTS__GRAPHQL__SLOW_OPERATION_MS", "1"),
            ("RECENTS__LOG__LEVEL", "warn"),
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(server.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let url = line
        .trim()
        .strip_prefix("recents is listening on ")
        .unwrap()
        .to_owned();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let query =
        "mutation Say($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }";
    for number in 0..50 {
        let input = json!({"fromUid": "bob", "channel": {"channelId": "hush-ann", "channelType": 1}, "payload": "eA==", "clientMsgNo": format!("hush{number}")});
        let answer = http
            .post(format!("{url}/graphql"))
            .json(&json!({"query": query, "variables": {"input": input}}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "message {number}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    let entry = log
        .lines()
        .find(|line| line.contains("a slow operation"))
        .unwrap_or_else(|| panic!("none was slow: {log}"));
    for part in ["Say", "mutation", "sendMessage", "document", "milliseconds"] {
        assert!(entry.contains(part), "{part} is not in {entry}");
    }
    assert!(!log.contains("hush"), "{log}");
}
