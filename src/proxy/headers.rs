//! The headers of calls that are passed on (RFC 9110, 7.6).

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::CallerBody;
use super::client::Target;
use crate::auth::TOKEN_HEADER;
use crate::config::Secret;
use crate::error::Error;

/// The name of this server in `Via`. A request that has it already comes from a recents, whose
/// `proxy.wukongim_url` leads to this one, or back to itself.
const PSEUDONYM: &str = "recents";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Headers about one connection, beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers that `Connection` may not name: without them a request means something else.
const END_TO_END: [&str; 4] = [TOKEN_HEADER, "authorization", "x-forwarded-for", "via"];

/// Returns whether a request asks for a WebSocket.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.to_ascii_lowercase().contains("websocket"))
    })
}

/// Returns the request as the `WuKongIM` gets it.
///
/// # Errors
/// [`Error::WukongimLoop`]; [`Error::BadRequest`] for an address without a path.
pub(super) fn prepare(
    request: Request<CallerBody>,
    target: &Target,
    token: &Secret,
) -> Result<Request<CallerBody>, Error> {
    let (mut parts, body) = request.into_parts();
    let headers = &mut parts.headers;
    if comes_from_recents(headers) {
        return Err(Error::WukongimLoop);
    }
    remove_hop_by_hop(headers);
    // The client sets the host of the address. It sends the body at once: the caller that waits for
    // 100 (Continue) gets it from this server.
    headers.remove(HOST);
    headers.remove(EXPECT);
    // The length that was read counts, not the one that is claimed.
    headers.remove(CONTENT_LENGTH);
    match body.length() {
        Some(0) if !parts.method.is_safe() => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(0) => {}
        Some(length) => {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        None => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    append(headers, VIA, &format!("1.1 {PSEUDONYM}"));
    if let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        append(
            headers,
            FORWARDED_FOR,
            &peer.ip().to_canonical().to_string(),
        );
    }
    if !headers.contains_key(TOKEN_HEADER)
        && !token.reveal().is_empty()
        && let Ok(mut value) = HeaderValue::from_str(token.reveal())
    {
        value.set_sensitive(true);
        headers.insert(TOKEN_HEADER, value);
    }
    let mut prepared = Request::new(body);
    *prepared.method_mut() = parts.method;
    *prepared.uri_mut() = target.uri(&parts.uri)?;
    *prepared.headers_mut() = parts.headers;
    Ok(prepared)
}

/// Removes what is about the connection to the `WuKongIM`, and its rules for pages of other origins:
/// this server has its own.
pub(super) fn clean_answer(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    let cors: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("access-control-"))
        .cloned()
        .collect();
    for name in cors {
        headers.remove(name);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| !END_TO_END.contains(&name.as_str()))
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn comes_from_recents(headers: &HeaderMap) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|hop| hop.split_whitespace().nth(1) == Some(PSEUDONYM))
}

/// Appends to a list in one header, as proxies do.
fn append(headers: &mut HeaderMap, name: HeaderName, item: &str) {
    let list = headers
        .get_all(&name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .chain([item])
        .collect::<Vec<_>>()
        .join(", ");
    if let Ok(value) = HeaderValue::from_str(&list) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use bytes::Bytes;

    use super::*;

    fn prepared(request: Request<CallerBody>, token: &str) -> Result<HeaderMap, Error> {
        let target = Target::parse("http://wukongim:5001").unwrap();
        prepare(request, &target, &token.into()).map(|request| request.headers().clone())
    }

    fn request(headers: &[(&str, &str)]) -> Request<CallerBody> {
        let mut request = Request::new(CallerBody::from(Bytes::from_static(b"{}")));
        *request.method_mut() = axum::http::Method::POST;
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(
            "[::ffff:10.0.0.7]:99".parse().unwrap(),
        ));
        for (name, value) in headers {
            request
                .headers_mut()
                .append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        request
    }

    #[test]
    fn headers_about_the_connection_are_removed() {
        let headers = prepared(
            request(&[
                ("host", "recents"),
                ("connection", "close, X-Trace, token"),
                ("connection", "via"),
                ("x-trace", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("transfer-encoding", "chunked"),
                ("content-length", "999"),
                ("expect", "100-continue"),
                ("proxy-authorization", "Basic x"),
                ("token", "hush"),
                ("x-app", "kept"),
                ("x-forwarded-for", "198.51.100.1"),
                ("x-forwarded-for", "198.51.100.2"),
                ("via", "1.0 fred"),
            ]),
            "",
        )
        .unwrap();
        let mut all: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        all.sort();
        assert_eq!(
            all,
            [
                "content-length: 2",
                "token: hush",
                "via: 1.0 fred, 1.1 recents",
                "x-app: kept",
                "x-forwarded-for: 198.51.100.1, 198.51.100.2, 10.0.0.7",
            ]
        );
    }

    #[test]
    fn token_is_added_where_the_caller_has_none() {
        assert_eq!(prepared(request(&[]), "mgr").unwrap()["token"], "mgr");
        let own = prepared(request(&[("token", "own")]), "mgr").unwrap();
        assert_eq!(own["token"], "own");
        assert!(!prepared(request(&[]), "").unwrap().contains_key("token"));
    }

    #[test]
    fn requests_that_come_back_are_refused() {
        for via in [
            "1.1 recents",
            "1.1 a, 1.1 recents (x), 1.1 b",
            "HTTP/1.1  recents",
        ] {
            let result = prepared(request(&[("via", via)]), "");
            assert!(matches!(result, Err(Error::WukongimLoop)), "{via}");
        }
        assert!(prepared(request(&[("via", "1.1 recents-b, 1.1 x")]), "").is_ok());
    }

    #[test]
    fn bodies_of_unknown_length_are_sent_in_chunks() {
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>("a"), Ok("b")]);
        let mut chunked = Request::new(CallerBody::new(Body::from_stream(stream), ()));
        chunked.headers_mut().insert(CONTENT_LENGTH, 7.into());
        let headers = prepared(chunked, "").unwrap();
        assert_eq!(headers["transfer-encoding"], "chunked");
        assert!(!headers.contains_key(CONTENT_LENGTH));
        let empty = Request::new(CallerBody::from(Bytes::new()));
        assert!(!prepared(empty, "").unwrap().contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn websockets_are_recognised() {
        assert!(is_websocket(
            request(&[("upgrade", "h2c, WebSocket")]).headers()
        ));
        assert!(!is_websocket(request(&[("upgrade", "h2c")]).headers()));
    }

    #[test]
    fn answers_keep_everything_but_the_connection_and_cors() {
        let mut headers = request(&[
            ("connection", "close"),
            ("access-control-allow-origin", "*"),
            ("location", "http://elsewhere"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ])
        .headers()
        .clone();
        clean_answer(&mut headers);
        assert_eq!(headers.len(), 3, "{headers:?}");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }
}
