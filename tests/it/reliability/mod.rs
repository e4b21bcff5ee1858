//! Concurrency, faults, crashes and load: no change is lost, no write is done twice.

mod arrival_order;
mod client_disconnects;
mod crashes;
mod database_faults;
mod database_timeouts;
mod hot_rows;
mod lock_contention;
mod locked_rows;
mod overload;
mod property_model;
mod statement_faults;
mod statement_interleavings;
mod stress;
