//! `/conversation/…` and `/conversations/…`

pub mod by_channel;
pub mod change;
pub mod list;
pub mod sync;
pub mod walk;

use serde::Deserialize;
use utoipa::ToSchema;

/// `WuKongIM`'s error for a request without a user.
const ERR_UID_EMPTY: &str = "uid cannot be empty";

/// The name of a channel.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct NamedChannel {
    /// The channel's ID; for a person channel the peer's uid.
    #[serde(default)]
    #[schema(examples("team-1"))]
    pub channel_id: String,
    /// 1 person, 2 group, …
    #[serde(default)]
    #[schema(maximum = 255, examples(2))]
    pub channel_type: u8,
}
