//! Datasource requests: the business server answers them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderValue;

use super::places::Places;
use super::request::ForwardedRequest;
use super::target::Target;
use crate::budget;
use crate::error::Error;

/// Forwards datasource requests.
#[derive(Debug)]
pub(crate) struct DatasourceForwarder {
    target: Target,
    places: Arc<Places>,
    time_limit: Duration,
    max_answer_bytes: usize,
}

/// An answer of the business server.
#[derive(Debug)]
pub(crate) struct ForwardedAnswer {
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl DatasourceForwarder {
    pub(super) fn new(
        target: Target,
        places: Arc<Places>,
        time_limit: Duration,
        max_answer_bytes: usize,
    ) -> Self {
        Self {
            target,
            places,
            time_limit,
            max_answer_bytes,
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the business server's answer, unchanged.
    ///
    /// # Errors
    /// [`Error::ForwardFailed`] for every answer but a 200: `WuKongIM` keeps the members that it is
    /// told, so an answer from the members known here, who may be incomplete, would last longer than
    /// the failure. [`Error::Overloaded`], [`Error::TooManyAtOnce`].
    pub(crate) async fn ask(&self, request: &ForwardedRequest) -> Result<ForwardedAnswer, Error> {
        let _place = self.places.take(request.body.len())?;
        let answer = self
            .target
            .ask(request, self.max_answer_bytes, self.time_limit)
            .await?;
        budget::reserve_memory(answer.body.len())?;
        Ok(ForwardedAnswer {
            content_type: answer.content_type,
            body: answer.body.into(),
        })
    }
}
