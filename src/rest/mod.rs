//! The REST interface: `WuKongIM`'s routes, health and metrics.

pub mod health;
pub mod legacy;
pub mod openapi;
pub mod wukong;
