//! Members that a business server names when a `WuKongIM` asks it through this server. They become
//! known in the background: `WuKongIM` has its answer whatever happens here.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{RETRY_DELAYS, parse_members};
use crate::budget::spawn_in_request;
use crate::channel::{ChannelService, join_listed_members};
use crate::error::Error;
use crate::model::{ChannelKey, Uid};
use crate::outage::OutageLog;

/// Maximum number of answers whose members are being stored. Further answers are skipped: their
/// members become known with the messages that they send or receive.
const MAX_CONCURRENT: usize = 16;

/// Makes the members in forwarded answers known.
#[derive(Clone, Debug)]
pub(crate) struct MemberLearner {
    channels: Arc<ChannelService>,
    turns: Arc<Semaphore>,
    outages: Arc<OutageLog>,
}

impl MemberLearner {
    pub(crate) fn new(channels: Arc<ChannelService>) -> Self {
        Self {
            channels,
            turns: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            outages: Arc::new(OutageLog::new(
                "members in answers of ingest.datasource_forward_url cannot be stored",
                "members in answers of ingest.datasource_forward_url are stored again",
            )),
        }
    }

    /// Makes the users that an answer names members of the group.
    pub(crate) fn learn(&self, group: ChannelKey, answer: &[u8]) {
        let uids = match parse_members(answer) {
            Ok(uids) if uids.is_empty() => return,
            Ok(uids) => uids,
            Err(error) => {
                tracing::debug!(%error, channel = ?group, "members cannot be learned");
                return count("failed");
            }
        };
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else {
            return count("skipped");
        };
        let this = self.clone();
        spawn_in_request(async move {
            let mut result = Ok(());
            // As many at once as in a request that names members.
            let chunk = this.channels.base.limits.max_members_per_request.max(1);
            for uids in uids.chunks(chunk) {
                result = this.store(&group, uids).await;
                if result.is_err() {
                    break;
                }
            }
            count(if result.is_ok() { "ok" } else { "failed" });
            drop(turn);
        });
    }

    async fn store(&self, group: &ChannelKey, uids: &[Uid]) -> Result<(), Error> {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let result = join_listed_members(&self.channels, group, uids).await;
            match &result {
                Ok(()) => self.outages.worked(),
                Err(error) => self.outages.failed(error),
            }
            match delays.next() {
                Some(delay) if result.is_err() => tokio::time::sleep(*delay).await,
                _ => return result,
            }
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!(crate::metrics::MEMBERS_LEARNED_TOTAL, "result" => result).increment(1);
}
