//! Many rows in one statement, written or named.
//!
//! PostgreSQL takes a column as an array, so that the statement has one text, and one plan, for any
//! number of rows. For the others every row has its place in the statement, and every number of
//! rows its text. MySQL and MariaDB keep few texts prepared, and to give one up is slow: there the
//! numbers are powers of two.

use sea_orm::sea_query::extension::postgres::PgFunc;
use sea_orm::sea_query::{
    Alias, ArrayType, Asterisk, Condition, Expr, ExprTrait, Func, InsertStatement, IntoColumnRef,
    IntoIden, JoinType, OnConflict, Query, SelectStatement, TableRef, UnionType, Value, ValueTuple,
};
use sea_orm::{DbBackend, EntityTrait, IdenStatic, Statement};

use super::pool::Open;
use super::{ROWS_PER_STATEMENT, StoreError};

/// The same list for the database, as long as the next power of two: the last one is in it several
/// times.
pub(super) fn padded<T: Clone>(mut list: Vec<T>) -> Vec<T> {
    if let Some(last) = list.last().cloned() {
        list.resize(list.len().next_power_of_two(), last);
    }
    list
}

/// The column has one of these values.
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
        return column.eq(PgFunc::any(Expr::val(array(values).0)));
    }
    column.is_in(padded(values))
}

/// The named columns side by side, as rows. All but PostgreSQL get rows of nulls, which are equal
/// to nothing, up to the next power of two.
pub(super) fn listed<const N: usize>(
    backend: DbBackend,
    columns: [(&'static str, Vec<Value>); N],
) -> SelectStatement {
    if backend == DbBackend::Postgres {
        return columns
            .into_iter()
            .fold(Query::select(), |mut select, (name, values)| {
                select
                    .expr_as(Func::cust("unnest").arg(Expr::val(array(values).0)), name)
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
            select.expr_as(typed(value), name).to_owned()
        })
    });
    let mut first = selects.next().unwrap_or_else(Query::select);
    first
        .unions(selects.map(|select| (UnionType::All, select)))
        .to_owned()
}

/// A value of a list of MySQL's and MariaDB's, who would take a number without a type for a text.
fn typed(value: Value) -> Expr {
    match value {
        Value::String(_) => Expr::val(value),
        number => Expr::val(number).cast_as("SIGNED"),
    }
}

/// What `found` finds for each of these rows, whose named columns it knows as those of "w".
///
/// PostgreSQL would rather read all conversations of a user, say, than look up a few of them;
/// behind an OFFSET it looks up each. The planners of MySQL and MariaDB take their time over long
/// lists of alternatives (MariaDB 10.11: 15 ms for 512 pairs of keys, 2 ms for the same in a list
/// that is joined).
pub(super) fn for_each<const N: usize>(
    backend: DbBackend,
    wanted: [(&'static str, Vec<Value>); N],
    mut found: SelectStatement,
) -> SelectStatement {
    let wanted = listed(backend, wanted);
    if backend != DbBackend::Postgres {
        return found
            .join_subquery(JoinType::InnerJoin, wanted, "w", Condition::all())
            .to_owned();
    }
    lateral(wanted, found)
}

/// What `found` finds for each row of `wanted`, on PostgreSQL.
pub(super) fn lateral(wanted: SelectStatement, mut found: SelectStatement) -> SelectStatement {
    Query::select()
        .column(("found", Asterisk))
        .from_subquery(wanted, "w")
        .join_lateral(
            JoinType::InnerJoin,
            found.offset(0).to_owned(),
            "found",
            Condition::all(),
        )
        .to_owned()
}

/// Where rows go, and what becomes of those that are there already.
pub(super) struct Target<'a, C> {
    /// The columns, in the order of the values.
    pub(super) columns: &'a [C],
    /// The key, when rows may be there already.
    pub(super) key: &'a [C],
    /// The columns that are overwritten in rows that exist; none: such rows stay as they are.
    pub(super) update: &'a [C],
    /// A column outside of the key, to say on MySQL that a row stays as it is.
    pub(super) unchanged: C,
}

/// Writes rows in the order given.
pub(super) async fn write<E: EntityTrait>(
    open: &Open,
    target: &Target<'_, E::Column>,
    rows: Vec<Vec<Value>>,
) -> Result<(), StoreError>
where
    E::Column: Copy,
{
    let backend = open.backend();
    if rows.is_empty() {
        return Ok(());
    }
    if backend == DbBackend::Postgres && rows.len() > 1 {
        open.execute_raw(as_arrays::<E>(target, rows)).await?;
        return Ok(());
    }
    let is_few = backend == DbBackend::MySql;
    // To write a row over with itself changes nothing.
    let rows = if is_few && !target.key.is_empty() {
        padded(rows)
    } else {
        rows
    };
    let mut rows = rows.into_iter();
    while rows.len() > 0 {
        let most = rows.len().min(ROWS_PER_STATEMENT);
        let count = if is_few { 1 << most.ilog2() } else { most };
        let mut insert = Query::insert()
            .into_table(E::default())
            .columns(target.columns.iter().copied())
            .to_owned();
        for row in rows.by_ref().take(count) {
            insert.values_panic(row.into_iter().map(Into::into));
        }
        open.execute(on_conflict(&mut insert, target)).await?;
    }
    Ok(())
}

fn on_conflict<'a, C: IntoIden + Copy>(
    insert: &'a mut InsertStatement,
    target: &Target<'_, C>,
) -> &'a InsertStatement {
    if !target.key.is_empty() {
        let mut conflict = OnConflict::columns(target.key.iter().copied());
        if target.update.is_empty() {
            conflict.do_nothing_on([target.unchanged]);
        } else {
            conflict.update_columns(target.update.iter().copied());
        }
        insert.on_conflict(conflict);
    }
    insert
}

/// `INSERT INTO … SELECT * FROM unnest($1::bigint[], …)`: the rows come in the order of the arrays.
fn as_arrays<E: EntityTrait>(target: &Target<'_, E::Column>, rows: Vec<Vec<Value>>) -> Statement {
    let names = |columns: &[E::Column], of: &dyn Fn(&str) -> String| {
        columns
            .iter()
            .map(|column| of(IdenStatic::as_str(column)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let count = rows.len();
    let mut columns: Vec<Vec<Value>> = target
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
            let (array, name) = array(column);
            (array, format!("${}::{name}[]", at + 1))
        })
        .unzip();
    let mut sql = format!(
        "INSERT INTO \"{}\" ({}) SELECT * FROM unnest({})",
        E::default().table_name(),
        names(target.columns, &|name| format!("\"{name}\"")),
        places.join(", ")
    );
    if !target.key.is_empty() {
        sql += &format!(
            " ON CONFLICT ({})",
            names(target.key, &|name| format!("\"{name}\""))
        );
        if target.update.is_empty() {
            sql += " DO NOTHING";
        } else {
            sql += &format!(
                " DO UPDATE SET {}",
                names(target.update, &|name| format!(
                    "\"{name}\" = \"excluded\".\"{name}\""
                ))
            );
        }
    }
    Statement::from_sql_and_values(DbBackend::Postgres, sql, arrays)
}

/// An array of the kinds of values that our columns hold, and what PostgreSQL calls its elements.
fn array(values: Vec<Value>) -> (Value, &'static str) {
    let (kind, name) = match values.first() {
        Some(Value::Bool(_)) => (ArrayType::Bool, "boolean"),
        Some(Value::SmallInt(_)) => (ArrayType::SmallInt, "smallint"),
        Some(Value::Bytes(_)) => (ArrayType::Bytes, "bytea"),
        Some(Value::String(_)) => (ArrayType::String, "text"),
        _ => (ArrayType::BigInt, "bigint"),
    };
    (Value::Array(kind, Some(Box::new(values))), name)
}
