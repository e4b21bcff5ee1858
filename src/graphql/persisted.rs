//! Documents that clients name by their SHA-256 instead of sending them: automatic persisted
//! queries (Apollo's protocol), kept in bounded memory, and the list of a file, beside which
//! nothing runs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use moka::sync::Cache;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::guard::parse_listed;
use crate::config::{ConfigError, Graphql};
use crate::error::Error;

/// The only version of the protocol there is.
const PROTOCOL: u64 = 1;

/// Documents by their SHA-256 in hex.
pub(crate) enum Persisted {
    /// Only these run.
    Listed(HashMap<String, Arc<str>>),
    /// Those that clients have sent lately.
    Automatic(Cache<String, Arc<str>>),
    /// None are kept.
    Off,
}

/// `extensions.persistedQuery` of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    version: u64,
    #[serde(rename = "sha256Hash")]
    hash: String,
}

/// A document to run.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) text: Arc<str>,
    /// The name under which it is to be kept when it proves to be within the limits.
    keep: Option<String>,
}

/// A file of persisted operations.
#[derive(Deserialize)]
#[serde(untagged)]
enum Manifest {
    /// As Apollo's tools write it.
    Apollo { operations: Vec<Operation> },
    /// Hashes and documents, as Relay's compiler and graphql-codegen write it.
    Plain(HashMap<String, String>),
}

#[derive(Deserialize)]
struct Operation {
    id: String,
    body: String,
}

impl Persisted {
    /// # Errors
    /// A manifest that cannot be read.
    pub(crate) fn new(settings: &Graphql) -> Result<Self, ConfigError> {
        if !settings.manifest.is_empty() {
            return Ok(Self::Listed(read(Path::new(&settings.manifest))?));
        }
        if settings.persisted_bytes == 0 {
            return Ok(Self::Off);
        }
        let bytes = |hash: &String, text: &Arc<str>| {
            u32::try_from(hash.len() + text.len()).unwrap_or(u32::MAX)
        };
        Ok(Self::Automatic(
            Cache::builder()
                .max_capacity(settings.persisted_bytes)
                .weigher(bytes)
                .build(),
        ))
    }

    /// The document of a request that sends it, names it, or both.
    ///
    /// # Errors
    /// [`Error::PersistedQueryNotFound`] for a name that is not known; [`Error::Forbidden`] for
    /// what is not listed; [`Error::BadRequest`] for a name that is not the document's, or none at
    /// all.
    pub(super) fn find(
        &self,
        query: Option<&str>,
        named: Option<&Named>,
    ) -> Result<Document, Error> {
        let query = query.filter(|query| !query.trim().is_empty());
        let hash = named.map(Named::hash).transpose()?;
        match (self, query, hash) {
            (_, None, None) => Err(Error::BadRequest("query must be given".into())),
            (Self::Listed(listed), query, hash) => {
                let name = hash.unwrap_or_else(|| hash_of(query.unwrap_or_default()));
                match listed.get(&name) {
                    Some(text) if query.is_none_or(|query| *query == **text) => Ok(Document {
                        text: Arc::clone(text),
                        keep: None,
                    }),
                    None if query.is_none() => Err(Error::PersistedQueryNotFound),
                    _ => Err(Error::Forbidden(
                        "only the operations that are listed on this server may be run".into(),
                    )),
                }
            }
            (_, Some(query), None) => Ok(Document {
                text: query.into(),
                keep: None,
            }),
            (Self::Off, ..) => Err(Error::PersistedQueryNotSupported),
            (Self::Automatic(kept), None, Some(hash)) => {
                let text = kept.get(&hash).ok_or(Error::PersistedQueryNotFound)?;
                Ok(Document { text, keep: None })
            }
            (Self::Automatic(_), Some(query), Some(hash)) => {
                if hash != hash_of(query) {
                    return Err(Error::BadRequest(
                        "extensions.persistedQuery.sha256Hash must be the SHA-256 of query".into(),
                    ));
                }
                Ok(Document {
                    text: query.into(),
                    keep: Some(hash),
                })
            }
        }
    }

    /// Keeps a document that proved to be within the limits.
    pub(super) fn keep(&self, document: Document) {
        if let (Self::Automatic(kept), Some(hash)) = (self, document.keep) {
            kept.insert(hash, document.text);
        }
    }
}

impl Named {
    fn hash(&self) -> Result<String, Error> {
        if self.version != PROTOCOL {
            return Err(Error::BadRequest(
                "extensions.persistedQuery.version must be 1".into(),
            ));
        }
        Ok(self.hash.to_ascii_lowercase())
    }
}

/// SHA-256 in hex.
pub(super) fn hash_of(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn read(path: &Path) -> Result<HashMap<String, Arc<str>>, ConfigError> {
    let wrong = |what: String| ConfigError(format!("graphql.manifest: {}: {what}", path.display()));
    let text =
        std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let manifest = serde_json::from_str::<Manifest>(&text).map_err(|_| {
        wrong("must be Apollo's manifest, or a JSON object of hashes and documents".to_owned())
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
                .map_err(|id| wrong(format!("{id} is not the SHA-256 of its body")))?
        }
        // Other tools hash in other ways (Relay: MD5): clients name documents by SHA-256 here.
        Manifest::Plain(documents) => documents.into_values().collect(),
    };
    for document in &documents {
        parse_listed(document)
            .map_err(|problem| wrong(format!("{document:?} is no GraphQL: {problem}")))?;
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

    fn named(hash: &str) -> Named {
        Named {
            version: 1,
            hash: hash.to_owned(),
        }
    }

    fn listed(manifest: &str) -> Result<Persisted, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        std::fs::write(&path, manifest).unwrap();
        Persisted::new(&Graphql {
            manifest: path.display().to_string(),
            ..Graphql::default()
        })
    }

    fn found(
        persisted: &Persisted,
        query: Option<&str>,
        named: Option<&Named>,
    ) -> Result<String, String> {
        persisted
            .find(query, named)
            .map(|document| document.text.to_string())
            .map_err(|error| error.kind().code.to_owned())
    }

    #[test]
    fn a_document_is_found_by_its_hash_after_it_was_kept() {
        let persisted = Persisted::new(&Graphql::default()).unwrap();
        let hash = hash_of(QUERY);
        let not_found = Err("PERSISTED_QUERY_NOT_FOUND".to_owned());
        assert_eq!(found(&persisted, None, Some(&named(&hash))), not_found);
        let document = persisted.find(Some(QUERY), Some(&named(&hash))).unwrap();
        // Not before it proved to be within the limits.
        assert_eq!(found(&persisted, None, Some(&named(&hash))), not_found);
        persisted.keep(document);
        assert_eq!(
            found(&persisted, None, Some(&named(&hash.to_uppercase()))),
            Ok(QUERY.to_owned())
        );
        assert_eq!(
            found(&persisted, Some("{ other }"), Some(&named(&hash))),
            Err("BAD_USER_INPUT".to_owned())
        );
        let version = Named { version: 2, hash };
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
    fn no_more_is_kept_than_there_is_memory_for() {
        let persisted = Persisted::new(&Graphql {
            persisted_bytes: 10_000,
            ..Graphql::default()
        })
        .unwrap();
        for number in 0..1000 {
            let query = format!("{{ a{number} }}");
            let document = persisted
                .find(Some(&query), Some(&named(&hash_of(&query))))
                .unwrap();
            persisted.keep(document);
        }
        let Persisted::Automatic(kept) = &persisted else {
            unreachable!()
        };
        kept.run_pending_tasks();
        assert!(
            (1..=10_000).contains(&kept.weighted_size()),
            "{}",
            kept.weighted_size()
        );
    }

    #[test]
    fn without_memory_documents_are_sent() {
        let persisted = Persisted::new(&Graphql {
            persisted_bytes: 0,
            ..Graphql::default()
        })
        .unwrap();
        assert_eq!(found(&persisted, Some(QUERY), None), Ok(QUERY.to_owned()));
        assert_eq!(
            found(&persisted, None, Some(&named("x"))),
            Err("PERSISTED_QUERY_NOT_SUPPORTED".to_owned())
        );
    }

    #[test]
    fn where_operations_are_listed_nothing_else_runs() {
        let hash = hash_of(QUERY);
        let apollo = serde_json::json!({
            "format": "apollo-persisted-query-manifest", "version": 1,
            "operations": [{"id": hash, "name": "A", "type": "query", "body": QUERY}],
        });
        for manifest in [apollo, serde_json::json!({"some-md5": QUERY})] {
            let persisted = listed(&manifest.to_string()).unwrap();
            assert_eq!(
                found(&persisted, None, Some(&named(&hash))),
                Ok(QUERY.to_owned())
            );
            assert_eq!(found(&persisted, Some(QUERY), None), Ok(QUERY.to_owned()));
            assert_eq!(
                found(&persisted, Some("{ a }"), None),
                Err("FORBIDDEN".to_owned())
            );
            assert_eq!(
                found(&persisted, Some("{ a }"), Some(&named(&hash))),
                Err("FORBIDDEN".to_owned())
            );
            assert_eq!(
                found(&persisted, Some("{ a }"), Some(&named(&hash_of("{ a }")))),
                Err("FORBIDDEN".to_owned())
            );
            assert_eq!(
                found(&persisted, None, Some(&named("x"))),
                Err("PERSISTED_QUERY_NOT_FOUND".to_owned())
            );
        }
    }

    #[test]
    fn a_manifest_that_is_none_is_named() {
        for (manifest, text) in [
            ("[]", "must be Apollo's manifest"),
            (r#"{"x": "{"}"#, "is no GraphQL"),
            (
                r#"{"operations": [{"id": "x", "body": "{a}"}]}"#,
                "x is not the SHA-256",
            ),
        ] {
            let Err(error) = listed(manifest) else {
                panic!("{manifest}")
            };
            assert!(
                error.to_string().starts_with("graphql.manifest: ")
                    && error.to_string().contains(text),
                "{error}"
            );
        }
        let missing = Persisted::new(&Graphql {
            manifest: "/nowhere".to_owned(),
            ..Graphql::default()
        });
        assert!(missing.is_err_and(|error| error.to_string().contains("cannot be read")));
    }
}
