//! `flux kvs dir`: keys of a directory with their values.

use clap::Args;
use flux_client::Client;
use flux_client::kvs::{self, Root};
use flux_protocol::errno::Errno;
use flux_protocol::rpc::kvs::lookup;
use flux_protocol::treeobj::{self, Treeobj};

use super::NamespaceOption;
use super::get::snapshot;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{outln, output, term};

const ELLIPSIS: &str = "...";

#[derive(Debug, Args)]
#[command(override_usage = "flux-kvs dir [-N ns] [-R] [-d] [-w COLS] [-a treeobj] [key]")]
pub(crate) struct Dir {
    #[command(flatten)]
    namespace: NamespaceOption,
    /// Recursively display keys under subdirectories
    #[arg(short = 'R', long)]
    recursive: bool,
    /// List directory entries and not values
    #[arg(short, long)]
    directory: bool,
    /// Set output width to COLS.  0 means no limit
    #[arg(short, long, value_name = "COLS")]
    width: Option<usize>,
    /// Lookup relative to RFC 11 snapshot reference
    #[arg(short, long, value_name = "TREEOBJ")]
    at: Option<String>,
    #[arg(default_value = ".")]
    key: String,
}

impl Dir {
    pub(super) async fn run(self, flux: &Client, context: &Context) -> Outcome {
        let at = self.at.as_deref().map(snapshot).transpose()?;
        let root = match &at {
            Some(treeobj) => Root::Snapshot(treeobj),
            None => Root::Namespace(self.namespace.get(context)),
        };
        let width = self.width.unwrap_or_else(term::output_columns);
        // Directories still to be listed, the next one last.
        let mut todo =
            vec![Item::Directory(self.key.clone(), read_dir(flux, root, &self.key).await?)];
        while let Some(item) = todo.pop() {
            match item {
                Item::Directory(key, entries) if entries.is_empty() && key != self.key => {
                    outln!("{key}.");
                }
                Item::Directory(key, entries) => {
                    let items = entries
                        .into_iter()
                        .rev()
                        .map(|(name, treeobj)| Item::Entry(join(&key, &name), treeobj));
                    todo.extend(items);
                }
                Item::Entry(key, treeobj) => {
                    if let Some(directory) = self.entry(flux, root, key, treeobj, width).await? {
                        todo.push(directory);
                    }
                }
            }
        }
        Ok(0)
    }

    /// Print an entry, or return the directory to go into.
    async fn entry(
        &self,
        flux: &Client,
        root: Root<'_>,
        key: String,
        treeobj: Treeobj,
        width: usize,
    ) -> Result<Option<Item>, Failure> {
        match treeobj {
            Treeobj::Symlink(link) => match link.namespace {
                Some(namespace) => outln!("{key} -> {namespace}::{}", link.target),
                None => outln!("{key} -> {}", link.target),
            },
            Treeobj::Dir(_) | Treeobj::Dirref(_) if self.recursive => {
                let entries = read_dir(flux, root, &key).await?;
                return Ok(Some(Item::Directory(key, entries)));
            }
            Treeobj::Dir(_) | Treeobj::Dirref(_) => outln!("{key}."),
            Treeobj::Val(_) | Treeobj::Valref(_) if self.directory => outln!("{key}"),
            Treeobj::Val(_) | Treeobj::Valref(_) => {
                let value =
                    kvs::get(flux, root, &key).await.map_err(|e| Failure::of(&key, e.errno()))?;
                let mut line = format!("{key} = ").into_bytes();
                line.extend(value);
                output::emit_bytes(&shorten(line, width));
                outln!();
            }
        }
        Ok(None)
    }
}

enum Item {
    Directory(String, treeobj::Dir),
    Entry(String, Treeobj),
}

/// The entries of a directory.
pub(super) async fn read_dir(
    flux: &Client,
    root: Root<'_>,
    key: &str,
) -> Result<treeobj::Dir, Failure> {
    let treeobj = kvs::lookup(flux, root, key, lookup::READDIR)
        .await
        .map_err(|e| Failure::of(key, e.errno()))?;
    match treeobj {
        Treeobj::Dir(entries) => Ok(entries),
        _ => Err(Failure::of(key, Errno::EPROTO)),
    }
}

/// The key of an entry in a directory.
pub(super) fn join(directory: &str, name: &str) -> String {
    if directory == "." { name.to_owned() } else { format!("{directory}.{name}") }
}

/// At most `width` columns of the first line; 0 leaves it whole.
fn shorten(mut line: Vec<u8>, width: usize) -> Vec<u8> {
    if width <= ELLIPSIS.len() {
        return line;
    }
    let mut cut = false;
    let limit = width - ELLIPSIS.len();
    if line.len() > limit {
        // Not inside of a character.
        let starts_character = |at: &usize| line.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
        let end = (0..=limit).rev().find(starts_character).unwrap_or(0);
        line.truncate(end);
        cut = true;
    }
    if let Some(newline) = line.iter().position(|&byte| byte == b'\n') {
        cut |= newline + 1 < line.len();
        line.truncate(newline);
    }
    if cut {
        line.extend(ELLIPSIS.as_bytes());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str, width: usize) -> String {
        String::from_utf8(shorten(text.as_bytes().to_vec(), width)).unwrap()
    }

    #[test]
    fn long_values_are_cut_to_the_width() {
        assert_eq!(short("a = 12345678", 10), "a = 123...");
        assert_eq!(short("a = 1\n", 10), "a = 1");
        assert_eq!(short("a = 1\nb", 10), "a = 1...");
        assert_eq!(short("a = 12345678", 0), "a = 12345678");
        assert_eq!(short("ab = ƒƒƒƒ", 9), "ab = ...");
    }
}
