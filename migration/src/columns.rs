//! Column types with the same meaning on every engine.

use sea_orm::DbBackend;
use sea_orm::sea_query::{Alias, ColumnDef, Expr};

/// A text of at most `bytes` bytes that is compared by bytes.
///
/// MySQL's binary collations for character types pad with spaces on some versions and have other
/// names on MariaDB; `VARBINARY` compares bytes on all of them. SQLite compares bytes by default.
pub(crate) fn text(name: &'static str, bytes: u32, backend: DbBackend) -> ColumnDef {
    let kind = match backend {
        DbBackend::MySql => format!("varbinary({bytes})"),
        DbBackend::Postgres => r#"text COLLATE "C""#.to_owned(),
        _ => "text".to_owned(),
    };
    ColumnDef::new(name)
        .custom(Alias::new(kind))
        .not_null()
        .to_owned()
}

/// A text that is empty by default.
pub(crate) fn optional_text(name: &'static str, bytes: u32, backend: DbBackend) -> ColumnDef {
    text(name, bytes, backend).default("").to_owned()
}

/// Bytes of any length: MySQL's `BLOB` is limited to 64 KiB.
pub(crate) fn bytes(name: &'static str, backend: DbBackend) -> ColumnDef {
    let kind = match backend {
        DbBackend::MySql => "longblob",
        DbBackend::Postgres => "bytea",
        _ => "blob",
    };
    ColumnDef::new(name)
        .custom(Alias::new(kind))
        .not_null()
        .to_owned()
}

/// Bytes that are empty by default. MySQL requires an expression as the default of a `BLOB`.
pub(crate) fn optional_bytes(name: &'static str, backend: DbBackend) -> ColumnDef {
    let empty = if backend == DbBackend::Sqlite {
        "(x'')"
    } else {
        "('')"
    };
    bytes(name, backend).default(Expr::cust(empty)).to_owned()
}

/// A signed 64-bit integer with a default.
pub(crate) fn integer(name: &'static str, default: i64) -> ColumnDef {
    ColumnDef::new(name)
        .big_integer()
        .not_null()
        .default(default)
        .to_owned()
}

/// A small number (0 to 255) with a default.
pub(crate) fn small(name: &'static str, default: i16) -> ColumnDef {
    ColumnDef::new(name)
        .small_integer()
        .not_null()
        .default(default)
        .to_owned()
}

/// A flag that is false by default.
pub(crate) fn flag(name: &'static str) -> ColumnDef {
    ColumnDef::new(name)
        .boolean()
        .not_null()
        .default(false)
        .to_owned()
}
