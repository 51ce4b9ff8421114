//! `content-backing`: the blobs of rank 0's content cache, a file each.
//!
//! For those who would rather look after files than after a database: `content.backing-module` of
//! `content-files` chooses it. There is one checkpoint, and no garbage collection.

mod files;

use bytes::Bytes;
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::content::Checkpoint;
use serde_json::{Value, json};

use self::files::Begin;
pub use self::files::Files;
use super::backing::place::Place;
use super::backing::worker::Stats;
use super::backing::{Backing, Store, Trouble};
use crate::config::Config;
use crate::log::Severity;

pub type ContentFiles = Backing<Files>;

#[derive(Debug, Clone)]
pub struct Options {
    place: Place,
    testing: bool,
    begin: Begin,
}

impl Store for Files {
    const MODULE: &'static str = "content-files";

    type Options = Options;

    fn options(place: Place, _: &Config, args: &[String]) -> Result<Options, Failure> {
        let mut options = Options { place, testing: false, begin: Begin::AsItIs };
        for arg in args {
            match arg.as_str() {
                "testing" => options.testing = true,
                "truncate" => options.begin = Begin::Empty,
                "restore" => options.begin = Begin::Restored,
                other => {
                    let text = format!("Unknown module option: {other}");
                    return Err(Failure::new(Errno::EINVAL, text));
                }
            }
        }
        Ok(options)
    }

    fn is_for_the_cache(options: &Options) -> bool {
        !options.testing
    }

    fn open(options: Options, notes: &mut Vec<(Severity, String)>) -> Result<Files, Trouble> {
        let files = Files::open(&options.place, options.begin, notes)?;
        notes.push((Severity::Debug, files.path().display().to_string()));
        Ok(files)
    }

    fn load(&mut self, blobref: &Blobref) -> Result<Bytes, Trouble> {
        Files::load(self, blobref).map_err(trouble)
    }

    fn store(&mut self, blobs: &[&Bytes]) -> Result<Vec<Blobref>, Trouble> {
        Files::store(self, blobs).map_err(trouble)
    }

    fn validate(&mut self, blobref: &Blobref) -> Result<(), Trouble> {
        Files::validate(self, blobref).map_err(trouble)
    }

    fn checkpoints(&mut self) -> Result<Vec<(i64, Checkpoint)>, Trouble> {
        Ok(vec![(1, Files::checkpoint(self).map_err(trouble)?)])
    }

    fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Trouble> {
        Files::put_checkpoint(self, checkpoint).map_err(trouble)
    }

    fn counts(&self) -> (i64, i64) {
        (self.objects(), 1)
    }

    fn describe(_: &Options, stats: &Stats) -> Value {
        json!({"object_count": stats.objects})
    }
}

/// All but that something is not there is for who looks after the files.
fn trouble(failure: Failure) -> Trouble {
    let is_for_the_log = failure.errno != Errno::ENOENT;
    Trouble { is_for_the_log, ..failure.into() }
}
