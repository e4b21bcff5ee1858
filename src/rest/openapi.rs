//! `/openapi.json`: the description of the REST routes, made of their handlers.

use axum::http::header;
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::legacy::JSON;
use crate::auth::TOKEN_HEADER;
use crate::state::AppState;
use crate::wukongim::dto::Envelope;

/// Returns a document without routes.
#[must_use]
pub(crate) fn document_without_routes() -> OpenApi {
    let components = ComponentsBuilder::new()
        // The schemas of bodies come with their routes, but not those of the common errors.
        .schema(Envelope::name(), Envelope::schema())
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
        .components(Some(components))
        .security(Some(securities))
        .build()
}

/// Returns the handler of `GET /openapi.json`.
pub(crate) fn serve_document(document: &OpenApi) -> MethodRouter<AppState> {
    // Only the text is kept: the structure takes megabytes.
    let text = Bytes::from(serde_json::to_vec(document).unwrap_or_default());
    get(move || async move { ([(header::CONTENT_TYPE, JSON)], text) })
}

#[cfg(test)]
mod tests {
    use utoipa_axum::router::OpenApiRouter;

    use super::*;
    use crate::rest::{health, wukong};

    #[test]
    fn all_references_resolve() {
        let document = OpenApiRouter::with_openapi(document_without_routes())
            .merge(wukong::routes(false))
            .merge(wukong::without_wukongim::routes())
            .merge(wukong::inbound::routes())
            .merge(health::routes())
            .into_openapi();
        let document = serde_json::to_value(document).unwrap();
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
