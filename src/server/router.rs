//! All routes, with the middleware of each interface.
//!
//! A request gets its id and passes through `request_context`, compression and `catch_panic`;
//! requests that cost something then pass through `load_shed`, and requests of the two interfaces
//! through `authenticate`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{from_fn_with_state, map_request};
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::{Server, pages};
use crate::auth::Caller;
use crate::graphql;
use crate::graphql::http::GraphqlInterface;
use crate::http::CorsPolicy;
use crate::http::middleware::{
    Interface, NewRequestId, REQUEST_ID, authenticate, catch_panic, load_shed,
    remove_unacceptable_id, request_context,
};
use crate::rest::legacy::LegacyInterface;
use crate::rest::wukong::proxied::{OwnPaths, pass_on};
use crate::rest::{health, openapi, wukong};
use crate::state::AppState;

/// Returns the router of all routes.
pub fn router(server: Server) -> Router {
    let graphql_routes = graphql::http::routes().with_state(server.graphql);
    let has_proxy = server.state.core.proxy.is_some();
    let mut legacy_routes = wukong::routes(has_proxy);
    if !has_proxy {
        legacy_routes = legacy_routes.merge(wukong::without_wukongim::routes());
    }
    router_with(server.state, legacy_routes, graphql_routes.into())
}

/// Returns the router of all routes, with the given routes of the two interfaces.
fn router_with(
    state: AppState,
    legacy_routes: OpenApiRouter<AppState>,
    graphql_routes: OpenApiRouter<AppState>,
) -> Router {
    let graphql_routes = shed_load::<GraphqlInterface>(
        &state,
        require_caller::<GraphqlInterface>(&state, graphql_routes),
    );
    let legacy_routes = shed_load::<LegacyInterface>(
        &state,
        require_caller::<LegacyInterface>(&state, legacy_routes).merge(wukong::inbound::routes()),
    );
    // Health checks and metrics are never shed: they must answer under overload.
    let (legacy_routes, document) = OpenApiRouter::with_openapi(openapi::document_without_routes())
        .merge(legacy_routes)
        .merge(health::routes())
        .split_for_parts();
    let legacy_routes = legacy_routes
        .merge(pages::routes())
        .route("/openapi.json", openapi::serve_document(&document));
    let unmatched = match &state.core.proxy {
        Some(_) => pass_on_unmatched(&state, &document),
        None => Router::new().fallback(health::not_found),
    };
    let cors = Arc::new(CorsPolicy::new(&state.settings.server));
    with_context::<LegacyInterface>(&state, &cors, compressed(legacy_routes).merge(unmatched))
        .merge(with_context::<GraphqlInterface>(
            &state,
            &cors,
            compressed(graphql_routes.into()),
        ))
        // Every handler that reads a body has a limit of its own, with its own error.
        .layer(DefaultBodyLimit::disable())
        .with_state(state)
}

/// Passes every call that has no route to the `WuKongIM`.
fn pass_on_unmatched(state: &AppState, document: &OpenApi) -> Router<AppState> {
    let own_paths = document.paths.paths.keys().map(String::as_str);
    let own_paths = OwnPaths::new(own_paths.chain([graphql::http::PATH]).chain(pages::PATHS));
    let pass_on = move |app: State<AppState>, caller: Caller, request: Request| {
        pass_on(app, caller, own_paths.clone(), request)
    };
    let routes = OpenApiRouter::default().fallback(pass_on);
    shed_load::<LegacyInterface>(state, require_caller::<LegacyInterface>(state, routes)).into()
}

/// Compresses the answers: this shrinks a list to a tenth of its size. Answers that are passed on
/// stay as they are.
fn compressed(routes: Router<AppState>) -> Router<AppState> {
    routes
        .method_not_allowed_fallback(health::method_not_allowed)
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
}

fn require_caller<I: Interface>(
    state: &AppState,
    routes: OpenApiRouter<AppState>,
) -> OpenApiRouter<AppState> {
    routes.layer(from_fn_with_state(state.clone(), authenticate::<I>))
}

fn shed_load<I: Interface>(
    state: &AppState,
    routes: OpenApiRouter<AppState>,
) -> OpenApiRouter<AppState> {
    routes.layer(from_fn_with_state(state.clone(), load_shed::<I>))
}

fn with_context<I: Interface>(
    state: &AppState,
    cors: &Arc<CorsPolicy>,
    routes: Router<AppState>,
) -> Router<AppState> {
    routes
        .layer(CatchPanicLayer::custom(catch_panic::<I>))
        // The first of these layers is the outermost.
        .layer((
            map_request(remove_unacceptable_id),
            SetRequestIdLayer::new(REQUEST_ID, NewRequestId(state.clone())),
            PropagateRequestIdLayer::new(REQUEST_ID),
            SetResponseHeaderLayer::overriding(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
            SetResponseHeaderLayer::overriding(
                header::REFERRER_POLICY,
                HeaderValue::from_static("no-referrer"),
            ),
            SetResponseHeaderLayer::if_not_present(
                header::CACHE_CONTROL,
                HeaderValue::from_static("no-store"),
            ),
            from_fn_with_state((state.clone(), Arc::clone(cors)), request_context::<I>),
        ))
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::{Clock, IdGenerator};
    use crate::config::Settings;
    use crate::server::{assemble, connect};
    use crate::telemetry::test_log::capture_log;

    /// Always panics, in a way that the compiler cannot see.
    async fn panics() -> String {
        let reason = String::from("on purpose");
        assert!(reason.is_empty(), "{reason}");
        reason
    }

    #[tokio::test]
    async fn a_panic_fails_its_own_request_in_the_form_of_its_interface() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.database.url = format!("sqlite://{}?mode=rwc", folder.path().join("db").display())
            .as_str()
            .into();
        let store = connect(&settings).await.unwrap();
        let (server, _) = assemble(settings, store, Clock::System, IdGenerator::random()).unwrap();
        let graphql_routes = OpenApiRouter::default().route(graphql::http::PATH, post(panics));
        let router = router_with(
            server.state,
            OpenApiRouter::default().route("/conversation/sync", post(panics)),
            graphql_routes,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (log, _guard) = capture_log();
        for round in 0..2 {
            let response = http
                .post(format!("{url}/conversation/sync"))
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 500, "round {round}");
            assert_eq!(
                response.json::<Value>().await.unwrap(),
                json!({"msg": "internal error", "status": 500}),
                "round {round}"
            );
            let response = http.post(format!("{url}/graphql")).send().await.unwrap();
            assert_eq!(response.status(), 500, "round {round}");
            let answer: Value = response.json().await.unwrap();
            assert_eq!(
                answer["errors"][0]["extensions"]["code"], "INTERNAL_SERVER_ERROR",
                "round {round}: {answer}"
            );
            assert_eq!(
                http.get(format!("{url}/livez"))
                    .send()
                    .await
                    .unwrap()
                    .status(),
                200,
                "round {round}"
            );
        }
        let log = log.text();
        for path in ["/conversation/sync", "/graphql"] {
            let lines = log
                .lines()
                .filter(|line| line.contains(path) && line.ends_with("a request panicked"));
            assert_eq!(lines.count(), 2, "{path}: {log}");
        }
        assert!(!log.contains("database error"), "{log}");
    }
}
