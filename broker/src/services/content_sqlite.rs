//! `content-backing`: the blobs of rank 0's content cache, kept in an SQLite file.
//!
//! The file is `content.sqlite` in the state directory, or in the run directory when there is
//! none. Who stores a blob hears of it when a transaction with it has been committed, which the
//! death of the broker can't undo. A checkpoint is answered when it and all blobs before it have
//! been synced to the disk, which the death of the machine can't undo either.

mod aside;
mod database;
mod error;
mod gc;
mod open;
mod options;
mod wal;

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::content::Checkpoint;
use flux_protocol::rpc::content_backing::{GcInfoResponse, SweepRequest, SweepResponse};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

pub use self::database::Database;
use self::options::Options;
use super::backing::place::Place;
use super::backing::worker::Stats;
use super::backing::{Backing, Store, Trouble};
use crate::config::Config;
use crate::log::Severity;

pub type ContentSqlite = Backing<Database>;

impl Store for Database {
    const MODULE: &'static str = "content-sqlite";

    type Options = Options;

    fn options(place: Place, config: &Config, args: &[String]) -> Result<Options, Failure> {
        Options::new(place, config, args)
    }

    fn open(options: Options, notes: &mut Vec<(Severity, String)>) -> Result<Database, Trouble> {
        let database = Database::open(options, notes)?;
        let text = format!(
            "{} ({} objects) journal_mode={} synchronous={}",
            database.options.path.display(),
            database.objects,
            database.options.journal_mode,
            database.options.synchronous,
        );
        notes.push((Severity::Debug, text));
        Ok(database)
    }

    fn load(&mut self, blobref: &Blobref) -> Result<Bytes, Trouble> {
        Ok(Database::load(self, blobref)?)
    }

    fn store(&mut self, blobs: &[&Bytes]) -> Result<Vec<Blobref>, Trouble> {
        Ok(Database::store(self, blobs)?)
    }

    fn validate(&mut self, blobref: &Blobref) -> Result<(), Trouble> {
        Ok(Database::validate(self, blobref)?)
    }

    fn checkpoints(&mut self) -> Result<Vec<(i64, Checkpoint)>, Trouble> {
        Ok(Database::checkpoints(self)?)
    }

    fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Trouble> {
        Ok(Database::put_checkpoint(self, checkpoint)?)
    }

    fn counts(&self) -> (i64, i64) {
        (self.objects, self.epoch)
    }

    fn describe(options: &Options, stats: &Stats) -> Value {
        let checkpoint = |(id, value): &(i64, Checkpoint)| json!({"id": id, "value": value});
        json!({
            "object_count": stats.objects,
            "current_epoch": stats.epoch,
            "dbfile_size": std::fs::metadata(&options.path).map_or(0, |file| file.len()),
            "dbfile_free": statvfs(&options.path)
                .map_or(0, |fs| fs.block_size() * fs.blocks_available()),
            "load_time": stats.load_time.to_json(),
            "store_time": stats.store_time.to_json(),
            "config": {
                "journal_mode": options.journal_mode,
                "synchronous": options.synchronous,
            },
            "checkpoints": stats.checkpoints.iter().map(checkpoint).collect::<Vec<_>>(),
        })
    }

    fn gc_info(&mut self, epoch: i64, get_count: bool) -> Result<GcInfoResponse, Trouble> {
        Ok(Database::gc_info(self, epoch, get_count)?)
    }

    fn mark(&mut self, epoch: i64, blobrefs: &[Blobref]) -> Result<u64, Trouble> {
        Ok(Database::mark(self, epoch, blobrefs)?)
    }

    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepResponse, Trouble> {
        Ok(Database::sweep(self, request)?)
    }
}
