//! The database file: blobs by digest, checkpoints by number.
//!
//! The tables are flux-core's, so that either can take over the other's file:
//!
//! ```text
//! objects(hash, size, object, epoch)   hash: raw digest, stored as TEXT
//!                                      size: -1, or the size before LZ4 block compression
//!                                      epoch: number of the last checkpoint when last stored
//! checkpt_v2(id, value)                value: JSON of a checkpoint; the highest id is newest
//! ```

use bytes::Bytes;
use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::json;
use flux_protocol::rpc::content::Checkpoint;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::aside;
use super::error::StoreError;
use super::open::place;
use super::options::{Begin, Options};

/// Blobs of this size and up are compressed.
const COMPRESS_FROM: usize = 256;
/// LZ4 can't do better, so a larger claim is damage and nothing is allocated for it.
const LZ4_MAX_RATIO: usize = 255;

/// The open database. All calls block.
#[derive(Debug)]
pub struct Database {
    pub(super) db: Connection,
    pub(super) options: Options,
    pub(super) epoch: i64,
    pub(super) objects: i64,
    /// Device and inode.
    pub(super) file: (u64, u64),
}

/// A digest as flux-core binds it: text that is no text.
pub(super) struct Digest<'a>(pub(super) &'a Blobref);

impl ToSql for Digest<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0.digest())))
    }
}

impl Database {
    pub(super) fn hash(&self) -> HashType {
        self.options.hash
    }

    pub(super) fn sqlite(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.options.path.clone(), error }
    }

    fn bad_checkpoint(&self, error: &dyn std::error::Error) -> StoreError {
        StoreError::BadCheckpoint { path: self.options.path.clone(), reason: error.to_string() }
    }

    /// The blob, checked against its digest.
    pub(super) fn load(&self, blobref: &Blobref) -> Result<Bytes, StoreError> {
        let row: Option<(i64, Value)> = self
            .db
            .prepare_cached("SELECT size, object FROM objects WHERE hash = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([Digest(blobref)], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()
            })
            .map_err(|error| self.sqlite(error))?;
        let (size, object) = row.ok_or(StoreError::Unknown)?;
        let object = match object {
            Value::Blob(object) => object,
            Value::Null => Vec::new(),
            _ => return Err(StoreError::Damaged(*blobref, "not a blob".into())),
        };
        let data = if size == -1 { object } else { decompress(blobref, &object, size)? };
        if !blobref.matches(&data) {
            let reason = "its content does not match its digest".into();
            return Err(StoreError::Damaged(*blobref, reason));
        }
        Ok(data.into())
    }

    /// Store blobs in one transaction: all or none. What is there already gets a new epoch.
    ///
    /// They are safe from the death of the process when this returns, and from that of the machine
    /// after the next checkpoint.
    pub(super) fn store(&mut self, blobs: &[&Bytes]) -> Result<Vec<Blobref>, StoreError> {
        let (hash, epoch) = (self.hash(), self.epoch);
        let mut refs = Vec::with_capacity(blobs.len());
        let added = self.transaction(|db| {
            let before: i64 = count_inserts(db)?;
            let mut statement = db.prepare_cached(
                "INSERT INTO objects (hash, size, object, epoch) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT(hash) DO UPDATE SET epoch = excluded.epoch",
            )?;
            for blob in blobs {
                let blobref = hash.hash(blob);
                if blob.len() < COMPRESS_FROM {
                    statement.execute(params![Digest(&blobref), -1, &blob[..], epoch])?;
                } else {
                    let object = lz4_flex::block::compress(blob);
                    let size = i64::try_from(blob.len()).unwrap_or(i64::MAX);
                    statement.execute(params![Digest(&blobref), size, object, epoch])?;
                }
                refs.push(blobref);
            }
            Ok(count_inserts(db)? - before)
        })?;
        self.objects += added;
        Ok(refs)
    }

    pub(super) fn validate(&self, blobref: &Blobref) -> Result<(), StoreError> {
        let found: bool = self
            .db
            .prepare_cached("SELECT EXISTS(SELECT 1 FROM objects WHERE hash = ?1)")
            .and_then(|mut statement| statement.query_row([Digest(blobref)], |row| row.get(0)))
            .map_err(|error| self.sqlite(error))?;
        if found { Ok(()) } else { Err(StoreError::Unknown) }
    }

    /// Checkpoints with their numbers, newest first.
    pub(super) fn checkpoints(&self) -> Result<Vec<(i64, Checkpoint)>, StoreError> {
        let rows: Vec<(i64, String)> = self
            .db
            .prepare_cached("SELECT id, value FROM checkpt_v2 ORDER BY id DESC")
            .and_then(|mut statement| {
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(|error| self.sqlite(error))?;
        rows.into_iter()
            .map(|(id, value)| match serde_json::from_str(&value) {
                Ok(checkpoint) => Ok((id, checkpoint)),
                Err(error) => Err(self.bad_checkpoint(&error)),
            })
            .collect()
    }

    /// When this returns, the checkpoint and every blob that was stored before are on the disk.
    pub(super) fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        // A file that was removed takes what is written, and gives it to nobody.
        let path = &self.options.path;
        if self.options.is_kept && place(path).ok() != Some(self.file) {
            return Err(StoreError::Gone { path: path.clone() });
        }
        let value = json::to_string(checkpoint).map_err(|error| self.bad_checkpoint(&error))?;
        let max = self.options.max_checkpoints;
        // In WAL mode NORMAL leaves the log unsynced until it is copied back. The sync of this
        // transaction takes all earlier ones with it.
        let raise = self.options.synchronous == "NORMAL";
        if raise {
            self.set_synchronous("FULL")?;
        }
        let result = self.transaction(|db| {
            db.prepare_cached("INSERT INTO checkpt_v2 (value) VALUES (?1)")?.execute([value])?;
            let id = db.last_insert_rowid();
            db.prepare_cached(
                "DELETE FROM checkpt_v2 WHERE id IN \
                 (SELECT id FROM checkpt_v2 ORDER BY id DESC LIMIT -1 OFFSET ?1)",
            )?
            .execute([max])?;
            Ok(id)
        });
        if raise {
            self.set_synchronous("NORMAL")?;
        }
        self.epoch = result?;
        if self.options.begin == Begin::Restored {
            // The checkpoint is what a restore ends with.
            aside::forget(&self.options.path)
                .map_err(|error| StoreError::File { path: self.options.path.clone(), error })?;
            self.options.begin = Begin::AsItIs;
        }
        Ok(())
    }

    fn set_synchronous(&self, level: &str) -> Result<(), StoreError> {
        self.db.pragma_update(None, "synchronous", level).map_err(|error| self.sqlite(error))
    }

    /// Run `work` in a transaction that is undone when it fails.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let run = |db: &mut Connection| {
            let transaction = db.transaction()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run(&mut self.db).map_err(|error| self.sqlite(error))
    }
}

/// Rows of `objects`, cheaply: rowids are given out in order, and only the sweep takes some away.
fn count_inserts(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT IFNULL(MAX(rowid), 0) FROM objects")?.query_row([], |row| row.get(0))
}

fn decompress(blobref: &Blobref, object: &[u8], size: i64) -> Result<Vec<u8>, StoreError> {
    let damaged = |reason: String| StoreError::Damaged(*blobref, reason);
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size <= object.len().saturating_mul(LZ4_MAX_RATIO))
        .ok_or_else(|| damaged(format!("impossible size {size}")))?;
    let data = lz4_flex::block::decompress(object, size).map_err(|e| damaged(e.to_string()))?;
    if data.len() == size { Ok(data) } else { Err(damaged("size mismatch".into())) }
}
