//! Many rows in one statement.
//!
//! PostgreSQL takes a column as an array, so that the statement has one text, and one plan, for any number of rows. For the others
//! every row has its place in the statement, and every number of rows its text. MySQL and MariaDB keep few texts prepared, and to give
//! one up is slow: there the numbers are powers of two.

use sea_orm::sea_query::{ArrayType, InsertStatement, IntoIden, OnConflict, Query, Value};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, IdenStatic, Statement};

use super::{ROWS_PER_STATEMENT, StoreError};

/// The same list for the database, as long as the next power of two: the last one is in it several times.
pub(super) fn padded<T: Clone>(mut list: Vec<T>) -> Vec<T> {
    if let Some(last) = list.last().cloned() {
        list.resize(list.len().next_power_of_two(), last);
    }
    list
}

/// Where rows go, and what becomes of those that are there already.
pub(super) struct Target<'a, C> {
    /// The columns, in the order of the values.
    pub(super) columns: &'a [C],
    /// The key, when rows may be there already.
    pub(super) key: &'a [C],
    /// What is written over in these.
    pub(super) update: &'a [C],
}

/// Writes rows in the order given.
pub(super) async fn write<E: EntityTrait>(
    open: &DatabaseTransaction,
    target: &Target<'_, E::Column>,
    rows: Vec<Vec<Value>>,
) -> Result<(), StoreError>
where
    E::Column: Copy,
{
    let backend = open.get_database_backend();
    if rows.is_empty() {
        return Ok(());
    }
    if backend == DbBackend::Postgres && rows.len() > 1 {
        open.execute_raw(as_arrays::<E>(target, rows)).await?;
        return Ok(());
    }
    let is_few = backend == DbBackend::MySql;
    // To write a row over with itself changes nothing.
    let rows = if is_few && !target.key.is_empty() { padded(rows) } else { rows };
    let mut rows = rows.into_iter();
    while rows.len() > 0 {
        let most = rows.len().min(ROWS_PER_STATEMENT);
        let count = if is_few { 1 << most.ilog2() } else { most };
        let mut insert = Query::insert().into_table(E::default()).columns(target.columns.iter().copied()).to_owned();
        for row in rows.by_ref().take(count) {
            insert.values_panic(row.into_iter().map(Into::into));
        }
        open.execute(on_conflict(&mut insert, target)).await?;
    }
    Ok(())
}

fn on_conflict<'a, C: IntoIden + Copy>(insert: &'a mut InsertStatement, target: &Target<'_, C>) -> &'a InsertStatement {
    if !target.key.is_empty() {
        let mut conflict = OnConflict::columns(target.key.iter().copied());
        insert.on_conflict(conflict.update_columns(target.update.iter().copied()).to_owned());
    }
    insert
}

/// `INSERT INTO … SELECT * FROM unnest($1::bigint[], …)`: the rows come in the order of the arrays.
fn as_arrays<E: EntityTrait>(target: &Target<'_, E::Column>, rows: Vec<Vec<Value>>) -> Statement {
    let names = |columns: &[E::Column], of: &dyn Fn(&str) -> String| {
        columns.iter().map(|column| of(IdenStatic::as_str(column))).collect::<Vec<_>>().join(", ")
    };
    let count = rows.len();
    let mut columns: Vec<Vec<Value>> = target.columns.iter().map(|_| Vec::with_capacity(count)).collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    let types: Vec<(ArrayType, &str)> = columns.iter().map(|column| array_type(&column[0])).collect();
    let places: Vec<String> = types.iter().enumerate().map(|(at, (_, name))| format!("${}::{name}[]", at + 1)).collect();
    let mut sql = format!(
        "INSERT INTO \"{}\" ({}) SELECT * FROM unnest({})",
        E::default().table_name(),
        names(target.columns, &|name| format!("\"{name}\"")),
        places.join(", ")
    );
    if !target.key.is_empty() {
        sql += &format!(
            " ON CONFLICT ({}) DO UPDATE SET {}",
            names(target.key, &|name| format!("\"{name}\"")),
            names(target.update, &|name| format!("\"{name}\" = \"excluded\".\"{name}\""))
        );
    }
    let values = types.into_iter().zip(columns).map(|((kind, _), column)| Value::Array(kind, Some(Box::new(column))));
    Statement::from_sql_and_values(DbBackend::Postgres, sql, values.collect::<Vec<_>>())
}

/// The kinds of values that our columns hold.
fn array_type(value: &Value) -> (ArrayType, &'static str) {
    match value {
        Value::Bool(_) => (ArrayType::Bool, "boolean"),
        Value::SmallInt(_) => (ArrayType::SmallInt, "smallint"),
        Value::Bytes(_) => (ArrayType::Bytes, "bytea"),
        Value::String(_) => (ArrayType::String, "text"),
        _ => (ArrayType::BigInt, "bigint"),
    }
}
