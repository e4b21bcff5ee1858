use std::collections::HashSet;

use futures_util::FutureExt;

use super::invalidation::MAX_INVALIDATION_ENTRIES;
use super::*;
use crate::model::ChannelType;

fn uid(text: &str) -> Uid {
    Uid::parse("uid", text).unwrap()
}

fn group(id: &str) -> ChannelKey {
    ChannelKey {
        channel_type: ChannelType::GROUP,
        key: id.to_owned(),
    }
}

fn was_woken(subscription: &Subscription) -> bool {
    subscription.waker.notified().now_or_never().is_some()
}

#[test]
fn notifications_wake_only_subscribers() {
    let bus = Arc::new(NotificationBus::default());
    let (ann, bob, chat) = (
        Subscription::for_user(&bus, &uid("ann")),
        Subscription::for_user(&bus, &uid("bob")),
        Subscription::for_users(&bus),
    );
    ann.add_channels([1, 2].map(ChannelPk));
    bob.add_channels([ChannelPk(2)]);
    chat.add_channels([ChannelPk(1)]);
    bus.channels_changed([(ChannelPk(1), &group("g")), (ChannelPk(1), &group("g"))]);
    bus.channels_changed([(ChannelPk(1), &group("g"))]);
    assert_eq!(
        (was_woken(&ann), was_woken(&bob), was_woken(&chat)),
        (true, false, true)
    );
    assert!(!was_woken(&ann), "several invalidations count as one");
    bus.users_changed([&uid("bob"), &uid("cat")]);
    assert_eq!(
        (was_woken(&ann), was_woken(&bob), was_woken(&chat)),
        (false, true, false)
    );
    bus.channels_changed([(ChannelPk(9), &ChannelKey::person("ann", "zoe"))]);
    assert_eq!(
        (was_woken(&ann), was_woken(&bob)),
        (true, false),
        "a person channel that is new to the user"
    );
    ann.remove_channels([ChannelPk(2)]);
    bus.channels_changed([(ChannelPk(2), &group("h"))]);
    assert_eq!((was_woken(&ann), was_woken(&bob)), (false, true));
}

#[test]
fn subscription_to_several_users_knows_the_changed_ones() {
    let bus = Arc::new(NotificationBus::default());
    let (chat, ann) = (
        Subscription::for_users(&bus),
        Subscription::for_user(&bus, &uid("ann")),
    );
    chat.add_user(&uid("ann"));
    chat.add_user(&uid("bob"));
    bus.users_changed([&uid("ann"), &uid("cat")]);
    assert!(was_woken(&chat) && was_woken(&ann));
    assert_eq!(
        chat.waker.take_changed_users(),
        HashSet::from(["ann".to_owned()])
    );
    chat.remove_user(&uid("ann"));
    bus.users_changed([&uid("ann"), &uid("bob")]);
    assert!(was_woken(&chat) && was_woken(&ann));
    assert_eq!(
        chat.waker.take_changed_users(),
        HashSet::from(["bob".to_owned()])
    );
    assert_eq!(chat.waker.take_changed_users(), HashSet::new());
}

#[test]
fn dropped_subscriptions_are_unregistered() {
    let bus = Arc::new(NotificationBus::default());
    let subscriptions: Vec<Subscription> = (0..50)
        .map(|number| Subscription::for_user(&bus, &uid(&format!("u{number}"))))
        .collect();
    for subscription in &subscriptions {
        subscription.add_channels((0..20).map(ChannelPk));
    }
    drop(subscriptions);
    let registry = lock(&bus.registry);
    assert!(registry.users.is_empty() && registry.channels.is_empty());
}

#[tokio::test]
async fn invalidations_for_other_servers_are_merged_and_bounded() {
    let bus = NotificationBus::default();
    bus.users_changed([&uid("ann")]);
    let outbox = bus.outbox();
    bus.users_changed([&uid("bob")]);
    bus.channels_changed([(ChannelPk(7), &group("g"))]);
    let invalidation = outbox.take().await;
    assert_eq!(
        (
            invalidation.users.len(),
            invalidation.channels.len(),
            invalidation.everybody
        ),
        (1, 1, false)
    );
    let many = group("g");
    bus.channels_changed((0..=MAX_INVALIDATION_ENTRIES as i64).map(|id| (ChannelPk(id), &many)));
    let invalidation = outbox.take().await;
    assert_eq!(
        (invalidation.channels.len(), invalidation.everybody),
        (0, true)
    );
    assert!(outbox.take().now_or_never().is_none());
}
