//! `flux gc`: remove from the backing store what nothing refers to any more, while all goes on.
//!
//! ```text
//! checkpoints   those that are kept; one, where there is none; as many new ones as there are, where
//!               what only they refer to is to go, too
//! horizon       the epoch of the newest, H: whatever is stored from now on has H or more
//! roots         checkpoints, private namespaces, and the primary namespace as the last
//! mark          all blobs below the roots get H
//! sweep         blobs with less than H go
//! ```
//!
//! A job's namespace is linked into the primary one before it is removed, so one that was not seen
//! in the list of namespaces is below the primary root that is read later. A transaction that is
//! being applied has stored blobs to which no root refers yet: an empty one behind it in the same
//! queue, which is waited for before the root is read, tells that it has been applied.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgAction, Args};
use flux_client::kvs::Transaction;
use flux_client::{Client, Pending, RpcError};
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{content, content_backing as backing, kvs};
use flux_protocol::treeobj::Symlink;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::treewalk::{Visitor, Walk};

const LEADER: Nodeid = Nodeid(0);
/// Blobs of one request; the store takes no more than 16,384.
const MARK_BATCH: usize = 8192;
/// Of one request: blobs removed, and rows looked at. They keep the store for some 10 ms.
const SWEEP_DELETE: i64 = 1024;
const SWEEP_WINDOW: i64 = 65_536;

#[derive(Debug, Args)]
#[command(override_usage = "flux gc [OPTIONS]")]
pub(crate) struct Gc {
    /// Bypass broker content cache
    #[arg(long)]
    no_cache: bool,
    /// Make new checkpoints first, so that what only older ones refer to goes, too
    #[arg(long)]
    renew_checkpoints: bool,
    /// Number of concurrent content requests during the mark phase (default 16)
    #[arg(long, value_name = "N", default_value_t = 16)]
    maxreqs: usize,
    /// Increase verbosity
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Stop where a crash before the sweep would
    #[arg(long, hide = true)]
    test_mark_only: bool,
    /// Seconds between the list of namespaces and their roots
    #[arg(long, hide = true, value_name = "SECONDS", default_value_t = 0)]
    test_delay_after_list: u64,
}

/// Marks what the walk finds.
struct Marker<'a> {
    flux: &'a Client,
    epoch: i64,
    /// Directories that have been entered: trees have most of them in common.
    entered: HashSet<Blobref>,
    batch: Vec<String>,
    requests: Vec<Pending<backing::MarkResponse>>,
    marked: u64,
}

impl Gc {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.maxreqs == 0 {
            return Err(Failure::new("invalid value for maxreqs"));
        }
        let flux = context.connect().await?;
        self.make_checkpoints(&flux).await?;
        let request = backing::GcInfoRequest { epoch: 0, get_count: false };
        let info = flux
            .rpc::<backing::GcInfo>(LEADER, &request)
            .await
            .map_err(|e| Failure::of("failed to fetch gc-info", e))?;
        let epoch = info.current_epoch;
        self.say(1, format_args!("froze epoch at {epoch}, high-water rowid {}", info.high_water));
        let roots = self.roots(&flux).await?;
        let marked = self.mark(&flux, epoch, roots).await?;
        if self.test_mark_only {
            eprintln!("flux-gc: stopping after mark: marked {marked} blobs");
            return Ok(0);
        }
        let deleted = self.sweep(&flux, epoch, info.high_water).await?;
        eprintln!(
            "flux-gc: gc complete: marked {marked}, reclaimed {deleted} blobs \
             (horizon epoch {epoch})"
        );
        Ok(0)
    }

    /// Older checkpoints are there for the case that the newest can't be read; they hold all that
    /// has been removed since. Who has no use for them replaces them by others of the present root.
    async fn make_checkpoints(&self, flux: &Client) -> Result<(), Failure> {
        let count = match checkpoints(flux).await?.len() {
            // Blobs are older or newer than a checkpoint.
            0 => 1,
            _ if !self.renew_checkpoints => return Ok(()),
            count => count,
        };
        for _ in 0..count {
            match Transaction::new().commit(flux, kvs::PRIMARY, kvs::commit::SYNC).await {
                Ok(_) => {}
                // Without the service the newest checkpoint is all there is.
                Err(error) if error.errno() == Errno::ENOSYS => return Ok(()),
                Err(error) => return Err(Failure::of("cannot make a checkpoint", error)),
            }
        }
        self.say(1, format_args!("made {count} checkpoints"));
        Ok(())
    }

    async fn roots(&self, flux: &Client) -> Result<Vec<Blobref>, Failure> {
        let mut roots = Vec::new();
        for checkpoint in checkpoints(flux).await? {
            let bad = |e| Failure::of("failed to parse checkpoint rootref", e);
            roots.push(checkpoint.rootref.parse().map_err(bad)?);
        }
        self.say(1, format_args!("enumerated {} checkpoint roots", roots.len()));
        let list = match flux.rpc::<kvs::NamespaceList>(LEADER, &Empty).await {
            Ok(list) => list.namespaces,
            Err(error) if error.errno() == Errno::ENOSYS => {
                self.say(1, format_args!("kvs not loaded; skipping live roots"));
                return Ok(roots);
            }
            Err(error) => return Err(Failure::of("kvs.namespace-list", error)),
        };
        if self.test_delay_after_list > 0 {
            tokio::time::sleep(Duration::from_secs(self.test_delay_after_list)).await;
        }
        let mut count = 0;
        for private in list.iter().filter(|namespace| namespace.namespace != kvs::PRIMARY) {
            if let Some(root) = settled_root(flux, &private.namespace).await? {
                roots.push(root);
                count += 1;
            }
        }
        self.say(1, format_args!("enumerated {count} private namespace roots"));
        let primary = settled_root(flux, kvs::PRIMARY).await?;
        roots.extend(primary);
        self.say(1, format_args!("enumerated live primary root"));
        Ok(roots)
    }

    async fn mark(&self, flux: &Client, epoch: i64, roots: Vec<Blobref>) -> Result<u64, Failure> {
        let mut marker = Marker {
            flux,
            epoch,
            entered: HashSet::new(),
            batch: Vec::new(),
            requests: Vec::new(),
            marked: 0,
        };
        let walk = Walk { flux, separator: '.', bypass: self.no_cache, window: self.maxreqs };
        for root in roots {
            self.say(1, format_args!("marking from root {root}"));
            walk.run(root, &mut marker).await?;
            marker.settle().await?;
        }
        self.say(1, format_args!("mark phase complete"));
        Ok(marker.marked)
    }

    async fn sweep(&self, flux: &Client, epoch: i64, high_water: i64) -> Result<i64, Failure> {
        let (mut cursor, mut deleted) = (0, 0);
        while cursor < high_water {
            let request = backing::SweepRequest {
                epoch,
                cursor,
                high_water,
                delete_cap: SWEEP_DELETE,
                window: SWEEP_WINDOW,
            };
            let swept = flux
                .rpc::<backing::Sweep>(LEADER, &request)
                .await
                .map_err(|e| Failure::of("sweep failed", e))?;
            let count = swept.deleted;
            self.say(2, format_args!("swept {count} blobs, cursor {}/{high_water}", swept.cursor));
            (cursor, deleted) = (swept.cursor, deleted + swept.deleted);
        }
        self.say(1, format_args!("sweep complete: deleted {deleted} blobs"));
        Ok(deleted)
    }

    fn say(&self, level: u8, text: std::fmt::Arguments<'_>) {
        if self.verbose >= level {
            eprintln!("flux-gc: {text}");
        }
    }
}

impl Marker<'_> {
    fn add(&mut self, blobref: Blobref) -> Result<(), Failure> {
        self.batch.push(blobref.to_string());
        if self.batch.len() >= MARK_BATCH { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Failure> {
        let request =
            backing::MarkRequest { epoch: self.epoch, hashes: std::mem::take(&mut self.batch) };
        self.requests.push(self.flux.start::<backing::Mark>(LEADER, &request)?);
        Ok(())
    }

    /// Wait until all that was found is marked. Nothing may be swept after a failure.
    async fn settle(&mut self) -> Result<(), Failure> {
        if !self.batch.is_empty() {
            self.send()?;
        }
        for request in self.requests.drain(..) {
            self.marked += request.await.map_err(|e| Failure::of("mark failed", e))?.marked;
        }
        Ok(())
    }
}

impl Visitor for Marker<'_> {
    fn enter(&mut self, blobref: Blobref) -> Result<bool, Failure> {
        let new = self.entered.insert(blobref);
        if new {
            self.add(blobref)?;
        }
        Ok(new)
    }

    /// That they are referred to is all that matters.
    fn wants(&mut self, blobs: &[Blobref]) -> Result<bool, Failure> {
        for blobref in blobs {
            self.add(*blobref)?;
        }
        Ok(false)
    }

    fn value(&mut self, _: &str, _: &[Bytes]) -> Result<(), Failure> {
        Ok(())
    }

    fn symlink(&mut self, _: &str, _: &Symlink) -> Result<(), Failure> {
        Ok(())
    }

    fn broken(&mut self, path: &str, reason: String) -> Result<(), Failure> {
        Err(Failure::of(if path.is_empty() { "." } else { path }, reason))
    }
}

async fn checkpoints(flux: &Client) -> Result<Vec<content::Checkpoint>, Failure> {
    match flux.rpc::<backing::CheckpointGet>(LEADER, &Empty).await {
        Ok(list) => Ok(list.value),
        Err(error) if error.errno() == Errno::ENOENT => Ok(Vec::new()),
        Err(error) => Err(Failure::of("checkpoint-get", error)),
    }
}

/// The root of a namespace in which all is that was being applied; nothing when it has gone.
async fn settled_root(flux: &Client, namespace: &str) -> Result<Option<Blobref>, Failure> {
    let gone = |error: &RpcError| [Errno::ENOENT, Errno::ENOTSUP].contains(&error.errno());
    let failed = |error: RpcError| Failure::of(format_args!("kvs.getroot {namespace}"), error);
    let request = kvs::CommitRequest {
        namespace: namespace.to_owned(),
        flags: kvs::commit::NO_MERGE,
        ops: Vec::new(),
    };
    match flux.rpc::<kvs::Commit>(LEADER, &request).await {
        Ok(_) => {}
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let request = kvs::GetrootRequest { namespace: namespace.to_owned(), flags: None };
    match flux.rpc::<kvs::Getroot>(LEADER, &request).await {
        Ok(root) => root.rootref.parse().map(Some).map_err(Failure::new),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
