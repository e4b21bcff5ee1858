//! GraphQL over HTTP.

use serde_json::{Value, json};

use crate::support::{Engine, Server};

async fn ask(server: &Server, content_type: &str, accept: &str, body: &str) -> (u16, String, Value) {
    let request =
        server.http("POST", "/graphql").header("content-type", content_type).header("accept", accept).body(body.to_owned());
    let answer = server.request(request).await;
    (answer.status, answer.content_type.clone(), answer.json())
}

#[tokio::test]
async fn what_is_not_a_graphql_request_is_refused_in_graphqls_form() {
    let server = Server::start(Engine::Sqlite).await;
    let code = |answer: &Value| answer["errors"][0]["extensions"]["code"].as_str().unwrap().to_owned();
    for (content_type, body, status) in [
        ("text/plain", r#"{"query":"{ __typename }"}"#, 415),
        ("application/x-www-form-urlencoded", "query={__typename}", 415),
        ("multipart/form-data; boundary=x", "--x--", 415),
        ("application/json", "", 400),
        ("application/json", "[]", 400),
        ("application/json", "{}", 400),
        ("application/json", r#"{"query":7}"#, 400),
        ("application/json", r#"{"query":"{ __typename }","variables":7}"#, 400),
        ("application/json", r#"{"query":"{ __typename }"} x"#, 400),
    ] {
        let (got, kind, answer) = ask(&server, content_type, "*/*", body).await;
        assert_eq!((got, kind.as_str()), (status, "application/json; charset=utf-8"), "{content_type} {body}: {answer}");
        assert_eq!(code(&answer), "BAD_USER_INPUT");
        assert!(answer.get("data").is_none_or(Value::is_null));
    }
    let answer = server.request(server.http("PUT", "/graphql")).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn statuses_follow_what_the_client_accepts() {
    let server = Server::start(Engine::Sqlite).await;
    let modern = "application/graphql-response+json";
    for (query, expected_code, modern_status) in [
        ("{ __typename }", None, 200),
        ("{ nope }", Some("GRAPHQL_VALIDATION_FAILED"), 400),
        ("{", Some("GRAPHQL_PARSE_FAILED"), 400),
        ("{ conversation(uid: \"a\", channel: {channelId: \"b\", channelType: 1}) { id } }", Some("NOT_FOUND"), 200),
        ("{ conversations(uid: \"a\", version: -1) { version } }", Some("BAD_USER_INPUT"), 200),
        ("{ conversations { version } }", Some("BAD_USER_INPUT"), 200),
    ] {
        let body = json!({"query": query}).to_string();
        let (status, kind, answer) = ask(&server, "application/json", modern, &body).await;
        assert_eq!(
            (status, kind.as_str()),
            (modern_status, "application/graphql-response+json; charset=utf-8"),
            "{query}: {answer}"
        );
        assert_eq!(answer["errors"][0]["extensions"]["code"].as_str(), expected_code, "{query}: {answer}");
        let (status, kind, _) = ask(&server, "application/json; charset=utf-8", "application/json", &body).await;
        assert_eq!((status, kind.as_str()), (200, "application/json; charset=utf-8"), "{query}");
    }
}

#[tokio::test]
async fn get_is_for_queries() {
    let server = Server::start(Engine::Sqlite).await;
    let get = async |pairs: &[(&str, &str)]| server.request(server.http("GET", "/graphql").query(pairs)).await;
    let query = "query Q($uid: ID) { conversations(uid: $uid) { version } }";
    let answer = get(&[("query", query), ("variables", r#"{"uid":"ann"}"#), ("operationName", "Q")]).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"data": {"conversations": {"version": 0}}})));
    let mutation = "mutation { sendMessage(input: {fromUid: \"a\", channel: {channelId: \"b\", channelType: 1}, payload: \"eA==\"}) { message { id } } }";
    let answer = get(&[("query", mutation)]).await;
    assert_eq!(answer.status, 405);
    let both = format!(
        "{query} mutation M {{ clearUnread(input: {{uid: \"a\", channel: {{channelId: \"b\", channelType: 1}}}}) {{ conversation {{ id }} }} }}"
    );
    assert_eq!(get(&[("query", &both), ("operationName", "M")]).await.status, 405);
    assert_eq!(get(&[("query", &both), ("operationName", "Q"), ("variables", r#"{"uid":"ann"}"#)]).await.status, 200);
    assert_eq!(get(&[("query", query), ("variables", "{")]).await.status, 400);
    assert_eq!(get(&[]).await.status, 400);
    assert_eq!(server.full("b").await, Vec::<Value>::new());
}

#[tokio::test]
async fn hostile_documents_are_refused_at_once() {
    let server = Server::start(Engine::Sqlite).await;
    let mut bomb = String::from("{...f0}");
    for level in 0..30 {
        bomb += &format!("fragment f{level} on Query{{...f{0} ...f{0}}}", level + 1);
    }
    bomb += "fragment f30 on Query{__typename}";
    let aliases: String = (0..2000).map(|number| format!("a{number}:__typename ")).collect();
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
        assert_eq!(code, "RESOURCE_EXHAUSTED", "{}", &document[..40]);
        assert!(begun.elapsed().as_millis() < 2000, "{} took {:?}", &document[..40], begun.elapsed());
    }
    // And after all that it still answers.
    assert_eq!(server.graphql("{ __typename }", json!({})).await, json!({"__typename": "Query"}));
}

#[tokio::test]
async fn introspection_fits_into_the_limits() {
    let server = Server::start(Engine::Sqlite).await;
    let of_type = (0..9).fold("kind name".to_owned(), |inner, _| format!("kind name ofType {{ {inner} }}"));
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
        for field in kind["fields"].as_array().into_iter().flatten() {
            let name = format!("{}.{}", kind["name"], field["name"]);
            assert!(!field["description"].as_str().unwrap_or_default().is_empty(), "{name} has no description");
            for argument in field["args"].as_array().unwrap() {
                assert!(!argument["description"].as_str().unwrap_or_default().is_empty(), "{name}({})", argument["name"]);
            }
        }
    }
}

#[tokio::test]
async fn ids_are_the_same_in_every_answer_and_no_two_share_one() {
    let server = Server::start(Engine::Sqlite).await;
    server.group("bob", &["ann"]).await;
    server.send("bob", "ann", 1, "one").await;
    server.send("cid", "bob", 2, "two").await;
    let all =
        server.graphql("{ conversations(uid: \"ann\") { conversations { id channelType recents { id } } } }", json!({})).await;
    let all = all["conversations"]["conversations"].as_array().unwrap().clone();
    assert_ne!(all[0]["id"], all[1]["id"]);
    assert_ne!(all[0]["recents"][0]["id"], all[1]["recents"][0]["id"]);
    let person = all.iter().find(|conversation| conversation["channelType"] == 1).unwrap();
    let set = "mutation { setUnread(input: {uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}, unread: 0}) { conversation { id unread recents(last: 1) { id } } } }";
    let set = server.graphql(set, json!({})).await["setUnread"]["conversation"].clone();
    assert_eq!((&set["id"], &set["recents"]), (&person["id"], &person["recents"]));
    let delete = "mutation { deleteConversation(input: {uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}}) { removed { id } } }";
    assert_eq!(server.graphql(delete, json!({})).await["deleteConversation"]["removed"]["id"], person["id"]);
}

#[tokio::test]
async fn a_field_that_fails_does_not_take_the_others_with_it() {
    let server = Server::start(Engine::Sqlite).await;
    server.send("bob", "ann", 1, "one").await;
    let query = "{ gone: conversation(uid: \"ann\", channel: {channelId: \"cid\", channelType: 1}) { id }
        here: conversation(uid: \"ann\", channel: {channelId: \"bob\", channelType: 1}) { unread } }";
    let answer = server.graphql_raw(query, json!({})).await;
    assert_eq!(answer["data"], json!({"gone": null, "here": {"unread": 1}}));
    let error = &answer["errors"][0];
    assert_eq!((&error["path"], &error["extensions"]["code"]), (&json!(["gone"]), &json!("NOT_FOUND")));
}
