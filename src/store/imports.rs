//! `import_progress`: how many lines of each recording have been imported, and how much of each
//! channel and user of a server.

use std::collections::HashMap;

use entity::import_progress::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};

use super::bulk::is_one_of;
use super::{ROWS_PER_STATEMENT, Store, StoreError};

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
        self.write_imported(vec![(recording.to_owned(), lines)])
            .await
    }

    /// Returns how many lines of each recording are committed. Those of which nothing is committed
    /// are missing.
    pub(crate) async fn list_imported_lines(
        &self,
        recordings: &[String],
    ) -> Result<HashMap<String, u64>, StoreError> {
        let mut found = HashMap::with_capacity(recordings.len());
        for recordings in recordings.chunks(ROWS_PER_STATEMENT) {
            let names = recordings.iter().map(String::as_str);
            let select = Query::select()
                .columns([Column::Recording, Column::Lines])
                .from(Entity)
                .and_where(is_one_of(self.backend(), Column::Recording, names))
                .to_owned();
            for row in self.query_all(&select).await? {
                let lines: i64 = row.try_get_by_index(1)?;
                let lines = u64::try_from(lines).unwrap_or_default();
                found.insert(row.try_get_by_index(0)?, lines);
            }
        }
        Ok(found)
    }

    /// Stores how many lines of each of these recordings are committed. A recording must not be
    /// named twice.
    pub(crate) async fn write_imported(
        &self,
        mut recordings: Vec<(String, u64)>,
    ) -> Result<(), StoreError> {
        // Several writers lock the rows in the same order.
        recordings.sort_unstable();
        for recordings in recordings.chunks(ROWS_PER_STATEMENT) {
            let mut upsert = Query::insert()
                .into_table(Entity)
                .columns([Column::Recording, Column::Lines])
                .to_owned();
            for (recording, lines) in recordings {
                let lines = i64::try_from(*lines).unwrap_or(i64::MAX);
                upsert.values_panic([recording.as_str().into(), lines.into()]);
            }
            let conflict = OnConflict::column(Column::Recording)
                .update_column(Column::Lines)
                .to_owned();
            self.insert(upsert.on_conflict(conflict)).await?;
        }
        Ok(())
    }
}
