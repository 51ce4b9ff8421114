//! `flux dump`: the key value store as an archive.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;
use flux_client::Client;
use flux_protocol::blobref::Blobref;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{content, content_backing, kvs};
use flux_protocol::treeobj::Symlink;
use nix::unistd::{getgid, getuid};

use crate::archive::compression::Sink;
use crate::archive::progress::{Progress, tell};
use crate::archive::tar::{Stamp, Writer};
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::treewalk::{Visitor, Walk};

/// An archive is read one file after another, so that only the way to the store takes time.
const MAXREQS: usize = 64;

#[derive(Debug, Args)]
#[command(override_usage = "flux dump [OPTIONS] OUTFILE")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Dump {
    /// List keys on stderr as they are archived
    #[arg(short, long)]
    verbose: bool,
    /// Don't show periodic progress updates
    #[arg(short, long)]
    quiet: bool,
    /// Dump from checkpoint
    #[arg(long)]
    checkpoint: bool,
    /// Bypass the broker content cache
    #[arg(long)]
    no_cache: bool,
    /// Treat content load errors as non-fatal
    #[arg(long)]
    ignore_failed_read: bool,
    /// Send status updates to systemd via flux-broker(1)
    #[arg(long)]
    sd_notify: bool,
    /// Limit the number of concurrent requests (default 64)
    #[arg(long, value_name = "N", default_value_t = MAXREQS)]
    maxreqs: usize,
    outfile: String,
}

struct Archive {
    tar: Writer<Sink>,
    progress: Progress,
    ignore_failed_read: bool,
}

impl Dump {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.maxreqs == 0 {
            return Err(Failure::new("invalid value for maxreqs"));
        }
        let flux = context.connect().await?;
        // Nothing is written before it is clear that there is something to write.
        let (root, mtime) = match self.checkpoint {
            true => newest_checkpoint(&flux, self.no_cache).await?,
            false => (current_root(&flux).await?, now()),
        };
        let stamp = Stamp { mtime, uid: getuid().as_raw(), gid: getgid().as_raw() };
        let tell = tell(self.verbose, self.quiet);
        let progress = Progress::new(&flux, "flux-dump", "archived", tell, self.sd_notify);
        let mut archive = Archive {
            tar: Writer::new(Sink::create(&self.outfile)?, stamp),
            progress,
            ignore_failed_read: self.ignore_failed_read,
        };
        let walk =
            Walk { flux: &flux, separator: '/', bypass: self.no_cache, window: self.maxreqs };
        walk.run(root, &mut archive).await?;
        archive.tar.finish().and_then(Sink::finish).map_err(|e| cannot_write(&e))?;
        archive.progress.end(None);
        flux.flush().await?;
        Ok(0)
    }
}

impl Visitor for Archive {
    fn value(&mut self, path: &str, pieces: &[Bytes]) -> Result<(), Failure> {
        self.tar.file(path, pieces).map_err(|e| cannot_write(&e))?;
        self.progress.key(format_args!("{path}"), None);
        Ok(())
    }

    fn symlink(&mut self, path: &str, link: &Symlink) -> Result<(), Failure> {
        let target = match &link.namespace {
            Some(namespace) => format!("{namespace}::{}", link.target),
            None => link.target.clone(),
        };
        self.tar.symlink(path, &target).map_err(|e| cannot_write(&e))?;
        self.progress.key(format_args!("{path}"), None);
        Ok(())
    }

    fn broken(&mut self, path: &str, reason: String) -> Result<(), Failure> {
        let path = if path.is_empty() { "." } else { path };
        if !self.ignore_failed_read {
            return Err(Failure::of(path, reason));
        }
        eprintln!("{path}: {reason}");
        Ok(())
    }
}

fn cannot_write(error: &std::io::Error) -> Failure {
    Failure::of("error writing archive", strerror(error))
}

async fn current_root(flux: &Client) -> Result<Blobref, Failure> {
    let failed =
        |reason: &dyn std::fmt::Display| Failure::of("error fetching current KVS root", reason);
    let request = kvs::GetrootRequest { namespace: kvs::PRIMARY.to_owned(), flags: Some(0) };
    let root = flux.rpc::<kvs::Getroot>(Nodeid::ANY, &request).await;
    root.map_err(|e| failed(&e))?.rootref.parse().map_err(|e| failed(&e))
}

async fn newest_checkpoint(flux: &Client, bypass: bool) -> Result<(Blobref, u64), Failure> {
    let failed = |reason: &dyn std::fmt::Display| Failure::of("error fetching checkpoints", reason);
    let list = match bypass {
        true => flux.rpc::<content_backing::CheckpointGet>(Nodeid(0), &Empty).await,
        false => flux.rpc::<content::CheckpointGet>(Nodeid::ANY, &Empty).await,
    };
    let list = list.map_err(|e| failed(&e))?.value;
    let newest = list.first().ok_or_else(|| failed(&"there is none"))?;
    let root = newest.rootref.parse().map_err(|e| failed(&e))?;
    Ok((root, newest.timestamp as u64))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
