//! Answers of other servers (a token issuer, a business server, a `WuKongIM`), read up to a limit:
//! such a server may be faulty or malicious.

/// The reasons why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBodyError {
    /// The body is longer than this limit.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The connection broke. The text leaves out the URL, which may contain a secret.
    #[error("{0}")]
    ConnectionLost(String),
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// A longer body; a broken connection.
pub async fn read_response_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, ReadBodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| ReadBodyError::ConnectionLost(error.without_url().to_string()))?
    {
        if chunk.len() > limit - body.len() {
            return Err(ReadBodyError::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
