//! `flux archive`: files in the key value store, from where every node can take them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};
use flux_client::archive::{Creation, Extraction, FileObject, objects};
use flux_client::kvs::{self, Root, Transaction};
use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::content;
use flux_protocol::rpc::kvs::PRIMARY;
use flux_protocol::treeobj::Treeobj;
use serde_json::Value;

use super::kvs::namespace;
use crate::args::{duration, size, within};
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::outln;
use crate::pattern::Pattern;

#[derive(Debug, Args)]
#[command(override_usage = "flux archive COMMAND [OPTIONS]")]
pub(crate) struct Archive {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a KVS file archive
    Create(Create),
    /// Remove a KVS file archive
    Remove(Remove),
    /// Extract KVS file archive contents
    Extract(Extract),
    /// List KVS file archive contents
    List(List),
}

/// Which archive is meant.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Archive NAME (default main)
    #[arg(short, long, default_value = "main", hide_default_value = true)]
    pub(super) name: String,
    /// Do not force archive to be in the primary KVS namespace
    #[arg(long)]
    no_force_primary: bool,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux archive create [-n NAME] [-C DIR] [--preserve] PATH ...")]
pub(super) struct Create {
    #[command(flatten)]
    pub(super) which: Which,
    /// Change to DIR before reading files
    #[arg(short = 'C', long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Increase output detail
    #[arg(short, long, value_name = "LEVEL", num_args = 0..=1, require_equals = true,
          default_missing_value = "1")]
    verbose: Option<u32>,
    /// Overwrite existing archive
    #[arg(long)]
    overwrite: bool,
    /// Append to existing archive
    #[arg(long)]
    append: bool,
    /// Preserve data over Flux restart
    #[arg(long)]
    preserve: bool,
    /// Serve file content from the files, which must not change
    #[arg(long)]
    pub(super) mmap: bool,
    /// Limit blob size to N bytes with 0=unlimited (default 1M)
    #[arg(long, value_name = "N[KMG]", value_parser = size, default_value = "1M", hide = true)]
    chunksize: u64,
    /// Adjust the maximum size of a "small file" in bytes (default 1K)
    #[arg(long, value_name = "N[KMG]", value_parser = size, default_value = "1K", hide = true)]
    small_file_threshold: u64,
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux archive remove [-n NAME] [-f]")]
pub(super) struct Remove {
    #[command(flatten)]
    pub(super) which: Which,
    /// Ignore a nonexistent archive
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux archive extract [-n NAME] [--overwrite] [-C DIR] [PATTERN]")]
pub(super) struct Extract {
    #[command(flatten)]
    pub(super) which: Which,
    /// Show filenames on stderr
    #[arg(short, long, value_name = "LEVEL", num_args = 0..=1, require_equals = true,
          default_missing_value = "1")]
    verbose: Option<u32>,
    /// Change to DIR before extracting
    #[arg(short = 'C', long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Overwrite existing files when extracting
    #[arg(long)]
    overwrite: bool,
    /// Wait for KVS archive key to appear (timeout optional)
    #[arg(long, value_name = "FSD", num_args = 0..=1, require_equals = true,
          default_missing_value = "inf")]
    waitcreate: Option<String>,
    /// List table of contents without extracting
    #[arg(short = 't', long)]
    list_only: bool,
    pattern: Option<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux archive list [-n NAME] [PATTERN]")]
pub(super) struct List {
    #[command(flatten)]
    pub(super) which: Which,
    /// Show file type, mode, size
    #[arg(short, long, action = ArgAction::SetTrue)]
    long: bool,
    /// Show raw RFC 37 file system object without decoding
    #[arg(long)]
    raw: bool,
    pattern: Option<String>,
}

impl Archive {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.command {
            Command::Create(command) => command.run(&context).await,
            Command::Remove(command) => command.run(&context).await,
            Command::Extract(command) => command.run(&context).await,
            Command::List(command) => command.run(&context).await,
        }
    }
}

impl Which {
    fn key(&self) -> String {
        format!("archive.{}", self.name)
    }

    /// Of the blobs that are to survive a restart.
    fn blobs_key(&self) -> String {
        format!("archive.{}_blobs", self.name)
    }

    fn namespace<'a>(&self, context: &'a Context) -> &'a str {
        if self.no_force_primary { namespace(None, context) } else { PRIMARY }
    }

    async fn unlink(&self, flux: &Client, context: &Context) -> Result<(), Failure> {
        let (key, blobs) = (self.key(), self.blobs_key());
        let mut transaction = Transaction::new();
        transaction.unlink(&key).unlink(&blobs);
        let done = transaction.commit(flux, self.namespace(context), 0).await;
        done.map_err(|e| Failure::of(format_args!("unlink {key},{blobs}"), e))?;
        let request = content::MmapRemoveRequest { tag: self.name.clone() };
        let done = flux.rpc::<content::MmapRemove>(Nodeid(0), &request).await;
        done.map_err(|e| Failure::of(format_args!("unmap {}", self.name), e))?;
        Ok(())
    }

    fn decode(&self, value: Result<Vec<u8>, RpcError>) -> Result<Value, Failure> {
        let failed =
            |e: &dyn std::fmt::Display| Failure::of(format_args!("KVS lookup {}", self.key()), e);
        let value = value.map_err(|e| failed(&e.errno()))?;
        serde_json::from_slice(&value).map_err(|e| failed(&e))
    }
}

impl Create {
    async fn run(self, context: &Context) -> Outcome {
        if self.overwrite && self.append {
            return Err(Failure::new("--overwrite and --append cannot be used together"));
        }
        let flux = context.connect().await?;
        if self.mmap {
            self.check_mapping(&flux).await?;
        }
        let mut archive = self.existing(&flux, context).await?;
        let hash = flux.attr("content.hash").await;
        let hash = hash.map_err(|e| Failure::of("getattr content.hash", e))?;
        let hash = hash.parse().map_err(Failure::new)?;
        enter(self.directory.as_deref())?;
        let creation = Creation {
            flux: &flux,
            hash,
            small_file_threshold: self.small_file_threshold,
            chunksize: self.chunksize,
            store: !self.mmap,
        };
        let mut transaction = Transaction::new();
        let mut preserved = 0;
        for path in self.files()? {
            if self.verbose.unwrap_or(0) > 0 {
                outln!("{}", path.display());
            }
            let put = creation.put(&path).await.map_err(Failure::new)?;
            if self.mmap && !put.blobs.is_empty() {
                self.map(&flux, &path).await?;
            }
            if self.preserve {
                for blobref in &put.blobs {
                    let key = format!("{}.{preserved}", self.which.blobs_key());
                    transaction.put_treeobj(&key, Treeobj::valref(*blobref));
                    preserved += 1;
                }
            }
            archive.push(serde_json::to_value(put.object).map_err(Failure::new)?);
        }
        let archive = serde_json::to_vec(&archive).map_err(Failure::new)?;
        transaction.put(&self.which.key(), &archive);
        let done = transaction.commit(&flux, self.which.namespace(context), 0).await;
        done.map_err(|e| Failure::of("kvs commit", e))?;
        Ok(0)
    }

    async fn check_mapping(&self, flux: &Client) -> Result<(), Failure> {
        let rank = flux.attr("rank").await;
        if rank.map_err(|e| Failure::of("error fetching broker rank", e))? != "0" {
            return Err(Failure::new("--mmap only works on the rank 0 broker"));
        }
        for (given, option) in
            [(self.preserve, "--preserve"), (self.which.no_force_primary, "--no-force-primary")]
        {
            if given {
                return Err(Failure::new(format_args!("--mmap cannot work with {option}")));
            }
        }
        Ok(())
    }

    /// What the archive holds so far, if it is to be appended to.
    async fn existing(&self, flux: &Client, context: &Context) -> Result<Vec<Value>, Failure> {
        let key = self.which.key();
        if self.overwrite {
            self.which.unlink(flux, context).await?;
            return Ok(Vec::new());
        }
        let root = Root::Namespace(self.which.namespace(context));
        let value = match kvs::get(flux, root, &key).await {
            Err(error) if error.errno() == Errno::ENOENT => return Ok(Vec::new()),
            value => self.which.decode(value)?,
        };
        match value {
            Value::Array(objects) if self.append => Ok(objects),
            _ if self.append => Err(Failure::of(key, "not a list of file objects")),
            _ => Err(Failure::of(key, "key exists")),
        }
    }

    /// The files, and what is in them where they are directories: a directory after its files.
    fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut files = Vec::new();
        for path in &self.paths {
            walk(path, &mut files)?;
        }
        files.retain(|path| path.components().any(|part| part.as_os_str() != "."));
        Ok(files)
    }

    async fn map(&self, flux: &Client, path: &Path) -> Result<(), Failure> {
        let full = path.canonicalize().map_err(|e| Failure::of(path.display(), strerror(&e)))?;
        let request = content::MmapAddRequest {
            path: full.display().to_string(),
            chunksize: self.chunksize,
            tag: self.which.name.clone(),
        };
        let done = flux.rpc::<content::MmapAdd>(Nodeid(0), &request).await;
        done.map_err(|e| Failure::of(path.display(), e))?;
        Ok(())
    }
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::of(path.display(), strerror(&e));
    if path.symlink_metadata().map_err(failed)?.is_dir() {
        let mut inside = Vec::new();
        for entry in path.read_dir().map_err(failed)? {
            inside.push(entry.map_err(failed)?.path());
        }
        inside.sort();
        for path in inside {
            walk(&path, files)?;
        }
    }
    files.push(path.to_owned());
    Ok(())
}

fn enter(directory: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = directory else { return Ok(()) };
    std::env::set_current_dir(directory)
        .map_err(|e| Failure::of(format_args!("chdir {}", directory.display()), strerror(&e)))
}

impl Remove {
    async fn run(self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let root = Root::Namespace(self.which.namespace(context));
        let key = self.which.key();
        if !self.force && kvs::lookup(&flux, root, &key, 0).await.is_err() {
            return Err(Failure::new(format_args!("{key} does not exist")));
        }
        self.which.unlink(&flux, context).await?;
        Ok(0)
    }
}

impl Extract {
    async fn run(self, context: &Context) -> Outcome {
        let limit =
            match self.waitcreate.as_deref() {
                None | Some("inf") => None,
                Some(text) => Some(duration(text).map_err(|_| {
                    Failure::of("could not parse --waitcreate timeout", Errno::EINVAL)
                })?),
            };
        enter(self.directory.as_deref())?;
        let flux = context.connect().await?;
        let archive = self.lookup(&flux, context, limit).await?;
        let mut extraction = Extraction::new(&flux, Path::new(""), self.overwrite);
        for (path, object) in matching(&archive, self.pattern.as_deref())? {
            if self.list_only {
                print(&path, &object, self.verbose.is_some());
                continue;
            }
            if self.verbose.unwrap_or(0) > 0 {
                eprintln!("{path}");
            }
            extraction.extract(&path, &object).await.map_err(Failure::new)?;
        }
        extraction.finish().map_err(Failure::new)?;
        Ok(0)
    }

    async fn lookup(
        &self,
        flux: &Client,
        context: &Context,
        limit: Option<Duration>,
    ) -> Result<Value, Failure> {
        let (namespace, key) = (self.which.namespace(context), self.which.key());
        let value = if self.waitcreate.is_some() {
            let waiting = kvs::wait_create(flux, namespace, &key, 0);
            let object = within(limit, waiting)
                .await
                .ok_or_else(|| Failure::of(&key, "key was not created within timeout window"))?;
            object.and_then(|object| kvs::value(&object))
        } else {
            kvs::get(flux, Root::Namespace(namespace), &key).await
        };
        self.which.decode(value)
    }
}

impl List {
    async fn run(self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let root = Root::Namespace(self.which.namespace(context));
        let archive = self.which.decode(kvs::get(&flux, root, &self.which.key()).await)?;
        for (path, object) in matching(&archive, self.pattern.as_deref())? {
            if self.raw {
                outln!("{}", serde_json::to_string(&object).map_err(Failure::new)?);
            } else {
                print(&path, &object, self.long);
            }
        }
        Ok(0)
    }
}

/// The objects whose path matches a glob.
fn matching(archive: &Value, pattern: Option<&str>) -> Result<Vec<(String, FileObject)>, Failure> {
    let mut objects = objects(archive).map_err(Failure::new)?;
    if let Some(pattern) = pattern {
        let glob = Pattern::glob(pattern).map_err(Failure::new)?;
        objects.retain(|(path, _)| glob.matches(path));
        if objects.is_empty() {
            eprintln!("flux-archive: No files matched pattern '{pattern}'");
        }
    }
    Ok(objects)
}

fn print(path: &str, object: &FileObject, long: bool) {
    if long {
        let (kind, mode) = (object.kind(), object.mode & 0o777);
        outln!("{kind} 0{mode:o} {:8} {path}", object.size.unwrap_or(0));
    } else {
        outln!("{path}");
    }
}
