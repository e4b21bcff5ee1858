//! Calls that recents does not answer itself: with `proxy.wukongim_url` they are passed on.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::TryFutureExt;

use crate::auth::{Action, Caller};
use crate::error::Error;
use crate::http::ConnectionMeter;
use crate::proxy::CallerBody;
use crate::rest::legacy::ErrorResponse;
use crate::state::AppState;

/// The paths that recents answers itself. Servers decode and shorten paths before they look them up,
/// so another spelling of such a path would reach the `WuKongIM`, which would then do alone what is
/// to be done on both.
#[derive(Clone, Debug)]
pub(crate) struct OwnPaths(Arc<Vec<Vec<String>>>);

impl OwnPaths {
    /// `paths` may contain parameters (`/webhook/{secret}`).
    pub(crate) fn new<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        Self(Arc::new(paths.map(segments).collect()))
    }

    /// Returns an own path that the given one would be taken for.
    fn find(&self, path: &str) -> Option<String> {
        // CONNECT has no path.
        if path.is_empty() {
            return None;
        }
        let given = normalised(path);
        let is_same = |own: &&Vec<String>| {
            own.len() == given.len()
                && own
                    .iter()
                    .zip(&given)
                    .all(|(own, given)| own.starts_with('{') || own == given)
        };
        let own = self.0.iter().find(is_same)?;
        Some(format!("/{}", own.join("/")))
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Returns the segments of a path that is decoded, without `.` and `..`. It is decoded twice, in
/// case that something between does so, too.
fn normalised(path: &str) -> Vec<String> {
    let decoded = decode(&decode(path)).replace('\\', "/");
    let mut kept = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other.to_owned()),
        }
    }
    kept
}

/// Decodes `%xx`.
fn decode(text: &str) -> String {
    let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%'
            && let (Some(high), Some(low)) = (hex(bytes.get(at + 1)), hex(bytes.get(at + 2)))
            && let Ok(value) = u8::try_from(high * 16 + low)
        {
            decoded.push(value);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Passes a call on to the `WuKongIM`. Only services may call it: it does whatever it is told.
pub(crate) async fn pass_on(
    State(app): State<AppState>,
    caller: Caller,
    own_paths: OwnPaths,
    request: Request,
) -> Result<Response, ErrorResponse> {
    caller.check(Action::CallWukongim)?;
    let proxy = app.core.proxy.as_ref().ok_or(Error::NotFound("page"))?;
    if let Some(own) = own_paths.find(request.uri().path()) {
        return Err(Error::BadRequest(format!("the path must be written as {own}").into()).into());
    }
    // The caller may still send while the answer arrives: until its body ends, it is not idle.
    let reading = request
        .extensions()
        .get::<ConnectionMeter>()
        .map(ConnectionMeter::reading_body);
    let request = request.map(|body| CallerBody::new(body, reading));
    proxy.forward(request).map_err(ErrorResponse).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_spellings_of_own_paths_are_found() {
        let paths = ["/", "/channel/delete", "/webhook/{secret}", "/graphql"];
        let own = OwnPaths::new(paths.into_iter());
        for (path, expected) in [
            ("/channel/delete", "/channel/delete"),
            ("/channel/delete/", "/channel/delete"),
            ("//channel//delete", "/channel/delete"),
            ("/channel/%64elete", "/channel/delete"),
            ("/channel%2Fdelete", "/channel/delete"),
            ("/channel%252fdelete", "/channel/delete"),
            ("/channel\\delete", "/channel/delete"),
            ("/x/../channel/./delete", "/channel/delete"),
            ("/x/%2e%2E/channel/delete", "/channel/delete"),
            ("/../../channel/delete", "/channel/delete"),
            ("/webhook/", ""),
            ("/webhook/%61", "/webhook/{secret}"),
            ("/%67raphql", "/graphql"),
            ("/./", "/"),
            ("/channel/deleted", ""),
            ("/channel", ""),
            ("/cluster/channels/a%7Cb/2/status", ""),
            ("/100%", ""),
            ("/%zz%6", ""),
        ] {
            assert_eq!(own.find(path).unwrap_or_default(), expected, "{path}");
        }
    }
}
