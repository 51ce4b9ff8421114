//! `flux content`: the store of blobs.

use std::io::{BufRead, Read};

use clap::{Args, Subcommand};
use flux_client::{Client, RpcError};
use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Raw};
use flux_protocol::rpc::{content, content_backing, kvs};
use jiff::Timestamp;

use super::gc::Gc;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{outln, output};

/// The backing store is there.
const LEADER: Nodeid = Nodeid(0);

#[derive(Debug, Args)]
pub(crate) struct Content {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Concatenate blobs stored under BLOBREF(s) to stdout
    #[command(override_usage = "flux content load [OPTIONS] BLOBREF ...")]
    Load {
        /// Load directly from rank 0 content service
        #[arg(short, long)]
        bypass_cache: bool,
        blobref: Vec<String>,
    },
    /// Store blob from stdin, print BLOBREF(s) on stdout
    Store {
        /// Store directly to rank 0 content service
        #[arg(short, long)]
        bypass_cache: bool,
        /// Limit blob size to N bytes with 0=unlimited (default 0)
        #[arg(long, value_name = "N", default_value_t = 0)]
        chunksize: usize,
    },
    /// Drop non-essential entries from local content cache
    Dropcache,
    /// Flush dirty entries from local content cache
    Flush,
    /// Remove what nothing refers to any more, while the instance runs
    Gc(Gc),
    /// Perform checkpoint operations
    #[command(subcommand)]
    Checkpoint(Checkpoint),
}

#[derive(Debug, Subcommand)]
enum Checkpoint {
    /// List checkpoint(s)
    List {
        /// Do not output column headers
        #[arg(short, long)]
        no_header: bool,
        /// Output raw json checkpoint data
        #[arg(short, long)]
        json: bool,
    },
    /// Update checkpoint to specified blobref
    Update { blobref: String },
}

impl Content {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        match self.command {
            Command::Gc(gc) => gc.run(context).await,
            Command::Load { bypass_cache, blobref } => load(&flux, blobref, bypass_cache).await,
            Command::Store { bypass_cache, chunksize } => {
                store(&flux, chunksize, bypass_cache).await
            }
            Command::Dropcache => {
                flux.rpc::<content::Dropcache>(Nodeid::ANY, &Empty)
                    .await
                    .map_err(|e| Failure::of("content.dropcache", e.errno()))?;
                Ok(0)
            }
            Command::Flush => {
                flux.rpc::<content::Flush>(Nodeid::ANY, &Empty)
                    .await
                    .map_err(|e| Failure::of("content.flush", e.errno()))?;
                Ok(0)
            }
            Command::Checkpoint(Checkpoint::List { no_header, json }) => {
                list(&flux, no_header, json).await
            }
            Command::Checkpoint(Checkpoint::Update { blobref }) => update(&flux, &blobref).await,
        }
    }
}

async fn load(flux: &Client, blobrefs: Vec<String>, bypass: bool) -> Outcome {
    let blobrefs = if blobrefs.is_empty() {
        let lines: Result<Vec<_>, _> = std::io::stdin().lock().lines().collect();
        lines.map_err(|e| Failure::of("stdin", strerror(&e)))?
    } else {
        blobrefs
    };
    if blobrefs.is_empty() {
        return Err(Failure::new("no blobrefs were specified"));
    }
    for blobref in blobrefs {
        let failed = |reason: &dyn std::fmt::Display| Failure::of("error loading blob", reason);
        let blobref: Blobref = blobref.parse().map_err(|_| failed(&Errno::EINVAL))?;
        let digest = Raw(blobref.digest().to_vec().into());
        let blob = if bypass {
            flux.rpc::<content_backing::Load>(LEADER, &digest).await
        } else {
            flux.rpc::<content::Load>(Nodeid::ANY, &digest).await
        };
        output::emit_bytes(&blob.map_err(|e| failed(&e))?.0);
    }
    Ok(0)
}

async fn store(flux: &Client, chunksize: usize, bypass: bool) -> Outcome {
    let hash: HashType = flux
        .attr("content.hash")
        .await
        .map_err(|e| Failure::of("getattr content.hash", e))?
        .parse()
        .map_err(Failure::new)?;
    let mut data = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut data)
        .map_err(|e| Failure::of("read from stdin", strerror(&e)))?;
    let chunksize = if chunksize == 0 { data.len().max(1) } else { chunksize };
    // An empty blob is a blob.
    let empty: &[u8] = &[];
    let chunks = data.chunks(chunksize).chain(data.is_empty().then_some(empty));
    for chunk in chunks {
        let failed = |e: &dyn std::fmt::Display| Failure::of("error storing blob", e);
        let blob = Raw(chunk.to_vec().into());
        let digest = if bypass {
            flux.rpc::<content_backing::Store>(LEADER, &blob).await
        } else {
            flux.rpc::<content::Store>(Nodeid::ANY, &blob).await
        };
        let digest = digest.map_err(|e| failed(&e))?.0;
        outln!("{}", Blobref::from_digest(hash, &digest).map_err(|e| failed(&e))?);
    }
    Ok(0)
}

async fn list(flux: &Client, no_header: bool, json: bool) -> Outcome {
    if !no_header && !json {
        outln!("{:<10} {:<10} {:<20} Rootref", "Index", "Sequence", "Time");
    }
    let response = flux
        .rpc::<content::CheckpointGet>(Nodeid::ANY, &Empty)
        .await
        .map_err(|e| Failure::of("kvs_checkpoint_lookup", e.errno()))?;
    for (index, checkpoint) in response.value.iter().enumerate() {
        if json {
            outln!("{}", flux_protocol::json::to_string(checkpoint).map_err(Failure::new)?);
            continue;
        }
        let time = Timestamp::from_second(checkpoint.timestamp as i64)
            .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .map_err(|e| Failure::of("cannot convert timestamp", e))?;
        outln!("{index:<10} {:<10} {time:<20} {}", checkpoint.sequence, checkpoint.rootref);
    }
    Ok(0)
}

async fn update(flux: &Client, blobref: &str) -> Outcome {
    let request = kvs::GetrootRequest { namespace: kvs::PRIMARY.to_owned(), flags: Some(0) };
    let running = match flux.rpc::<kvs::Getroot>(Nodeid::ANY, &request).await {
        Err(RpcError::Refused { errno: Errno::ENOSYS, .. }) => false,
        Ok(_) | Err(_) => true,
    };
    if running {
        return Err(Failure::new("please unload kvs module before updating checkpoint"));
    }
    if blobref.parse::<Blobref>().is_err() {
        return Err(Failure::of("invalid blobref specified", Errno::EINVAL));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let value = content::Checkpoint {
        version: 1,
        rootref: blobref.to_owned(),
        sequence: 0,
        timestamp: now.unwrap_or_default().as_secs_f64(),
    };
    let request = content::CheckpointPutRequest { value };
    flux.rpc::<content_backing::CheckpointPut>(LEADER, &request)
        .await
        .map_err(|e| Failure::of("checkpoint update failed", e.errno()))?;
    Ok(0)
}
