//! `flux fsck`: whether all that the key value store refers to is in the backing store, and how it
//! becomes whole again without what is not.

mod repair;

use std::fmt::{Arguments, Display};
use std::io::IsTerminal as _;

use bytes::Bytes;
use clap::Args;
use flux_client::Client;
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::content::Checkpoint;
use flux_protocol::rpc::content_backing;
use flux_protocol::treeobj::{Symlink, Treeobj};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use self::repair::{Repair, Repairs};
use super::restore::kvs_is_running;
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
    /// Move values with missing data to lost+found, unlink missing directories
    #[arg(short = 'R', long)]
    repair: bool,
    /// With --repair, move all of a job to lost+found when a part of it is damaged
    #[arg(short, long)]
    job_aware: bool,
}

/// What is told, and to whom.
#[derive(Debug, Clone, Copy)]
struct Tell {
    verbose: bool,
    quiet: bool,
    /// A person reads along, who knows what command it is.
    terminal: bool,
}

struct Check {
    tell: Tell,
    repairing: bool,
    errors: u64,
    repairs: Repairs,
}

impl Fsck {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        if self.repair && kvs_is_running(&flux).await {
            return Err(Failure::new("please unload kvs module before using --repair"));
        }
        let root = match &self.rootref {
            Some(text) => {
                text.parse().map_err(|_| Failure::of(text, "invalid blobref specified"))?
            }
            None => self.announced_checkpoint(&flux).await?,
        };
        let tell = Tell {
            verbose: self.verbose && !self.quiet,
            quiet: self.quiet,
            terminal: std::io::stderr().is_terminal(),
        };
        let mut check =
            Check { tell, repairing: self.repair, errors: 0, repairs: Repairs::default() };
        // What the caches hold may be lost in the store.
        let walk = Walk { flux: &flux, separator: '.', bypass: true, window: WINDOW };
        walk.run(root, &mut check).await?;
        let Check { errors, repairs, .. } = check;
        let (moved, unlinked) = (repairs.moved(), repairs.unlinked());
        if !repairs.is_empty() {
            let sequence = checkpoints(&flux).await?.first().map_or(0, |newest| newest.sequence);
            let repair = Repair { flux: &flux, tell, job_aware: self.job_aware };
            let root = repair.apply(root, repairs, sequence).await?;
            tell.aside(format_args!("Updated primary checkpoint to {root}"));
        }
        if self.verbose || errors > 0 {
            tell.always(format_args!("Total errors: {errors}"));
        }
        if self.repair {
            if self.verbose || moved > 0 {
                tell.always(format_args!("Total repairs: {moved}"));
            }
            if self.verbose || unlinked > 0 {
                tell.always(format_args!("Total unlinked directories: {unlinked}"));
            }
        }
        Ok(u8::from(errors > 0))
    }

    async fn announced_checkpoint(&self, flux: &Client) -> Result<Blobref, Failure> {
        let failed = |reason: &dyn Display| Failure::of("error fetching checkpoints", reason);
        let list = checkpoints(flux).await?;
        let newest = list.first().ok_or_else(|| failed(&"there is none"))?;
        if !self.quiet {
            let time = Timestamp::from_second(newest.timestamp as i64).unwrap_or_default();
            let time = time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S");
            outln!("Checking integrity of checkpoint from {time}");
        }
        newest.rootref.parse().map_err(|error| failed(&error))
    }
}

/// Newest first.
async fn checkpoints(flux: &Client) -> Result<Vec<Checkpoint>, Failure> {
    let list = flux.rpc::<content_backing::CheckpointGet>(Nodeid(0), &Empty).await;
    Ok(list.map_err(|e| Failure::of("error fetching checkpoints", e))?.value)
}

impl Tell {
    fn always(self, text: Arguments<'_>) {
        if self.terminal {
            eprintln!("{text}");
        } else {
            eprintln!("flux-fsck: {text}");
        }
    }

    /// What may be left out.
    fn aside(self, text: Arguments<'_>) {
        if !self.quiet {
            self.always(text);
        }
    }
}

impl Visitor for Check {
    fn found(&mut self, path: &str) {
        if self.tell.verbose {
            self.tell.always(format_args!("{path}"));
        }
    }

    fn value(&mut self, _: &str, _: &[Bytes]) -> Result<(), Failure> {
        Ok(())
    }

    fn symlink(&mut self, _: &str, _: &Symlink) -> Result<(), Failure> {
        Ok(())
    }

    fn broken(&mut self, path: &str, reason: String) -> Result<(), Failure> {
        let path = if path.is_empty() { "." } else { path };
        self.tell.always(format_args!("{path}: {reason}"));
        self.errors += 1;
        Ok(())
    }

    fn value_lost(
        &mut self,
        path: &str,
        blobs: &[Blobref],
        lost: &[(usize, Errno)],
    ) -> Result<(), Failure> {
        self.errors += 1;
        if self.tell.verbose {
            for (at, errno) in lost {
                match *errno {
                    Errno::ENOENT => {
                        self.tell.always(format_args!("{path}: missing blobref index={at}"));
                    }
                    errno => self.tell.always(format_args!(
                        "{path}: error retrieving blobref index={at}: {errno}"
                    )),
                }
            }
        } else {
            match lost.iter().find(|(_, errno)| *errno != Errno::ENOENT) {
                None => self.tell.always(format_args!("{path}: missing blobref(s)")),
                Some((_, errno)) => {
                    self.tell.always(format_args!("{path}: error retrieving blobref(s): {errno}"))
                }
            }
        }
        // What can't be read now may be read again later: only what is missing is given up.
        if self.repairing && lost.iter().all(|(_, errno)| *errno == Errno::ENOENT) {
            let kept = blobs.iter().enumerate();
            let kept = kept.filter(|(at, _)| lost.iter().all(|(missing, _)| missing != at));
            let kept: Vec<Blobref> = kept.map(|(_, blobref)| *blobref).collect();
            let rest = if kept.is_empty() { Treeobj::val(b"") } else { Treeobj::Valref(kept) };
            self.repairs.move_value(path, rest);
            self.tell.aside(format_args!("{path} repaired and moved to lost+found"));
        }
        Ok(())
    }

    fn directory_lost(&mut self, path: &str, errno: Errno) -> Result<(), Failure> {
        self.errors += 1;
        if path.is_empty() {
            self.tell.always(format_args!("cannot load root tree object: {errno}"));
            return Ok(());
        }
        match errno {
            Errno::ENOENT => self.tell.always(format_args!("{path}: missing dirref blobref")),
            errno => {
                self.tell.always(format_args!("{path}: error retrieving dirref blobref: {errno}"))
            }
        }
        if self.repairing && errno == Errno::ENOENT {
            self.repairs.unlink(path);
            self.tell.aside(format_args!("{path} unlinked due to missing blobref"));
        }
        Ok(())
    }
}
