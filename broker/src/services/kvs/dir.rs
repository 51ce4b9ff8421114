//! Directories in memory: shared, never changed once stored, cheap to copy for a change.
//!
//! The tree of a namespace is made of directories that refer to others by blobref. A transaction
//! works on copies of those on the way to its keys; in such a copy, the directories that have been
//! opened stand in place of the references to them.

use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;

use flux_protocol::blobref::Blobref;
use flux_protocol::json;
use flux_protocol::treeobj::{Base64, Symlink, Treeobj};

/// Entries that a node of the map has room for, and how many it has on average.
const NODE_ROOM: usize = 11;
const NODE_FILL: usize = 8;
/// What an allocation costs that is counted, and what the allocator adds to it.
const SHARED: usize = 32;

/// Entries by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Dir {
    pub(super) entries: BTreeMap<Rc<str>, Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    Val(Rc<Base64>),
    Valref(Rc<Vec<Blobref>>),
    Dirref(Blobref),
    Symlink(Rc<Symlink>),
    /// A directory that is being changed.
    Open(Box<Dir>),
}

/// A blob that is no directory, or one that flux could not have written.
#[derive(Debug, thiserror::Error)]
#[error("not a directory")]
pub(super) struct NotDir;

// === impl Dir ===

impl Dir {
    /// Read the blob of a directory.
    pub(super) fn decode(blob: &[u8]) -> Result<Dir, NotDir> {
        match Treeobj::decode(blob) {
            Ok(Treeobj::Dir(entries)) => entries
                .into_iter()
                .map(|(name, object)| Ok((name.into(), stored(object)?)))
                .collect(),
            _ => Err(NotDir),
        }
    }

    /// Bytes in memory, about. What copies share counts in each of them.
    pub(super) fn footprint(&self) -> usize {
        let nodes = self.entries.len().div_ceil(NODE_FILL).max(1);
        let node = NODE_ROOM * size_of::<(Rc<str>, Entry)>();
        let entries = self.entries.iter();
        entries.map(|(name, entry)| SHARED + name.len() + entry.footprint()).sum::<usize>()
            + nodes * node
    }

    /// Append the blob of a directory: compact JSON, keys in byte order.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(b"{\"data\":{");
        let mut separator: &[u8] = b"";
        for (name, entry) in &self.entries {
            into.extend_from_slice(separator);
            separator = b",";
            encode_string(name, into);
            into.push(b':');
            entry.encode(into);
        }
        into.extend_from_slice(b"},\"type\":\"dir\",\"ver\":1}");
    }
}

impl FromIterator<(Rc<str>, Entry)> for Dir {
    fn from_iter<I: IntoIterator<Item = (Rc<str>, Entry)>>(entries: I) -> Dir {
        Dir { entries: entries.into_iter().collect() }
    }
}

/// An entry of a stored directory. Older versions of Flux kept directories inside of others.
fn stored(object: Treeobj) -> Result<Entry, NotDir> {
    Ok(match object {
        Treeobj::Val(data) => Entry::Val(Rc::new(data)),
        Treeobj::Valref(refs) => Entry::Valref(Rc::new(refs)),
        Treeobj::Dirref(refs) => match refs.as_slice() {
            [only] => Entry::Dirref(*only),
            _ => return Err(NotDir),
        },
        Treeobj::Symlink(link) => Entry::Symlink(Rc::new(link)),
        Treeobj::Dir(entries) => {
            let entries = entries.into_iter().map(|(name, o)| Ok((name.into(), stored(o)?)));
            Entry::Open(Box::new(entries.collect::<Result<Dir, NotDir>>()?))
        }
    })
}

// === impl Entry ===

impl Entry {
    /// Bytes in memory beyond the entry itself, about.
    fn footprint(&self) -> usize {
        match self {
            Entry::Val(data) => 2 * SHARED + size_of::<Base64>() + data.as_str().len(),
            Entry::Valref(refs) => 2 * SHARED + std::mem::size_of_val(refs.as_slice()),
            Entry::Dirref(_) => 0,
            Entry::Symlink(link) => 2 * SHARED + size_of::<Symlink>() + link.target.len(),
            Entry::Open(dir) => SHARED + dir.footprint(),
        }
    }

    /// Append the entry's JSON.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Entry::Val(data) => {
                into.extend_from_slice(b"{\"data\":");
                encode_string(data.as_str(), into);
                into.extend_from_slice(b",\"type\":\"val\",\"ver\":1}");
            }
            Entry::Valref(refs) => encode_refs(refs, "valref", into),
            Entry::Dirref(blobref) => encode_refs(std::slice::from_ref(blobref), "dirref", into),
            Entry::Symlink(link) => {
                into.extend_from_slice(b"{\"data\":{");
                if let Some(namespace) = &link.namespace {
                    into.extend_from_slice(b"\"namespace\":");
                    encode_string(namespace, into);
                    into.push(b',');
                }
                into.extend_from_slice(b"\"target\":");
                encode_string(&link.target, into);
                into.extend_from_slice(b"},\"type\":\"symlink\",\"ver\":1}");
            }
            Entry::Open(dir) => dir.encode(into),
        }
    }
}

fn encode_refs(refs: &[Blobref], kind: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(b"{\"data\":[");
    let mut separator: &[u8] = b"\"";
    for blobref in refs {
        into.extend_from_slice(separator);
        separator = b",\"";
        encode_blobref(blobref, into);
        into.push(b'"');
    }
    // A vector takes all that is written.
    let _ = write!(into, "],\"type\":\"{kind}\",\"ver\":1}}");
}

pub(super) fn encode_blobref(blobref: &Blobref, into: &mut Vec<u8>) {
    into.extend_from_slice(blobref.hash_type().name().as_bytes());
    into.push(b'-');
    // A directory of a thousand jobs is written with each change in it: all digits at once.
    let mut digits = [0; 2 * MAX_DIGEST];
    let digest = blobref.digest();
    for (pair, byte) in digits.chunks_exact_mut(2).zip(digest) {
        pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
    }
    into.extend(digits.iter().take(2 * digest.len()));
}

/// Bytes of the longest digest.
const MAX_DIGEST: usize = 32;

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }
}

/// Names and base64 hardly ever need escapes.
pub(super) fn encode_string(text: &str, into: &mut Vec<u8>) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        into.push(b'"');
        into.extend_from_slice(text.as_bytes());
        into.push(b'"');
    } else {
        into.extend_from_slice(json::to_string(text).unwrap_or_default().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::blobref::HashType;
    use proptest::prelude::*;

    fn object() -> impl Strategy<Value = Treeobj> {
        let blobref = any::<[u8; 4]>().prop_map(|data| HashType::Sha1.hash(&data));
        prop_oneof![
            any::<Vec<u8>>().prop_map(|data| Treeobj::val(&data)),
            prop::collection::vec(blobref.clone(), 1..4).prop_map(Treeobj::Valref),
            blobref.prop_map(Treeobj::dirref),
            (prop::option::of("\\PC{0,4}"), "\\PC{0,4}")
                .prop_map(|(namespace, target)| Treeobj::symlink(namespace.as_deref(), &target)),
        ]
    }

    proptest! {
        #[test]
        fn a_directory_is_written_as_the_protocol_crate_writes_it(
            entries in prop::collection::btree_map("\\PC{0,6}|[\u{0}-\u{7f}]{0,3}", object(), 0..6)
        ) {
            let text = Treeobj::Dir(entries).encode().unwrap();
            let dir = Dir::decode(text.as_bytes()).unwrap();
            let mut blob = Vec::new();
            dir.encode(&mut blob);
            prop_assert_eq!(String::from_utf8(blob).unwrap(), text);
        }
    }

    #[test]
    fn anything_else_is_no_directory() {
        for blob in ["", "{}", "{\"data\":\"\",\"type\":\"val\",\"ver\":1}", "\u{0}"] {
            assert!(Dir::decode(blob.as_bytes()).is_err(), "{blob}");
        }
    }
}
