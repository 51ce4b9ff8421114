//! `flux kvs ls`: names in columns, in the manner of ls(1).

use clap::Args;
use flux_client::Client;
use flux_client::kvs::{self, Root};
use flux_protocol::errno::Errno;
use flux_protocol::rpc::kvs::lookup;
use flux_protocol::treeobj::{self, Treeobj};

use super::NamespaceOption;
use super::dir::{join, read_dir};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{outln, term};

/// Blanks between columns.
const GAP: usize = 4;

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs ls [-N ns] [-R] [-d] [-F] [-w COLS] [-1] [key...]")]
pub(crate) struct Ls {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// List directory recursively
    #[arg(short = 'R', long)]
    recursive: bool,
    /// List directory instead of contents
    #[arg(short, long)]
    directory: bool,
    /// Set output width to COLS.  0 means no limit
    #[arg(short, long, value_name = "COLS")]
    width: Option<usize>,
    /// Force one entry per line
    #[arg(short = '1', long = "1")]
    one: bool,
    /// Append indicator (one of .@) to entries
    #[arg(short = 'F', long)]
    classify: bool,
    key: Vec<String>,
}

/// What the keys of the command line are.
#[derive(Default)]
struct Sorted {
    /// To be listed with their contents.
    directories: Vec<String>,
    /// To be listed themselves.
    singles: Vec<String>,
    failed: bool,
}

impl Ls {
    pub(super) async fn run(mut self, flux: &Client, context: &Context) -> Outcome {
        if self.key.is_empty() {
            self.key.push(".".to_owned());
        }
        let namespace = self.namespace.get(context).to_owned();
        let root = Root::Namespace(&namespace);
        let width = if self.one { 1 } else { self.width.unwrap_or_else(term::output_columns) };
        let mut sorted = Sorted::default();
        for key in &self.key {
            if let Err(reason) = self.sort(flux, root, key, &mut sorted).await {
                eprintln!("{}: {reason}", bare(key));
                sorted.failed = true;
            }
        }
        sorted.singles.sort();
        sorted.directories.sort();
        let longest = sorted.singles.iter().map(String::len).max().unwrap_or(0);
        columns(&sorted.singles, longest + GAP, width);
        let label = self.recursive || sorted.directories.len() > 1 || !sorted.singles.is_empty();
        let mut first = sorted.singles.is_empty();
        let mut todo = sorted.directories;
        todo.reverse();
        while let Some(key) = todo.pop() {
            let entries = read_dir(flux, root, &key).await?;
            if label {
                outln!("{}{key}:", if first { "" } else { "\n" });
            }
            first = false;
            self.list(&entries, width);
            if self.recursive {
                let below = entries.iter().rev().filter(|(_, treeobj)| is_dir(treeobj));
                todo.extend(below.map(|(name, _)| join(&key, name)));
            }
        }
        if sorted.failed { Err(Failure::silent(1)) } else { Ok(0) }
    }

    async fn sort(
        &self,
        flux: &Client,
        root: Root<'_>,
        key: &str,
        sorted: &mut Sorted,
    ) -> Result<(), Errno> {
        let name = bare(key);
        let treeobj =
            kvs::lookup(flux, root, name, lookup::TREEOBJ).await.map_err(|e| e.errno())?;
        if !is_dir(&treeobj) && name.len() < key.len() {
            return Err(Errno::ENOTDIR);
        }
        match treeobj {
            Treeobj::Dir(_) | Treeobj::Dirref(_) if self.directory => {
                sorted.singles.push(self.decorate(name, &treeobj));
            }
            Treeobj::Dir(_) | Treeobj::Dirref(_) => sorted.directories.push(name.to_owned()),
            Treeobj::Symlink(_) if !self.classify && !self.directory => {
                match kvs::lookup(flux, root, name, 0).await.map_err(|e| e.errno()) {
                    Err(Errno::EISDIR) => sorted.directories.push(name.to_owned()),
                    Ok(_) | Err(Errno::ENOENT) => sorted.singles.push(name.to_owned()),
                    Err(errno) => return Err(errno),
                }
            }
            treeobj => sorted.singles.push(self.decorate(name, &treeobj)),
        }
        Ok(())
    }

    fn list(&self, entries: &treeobj::Dir, width: usize) {
        let names: Vec<String> =
            entries.iter().map(|(name, treeobj)| self.decorate(name, treeobj)).collect();
        // The indicators do not make columns wider.
        let longest = entries.keys().map(String::len).max().unwrap_or(0);
        columns(&names, longest + GAP, width);
    }

    fn decorate(&self, name: &str, treeobj: &Treeobj) -> String {
        let indicator = match treeobj {
            _ if !self.classify => "",
            Treeobj::Dir(_) | Treeobj::Dirref(_) => ".",
            Treeobj::Symlink(_) => "@",
            Treeobj::Val(_) | Treeobj::Valref(_) => "",
        };
        format!("{name}{indicator}")
    }
}

/// Print in columns; a width of 0 has no limit, one of 1 is one name per line.
fn columns(names: &[String], column: usize, width: usize) {
    let mut line = String::new();
    let mut used = 0;
    for name in names {
        if used > 0 && width != 0 && used + column > width {
            outln!("{line}");
            line.clear();
            used = 0;
        } else if used > 0 {
            line.extend(std::iter::repeat_n(' ', used.saturating_sub(line.len())));
        }
        line.push_str(name);
        used += column;
    }
    if used > 0 {
        outln!("{line}");
    }
}

fn is_dir(treeobj: &Treeobj) -> bool {
    matches!(treeobj, Treeobj::Dir(_) | Treeobj::Dirref(_))
}

/// A key without the dot that says that it must be a directory.
fn bare(key: &str) -> &str {
    let bare = key.trim_end_matches('.');
    if bare.is_empty() { "." } else { bare }
}
