//! Commands that change the store: one transaction each.

use std::io::Read;

use clap::Args;
use flux_client::kvs::{self, Root, Transaction};
use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::rpc::kvs::{Rootref, commit, lookup};
use flux_protocol::treeobj::Treeobj;

use super::{NamespaceOption, namespace};
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::outln;

// What to print of the root that has the changes.
#[derive(Debug, Args)]
struct RootOptions {
    /// Output resulting RFC11 root
    #[arg(short = 'O', long)]
    treeobj_root: bool,
    /// Output blobref of resulting root
    #[arg(short, long)]
    blobref: bool,
    /// Output root sequence of resulting root
    #[arg(short, long)]
    sequence: bool,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs put [-N ns] [-O|-b|-s] [-r|-t] [-n] [-A] [-S] key=value \
                            [key=value...]")]
pub(crate) struct Put {
    #[command(flatten)]
    namespace: NamespaceOption,
    #[command(flatten)]
    root: RootOptions,
    /// Store value(s) as-is; value - is read from standard input
    #[arg(short, long)]
    raw: bool,
    /// Store RFC 11 object; value - is read from standard input
    #[arg(short, long)]
    treeobj: bool,
    /// Set the NO_MERGE flag to ensure commit is standalone
    #[arg(short, long)]
    no_merge: bool,
    /// Append value(s) to key instead of overwriting
    #[arg(short = 'A', long)]
    append: bool,
    /// Flushes content and checkpoints after completing put
    #[arg(short = 'S', long)]
    sync: bool,
    #[arg(required = true, value_name = "KEY=VALUE")]
    pairs: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs unlink [-N ns] [-O|-b|-s] [-R] [-f] key [key...]")]
pub(crate) struct Unlink {
    #[command(flatten)]
    namespace: NamespaceOption,
    #[command(flatten)]
    root: RootOptions,
    /// Remove directory contents recursively
    #[arg(short = 'R', long)]
    recursive: bool,
    /// ignore nonexistent files
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    key: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs link [-N ns] [-T ns] [-O|-b|-s] target linkname")]
pub(crate) struct Link {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// Specify target's namespace
    #[arg(short = 'T', long, value_name = "NAME")]
    target_namespace: Option<String>,
    #[command(flatten)]
    root: RootOptions,
    target: String,
    linkname: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs mkdir [-N ns] [-O|-b|-s] key [key...]")]
pub(crate) struct Mkdir {
    #[command(flatten)]
    namespace: NamespaceOption,
    #[command(flatten)]
    root: RootOptions,
    #[arg(required = true)]
    key: Vec<String>,
}

// Also the arguments of `move`.
#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs copy|move [-S src-ns] [-D dst-ns] source destination")]
pub(crate) struct Copy {
    /// Specify source key's namespace
    #[arg(short = 'S', long, value_name = "NAME")]
    src_namespace: Option<String>,
    /// Specify destination key's namespace
    #[arg(short = 'D', long, value_name = "NAME")]
    dst_namespace: Option<String>,
    source: String,
    destination: String,
}

impl RootOptions {
    fn print(&self, root: &Rootref) {
        if self.treeobj_root {
            outln!(r#"{{"data":["{}"],"type":"dirref","ver":1}}"#, root.rootref);
        } else if self.blobref {
            outln!("{}", root.rootref);
        } else if self.sequence {
            outln!("{}", root.rootseq);
        }
    }

    /// Commit, and print what was asked for.
    async fn commit(
        &self,
        flux: &Client,
        namespace: &str,
        flags: u32,
        transaction: &Transaction,
    ) -> Outcome {
        let root = transaction
            .commit(flux, namespace, flags)
            .await
            .map_err(|e| Failure::of("flux_kvs_commit", e.errno()))?;
        self.print(&root);
        Ok(0)
    }
}

impl Put {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let mut transaction = Transaction::new();
        for pair in &self.pairs {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::new("put: you must specify a value as key=value"))?;
            if key.is_empty() {
                return Err(Failure::of(key, Errno::EINVAL));
            }
            let value = if value == "-" && (self.raw || self.treeobj) {
                read_stdin()?
            } else {
                value.as_bytes().to_vec()
            };
            if self.treeobj {
                let treeobj = Treeobj::decode(&value).map_err(|e| Failure::of(key, e))?;
                transaction.put_treeobj(key, treeobj);
            } else if self.append {
                transaction.append(key, &value);
            } else {
                transaction.put(key, &value);
            }
        }
        let flags = if self.no_merge { commit::NO_MERGE } else { 0 }
            | if self.sync { commit::SYNC } else { 0 };
        self.root.commit(flux, self.namespace.get(context), flags, &transaction).await
    }
}

impl Unlink {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let namespace = self.namespace.get(context);
        let mut transaction = Transaction::new();
        for key in &self.key {
            let unlinkable = self.check(flux, namespace, key).await;
            if unlinkable
                .map_err(|errno| Failure::of(format_args!("cannot unlink '{key}'"), errno))?
            {
                transaction.unlink(key);
            }
        }
        if transaction.is_empty() {
            return Ok(0);
        }
        self.root.commit(flux, namespace, 0, &transaction).await
    }

    /// Is there something to unlink? Directories must be empty unless `--recursive` is given.
    async fn check(&self, flux: &Client, namespace: &str, key: &str) -> Result<bool, Errno> {
        let root = Root::Namespace(namespace);
        let errno = |e: RpcError| e.errno();
        let treeobj = match kvs::lookup(flux, root, key, lookup::TREEOBJ).await {
            Err(e) if e.errno() == Errno::ENOENT && self.force => return Ok(false),
            other => other.map_err(errno)?,
        };
        if self.recursive {
            return Ok(true);
        }
        let directory = match treeobj {
            Treeobj::Dir(entries) => entries,
            Treeobj::Dirref(_) => {
                match kvs::lookup(flux, root, key, lookup::READDIR).await.map_err(errno)? {
                    Treeobj::Dir(entries) => entries,
                    _ => return Err(Errno::EPROTO),
                }
            }
            Treeobj::Val(_) | Treeobj::Valref(_) | Treeobj::Symlink(_) => return Ok(true),
        };
        if directory.is_empty() { Ok(true) } else { Err(Errno::ENOTEMPTY) }
    }
}

impl Link {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let mut transaction = Transaction::new();
        transaction.symlink(&self.linkname, self.target_namespace.as_deref(), &self.target);
        self.root.commit(flux, self.namespace.get(context), 0, &transaction).await
    }
}

impl Mkdir {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let mut transaction = Transaction::new();
        for key in &self.key {
            transaction.mkdir(key);
        }
        self.root.commit(flux, self.namespace.get(context), 0, &transaction).await
    }
}

impl Copy {
    /// With `and_unlink` the source goes away in a second transaction.
    pub(super) async fn run(self, flux: &Client, context: &Context, and_unlink: bool) -> Outcome {
        let name = if and_unlink { "flux_kvs_move" } else { "flux_kvs_copy" };
        self.copy(flux, context, and_unlink).await.map_err(|e| Failure::of(name, e.errno()))?;
        Ok(0)
    }

    async fn copy(
        &self,
        flux: &Client,
        context: &Context,
        and_unlink: bool,
    ) -> Result<(), RpcError> {
        let source = namespace(self.src_namespace.as_deref(), context);
        let destination = namespace(self.dst_namespace.as_deref(), context);
        let root = Root::Namespace(source);
        let treeobj = kvs::lookup(flux, root, &self.source, lookup::TREEOBJ).await?;
        let mut transaction = Transaction::new();
        transaction.put_treeobj(&self.destination, treeobj);
        transaction.commit(flux, destination, 0).await?;
        if and_unlink {
            let mut transaction = Transaction::new();
            transaction.unlink(&self.source);
            transaction.commit(flux, source, 0).await?;
        }
        Ok(())
    }
}

pub(super) fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut data)
        .map_err(|e| Failure::of("stdin", strerror(&e)))?;
    Ok(data)
}
