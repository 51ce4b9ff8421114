//! Online garbage collection: mark what is reachable with an epoch, sweep what is older.
//!
//! Both are bounded, so that no call keeps the database for more than about 0.1 s.

use flux_protocol::blobref::Blobref;
use flux_protocol::rpc::content_backing::{GcInfoResponse, SweepRequest, SweepResponse};
use rusqlite::params;

use super::database::{Database, Digest};
use super::error::StoreError;

const MARK_MAX: usize = 16384;
const SWEEP_DELETE_MAX: i64 = 8192;
const SWEEP_WINDOW_MAX: i64 = 1 << 19;

impl Database {
    /// `high_water` is the rowid that the last blob stored has: a sweep that stops there does not
    /// chase those stored while it runs.
    pub(super) fn gc_info(
        &self,
        epoch: i64,
        get_count: bool,
    ) -> Result<GcInfoResponse, StoreError> {
        let number = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<i64, StoreError> {
            self.db.query_row(sql, params, |row| row.get(0)).map_err(|error| self.sqlite(error))
        };
        let high_water = number("SELECT IFNULL(MAX(rowid), 0) FROM objects", &[])?;
        let candidates = if get_count {
            Some(number("SELECT COUNT(*) FROM objects WHERE epoch < ?1", &[&epoch])?)
        } else {
            None
        };
        Ok(GcInfoResponse { current_epoch: self.epoch, high_water, candidates })
    }

    /// Raise blobs to an epoch; those that are not there are passed over.
    pub(super) fn mark(&mut self, epoch: i64, blobrefs: &[Blobref]) -> Result<u64, StoreError> {
        if blobrefs.len() > MARK_MAX {
            return Err(StoreError::Invalid(format!(
                "mark request of {} hashes exceeds limit of {MARK_MAX}",
                blobrefs.len()
            )));
        }
        self.transaction(|db| {
            let mut statement =
                db.prepare_cached("UPDATE objects SET epoch = MAX(epoch, ?1) WHERE hash = ?2")?;
            let mut marked = 0;
            for blobref in blobrefs {
                marked += statement.execute(params![epoch, Digest(blobref)])?;
            }
            Ok(marked as u64)
        })
    }

    /// Delete blobs older than the epoch between the cursor and the high water mark, as many as
    /// the bounds allow, and tell how far that went.
    pub(super) fn sweep(&mut self, request: &SweepRequest) -> Result<SweepResponse, StoreError> {
        let SweepRequest { epoch, cursor, high_water, delete_cap, window } = *request;
        if cursor < 0 || high_water < 0 || delete_cap <= 0 || window <= 0 {
            return Err(StoreError::Invalid("sweep bounds must be positive".into()));
        }
        let cap = delete_cap.min(SWEEP_DELETE_MAX);
        let until = cursor.saturating_add(window.min(SWEEP_WINDOW_MAX)).min(high_water);
        let (deleted, last) = self.transaction(|db| {
            let rowids: Vec<i64> = db
                .prepare_cached(
                    "SELECT rowid FROM objects WHERE epoch < ?1 AND rowid > ?2 AND rowid <= ?3 \
                     ORDER BY rowid LIMIT ?4",
                )?
                .query_map([epoch, cursor, until, cap], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut delete = db.prepare_cached("DELETE FROM objects WHERE rowid = ?1")?;
            for rowid in &rowids {
                delete.execute([rowid])?;
            }
            Ok((rowids.len() as i64, rowids.last().copied()))
        })?;
        self.objects -= deleted;
        // A full batch may have left some behind its last row.
        let cursor = if deleted == cap { last.unwrap_or(until) } else { until };
        Ok(SweepResponse { deleted, cursor })
    }
}
