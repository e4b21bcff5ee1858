//! `[limits]`

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{DAY_SECONDS, MAX_COUNT, MAX_VALUE, check_ranges};
use crate::model::Seq;

/// Maximum of `limits.batch_operations`: each operation may cost as much as a request of its own.
const MAX_BATCH_OPERATIONS: u64 = 100;
/// Minimum of `limits.memory_bytes`: with less, large bodies could not be read.
const MIN_MEMORY_BYTES: u64 = 16 << 20;
/// Maximum of `limits.document_depth`: async-graphql parses no deeper documents.
const MAX_DOCUMENT_DEPTH: u64 = 32;

/// `[limits]`: limits on requests, connections and GraphQL documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Maximum size of a request body, and of a compressed list of uids in a webhook once it is
    /// decompressed.
    pub body_bytes: usize,
    /// Maximum size of a webhook body (up to 100 messages each).
    pub webhook_body_bytes: usize,
    /// Maximum size of a message's payload, decoded, and of the text and events of its stream.
    pub payload_bytes: usize,
    /// Maximum size of the messages of one answer, as base64. A list that does not fit loses older
    /// messages first and the newest message of each conversation last, but never a conversation; a
    /// page of messages ends earlier.
    pub answer_bytes: usize,
    /// Maximum number of newest messages for each conversation in one answer. REST lowers larger
    /// numbers, GraphQL refuses them.
    pub max_messages_per_conversation: u32,
    /// Maximum number of entries in `last_msg_seqs`.
    pub max_last_msg_seqs: usize,
    /// Maximum page size (`first`, `last`) in GraphQL.
    pub page_size: u32,
    /// Maximum number of users in one request that changes the members of a channel.
    pub max_members_per_request: usize,
    /// How far above the newest stored message a user may read or delete: a client can know
    /// messages before the webhook brings them.
    pub read_ahead: u32,
    /// Time limit of a request.
    pub request_timeout_seconds: u64,
    /// Maximum number of running requests. Further requests are refused at once with 503.
    pub max_concurrent_requests: usize,
    /// Maximum number of running requests of one user; further ones are refused with 429. A quarter
    /// of the server's request slots is reserved for services, and one address gets at most half of
    /// the others.
    pub user_requests: usize,
    /// Memory for callers: open connections, bodies as they arrive, answers until they are written,
    /// and events for subscribers. A quarter is reserved for services; one address gets at most
    /// half of the rest, one user a third of it. Further requests are refused with 503, or with 429
    /// if the address or the user uses too much. Caches have limits of their own. With the default
    /// the whole server fits into 512 MiB.
    pub memory_bytes: usize,
    /// Maximum number of open connections. Further connections are closed at once. The system's
    /// limit on open files (ulimit -n) applies, too.
    pub open_connections: usize,
    /// Maximum number of open connections from one address that is not in `server.trusted_proxies`.
    pub address_connections: usize,
    /// How long a request's line and headers (64 KiB at most) may take to arrive.
    pub header_timeout_seconds: u64,
    /// How long a connection may wait for the next request.
    pub idle_timeout_seconds: u64,
    /// Minimum speed at which a body arrives and an answer is read, measured over ten seconds. A
    /// slower client is disconnected.
    pub least_bytes_per_second: usize,
    /// Maximum rate of one user's requests, on average; bursts may be twice as large. Further
    /// requests are answered with 429. Each receiver of a sendbatch, each channel of a
    /// messagesyncbatch and each mutation of a document counts as a request. Services are exempt. 0
    /// disables the limit.
    pub user_requests_per_second: u32,
    /// The same for one address: users' requests and requests without a valid token.
    pub address_requests_per_second: u32,
    /// Maximum number of connections with subscriptions (WebSocket and SSE) to this server.
    pub max_live_connections: usize,
    /// Maximum number of connections with subscriptions of one user to this server.
    pub max_user_live_connections: usize,
    /// Maximum number of operations that run on one WebSocket.
    pub max_subscriptions: usize,
    /// Maximum size of a message that a client sends over a WebSocket.
    pub socket_message_bytes: usize,
    /// Maximum rate of a client's messages over one WebSocket, pings included, on average; bursts
    /// may be twice as large. A client that exceeds it is disconnected.
    pub socket_messages_per_second: u32,
    /// Maximum size of a GraphQL document.
    pub document_bytes: usize,
    /// Maximum nesting of a GraphQL document, fragments included. At most 32.
    pub document_depth: usize,
    /// Maximum number of fields, arguments and variables in a GraphQL document, counted for every
    /// fragment spread.
    pub document_fields: usize,
    /// Maximum number of names, numbers, strings and punctuators in a GraphQL document.
    pub document_tokens: usize,
    /// Maximum complexity of a GraphQL document: the values that its answer may have (with pages as
    /// long as `first`, `last` and `msgCount` allow), the cost of reading them (1000 for a user's
    /// list, 1 for a message), and the entries of list arguments.
    pub document_complexity: usize,
    /// Maximum number of aliases in a GraphQL document, counted for every fragment spread.
    pub document_aliases: usize,
    /// Maximum number of directives in a GraphQL document, counted for every fragment spread.
    pub document_directives: usize,
    /// Maximum number of root fields of a GraphQL operation.
    pub document_root_fields: usize,
    /// Maximum number of variables that the operations of a GraphQL document define.
    pub document_variables: usize,
    /// Maximum number of operations in one GraphQL request, as a JSON array. 1 allows no arrays. At
    /// most 100.
    pub batch_operations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            webhook_body_bytes: 64 << 20,
            payload_bytes: 256 << 10,
            answer_bytes: 8 << 20,
            max_messages_per_conversation: 500,
            max_last_msg_seqs: 100_000,
            page_size: 1000,
            max_members_per_request: 100_000,
            read_ahead: 100_000,
            request_timeout_seconds: 30,
            max_concurrent_requests: 1024,
            user_requests: 64,
            memory_bytes: 256 << 20,
            open_connections: 12_000,
            address_connections: 1024,
            header_timeout_seconds: 10,
            idle_timeout_seconds: 75,
            least_bytes_per_second: 500,
            user_requests_per_second: 100,
            address_requests_per_second: 1000,
            max_live_connections: 10_000,
            max_user_live_connections: 20,
            max_subscriptions: 50,
            socket_message_bytes: 256 << 10,
            socket_messages_per_second: 50,
            document_bytes: 64 << 10,
            document_depth: 20,
            document_fields: 1000,
            document_tokens: 10_000,
            document_complexity: 250_000,
            document_aliases: 100,
            document_directives: 100,
            document_root_fields: 100,
            document_variables: 100,
            batch_operations: 1,
        }
    }
}

impl Limits {
    /// Returns the seq up to which a user may read or delete a channel: at most `read_ahead` above
    /// the newest stored message.
    pub(crate) fn cap_read(&self, up_to: Option<Seq>, last_seq: Seq) -> Option<Seq> {
        up_to.map(|up_to| up_to.min(last_seq.plus(self.read_ahead.into())))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_messages()?;
        self.check_connections()?;
        self.check_documents()
    }

    fn check_messages(&self) -> Result<(), ConfigError> {
        check_ranges(
            "limits",
            &[
                ("body_bytes", self.body_bytes as u64, 1..=MAX_VALUE),
                (
                    "webhook_body_bytes",
                    self.webhook_body_bytes as u64,
                    1..=MAX_VALUE,
                ),
                ("payload_bytes", self.payload_bytes as u64, 1..=MAX_VALUE),
                ("answer_bytes", self.answer_bytes as u64, 1..=MAX_VALUE),
                (
                    "max_messages_per_conversation",
                    u64::from(self.max_messages_per_conversation),
                    1..=MAX_VALUE,
                ),
                (
                    "max_last_msg_seqs",
                    self.max_last_msg_seqs as u64,
                    1..=MAX_VALUE,
                ),
                ("page_size", u64::from(self.page_size), 1..=MAX_VALUE),
                (
                    "max_members_per_request",
                    self.max_members_per_request as u64,
                    1..=MAX_VALUE,
                ),
                ("read_ahead", u64::from(self.read_ahead), 0..=MAX_VALUE),
                (
                    "request_timeout_seconds",
                    self.request_timeout_seconds,
                    1..=DAY_SECONDS,
                ),
            ],
        )
    }

    fn check_connections(&self) -> Result<(), ConfigError> {
        check_ranges(
            "limits",
            &[
                (
                    "max_concurrent_requests",
                    self.max_concurrent_requests as u64,
                    1..=MAX_COUNT,
                ),
                ("user_requests", self.user_requests as u64, 1..=MAX_COUNT),
                (
                    "memory_bytes",
                    self.memory_bytes as u64,
                    MIN_MEMORY_BYTES..=MAX_VALUE,
                ),
                (
                    "open_connections",
                    self.open_connections as u64,
                    1..=MAX_COUNT,
                ),
                (
                    "address_connections",
                    self.address_connections as u64,
                    1..=MAX_COUNT,
                ),
                (
                    "header_timeout_seconds",
                    self.header_timeout_seconds,
                    1..=DAY_SECONDS,
                ),
                (
                    "idle_timeout_seconds",
                    self.idle_timeout_seconds,
                    1..=DAY_SECONDS,
                ),
                (
                    "least_bytes_per_second",
                    self.least_bytes_per_second as u64,
                    0..=MAX_VALUE,
                ),
                (
                    "user_requests_per_second",
                    u64::from(self.user_requests_per_second),
                    0..=MAX_COUNT,
                ),
                (
                    "address_requests_per_second",
                    u64::from(self.address_requests_per_second),
                    0..=MAX_COUNT,
                ),
                (
                    "max_live_connections",
                    self.max_live_connections as u64,
                    0..=MAX_COUNT,
                ),
                (
                    "max_user_live_connections",
                    self.max_user_live_connections as u64,
                    1..=MAX_COUNT,
                ),
                (
                    "max_subscriptions",
                    self.max_subscriptions as u64,
                    1..=MAX_COUNT,
                ),
                (
                    "socket_message_bytes",
                    self.socket_message_bytes as u64,
                    1..=MAX_VALUE,
                ),
                (
                    "socket_messages_per_second",
                    u64::from(self.socket_messages_per_second),
                    1..=MAX_COUNT,
                ),
            ],
        )
    }

    fn check_documents(&self) -> Result<(), ConfigError> {
        check_ranges(
            "limits",
            &[
                ("document_bytes", self.document_bytes as u64, 1..=MAX_VALUE),
                (
                    "document_depth",
                    self.document_depth as u64,
                    1..=MAX_DOCUMENT_DEPTH,
                ),
                (
                    "document_fields",
                    self.document_fields as u64,
                    1..=MAX_VALUE,
                ),
                (
                    "document_tokens",
                    self.document_tokens as u64,
                    1..=MAX_VALUE,
                ),
                (
                    "document_complexity",
                    self.document_complexity as u64,
                    1..=MAX_VALUE,
                ),
                (
                    "document_aliases",
                    self.document_aliases as u64,
                    0..=MAX_VALUE,
                ),
                (
                    "document_directives",
                    self.document_directives as u64,
                    0..=MAX_VALUE,
                ),
                (
                    "document_root_fields",
                    self.document_root_fields as u64,
                    1..=MAX_VALUE,
                ),
                (
                    "document_variables",
                    self.document_variables as u64,
                    0..=MAX_VALUE,
                ),
                (
                    "batch_operations",
                    self.batch_operations as u64,
                    1..=MAX_BATCH_OPERATIONS,
                ),
            ],
        )
    }
}
