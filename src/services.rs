//! All use cases of a server or an import.

use std::sync::Arc;

use crate::base::Base;
use crate::channel::ChannelService;
use crate::clock::{Clock, IdGenerator};
use crate::config::Settings;
use crate::conversation::ConversationService;
use crate::member_lookup::{MemberLearner, MemberLookup};
use crate::message::{MessageService, RenderMessage};
use crate::store::Store;
use crate::webhook_monitor::WebhookMonitor;

/// The services that the interfaces call.
#[derive(Debug)]
pub struct Services {
    /// The parts that all services use.
    pub base: Arc<Base>,
    /// Channels and their members.
    pub channels: Arc<ChannelService>,
    /// Messages.
    pub messages: Arc<MessageService>,
    /// The conversations of users.
    pub conversations: Arc<ConversationService>,
    /// Queue of groups whose members are unknown, if `ingest.datasource_url` is set.
    pub(crate) member_lookup: Option<MemberLookup>,
    /// Tells the repair about webhooks.
    pub(crate) webhooks: WebhookMonitor,
    /// Makes the members known that `ingest.datasource_forward_url` names.
    pub(crate) member_learner: MemberLearner,
}

impl Services {
    /// Creates the services of a server or an import. `render` makes the JSON of recent messages.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Clock,
        ids: IdGenerator,
        settings: &Settings,
        render: RenderMessage,
    ) -> Self {
        let base = Arc::new(Base::new(store, clock, ids, settings));
        let channels = Arc::new(ChannelService::new(Arc::clone(&base)));
        let messages = Arc::new(MessageService::new(
            Arc::clone(&channels),
            settings.cache.recent_messages_bytes,
            render,
        ));
        let conversations = Arc::new(ConversationService::new(Arc::clone(&messages)));
        Self {
            base,
            member_learner: MemberLearner::new(Arc::clone(&channels)),
            channels,
            messages,
            conversations,
            member_lookup: None,
            webhooks: WebhookMonitor::default(),
        }
    }
}
