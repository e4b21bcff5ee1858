//! The schema, the SQL statements, and the limits of the databases.

mod connection_limits;
mod migrations;
mod portable_sql;
mod query_plans;
mod sqlite_files;
