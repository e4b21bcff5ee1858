//! GraphQL over server-sent events, as a client reads it.

use serde_json::{Value, json};

/// An item of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A response.
    Next(Value),
    /// The operation is complete.
    Complete,
    /// The stream ended without `complete`.
    Broken,
}

/// The events of a subscription.
pub struct Events {
    response: reqwest::Response,
    read: Vec<u8>,
}

impl Events {
    /// # Errors
    /// The reason why there is no stream.
    pub async fn open(
        request: reqwest::RequestBuilder,
        query: &str,
        variables: Value,
    ) -> Result<Self, String> {
        let body = json!({"query": query, "variables": variables}).to_string();
        let request = request
            .header("accept", "text/event-stream")
            .header("content-type", "application/json")
            .body(body);
        let response = request.send().await.map_err(|error| error.to_string())?;
        if response.status() != 200 {
            return Err(format!(
                "{}: {}",
                response.status(),
                response.text().await.unwrap_or_default()
            ));
        }
        assert_eq!(
            response.headers()["content-type"],
            "text/event-stream; charset=utf-8"
        );
        Ok(Self {
            response,
            read: Vec::new(),
        })
    }

    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.read.split_off(end + 2);
                let event = String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
                let lines: Vec<&str> = event
                    .lines()
                    .filter(|line| !line.is_empty() && !line.starts_with(':'))
                    .collect();
                match lines.as_slice() {
                    [] => continue,
                    ["event: next", data] => {
                        return Event::Next(
                            serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
                        );
                    }
                    ["event: complete", _] => return Event::Complete,
                    other => panic!("an event that is none: {other:?}"),
                }
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.read.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return Event::Broken,
            }
        }
    }

    /// Returns the data of the next response, which must come within ten seconds.
    pub async fn data(&mut self) -> Value {
        match tokio::time::timeout(std::time::Duration::from_secs(10), self.next()).await {
            Ok(Event::Next(answer)) => {
                assert!(answer.get("errors").is_none(), "{answer}");
                answer["data"].clone()
            }
            other => panic!("no event, but {other:?}"),
        }
    }
}
