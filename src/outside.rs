//! Answers of other servers (an issuer, a business server, a `WuKongIM`), read with a bound: such a
//! server may be wrong, or somebody else's by now.

/// Why an answer has no body for us.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// It is longer than so many bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The connection broke. Without the URL, which may carry a secret.
    #[error("{0}")]
    Broken(String),
}

/// Reads the body of an answer, of at most `limit` bytes.
///
/// # Errors
/// A longer one; a connection that breaks.
pub async fn read_answer(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, NoAnswer> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| NoAnswer::Broken(error.without_url().to_string()))?
    {
        if chunk.len() > limit - body.len() {
            return Err(NoAnswer::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
