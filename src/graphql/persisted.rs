//! Persisted operations: documents that clients identify by their SHA-256. Either automatic
//! persisted queries (Apollo's protocol), cached in bounded memory, or an allow-list loaded from a
//! manifest, in which case no other operation may run.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use moka::sync::Cache;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::query_limits::parse_trusted;
use crate::config::{ConfigError, GraphqlConfig};
use crate::error::Error;

/// The only version of the protocol.
const PROTOCOL_VERSION: u64 = 1;

/// Documents by the hexadecimal SHA-256 of their text.
pub(crate) enum PersistedQueries {
    /// Only these documents may run.
    AllowList(HashMap<String, Arc<str>>),
    /// Documents that clients have sent recently.
    Automatic(Cache<String, Arc<str>>),
    /// No documents are cached.
    Disabled,
}

/// `extensions.persistedQuery` of a request.
#[derive(Debug, Deserialize)]
pub(super) struct PersistedQuery {
    version: u64,
    #[serde(rename = "sha256Hash")]
    hash: String,
}

/// A document to run.
#[derive(Debug)]
pub(super) struct FoundDocument {
    pub(super) text: Arc<str>,
    /// The hash to cache the document under, once it has passed the limits.
    cache_as: Option<String>,
}

/// A file of persisted operations.
#[derive(Deserialize)]
#[serde(untagged)]
enum Manifest {
    /// The format of Apollo's tools.
    Apollo { operations: Vec<ManifestOperation> },
    /// A map of hashes to documents, as written by Relay's compiler and graphql-codegen.
    Plain(HashMap<String, String>),
}

#[derive(Deserialize)]
struct ManifestOperation {
    id: String,
    body: String,
}

impl PersistedQueries {
    /// # Errors
    /// Returns an error if the manifest cannot be read.
    pub(crate) fn new(settings: &GraphqlConfig) -> Result<Self, ConfigError> {
        if !settings.persisted_operations_file.is_empty() {
            return Ok(Self::AllowList(read_manifest(Path::new(
                &settings.persisted_operations_file,
            ))?));
        }
        if settings.apq_cache_bytes == 0 {
            return Ok(Self::Disabled);
        }
        let bytes = |hash: &String, text: &Arc<str>| {
            u32::try_from(hash.len() + text.len()).unwrap_or(u32::MAX)
        };
        Ok(Self::Automatic(
            Cache::builder()
                .max_capacity(settings.apq_cache_bytes)
                .weigher(bytes)
                .build(),
        ))
    }

    /// Finds the document of a request that sends its text, its hash, or both.
    ///
    /// # Errors
    /// [`Error::PersistedQueryNotFound`] for an unknown hash; [`Error::Forbidden`] for a document
    /// that is not on the allow-list; [`Error::BadRequest`] if the hash does not match the text, or
    /// if both are missing.
    pub(super) fn find(
        &self,
        query: Option<&str>,
        persisted_query: Option<&PersistedQuery>,
    ) -> Result<FoundDocument, Error> {
        let query = query.filter(|query| !query.trim().is_empty());
        let hash = persisted_query.map(PersistedQuery::hash).transpose()?;
        match (self, query, hash) {
            (_, None, None) => Err(Error::BadRequest("query must be given".into())),
            (Self::AllowList(listed), query, hash) => {
                let name = hash.unwrap_or_else(|| hash_of(query.unwrap_or_default()));
                match listed.get(&name) {
                    Some(text) if query.is_none_or(|query| *query == **text) => Ok(FoundDocument {
                        text: Arc::clone(text),
                        cache_as: None,
                    }),
                    None if query.is_none() => Err(Error::PersistedQueryNotFound),
                    _ => Err(Error::Forbidden(
                        "only the operations that are listed on this server may be run".into(),
                    )),
                }
            }
            (_, Some(query), None) => Ok(FoundDocument {
                text: query.into(),
                cache_as: None,
            }),
            (Self::Disabled, ..) => Err(Error::PersistedQueryNotSupported),
            (Self::Automatic(cache), None, Some(hash)) => {
                let text = cache.get(&hash).ok_or(Error::PersistedQueryNotFound)?;
                Ok(FoundDocument {
                    text,
                    cache_as: None,
                })
            }
            (Self::Automatic(_), Some(query), Some(hash)) => {
                if hash != hash_of(query) {
                    return Err(Error::BadRequest(
                        "extensions.persistedQuery.sha256Hash must be the SHA-256 of query".into(),
                    ));
                }
                Ok(FoundDocument {
                    text: query.into(),
                    cache_as: Some(hash),
                })
            }
        }
    }

    /// Caches a document that has passed the limits.
    pub(super) fn cache(&self, document: FoundDocument) {
        if let (Self::Automatic(cache), Some(hash)) = (self, document.cache_as) {
            cache.insert(hash, document.text);
        }
    }
}

impl PersistedQuery {
    fn hash(&self) -> Result<String, Error> {
        if self.version != PROTOCOL_VERSION {
            return Err(Error::BadRequest(
                "extensions.persistedQuery.version must be 1".into(),
            ));
        }
        Ok(self.hash.to_ascii_lowercase())
    }
}

/// Returns the hexadecimal SHA-256 of a text.
pub(super) fn hash_of(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn read_manifest(path: &Path) -> Result<HashMap<String, Arc<str>>, ConfigError> {
    let invalid = |what: String| {
        ConfigError(format!(
            "graphql.persisted_operations_file: {}: {what}",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("cannot be read: {error}")))?;
    let manifest = serde_json::from_str::<Manifest>(&text).map_err(|_| {
        invalid("must be Apollo's manifest, or a JSON object of hashes and documents".to_owned())
    })?;
    let documents: Vec<String> = match manifest {
        Manifest::Apollo { operations } => {
            let documents = operations.into_iter().map(|operation| {
                let is_hash = operation.id.eq_ignore_ascii_case(&hash_of(&operation.body));
                if is_hash {
                    Ok(operation.body)
                } else {
                    Err(operation.id)
                }
            });
            documents
                .collect::<Result<_, _>>()
                .map_err(|id| invalid(format!("{id} is not the SHA-256 of its body")))?
        }
        // Other tools use other hashes (Relay: MD5), but here clients identify documents by
        // SHA-256.
        Manifest::Plain(documents) => documents.into_values().collect(),
    };
    for document in &documents {
        parse_trusted(document)
            .map_err(|problem| invalid(format!("{document:?} is not valid GraphQL: {problem}")))?;
    }
    Ok(documents
        .into_iter()
        .map(|document| (hash_of(&document), Arc::from(document)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &str = "{ __typename }";

    fn persisted_query(hash: &str) -> PersistedQuery {
        PersistedQuery {
            version: 1,
            hash: hash.to_owned(),
        }
    }

    fn listed(manifest: &str) -> Result<PersistedQueries, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        std::fs::write(&path, manifest).unwrap();
        PersistedQueries::new(&GraphqlConfig {
            persisted_operations_file: path.display().to_string(),
            ..GraphqlConfig::default()
        })
    }

    fn found(
        persisted: &PersistedQueries,
        query: Option<&str>,
        persisted_query: Option<&PersistedQuery>,
    ) -> Result<String, String> {
        persisted
            .find(query, persisted_query)
            .map(|document| document.text.to_string())
            .map_err(|error| error.kind().code.to_owned())
    }

    #[test]
    fn document_is_found_by_hash_once_cached() {
        let persisted = PersistedQueries::new(&GraphqlConfig::default()).unwrap();
        let hash = hash_of(QUERY);
        let not_found = Err("PERSISTED_QUERY_NOT_FOUND".to_owned());
        assert_eq!(
            found(&persisted, None, Some(&persisted_query(&hash))),
            not_found
        );
        let document = persisted
            .find(Some(QUERY), Some(&persisted_query(&hash)))
            .unwrap();
        // The document is not cached before it has passed the limits.
        assert_eq!(
            found(&persisted, None, Some(&persisted_query(&hash))),
            not_found
        );
        persisted.cache(document);
        assert_eq!(
            found(
                &persisted,
                None,
                Some(&persisted_query(&hash.to_uppercase()))
            ),
            Ok(QUERY.to_owned())
        );
        assert_eq!(
            found(&persisted, Some("{ other }"), Some(&persisted_query(&hash))),
            Err("BAD_USER_INPUT".to_owned())
        );
        let version = PersistedQuery { version: 2, hash };
        assert_eq!(
            found(&persisted, None, Some(&version)),
            Err("BAD_USER_INPUT".to_owned())
        );
        assert_eq!(
            found(&persisted, Some(" "), None),
            Err("BAD_USER_INPUT".to_owned())
        );
    }

    #[test]
    fn cache_size_is_bounded() {
        let persisted = PersistedQueries::new(&GraphqlConfig {
            apq_cache_bytes: 10_000,
            ..GraphqlConfig::default()
        })
        .unwrap();
        for number in 0..1000 {
            let query = format!("{{ a{number} }}");
            let document = persisted
                .find(Some(&query), Some(&persisted_query(&hash_of(&query))))
                .unwrap();
            persisted.cache(document);
        }
        let PersistedQueries::Automatic(cache) = &persisted else {
            unreachable!()
        };
        cache.run_pending_tasks();
        assert!(
            (1..=10_000).contains(&cache.weighted_size()),
            "{}",
            cache.weighted_size()
        );
    }

    #[test]
    fn disabled_cache_refuses_hashes() {
        let persisted = PersistedQueries::new(&GraphqlConfig {
            apq_cache_bytes: 0,
            ..GraphqlConfig::default()
        })
        .unwrap();
        assert_eq!(found(&persisted, Some(QUERY), None), Ok(QUERY.to_owned()));
        assert_eq!(
            found(&persisted, None, Some(&persisted_query("x"))),
            Err("PERSISTED_QUERY_NOT_SUPPORTED".to_owned())
        );
    }

    #[test]
    fn allow_list_refuses_other_operations() {
        let hash = hash_of(QUERY);
        let apollo = serde_json::json!({
            "format": "apollo-persisted-query-manifest", "version": 1,
            "operations": [{"id": hash, "name": "A", "type": "query", "body": QUERY}],
        });
        for manifest in [apollo, serde_json::json!({"some-md5": QUERY})] {
            let persisted = listed(&manifest.to_string()).unwrap();
            assert_eq!(
                found(&persisted, None, Some(&persisted_query(&hash))),
                Ok(QUERY.to_owned()),
                "{manifest}"
            );
            assert_eq!(
                found(&persisted, Some(QUERY), None),
                Ok(QUERY.to_owned()),
                "{manifest}"
            );
            assert_eq!(
                found(&persisted, Some("{ a }"), None),
                Err("FORBIDDEN".to_owned()),
                "{manifest}"
            );
            assert_eq!(
                found(&persisted, Some("{ a }"), Some(&persisted_query(&hash))),
                Err("FORBIDDEN".to_owned()),
                "{manifest}"
            );
            assert_eq!(
                found(
                    &persisted,
                    Some("{ a }"),
                    Some(&persisted_query(&hash_of("{ a }")))
                ),
                Err("FORBIDDEN".to_owned()),
                "{manifest}"
            );
            assert_eq!(
                found(&persisted, None, Some(&persisted_query("x"))),
                Err("PERSISTED_QUERY_NOT_FOUND".to_owned()),
                "{manifest}"
            );
        }
    }

    #[test]
    fn invalid_manifest_is_reported() {
        for (manifest, text) in [
            ("[]", "must be Apollo's manifest"),
            (r#"{"x": "{"}"#, "is not valid GraphQL"),
            (
                r#"{"operations": [{"id": "x", "body": "{a}"}]}"#,
                "x is not the SHA-256",
            ),
        ] {
            let Err(error) = listed(manifest) else {
                panic!("{manifest}")
            };
            assert!(
                error
                    .to_string()
                    .starts_with("graphql.persisted_operations_file: ")
                    && error.to_string().contains(text),
                "{error}"
            );
        }
        let missing = PersistedQueries::new(&GraphqlConfig {
            persisted_operations_file: "/nowhere".to_owned(),
            ..GraphqlConfig::default()
        });
        assert!(missing.is_err_and(|error| error.to_string().contains("cannot be read")));
    }
}
