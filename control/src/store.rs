//! One `SQLite` database per fleet: documents by kind and id, and the audit log. Every change is one transaction with the audit
//! entries that speak of it: no acceptance without audit.

use crate::error::StoreError;
use redan_protocol::audit::AuditEntry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::path::Path;
use std::time::Duration;

/// Longest wait for another process's lock, such as a backup's; then the request is refused and nobody waits behind it.
const LOCKED_FOR: Duration = Duration::from_secs(2);

/// A fleet's database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

/// One document to write.
#[derive(Clone, Debug)]
pub struct Put {
    kind: &'static str,
    id: String,
    body: Vec<u8>,
}

impl Put {
    /// A document as JSON.
    pub fn json(
        kind: &'static str,
        id: impl Into<String>,
        value: &impl Serialize,
    ) -> Result<Self, StoreError> {
        let id = id.into();
        let body = serde_json::to_vec(value).map_err(|_| StoreError::Document { kind, id: id.clone() })?;
        Ok(Self { kind, id, body })
    }

    /// A document as bytes.
    pub fn bytes(kind: &'static str, id: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            kind,
            id: id.into(),
            body,
        }
    }
}

impl Store {
    /// Opens or makes the database.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(LOCKED_FOR)
            .synchronous(SqliteSynchronous::Full);
        // One writer: the fleet's own lock orders writes anyway.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        for statement in [
            "CREATE TABLE IF NOT EXISTS documents (kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS audit (entry INTEGER PRIMARY KEY, body BLOB NOT NULL)",
        ] {
            sqlx::query(statement).execute(&pool).await?;
        }
        Ok(Self { pool })
    }

    /// Writes documents and audit entries, all or none.
    pub async fn commit(&self, puts: &[Put], entries: &[AuditEntry]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for put in puts {
            sqlx::query("INSERT OR REPLACE INTO documents (kind, id, body) VALUES (?, ?, ?)")
                .bind(put.kind)
                .bind(&put.id)
                .bind(&put.body)
                .execute(&mut *transaction)
                .await?;
        }
        for entry in entries {
            let body = serde_json::to_vec(entry).map_err(|_| StoreError::Document {
                kind: "audit",
                id: entry.index.to_string(),
            })?;
            sqlx::query("INSERT INTO audit (entry, body) VALUES (?, ?)")
                .bind(i64::try_from(entry.index).unwrap_or(i64::MAX))
                .bind(body)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// All documents of a kind, by id.
    pub async fn all_bytes(&self, kind: &'static str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let rows = sqlx::query("SELECT id, body FROM documents WHERE kind = ? ORDER BY id")
            .bind(kind)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("id")?, row.try_get("body")?)))
            .collect()
    }

    /// All documents of a kind, as JSON.
    pub async fn all<T: DeserializeOwned>(&self, kind: &'static str) -> Result<Vec<(String, T)>, StoreError> {
        let documents = self.all_bytes(kind).await?;
        documents
            .into_iter()
            .map(|(id, body)| match serde_json::from_slice(&body) {
                Ok(value) => Ok((id, value)),
                Err(_) => Err(StoreError::Document { kind, id }),
            })
            .collect()
    }

    /// One document as JSON; `None`: there is none.
    pub async fn document<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        id: &str,
    ) -> Result<Option<T>, StoreError> {
        let row = sqlx::query("SELECT body FROM documents WHERE kind = ? AND id = ?")
            .bind(kind)
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            let body: Vec<u8> = row.try_get("body")?;
            let id = id.to_owned();
            serde_json::from_slice(&body).map_err(|_| StoreError::Document { kind, id })
        })
        .transpose()
    }

    /// The audit log, from an index on, at most so many entries.
    pub async fn audit(&self, from: u64, most: u64) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query("SELECT body FROM audit WHERE entry >= ? ORDER BY entry LIMIT ?")
            .bind(i64::try_from(from).unwrap_or(i64::MAX))
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        let read = |body: Vec<u8>| {
            serde_json::from_slice(&body).map_err(|_| StoreError::Document {
                kind: "audit",
                id: String::new(),
            })
        };
        rows.iter().map(|row| read(row.try_get("body")?)).collect()
    }

    /// The newest audit entry.
    pub async fn last_audit(&self) -> Result<Option<AuditEntry>, StoreError> {
        let row = sqlx::query("SELECT body FROM audit ORDER BY entry DESC LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            let body: Vec<u8> = row.try_get("body")?;
            serde_json::from_slice(&body).map_err(|_| StoreError::Document {
                kind: "audit",
                id: String::new(),
            })
        })
        .transpose()
    }
}
