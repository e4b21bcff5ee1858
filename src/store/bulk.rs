//! Statements that write or select many rows at once.
//!
//! PostgreSQL takes a column as an array, so one statement text, and one plan, serves any number of
//! rows. On the other engines every row has its own placeholders, and every number of rows its own
//! text. MySQL and MariaDB keep few prepared statements, and evicting one is slow, so there the
//! number of rows is padded to a power of two.

use sea_orm::sea_query::extension::postgres::PgFunc;
use sea_orm::sea_query::{
    Alias, ArrayType, Asterisk, Condition, Expr, ExprTrait, Func, InsertStatement, IntoColumnRef,
    IntoIden, JoinType, OnConflict, Query, SelectStatement, TableRef, UnionType, Value, ValueTuple,
};
use sea_orm::{DbBackend, EntityTrait, IdenStatic, Statement};

use super::open_transaction::OpenTransaction;
use super::{ROWS_PER_STATEMENT, StoreError};

/// Pads the list to the next power of two by repeating the last element.
pub(super) fn pad_to_power_of_two<T: Clone>(mut list: Vec<T>) -> Vec<T> {
    if let Some(last) = list.last().cloned() {
        list.resize(list.len().next_power_of_two(), last);
    }
    list
}

/// The condition that the column has one of these values.
pub(super) fn is_one_of<V>(
    backend: DbBackend,
    column: impl IntoColumnRef,
    values: impl IntoIterator<Item = V>,
) -> Expr
where
    V: Into<Value>,
{
    let values: Vec<Value> = values.into_iter().map(Into::into).collect();
    let column = Expr::col(column);
    if backend == DbBackend::Postgres && !values.is_empty() {
        return column.eq(PgFunc::any(Expr::val(array_value(values).0)));
    }
    column.is_in(pad_to_power_of_two(values))
}

/// Selects the named columns as rows of values. On all engines except PostgreSQL, rows of NULLs,
/// which equal nothing, pad the table to the next power of two.
pub(super) fn values_table<const N: usize>(
    backend: DbBackend,
    columns: [(&'static str, Vec<Value>); N],
) -> SelectStatement {
    if backend == DbBackend::Postgres {
        return columns
            .into_iter()
            .fold(Query::select(), |mut select, (name, values)| {
                select
                    .expr_as(
                        Func::cust("unnest").arg(Expr::val(array_value(values).0)),
                        name,
                    )
                    .to_owned()
            });
    }
    let count = columns.first().map_or(0, |(_, values)| values.len());
    let value = |values: &[Value], at: usize| {
        values
            .get(at)
            .cloned()
            .or_else(|| values.first().map(Value::as_null))
    };
    let rows = (0..count.next_power_of_two()).map(|at| {
        columns
            .iter()
            .filter_map(move |(_, values)| value(values, at))
    });
    if backend == DbBackend::Sqlite {
        let rows = rows.map(|row| ValueTuple::Many(row.collect())).collect();
        let mut select = Query::select()
            .from(TableRef::ValuesList(rows, "v".into_iden()))
            .to_owned();
        for (at, (name, _)) in columns.iter().enumerate() {
            select.expr_as(
                Expr::col(("v", Alias::new(format!("column{}", at + 1)))),
                *name,
            );
        }
        return select;
    }
    let mut selects = rows.map(|row| {
        let named = columns.iter().map(|(name, _)| *name).zip(row);
        named.fold(Query::select(), |mut select, (name, value)| {
            select.expr_as(typed_value(value), name).to_owned()
        })
    });
    let mut first = selects.next().unwrap_or_else(Query::select);
    first
        .unions(selects.map(|select| (UnionType::All, select)))
        .to_owned()
}

/// Casts numbers for MySQL and MariaDB, which would take an untyped number for a text.
fn typed_value(value: Value) -> Expr {
    match value {
        Value::String(_) => Expr::val(value),
        number => Expr::val(number).cast_as("SIGNED"),
    }
}

/// Runs `found` for each row of `values`, which `found` can refer to as "w".
///
/// PostgreSQL would rather read all conversations of a user than look up a few of them; the OFFSET
/// in the lateral join forces one look-up for each row. The planners of MySQL and MariaDB are slow
/// with long lists of alternatives (MariaDB 10.11: 15 ms for 512 pairs of keys, 2 ms for the same
/// pairs in a joined table).
pub(super) fn join_values<const N: usize>(
    backend: DbBackend,
    values: [(&'static str, Vec<Value>); N],
    mut found: SelectStatement,
) -> SelectStatement {
    let values = values_table(backend, values);
    if backend != DbBackend::Postgres {
        return found
            .join_subquery(JoinType::InnerJoin, values, "w", Condition::all())
            .to_owned();
    }
    lateral_join(values, found)
}

/// Runs `found` for each row of `values` on PostgreSQL.
pub(super) fn lateral_join(values: SelectStatement, mut found: SelectStatement) -> SelectStatement {
    Query::select()
        .column(("found", Asterisk))
        .from_subquery(values, "w")
        .join_lateral(
            JoinType::InnerJoin,
            found.offset(0).to_owned(),
            "found",
            Condition::all(),
        )
        .to_owned()
}

/// Target columns of an insert, and what to do with existing rows.
pub(super) struct UpsertSpec<'a, C> {
    /// The columns, in the order of the values.
    pub(super) columns: &'a [C],
    /// The key columns, if rows may exist already.
    pub(super) key: &'a [C],
    /// The columns to overwrite in existing rows. If empty, existing rows stay unchanged.
    pub(super) update: &'a [C],
    /// A column outside of the key that MySQL assigns to itself to leave a row unchanged.
    pub(super) unchanged: C,
}

/// Inserts or updates rows in the given order.
pub(super) async fn upsert<E: EntityTrait>(
    transaction: &OpenTransaction,
    spec: &UpsertSpec<'_, E::Column>,
    rows: Vec<Vec<Value>>,
) -> Result<(), StoreError>
where
    E::Column: Copy,
{
    let backend = transaction.backend();
    if rows.is_empty() {
        return Ok(());
    }
    if backend == DbBackend::Postgres && rows.len() > 1 {
        transaction
            .execute_raw(insert_from_arrays::<E>(spec, rows))
            .await?;
        return Ok(());
    }
    let limits_statement_texts = backend == DbBackend::MySql;
    // Padding repeats a row; writing the same row twice changes nothing.
    let rows = if limits_statement_texts && !spec.key.is_empty() {
        pad_to_power_of_two(rows)
    } else {
        rows
    };
    let mut rows = rows.into_iter();
    while rows.len() > 0 {
        let most = rows.len().min(ROWS_PER_STATEMENT);
        let count = if limits_statement_texts {
            1 << most.ilog2()
        } else {
            most
        };
        let mut insert = Query::insert()
            .into_table(E::default())
            .columns(spec.columns.iter().copied())
            .to_owned();
        for row in rows.by_ref().take(count) {
            insert.values_panic(row.into_iter().map(Into::into));
        }
        transaction.execute(on_conflict(&mut insert, spec)).await?;
    }
    Ok(())
}

fn on_conflict<'a, C: IntoIden + Copy>(
    insert: &'a mut InsertStatement,
    spec: &UpsertSpec<'_, C>,
) -> &'a InsertStatement {
    if !spec.key.is_empty() {
        let mut conflict = OnConflict::columns(spec.key.iter().copied());
        if spec.update.is_empty() {
            conflict.do_nothing_on([spec.unchanged]);
        } else {
            conflict.update_columns(spec.update.iter().copied());
        }
        insert.on_conflict(conflict);
    }
    insert
}

/// Builds `INSERT INTO … SELECT * FROM unnest($1::bigint[], …)`. Rows are inserted in the order of
/// the arrays.
fn insert_from_arrays<E: EntityTrait>(
    spec: &UpsertSpec<'_, E::Column>,
    rows: Vec<Vec<Value>>,
) -> Statement {
    let names = |columns: &[E::Column], of: &dyn Fn(&str) -> String| {
        columns
            .iter()
            .map(|column| of(IdenStatic::as_str(column)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let count = rows.len();
    let mut columns: Vec<Vec<Value>> = spec
        .columns
        .iter()
        .map(|_| Vec::with_capacity(count))
        .collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    let (arrays, places): (Vec<Value>, Vec<String>) = columns
        .into_iter()
        .enumerate()
        .map(|(at, column)| {
            let (array, name) = array_value(column);
            (array, format!("${}::{name}[]", at + 1))
        })
        .unzip();
    let mut sql = format!(
        "INSERT INTO \"{}\" ({}) SELECT * FROM unnest({})",
        E::default().table_name(),
        names(spec.columns, &|name| format!("\"{name}\"")),
        places.join(", ")
    );
    if !spec.key.is_empty() {
        sql += &format!(
            " ON CONFLICT ({})",
            names(spec.key, &|name| format!("\"{name}\""))
        );
        if spec.update.is_empty() {
            sql += " DO NOTHING";
        } else {
            sql += &format!(
                " DO UPDATE SET {}",
                names(spec.update, &|name| format!(
                    "\"{name}\" = \"excluded\".\"{name}\""
                ))
            );
        }
    }
    Statement::from_sql_and_values(DbBackend::Postgres, sql, arrays)
}

/// Returns the values as an array, and PostgreSQL's name of the element type. Covers the types of
/// our columns.
fn array_value(values: Vec<Value>) -> (Value, &'static str) {
    let (kind, name) = match values.first() {
        Some(Value::Bool(_)) => (ArrayType::Bool, "boolean"),
        Some(Value::SmallInt(_)) => (ArrayType::SmallInt, "smallint"),
        Some(Value::Bytes(_)) => (ArrayType::Bytes, "bytea"),
        Some(Value::String(_)) => (ArrayType::String, "text"),
        _ => (ArrayType::BigInt, "bigint"),
    };
    (Value::Array(kind, Some(Box::new(values))), name)
}
