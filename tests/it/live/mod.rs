//! Subscriptions and notifications.

mod subscriptions;
