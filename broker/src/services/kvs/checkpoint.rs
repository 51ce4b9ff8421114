//! Checkpoints: the root of the primary namespace, kept where a restart finds it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fsd;
use flux_protocol::payload::{Empty, Raw};
use flux_protocol::rpc::{content, kvs as rpc};

use super::Kvs;
use super::commit::{publish_error, publish_setroot};
use super::dir::Dir;
use crate::call::Call;
use crate::config::Config;
use crate::context::Context;
use crate::log::Severity;
use crate::time;

const VERSION: u32 = 1;

/// A transaction that is answered once it is on the disk: its name, who is to be answered here,
/// and with what.
pub(super) type Synced = (String, Option<Call<rpc::Rootref>>, rpc::Rootref);

#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// `kvs.checkpoint-period`
    period: Option<Duration>,
    /// Counts changes of the period: timers of an earlier one end.
    generation: u64,
    /// A checkpoint is being written.
    busy: bool,
    /// They wait for the next one.
    waiting: Vec<Synced>,
    /// Sequence number of the last one.
    last: Option<i64>,
    /// The last one could not be written, which has been said.
    failing: bool,
}

impl Checkpoints {
    pub(super) fn from_config(config: &Config) -> Result<Checkpoints, Failure> {
        Ok(Checkpoints { period: Checkpoints::period_of(config)?, ..Checkpoints::default() })
    }

    /// EINVAL: not a duration. None: only on request and at the end.
    pub(super) fn period_of(config: &Config) -> Result<Option<Duration>, Failure> {
        let Some(value) = config.get("kvs.checkpoint-period") else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| {
            let text = "error reading config for kvs: checkpoint-period must be a string";
            Failure::new(Errno::EINVAL, text)
        })?;
        let seconds = fsd::parse(text).map_err(|_| {
            Failure::new(Errno::EINVAL, format!("invalid checkpoint-period config: {text}"))
        })?;
        let period = Duration::try_from_secs_f64(seconds).ok();
        Ok(period.filter(|period| !period.is_zero()))
    }
}

impl Kvs {
    /// Find the root of the primary namespace: the one that was asked for, that of the newest
    /// usable checkpoint, or an empty directory.
    pub(super) async fn start_primary(
        &mut self,
        context: &Context<Self>,
        initial: Option<Blobref>,
    ) -> Result<(), Failure> {
        let mut empty = Vec::new();
        Dir::default().encode(&mut empty);
        let empty_ref = self.hash.hash(&empty);
        let stored = context.handle().rpc::<content::Store>(&Raw(empty.into())).await?;
        if stored.0 != empty_ref.digest() {
            let text = "content and kvs use different hash types";
            return Err(Failure::new(Errno::EPROTO, text));
        }
        let (rootref, seq) = match initial {
            Some(rootref) => (rootref, 0),
            None => restore(context).await?.unwrap_or((empty_ref, 0)),
        };
        let owner = self.owner;
        self.add_root(rpc::PRIMARY, owner, 0, seq, rootref);
        self.checkpoints.last = Some(seq);
        self.start_timer(context);
        Ok(())
    }

    /// Answer transactions when a checkpoint has been made that they are in.
    pub(super) fn checkpoint_for(&mut self, context: &Context<Self>, synced: Vec<Synced>) {
        self.checkpoints.waiting.extend(synced);
        if !self.checkpoints.busy {
            self.checkpoint(context);
        }
    }

    fn checkpoint(&mut self, context: &Context<Self>) {
        let Some(root) = self.roots.get(rpc::PRIMARY) else { return };
        let (seq, request) = (root.seq, request(root.seq, &root.rootref));
        let synced = std::mem::take(&mut self.checkpoints.waiting);
        self.checkpoints.busy = true;
        let (handle, then) = (context.handle().clone(), context.clone());
        let put = async move { handle.rpc::<content::CheckpointPut>(&request).await };
        context.spawn(put, move |kvs, result| {
            kvs.checkpoints.busy = false;
            match result {
                Ok(Empty) => {
                    kvs.checkpoints.last = Some(seq);
                    kvs.checkpoints.failing = false;
                    kvs.answer_synced(&then, synced);
                }
                Err(failure) => {
                    if !std::mem::replace(&mut kvs.checkpoints.failing, true) {
                        then.log(Severity::Err, format!("checkpoint: {failure}"));
                    }
                    let names = fail_synced(synced, &failure);
                    publish_error(&then, rpc::PRIMARY, names, &failure);
                }
            }
            if !kvs.checkpoints.waiting.is_empty() {
                kvs.checkpoint(&then);
            }
        });
    }

    fn answer_synced(&mut self, context: &Context<Self>, synced: Vec<Synced>) {
        let mut names = Vec::new();
        for (name, call, rootref) in synced {
            match call {
                Some(call) => call.reply(&rootref),
                None => names.push(name),
            }
        }
        if let Some(root) = self.roots.get(rpc::PRIMARY)
            && !names.is_empty()
        {
            publish_setroot(context, root, names, BTreeMap::new());
        }
    }

    pub(super) fn set_checkpoint_period(
        &mut self,
        context: &Context<Self>,
        period: Option<Duration>,
    ) {
        if period != self.checkpoints.period {
            self.checkpoints.period = period;
            self.checkpoints.generation += 1;
            self.start_timer(context);
        }
    }

    fn start_timer(&mut self, context: &Context<Self>) {
        let Some(period) = self.checkpoints.period.filter(|_| self.rank == 0) else { return };
        let (then, generation) = (context.clone(), self.checkpoints.generation);
        context.spawn(tokio::time::sleep(period), move |kvs, ()| {
            if kvs.checkpoints.generation == generation {
                let seq = kvs.roots.get(rpc::PRIMARY).map(|root| root.seq);
                if seq != kvs.checkpoints.last && !kvs.checkpoints.busy {
                    kvs.checkpoint(&then);
                }
                kvs.start_timer(&then);
            }
        });
    }

    /// The last thing to do. Without a backing store there is nothing to keep.
    pub(super) async fn last_checkpoint(self, context: &Context<Self>) {
        let Some(root) = self.roots.get(rpc::PRIMARY).filter(|_| self.rank == 0) else { return };
        let request = request(root.seq, &root.rootref);
        match context.handle().rpc::<content::CheckpointPut>(&request).await {
            Err(failure) if failure.errno != Errno::ENOSYS => {
                let text = format!("error saving primary KVS checkpoint: {failure}");
                context.log(Severity::Err, text);
            }
            _ => {}
        }
    }
}

fn request(seq: i64, rootref: &Blobref) -> content::CheckpointPutRequest {
    let value = content::Checkpoint {
        version: VERSION,
        rootref: rootref.to_string(),
        sequence: seq,
        timestamp: time::unix_seconds(SystemTime::now()),
    };
    content::CheckpointPutRequest { value }
}

fn fail_synced(synced: Vec<Synced>, failure: &Failure) -> Vec<String> {
    let mut names = Vec::new();
    for (name, call, _) in synced {
        match call {
            Some(call) => call.fail(failure.clone()),
            None => names.push(name),
        }
    }
    names
}

/// The newest checkpoint; nothing when there never was one. One whose root is damaged or gone is
/// passed over in recovery mode alone: what was stored since the one before it was answered for.
async fn restore(context: &Context<Kvs>) -> Result<Option<(Blobref, i64)>, Failure> {
    let handle = context.handle();
    let list = match handle.rpc::<content::CheckpointGet>(&Empty).await {
        Ok(response) => response.value,
        Err(failure) if [Errno::ENOENT, Errno::ENOSYS].contains(&failure.errno) => {
            return Ok(None);
        }
        Err(failure) => {
            let text = format!("cannot read the checkpoints of the KVS: {failure}");
            return Err(Failure::new(failure.errno, text));
        }
    };
    let recovery = context.broker().attrs().get("broker.recovery-mode").is_some();
    let mut newest = None;
    for checkpoint in &list {
        let when = date(checkpoint);
        match (usable(context, checkpoint).await, newest) {
            (Ok(_), Some(failure)) if !recovery => {
                return Err(passed_over(context, &failure, &when));
            }
            (Ok(rootref), _) => {
                context.log(Severity::Info, format!("restored KVS from checkpoint on {when}"));
                return Ok(Some((rootref, checkpoint.sequence)));
            }
            (Err(failure), before) => {
                let text = format!("checkpoint on {when} of {}: {failure}", checkpoint.rootref);
                if recovery {
                    context.log(Severity::Err, text.clone());
                }
                newest = before.or(Some(Failure::new(failure.errno, text)));
            }
        }
    }
    let why = newest.map(|failure| failure.to_string()).unwrap_or_default();
    let text = format!(
        "none of {} checkpoints can be restored: {why}: restore the KVS from a dump",
        list.len()
    );
    Err(Failure::new(Errno::EIO, text))
}

/// The newest can't be used, and an older one could.
fn passed_over(context: &Context<Kvs>, failure: &Failure, when: &str) -> Failure {
    let statedir = context.broker().attrs().get("statedir").unwrap_or_default();
    let text = format!(
        "the newest {failure}: restore the KVS from a dump, or start once with \
         `flux start --recovery={statedir}', which goes back to the checkpoint on {when}, and look \
         with `flux fsck' what is missing"
    );
    Failure::new(failure.errno, text)
}

fn date(checkpoint: &content::Checkpoint) -> String {
    match Duration::try_from_secs_f64(checkpoint.timestamp) {
        Ok(since) if !since.is_zero() => {
            let text = time::utc_micros(SystemTime::UNIX_EPOCH + since);
            format!("{}Z", text.get(..19).unwrap_or_default())
        }
        _ => "N/A".to_owned(),
    }
}

async fn usable(
    context: &Context<Kvs>,
    checkpoint: &content::Checkpoint,
) -> Result<Blobref, Failure> {
    if checkpoint.version > VERSION {
        return Err(Failure::new(Errno::EINVAL, "unknown version"));
    }
    let bad = |_| Failure::new(Errno::EINVAL, "not a blobref");
    let rootref: Blobref = checkpoint.rootref.parse().map_err(bad)?;
    let digest = Raw(rootref.digest().to_vec().into());
    let blob = context.handle().rpc::<content::Load>(&digest).await?;
    Dir::decode(&blob.0).map_err(|e| Failure::new(Errno::EINVAL, e.to_string()))?;
    Ok(rootref)
}
