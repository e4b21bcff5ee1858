//! All use cases of a server or an import.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::Base;
use crate::channel::ChannelService;
use crate::clock::{Clock, IdGenerator};
use crate::config::Settings;
use crate::conversation::ConversationService;
use crate::error::Error;
use crate::member_lookup::{MemberLearner, MemberLookup};
use crate::message::{MessageService, RenderMessage};
use crate::proxy::{Answer, ChannelChange, WukongimProxy, change_channel};
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
    /// The `WuKongIM` that other calls are passed to, if `proxy.wukongim_url` is set.
    pub(crate) proxy: Option<Arc<WukongimProxy>>,
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
            proxy: None,
        }
    }

    /// Makes a change of a channel or its members: at the `WuKongIM` behind this server first, if
    /// there is one. See [`change_channel`].
    ///
    /// # Errors
    /// As [`change_channel`].
    pub(crate) async fn change_channel(
        &self,
        change: ChannelChange,
        call: Option<axum::http::Request<Bytes>>,
    ) -> Result<Option<Answer>, Error> {
        change_channel(self.proxy.as_ref(), &self.channels, change, call).await
    }
}
