//! `flux fsck`: whether all that the key value store refers to is in the backing store.

use bytes::Bytes;
use clap::Args;
use flux_client::Client;
use flux_protocol::blobref::Blobref;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::content_backing;
use flux_protocol::treeobj::Symlink;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;
use crate::treewalk::{Visitor, Walk};

/// Requests at a time.
const WINDOW: usize = 64;

#[derive(Debug, Args)]
#[command(override_usage = "flux fsck [OPTIONS]")]
pub(crate) struct Fsck {
    /// List keys as they are being validated
    #[arg(short, long)]
    verbose: bool,
    /// Reduce output to essential information
    #[arg(short, long)]
    quiet: bool,
    /// Check integrity starting with BLOBREF
    #[arg(short, long, value_name = "BLOBREF")]
    rootref: Option<String>,
}

struct Check {
    verbose: bool,
    errors: u64,
}

impl Fsck {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        let root = match &self.rootref {
            Some(text) => {
                text.parse().map_err(|_| Failure::of(text, "invalid blobref specified"))?
            }
            None => self.newest_checkpoint(&flux).await?,
        };
        let mut check = Check { verbose: self.verbose && !self.quiet, errors: 0 };
        // What the caches hold may be lost in the store.
        let walk = Walk { flux: &flux, separator: '.', bypass: true, window: WINDOW };
        walk.run(root, &mut check).await?;
        if self.verbose || check.errors > 0 {
            eprintln!("flux-fsck: Total errors: {}", check.errors);
        }
        Ok(u8::from(check.errors > 0))
    }

    async fn newest_checkpoint(&self, flux: &Client) -> Result<Blobref, Failure> {
        let failed =
            |reason: &dyn std::fmt::Display| Failure::of("error fetching checkpoints", reason);
        let list = flux.rpc::<content_backing::CheckpointGet>(Nodeid(0), &Empty).await;
        let list = list.map_err(|error| failed(&error.errno()))?.value;
        let newest = list.first().ok_or_else(|| failed(&"there is none"))?;
        if !self.quiet {
            let time = Timestamp::from_second(newest.timestamp as i64).unwrap_or_default();
            let time = time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S");
            outln!("Checking integrity of checkpoint from {time}");
        }
        newest.rootref.parse().map_err(|error| failed(&error))
    }
}

impl Check {
    fn key(&self, path: &str) {
        if self.verbose {
            eprintln!("flux-fsck: {path}");
        }
    }
}

impl Visitor for Check {
    fn value(&mut self, path: &str, _: &[Bytes]) -> Result<(), Failure> {
        self.key(path);
        Ok(())
    }

    fn symlink(&mut self, path: &str, _: &Symlink) -> Result<(), Failure> {
        self.key(path);
        Ok(())
    }

    fn broken(&mut self, path: &str, reason: String) -> Result<(), Failure> {
        let path = if path.is_empty() { "." } else { path };
        eprintln!("flux-fsck: {path}: {reason}");
        self.errors += 1;
        Ok(())
    }
}
