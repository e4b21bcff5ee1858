//! The memory of answers that are in use at the same time. Several tasks request at once, and the
//! server may be faulty or malicious.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::RequestError;
use crate::budget::parsed_size;

/// Maximum memory of parsed answers, in KiB.
const PARSED_KIB: u32 = 128 << 10;
/// Memory of a short answer, in KiB.
const MIN_KIB: u32 = 16;

/// Memory for answers of one kind. A task that holds an answer must not request another one of the
/// same kind: both could wait for each other's memory.
#[derive(Debug)]
pub(crate) struct AnswerMemory {
    parsed: Arc<Semaphore>,
    long_texts: Semaphore,
}

/// A parsed answer. Its memory is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) value: Value,
    pub(crate) memory: OwnedSemaphorePermit,
}

impl Default for AnswerMemory {
    fn default() -> Self {
        Self {
            parsed: Arc::new(Semaphore::new(PARSED_KIB as usize)),
            long_texts: Semaphore::new(1),
        }
    }
}

impl AnswerMemory {
    /// Waits until no other long text is read.
    pub(super) async fn reserve_long_text(&self) -> Option<SemaphorePermit<'_>> {
        self.long_texts.acquire().await.ok()
    }

    /// Parses an answer when there is memory for it.
    pub(super) async fn parse(&self, text: &[u8]) -> Result<Answer, RequestError> {
        let kib = u32::try_from(parsed_size(text) / 1024)
            .unwrap_or(u32::MAX)
            .max(MIN_KIB);
        let too_long = || {
            RequestError::TooLong(format!(
                "the answer takes more than {} MiB of memory",
                PARSED_KIB >> 10
            ))
        };
        if kib > PARSED_KIB {
            return Err(too_long());
        }
        let parsed = Arc::clone(&self.parsed);
        let Ok(memory) = parsed.acquire_many_owned(kib).await else {
            return Err(too_long());
        };
        let value = super::client::parse(text)?;
        Ok(Answer { value, memory })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn answers_wait_for_memory_or_are_refused() {
        let memory = AnswerMemory::default();
        let of_kib = |kib: usize| {
            let per_element = parsed_size("0,".repeat(100_000).as_bytes()) / 100_000;
            format!("[{}0]", "0,".repeat(kib * 1024 / per_element))
        };
        let half = of_kib(PARSED_KIB as usize * 45 / 100);
        let first = memory.parse(half.as_bytes()).await.unwrap();
        let second = memory.parse(half.as_bytes()).await.unwrap();
        let third = memory.parse(half.as_bytes());
        assert!(
            tokio::time::timeout(Duration::from_millis(50), third)
                .await
                .is_err()
        );
        drop((first, second));
        memory.parse(half.as_bytes()).await.unwrap();
        let huge = of_kib(PARSED_KIB as usize * 2);
        let refused = memory.parse(huge.as_bytes()).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the answer takes more than 128 MiB of memory"
        );
    }
}
