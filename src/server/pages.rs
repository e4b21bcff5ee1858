//! Pages for people: the start page at `/`, the query page at `/graphiql`, the documentation of the
//! routes at `/docs`, and the banner on stdout. The binary contains all files; pages load nothing
//! from other servers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_swagger_ui::Config;

use crate::config::Settings;
use crate::state::AppState;

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The policy of `/docs`. Swagger UI needs inline styles.
const DOCS_CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The paths of the pages.
pub(super) const PATHS: [&str; 8] = [
    "/",
    "/graphiql",
    "/docs",
    "/docs/{file}",
    "/assets/index.js",
    "/assets/graphiql.js",
    "/assets/style.css",
    "/openapi.json",
];

/// The fields of the query in the banner.
const FIRST_QUERY_FIELDS: &str =
    "{ version conversations { channelId unread lastMessage { fromUid content } } }";

/// Returns the routes of the pages.
pub(super) fn routes() -> Router<AppState> {
    let file =
        |kind: &'static str, text: &'static str| get(move || async move { page(kind, text) });
    let policy = SetResponseHeaderLayer::overriding(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(DOCS_CONTENT_SECURITY_POLICY),
    );
    // The library's own router would enable serde_json's feature `raw_value`, which lets nested
    // input overflow the stack.
    let docs = Router::new()
        .route("/docs", get(|| async { Redirect::to("/docs/") }))
        .route("/docs/", get(|| async { swagger_file("") }))
        .route(
            "/docs/{*file}",
            get(|Path(file): Path<String>| async move { swagger_file(&file) }),
        );
    Router::new()
        .merge(docs.layer(policy))
        .route(
            "/",
            file(
                "text/html; charset=utf-8",
                include_str!("../../web/index.html"),
            ),
        )
        .route(
            "/graphiql",
            file(
                "text/html; charset=utf-8",
                include_str!("../../web/graphiql.html"),
            ),
        )
        .route(
            "/assets/index.js",
            file(
                "text/javascript; charset=utf-8",
                include_str!("../../web/index.js"),
            ),
        )
        .route(
            "/assets/graphiql.js",
            file(
                "text/javascript; charset=utf-8",
                include_str!("../../web/graphiql.js"),
            ),
        )
        .route(
            "/assets/style.css",
            file(
                "text/css; charset=utf-8",
                include_str!("../../web/style.css"),
            ),
        )
}

/// Returns a file of Swagger UI, or 404.
fn swagger_file(name: &str) -> Response {
    match utoipa_swagger_ui::serve(name, Arc::new(Config::new(["/openapi.json"]))) {
        Ok(Some(file)) => (
            [(header::CONTENT_TYPE, file.content_type)],
            file.bytes.into_owned(),
        )
            .into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn page(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

/// Returns the banner that the server prints when it listens: the address and a first query, with
/// the header that callers must add. It contains no secret.
pub(super) fn startup_banner(address: SocketAddr, settings: &Settings) -> String {
    let hint = if settings.conversation.on {
        ""
    } else {
        "\nrecent conversations are off: set conversation.on = true"
    };
    // A service names the user, a user is named by the token. The recordings that the README imports
    // have this user.
    let (credential, uid) = if settings.auth.is_open() {
        ("", r#"uid: "u02", "#)
    } else if settings.auth.manager_token.reveal().is_empty() {
        (" -H 'authorization: Bearer JWT'", "")
    } else {
        (" -H 'token: MANAGER_TOKEN'", r#"uid: "u02", "#)
    };
    let query = format!("{{ conversations({uid}msgCount: 1) {FIRST_QUERY_FIELDS} }}");
    format!(
        "recents is listening on http://{address}{hint}\n\n\
         try it in a browser:  http://{address}/graphiql\n\
         or in a shell:        curl -s http://{address}/graphql{credential} -H 'content-type: application/json' -d '{}'",
        serde_json::json!({ "query": query })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_the_header_of_the_token_and_no_secret() {
        let banner = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            settings.conversation.on = true;
            change(&mut settings);
            startup_banner(SocketAddr::from(([127, 0, 0, 1], 5001)), &settings)
        };
        assert_eq!(
            banner(|_| {}),
            r#"recents is listening on http://127.0.0.1:5001

try it in a browser:  http://127.0.0.1:5001/graphiql
or in a shell:        curl -s http://127.0.0.1:5001/graphql -H 'content-type: application/json' -d '{"query":"{ conversations(uid: \"u02\", msgCount: 1) { version conversations { channelId unread lastMessage { fromUid content } } } }"}'"#
        );
        let service = banner(|settings| settings.auth.manager_token = "hush".into());
        assert!(
            service.contains("/graphql -H 'token: MANAGER_TOKEN' ")
                && service.contains("uid:")
                && !service.contains("hush"),
            "{service}"
        );
        let user = banner(|settings| settings.auth.jwt.secret = "hush".into());
        assert!(
            user.contains("/graphql -H 'authorization: Bearer JWT' ")
                && !user.contains("uid:")
                && !user.contains("hush"),
            "{user}"
        );
        assert!(banner(|settings| settings.conversation.on = false).contains("are off"));
    }
}
