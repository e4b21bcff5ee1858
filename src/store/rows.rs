//! Many rows in one statement, written or named.
//!
//! PostgreSQL takes a column as an array, so that the statement has one text, and one plan, for any number of rows. For the others
//! every row has its place in the statement, and every number of rows its text. MySQL and MariaDB keep few texts prepared, and to give
//! one up is slow: there the numbers are powers of two.

use sea_orm::sea_query::extension::postgres::PgFunc;
use sea_orm::sea_query::{
    ArrayType, Condition, Expr, ExprTrait, Func, InsertStatement, IntoColumnRef, JoinType, OnConflict, Query, SelectStatement,
    Value,
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, IdenStatic, Statement};

use super::{ROWS_PER_STATEMENT, StoreError};

/// The same list for the database, as long as the next power of two: the last one is in it several times.
pub(super) fn padded<T: Clone>(mut list: Vec<T>) -> Vec<T> {
    if let Some(last) = list.last().cloned() {
        list.resize(list.len().next_power_of_two(), last);
    }
    list
}

/// The column has one of these values.
pub(super) fn is_one_of<V>(backend: DbBackend, column: impl IntoColumnRef, values: impl IntoIterator<Item = V>) -> Expr
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

/// For PostgreSQL: the named columns side by side as rows.
pub(super) fn listed<const N: usize>(columns: [(&'static str, Vec<Value>); N]) -> SelectStatement {
    columns.into_iter().fold(Query::select(), |mut select, (name, values)| {
        select.expr_as(Func::cust("unnest").arg(Expr::val(array(values).0)), name).to_owned()
    })
}

/// For PostgreSQL: the [`listed`] rows as "w", and for each of them what `found` finds, as "found". PostgreSQL would rather read all
/// conversations of a user, say, than look up a few of them; behind an OFFSET it looks up each.
pub(super) fn for_each<const N: usize>(wanted: [(&'static str, Vec<Value>); N], mut found: SelectStatement) -> SelectStatement {
    let found = found.offset(0).to_owned();
    Query::select()
        .from_subquery(listed(wanted), "w")
        .join_lateral(JoinType::InnerJoin, found, "found", Condition::all())
        .to_owned()
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

/// Rows of one table, to be written in the order given.
pub(super) struct Rows {
    table: &'static str,
    columns: Vec<&'static str>,
    key: Vec<&'static str>,
    update: Vec<&'static str>,
    values: Vec<Vec<Value>>,
}

impl Rows {
    pub(super) fn of<E: EntityTrait>(target: &Target<'_, E::Column>, values: Vec<Vec<Value>>) -> Self {
        let names = |columns: &[E::Column]| columns.iter().map(IdenStatic::as_str).collect();
        Self {
            table: E::default().as_str(),
            columns: names(target.columns),
            key: names(target.key),
            update: names(target.update),
            values,
        }
    }

    /// A statement with so many of the rows.
    fn insert(&self, rows: impl IntoIterator<Item = Vec<Value>>) -> InsertStatement {
        let mut insert = Query::insert().into_table(self.table).columns(self.columns.iter().copied()).to_owned();
        for row in rows {
            insert.values_panic(row.into_iter().map(Into::into));
        }
        if !self.key.is_empty() {
            let conflict = OnConflict::columns(self.key.iter().copied()).update_columns(self.update.iter().copied()).to_owned();
            insert.on_conflict(conflict);
        }
        insert
    }

    /// `INSERT INTO … SELECT * FROM unnest($1::bigint[], …)`: the rows come in the order of the arrays, which are put behind `given`.
    fn into_arrays(self, given: &mut Vec<Value>) -> String {
        let names = |columns: &[&str]| columns.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let mut columns: Vec<Vec<Value>> = self.columns.iter().map(|_| Vec::with_capacity(self.values.len())).collect();
        for row in self.values {
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
        }
        let places: Vec<String> = columns
            .into_iter()
            .map(|column| {
                let (array, name) = array(column);
                given.push(array);
                format!("${}::{name}[]", given.len())
            })
            .collect();
        let (table, columns, places) = (self.table, names(&self.columns), places.join(", "));
        let mut sql = format!("INSERT INTO \"{table}\" ({columns}) SELECT * FROM unnest({places})");
        if !self.key.is_empty() {
            let update: Vec<String> = self.update.iter().map(|name| format!("\"{name}\" = \"excluded\".\"{name}\"")).collect();
            sql += &format!(" ON CONFLICT ({}) DO UPDATE SET {}", names(&self.key), update.join(", "));
        }
        sql
    }
}

/// Writes the rows of tables: PostgreSQL all of them in one statement.
pub(super) async fn write<const N: usize>(open: &DatabaseTransaction, tables: [Rows; N]) -> Result<(), StoreError> {
    let backend = open.get_database_backend();
    let mut tables = tables.into_iter().filter(|rows| !rows.values.is_empty()).collect::<Vec<_>>();
    if backend == DbBackend::Postgres && tables.iter().map(|rows| rows.values.len()).sum::<usize>() > 1 {
        let mut given = Vec::new();
        let last = tables.pop().map(|rows| rows.into_arrays(&mut given)).unwrap_or_default();
        let before = tables.into_iter().enumerate();
        let before: Vec<String> =
            before.map(|(at, rows)| format!("\"rows_{at}\" AS ({})", rows.into_arrays(&mut given))).collect();
        let sql = if before.is_empty() { last } else { format!("WITH {} {last}", before.join(", ")) };
        open.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, given)).await?;
        return Ok(());
    }
    let is_few = backend == DbBackend::MySql;
    for mut rows in tables {
        let values = std::mem::take(&mut rows.values);
        // To write a row over with itself changes nothing.
        let values = if is_few && !rows.key.is_empty() { padded(values) } else { values };
        let mut values = values.into_iter();
        while values.len() > 0 {
            let most = values.len().min(ROWS_PER_STATEMENT);
            let count = if is_few { 1 << most.ilog2() } else { most };
            open.execute(&rows.insert(values.by_ref().take(count))).await?;
        }
    }
    Ok(())
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
