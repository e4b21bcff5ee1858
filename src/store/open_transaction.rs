//! A transaction with the permit of its connection.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    StatementBuilder,
};
use tokio::sync::OwnedSemaphorePermit;

use super::finish_on_drop::{finish_on_drop, spawn_with_timeout};

/// An open transaction. After a drop it is rolled back; only then can its connection be used again.
#[derive(Clone, Debug)]
pub(super) struct OpenTransaction(Arc<Transaction>);

#[derive(Debug)]
struct Transaction {
    backend: DbBackend,
    /// `None` after commit or rollback.
    tx: Option<DatabaseTransaction>,
    permit: Option<OwnedSemaphorePermit>,
    abandon_timeout: Duration,
}

impl Transaction {
    fn tx(&self) -> Result<&DatabaseTransaction, DbErr> {
        self.tx
            .as_ref()
            .ok_or_else(|| DbErr::Custom("the transaction has ended".to_owned()))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(tx) = self.tx.take() else { return };
        let permit = self.permit.take();
        spawn_with_timeout(self.abandon_timeout, async move {
            // After a failed rollback the pool closes the connection.
            if let Err(error) = tx.rollback().await {
                tracing::debug!(error = %error, "cannot roll back a transaction: closing its connection");
            }
            drop(permit);
        });
    }
}

impl OpenTransaction {
    pub(super) fn new(
        tx: DatabaseTransaction,
        permit: OwnedSemaphorePermit,
        abandon_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Transaction {
            backend: tx.get_database_backend(),
            tx: Some(tx),
            permit: Some(permit),
            abandon_timeout,
        }))
    }

    /// Runs the statement that follows BEGIN. The caller runs it to completion.
    pub(super) async fn execute_first(&self, sql: &str) -> Result<(), DbErr> {
        self.0.tx()?.execute_unprepared(sql).await?;
        Ok(())
    }

    pub(super) fn backend(&self) -> DbBackend {
        self.0.backend
    }

    pub(super) async fn query_all(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let (transaction, statement) = (Arc::clone(&self.0), statement.build(&self.0.backend));
        finish_on_drop(self.0.abandon_timeout, async move {
            transaction.tx()?.query_all_raw(statement).await
        })
        .await
    }

    pub(super) async fn query_one(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all(statement).await?.into_iter().next())
    }

    pub(super) async fn execute(
        &self,
        statement: &impl StatementBuilder,
    ) -> Result<ExecResult, DbErr> {
        self.execute_raw(statement.build(&self.0.backend)).await
    }

    pub(super) async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let transaction = Arc::clone(&self.0);
        finish_on_drop(self.0.abandon_timeout, async move {
            transaction.tx()?.execute_raw(statement).await
        })
        .await
    }

    pub(super) async fn execute_unprepared(&self, sql: &'static str) -> Result<ExecResult, DbErr> {
        let transaction = Arc::clone(&self.0);
        finish_on_drop(self.0.abandon_timeout, async move {
            transaction.tx()?.execute_unprepared(sql).await
        })
        .await
    }

    /// Commits. This is the only handle: statements run one after the other.
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        let abandon_timeout = self.0.abandon_timeout;
        let (tx, permit) = self.into_inner()?;
        let work = async move {
            let result = tx.commit().await;
            drop(permit);
            result
        };
        finish_on_drop(abandon_timeout, work).await
    }

    /// Returns the library's transaction, for work before the server accepts requests.
    pub(super) fn into_inner(
        self,
    ) -> Result<(DatabaseTransaction, Option<OwnedSemaphorePermit>), DbErr> {
        let transaction = Arc::into_inner(self.0);
        let taken = transaction
            .and_then(|mut transaction| Some((transaction.tx.take()?, transaction.permit.take())));
        taken.ok_or_else(|| {
            DbErr::Custom("a statement of the transaction is still running".to_owned())
        })
    }
}
