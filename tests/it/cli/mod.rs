//! The command line, the configuration and the log.

mod commands;
mod logs;
mod outages;
mod webhook_log;
