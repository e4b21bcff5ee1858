//! Queries outside of transactions, and inside of them.

use std::future::Future;

use sea_orm::sea_query::SelectStatement;
use sea_orm::{DbBackend, QueryResult, StatementBuilder};

use super::transaction::should_retry;
use super::{Store, StoreError, Tx};

impl Store {
    /// Reads outside of a caller's transaction: one statement, one snapshot. If the connection
    /// breaks, another connection runs the statement.
    pub(super) async fn query_all(
        &self,
        statement: &SelectStatement,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let (mut attempt, mut broken) = (0, 0);
        loop {
            match self.read_once(statement).await {
                Err(StoreError::ConnectionLost(_)) if broken < self.connections => broken += 1,
                Err(error) if should_retry(&error, &mut attempt).await => {}
                Err(error @ StoreError::Damaged(_)) => {
                    self.health.record_damage(&error);
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    async fn read_once(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        if self.preamble.is_none() {
            return self
                .read
                .query_all(StatementBuilder::build(statement, &self.backend()))
                .await;
        }
        let tx = self.begin_once().await?;
        let rows = tx.inner.query_all(statement).await?;
        tx.commit(rows).await
    }

    /// Returns the first row, if any.
    pub(super) async fn query_one(
        &self,
        statement: &SelectStatement,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(self.query_all(statement).await?.into_iter().next())
    }
}

/// Runs queries outside of a transaction (`Store`) or inside of one (`Tx`).
pub(crate) trait RunQuery: Sync {
    fn backend(&self) -> DbBackend;
    fn run_query(
        &self,
        statement: &SelectStatement,
    ) -> impl Future<Output = Result<Vec<QueryResult>, StoreError>> + Send;
}

impl RunQuery for Store {
    fn backend(&self) -> DbBackend {
        self.backend()
    }

    async fn run_query(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        self.query_all(statement).await
    }
}

impl RunQuery for Tx {
    fn backend(&self) -> DbBackend {
        self.backend()
    }

    async fn run_query(&self, statement: &SelectStatement) -> Result<Vec<QueryResult>, StoreError> {
        Ok(self.inner.query_all(statement).await?)
    }
}
