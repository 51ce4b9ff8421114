//! `flux restore`: an archive as a part of the key value store, or as all of it at the next start.

use std::collections::btree_map::Entry as Slot;

use clap::Args;
use flux_client::kvs::Transaction;
use flux_client::{Client, RpcError};
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{content, content_backing, kvs};
use flux_protocol::treeobj::{Dir, Treeobj};

use crate::archive::compression::Source;
use crate::archive::progress::{Progress, Tell, tell};
use crate::archive::tar::{Kind, Reader};
use crate::blobstore::Store;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};

/// Values below this size are kept in their directories, where a reference would be longer.
const BLOB_FROM: usize = 72;

#[derive(Debug, Args)]
#[command(override_usage = "flux restore [OPTIONS] INFILE")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Restore {
    /// List keys on stderr as they are restored
    #[arg(short, long)]
    verbose: bool,
    /// Don't show periodic progress updates
    #[arg(short, long)]
    quiet: bool,
    /// Restore to checkpoint
    #[arg(long)]
    checkpoint: bool,
    /// Restore to KVS key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Bypass the broker content cache
    #[arg(long)]
    no_cache: bool,
    /// Do not restore blobs greater than SIZE bytes
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size_limit: Option<u64>,
    /// Max concurrent content store requests (default 256)
    #[arg(long, value_name = "N", default_value_t = 256)]
    maxreqs: usize,
    /// Send status updates to systemd via flux-broker(1)
    #[arg(long)]
    sd_notify: bool,
    infile: String,
}

/// What an archive has become.
struct Restored {
    root: Blobref,
    /// The latest that is in it, in seconds since 1970.
    timestamp: u64,
}

impl Restore {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.maxreqs == 0 {
            return Err(Failure::new("invalid value for maxreqs"));
        }
        if !self.checkpoint && self.key.is_none() {
            let text = "Please specify a restore target with --checkpoint or --key";
            return Err(Failure::new(text));
        }
        let flux = context.connect().await?;
        let source =
            Source::open(&self.infile).map_err(|e| Failure::of(&self.infile, strerror(&e)))?;
        if self.checkpoint && kvs_is_running(&flux).await {
            return Err(Failure::new("please unload kvs module before using --checkpoint"));
        }
        let restored = self.restore(&flux, source).await?;
        match &self.key {
            Some(key) if !self.checkpoint => self.link(&flux, key, restored.root).await?,
            _ => self.put_checkpoint(&flux, &restored).await?,
        }
        if !self.no_cache
            && let Err(error) = flux.rpc::<content::Flush>(Nodeid(0), &Empty).await
        {
            eprintln!("flux-restore: error flushing content cache: {}", error);
        }
        flux.flush().await?;
        Ok(0)
    }

    async fn restore(&self, flux: &Client, source: Source) -> Result<Restored, Failure> {
        let hash = flux.attr("content.hash").await;
        let hash = hash.map_err(|e| Failure::of("getattr content.hash", e))?;
        let hash = hash.parse().map_err(Failure::new)?;
        let mut store = Store::new(flux, hash, self.no_cache, self.maxreqs);
        let tell = tell(self.verbose, self.quiet);
        let mut progress = Progress::new(flux, "flux-restore", "restored", tell, self.sd_notify);
        let mut reader = Reader::new(source);
        let mut root = Dir::new();
        let mut timestamp = 0;
        let damaged = |error| Failure::of(&self.infile, error);
        while let Some(entry) = reader.next().map_err(damaged)? {
            timestamp = timestamp.max(entry.mtime);
            let path = &entry.path;
            match &entry.kind {
                Kind::Other => continue,
                Kind::Symlink(target) => {
                    insert(&mut root, path, link_to(target))?;
                    progress.key(format_args!("{path} -> {target}"), Some(store.stored()));
                }
                Kind::File if self.size_limit.is_some_and(|limit| entry.size > limit) => {
                    let limit = self.size_limit.unwrap_or_default();
                    let line = if tell == Tell::Count { "\r" } else { "" };
                    eprintln!("{line}{path} size {} exceeds {limit} limit, skipping", entry.size);
                }
                Kind::File => {
                    let data = reader.data().map_err(damaged)?;
                    let object = match data.len() {
                        0..BLOB_FROM => Treeobj::val(&data),
                        _ => Treeobj::valref(store.put(data).await?),
                    };
                    insert(&mut root, path, object)?;
                    progress.key(format_args!("{path}"), Some(store.stored()));
                }
            }
        }
        let root = store.directories(root).await?;
        store.settle(0).await?;
        progress.end(Some(store.stored()));
        Ok(Restored { root, timestamp })
    }

    async fn link(&self, flux: &Client, key: &str, root: Blobref) -> Result<(), Failure> {
        self.say(format_args!("writing snapshot {} to KVS key '{key}'", short(root)));
        Transaction::new()
            .put_treeobj(key, Treeobj::dirref(root))
            .commit(flux, kvs::PRIMARY, 0)
            .await
            .map_err(|e| Failure::of(format_args!("error updating {key}"), e.errno()))?;
        Ok(())
    }

    async fn put_checkpoint(&self, flux: &Client, restored: &Restored) -> Result<(), Failure> {
        let root = short(restored.root);
        self.say(format_args!("writing snapshot {root} to checkpoint for next KVS start"));
        let value = content::Checkpoint {
            version: 1,
            rootref: restored.root.to_string(),
            sequence: 0,
            timestamp: restored.timestamp as f64,
        };
        let request = content::CheckpointPutRequest { value };
        let put = match self.no_cache {
            true => flux.rpc::<content_backing::CheckpointPut>(Nodeid(0), &request).await,
            false => flux.rpc::<content::CheckpointPut>(Nodeid::ANY, &request).await,
        };
        put.map_err(|e| Failure::of("error updating checkpoint", e))?;
        Ok(())
    }

    fn say(&self, text: std::fmt::Arguments<'_>) {
        if !self.quiet {
            eprintln!("flux-restore: {text}");
        }
    }
}

/// Put an object where its path says; directories on the way are made.
fn insert(root: &mut Dir, path: &str, object: Treeobj) -> Result<(), Failure> {
    let mut names = path.split('/').filter(|name| !name.is_empty() && *name != ".").peekable();
    let mut dir = root;
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            dir.insert(name.to_owned(), object);
            return Ok(());
        }
        let below = match dir.entry(name.to_owned()) {
            Slot::Vacant(slot) => slot.insert(Treeobj::empty_dir()),
            Slot::Occupied(slot) => slot.into_mut(),
        };
        let Treeobj::Dir(below) = below else {
            return Err(Failure::new(format_args!("{name} in {path} is not a directory")));
        };
        dir = below;
    }
    Err(Failure::new(format_args!("'{path}' in the archive is no key")))
}

/// `NAMESPACE::TARGET` or `TARGET`
fn link_to(target: &str) -> Treeobj {
    match target.split_once("::") {
        Some((namespace, target)) => Treeobj::symlink(Some(namespace), target),
        None => Treeobj::symlink(None, target),
    }
}

pub(super) async fn kvs_is_running(flux: &Client) -> bool {
    let request = kvs::GetrootRequest { namespace: kvs::PRIMARY.to_owned(), flags: Some(0) };
    let root = flux.rpc::<kvs::Getroot>(Nodeid::ANY, &request).await;
    !matches!(root, Err(RpcError::Refused { errno: Errno::ENOSYS, .. }))
}

/// As much of a reference as people want to see.
fn short(blobref: Blobref) -> String {
    let text = blobref.to_string();
    let length = text.find('-').map_or(0, |dash| dash + 1) + 8;
    text.chars().take(length).collect()
}

/// A number with a fraction and one of the endings k, K, M, G.
fn size(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.strip_suffix(['k', 'K', 'M', 'G']) {
        Some(number) => {
            let factor = match text.as_bytes().last() {
                Some(b'G') => 1u64 << 30,
                Some(b'M') => 1 << 20,
                _ => 1 << 10,
            };
            (number, factor)
        }
        None => (text, 1),
    };
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok((number * factor as f64) as u64),
        _ => Err("invalid size".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_fractions_and_endings() {
        assert_eq!(size("100"), Ok(100));
        assert_eq!(size("1.5k"), Ok(1536));
        assert_eq!(size("100M"), Ok(100 << 20));
        for bad in ["", "k", "-1", "x", "1T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_become_directories_and_never_replace_values() {
        let mut root = Dir::new();
        insert(&mut root, "./a/b/c", Treeobj::val(b"1")).unwrap();
        insert(&mut root, "a/d", link_to("ns::x.y")).unwrap();
        let Some(Treeobj::Dir(a)) = root.get("a") else { panic!() };
        assert_eq!(a.get("d"), Some(&Treeobj::symlink(Some("ns"), "x.y")));
        assert!(a.get("b").unwrap().as_dir().unwrap().contains_key("c"));
        assert!(insert(&mut root, "a/d/e", Treeobj::val(b"")).is_err());
        assert!(insert(&mut root, "/", Treeobj::val(b"")).is_err());
    }
}
