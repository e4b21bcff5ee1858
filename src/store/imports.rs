//! `import_progress`: how many lines of each recording have been imported.

use entity::import_progress::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};

use super::{Store, StoreError};

impl Store {
    /// Returns how many lines of a recording are committed.
    pub(crate) async fn count_imported_lines(&self, recording: &str) -> Result<u64, StoreError> {
        let select = Query::select()
            .column(Column::Lines)
            .from(Entity)
            .and_where(Expr::col(Column::Recording).eq(recording))
            .to_owned();
        let lines = self
            .query_one(&select)
            .await?
            .map(|row| row.try_get_by_index::<i64>(0))
            .transpose()?;
        Ok(lines.map_or(0, |lines| u64::try_from(lines).unwrap_or_default()))
    }

    /// Stores how many lines are committed. Lines that are not counted are imported again, which
    /// changes nothing.
    pub(crate) async fn write_imported_lines(
        &self,
        recording: &str,
        lines: u64,
    ) -> Result<(), StoreError> {
        let lines = i64::try_from(lines).unwrap_or(i64::MAX);
        let mut upsert = Query::insert()
            .into_table(Entity)
            .columns([Column::Recording, Column::Lines])
            .to_owned();
        upsert.values_panic([recording.into(), lines.into()]);
        let conflict = OnConflict::column(Column::Recording)
            .update_column(Column::Lines)
            .to_owned();
        self.insert(upsert.on_conflict(conflict)).await
    }
}
