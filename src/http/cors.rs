//! The web pages of other origins that may call the server.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderValue, header};

use super::open_mode::is_own_origin;
use crate::config::ServerConfig;

/// Maximum number of refused origins that are logged. Clients can invent origins.
const MAX_LOGGED_ORIGINS: usize = 100;
/// Maximum length of an origin that is logged: more than any host name needs.
const MAX_ORIGIN_BYTES: usize = 300;

/// `server.cors_origins` and `server.cors_headers`.
#[derive(Debug)]
pub(crate) struct CorsPolicy {
    origins: Vec<String>,
    /// The value of `Access-Control-Allow-Headers`.
    allowed_headers: HeaderValue,
    /// Refused origins that are in the log.
    logged: Mutex<HashSet<String>>,
}

impl CorsPolicy {
    pub(crate) fn new(settings: &ServerConfig) -> Self {
        Self {
            origins: settings.cors_origins.clone(),
            // The names were checked when the configuration was read.
            allowed_headers: HeaderValue::from_str(&settings.cors_headers.join(", "))
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            logged: Mutex::default(),
        }
    }

    /// Returns the value of `Access-Control-Allow-Headers`.
    pub(super) fn allowed_headers(&self) -> HeaderValue {
        self.allowed_headers.clone()
    }

    /// Returns the origin of the page that sent a request, if it is in `server.cors_origins`. Logs
    /// any other origin, except that of the server's own pages.
    pub(super) fn allowed_origin(&self, request_headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = request_headers.get(header::ORIGIN)?;
        if self.origins.iter().any(|known| origin == known) {
            return Some(origin.clone());
        }
        let host = request_headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        if let Ok(origin) = origin.to_str()
            && !is_own_origin(origin, host)
        {
            self.log_refused(origin);
        }
        None
    }

    /// Logs a refused origin once.
    fn log_refused(&self, origin: &str) {
        if origin.len() > MAX_ORIGIN_BYTES {
            return;
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() == MAX_LOGGED_ORIGINS || !logged.insert(origin.to_owned()) {
            return;
        }
        tracing::warn!(
            origin,
            "web pages of this origin are refused: it is not in server.cors_origins"
        );
        if logged.len() == MAX_LOGGED_ORIGINS {
            tracing::warn!("{MAX_LOGGED_ORIGINS} origins were refused: no further ones are logged");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_origins_take_bounded_memory() {
        let policy = CorsPolicy::new(&ServerConfig::default());
        let mut headers = HeaderMap::new();
        let mut refuse = |origin: &str| {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            assert_eq!(policy.allowed_origin(&headers), None);
            policy.logged.lock().unwrap().len()
        };
        assert_eq!(
            refuse(&format!("https://{}.example", "a".repeat(10_000))),
            0
        );
        for number in 1..=1000 {
            let origin = format!("https://{number}.example");
            assert_eq!(refuse(&origin), number.min(MAX_LOGGED_ORIGINS), "{origin}");
            assert_eq!(
                refuse(&origin),
                number.min(MAX_LOGGED_ORIGINS),
                "{origin}, again"
            );
        }
    }
}
