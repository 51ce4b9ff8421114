//! Applying the operations of transactions to a copy of a namespace's tree.

use std::rc::Rc;

use bytes::Bytes;
use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::kvs_key;
use flux_protocol::rpc::kvs::{OP_APPEND, Op};
use flux_protocol::treeobj::{Base64, Treeobj};

use super::blobs::Blobs;
use super::dir::{Dir, Entry};

/// Values with a longer base64 text are blobs of their own: it would be longer than a blobref.
const INLINE_MAX: usize = 72;
/// Names in a key.
const DEPTH_MAX: usize = 512;
/// Symbolic links on the way to one key.
const LINKS_MAX: usize = 10;

/// A tree that is being changed.
#[derive(Debug)]
pub(super) struct Draft {
    namespace: String,
    hash: HashType,
    root: Dir,
    /// Blobs that the changed tree refers to and that were made for it.
    made: Vec<(Blobref, Bytes)>,
}

/// Why an operation could not be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// This blob has to be loaded first; then try again.
    Missing(Blobref),
    Failed(Errno),
}

/// A tree that has been changed: its root, and the blobs to store.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) rootref: Blobref,
    pub(super) root: Rc<Dir>,
    pub(super) made: Vec<(Blobref, Bytes)>,
    /// How many of them were here before.
    pub(super) noops: u64,
}

#[derive(Clone, Copy)]
enum Change<'a> {
    Put(&'a Treeobj),
    Append(&'a Base64),
    Unlink,
}

/// Where following a symbolic link leads.
struct Redirect(String);

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Problem {
        Problem::Failed(errno)
    }
}

// === impl Change ===

impl Change<'_> {
    fn of(op: &Op) -> Result<Change<'_>, Errno> {
        let append = op.flags & OP_APPEND != 0;
        match &op.dirent {
            None => Ok(Change::Unlink),
            Some(Treeobj::Val(data)) if append => Ok(Change::Append(data)),
            Some(_) if append => Err(Errno::EPROTO),
            Some(object) => Ok(Change::Put(object)),
        }
    }
}

// === impl Draft ===

impl Draft {
    pub(super) fn new(namespace: &str, hash: HashType, root: Dir) -> Draft {
        Draft { namespace: namespace.to_owned(), hash, root, made: Vec::new() }
    }

    /// Apply one operation. When a blob is missing nothing has been changed.
    pub(super) fn apply(&mut self, op: &Op, blobs: &mut Blobs) -> Result<(), Problem> {
        let change = Change::of(op)?;
        let mut key = op.key.clone();
        for _ in 0..=LINKS_MAX {
            match self.apply_at(&key, change, blobs)? {
                Some(Redirect(target)) => key = target,
                None => return Ok(()),
            }
        }
        Err(Errno::ELOOP.into())
    }

    /// Walk to the key, opening directories on the way and making those that are missing.
    fn apply_at(
        &mut self,
        key: &str,
        change: Change<'_>,
        blobs: &mut Blobs,
    ) -> Result<Option<Redirect>, Problem> {
        let names: Vec<&str> = kvs_key::names(key).collect();
        let (last, parents) = names.split_last().ok_or(Errno::EINVAL)?;
        if names.len() > DEPTH_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let mut dir = &mut self.root;
        for (depth, name) in parents.iter().enumerate() {
            let opened = match dir.entries.get(*name) {
                Some(Entry::Open(_)) => None,
                Some(Entry::Dirref(blobref)) => Some(open(blobref, blobs)?),
                Some(Entry::Symlink(link)) => {
                    if link.namespace.as_ref().is_some_and(|other| *other != self.namespace) {
                        return Err(Errno::EINVAL.into());
                    }
                    let rest = names.get(depth + 1..).unwrap_or_default().join(".");
                    return Ok(Some(Redirect(format!("{}.{rest}", link.target))));
                }
                _ if matches!(change, Change::Unlink) => return Ok(None),
                _ => Some(Dir::default()),
            };
            if let Some(opened) = opened {
                dir.entries.insert((*name).into(), Entry::Open(Box::new(opened)));
            }
            dir = match dir.entries.get_mut(*name) {
                Some(Entry::Open(sub)) => sub,
                _ => return Err(Errno::ENOTRECOVERABLE.into()),
            };
        }
        let mut made = Made { hash: self.hash, list: &mut self.made, noops: 0 };
        match change {
            Change::Put(object) => {
                let entry = made.entry(object)?;
                dir.entries.insert((*last).into(), entry);
            }
            Change::Append(data) => append(dir, last, data, &mut made)?,
            Change::Unlink => drop(dir.entries.remove(*last)),
        }
        Ok(None)
    }

    /// Close the directories, the deepest first.
    pub(super) fn finish(self, blobs: &mut Blobs) -> Changed {
        let Draft { hash, root, mut made, .. } = self;
        let mut noops = 0;
        for (blobref, data) in &made {
            noops += u64::from(blobs.contains(blobref));
            blobs.insert_raw(*blobref, data.clone());
        }
        let mut made = Made { hash, list: &mut made, noops };
        let (rootref, root) = made.close(root, blobs);
        Changed { rootref, root, noops: made.noops, made: std::mem::take(made.list) }
    }
}

fn open(blobref: &Blobref, blobs: &mut Blobs) -> Result<Dir, Problem> {
    let dir = blobs.dir(blobref).map_err(|_| Errno::ENOTRECOVERABLE)?;
    let dir = dir.ok_or(Problem::Missing(*blobref))?;
    Ok((*dir).clone())
}

fn append(dir: &mut Dir, name: &str, data: &Base64, made: &mut Made<'_>) -> Result<(), Errno> {
    match dir.entries.get_mut(name) {
        None => {
            let entry = made.val(data)?;
            dir.entries.insert(name.into(), entry);
        }
        Some(Entry::Valref(refs)) => {
            let blobref = made.value(data)?;
            Rc::make_mut(refs).push(blobref);
        }
        Some(entry @ Entry::Val(_)) => {
            if let Entry::Val(before) = entry {
                let refs = vec![made.value(before)?, made.value(data)?];
                *entry = Entry::Valref(Rc::new(refs));
            }
        }
        Some(Entry::Symlink(_)) => return Err(Errno::ENOTSUP),
        Some(Entry::Dirref(_) | Entry::Open(_)) => return Err(Errno::EISDIR),
    }
    Ok(())
}

/// Makes blobs.
struct Made<'a> {
    hash: HashType,
    list: &'a mut Vec<(Blobref, Bytes)>,
    noops: u64,
}

impl Made<'_> {
    fn blob(&mut self, data: Bytes) -> Blobref {
        let blobref = self.hash.hash(&data);
        self.list.push((blobref, data));
        blobref
    }

    fn value(&mut self, data: &Base64) -> Result<Blobref, Errno> {
        let data = data.decode().map_err(|_| Errno::EPROTO)?;
        Ok(self.blob(data.into()))
    }

    fn val(&mut self, data: &Base64) -> Result<Entry, Errno> {
        if data.as_str().len() > INLINE_MAX {
            Ok(Entry::Valref(Rc::new(vec![self.value(data)?])))
        } else {
            Ok(Entry::Val(Rc::new(data.clone())))
        }
    }

    /// What a client put, as it stands in a directory.
    fn entry(&mut self, object: &Treeobj) -> Result<Entry, Errno> {
        Ok(match object {
            Treeobj::Val(data) => self.val(data)?,
            Treeobj::Valref(refs) => Entry::Valref(Rc::new(refs.clone())),
            Treeobj::Dirref(refs) => match refs.as_slice() {
                [only] => Entry::Dirref(*only),
                _ => return Err(Errno::EINVAL),
            },
            Treeobj::Symlink(link) => Entry::Symlink(Rc::new(link.clone())),
            Treeobj::Dir(entries) => {
                let entry = |(name, object): (&String, _)| {
                    Ok((Rc::from(name.as_str()), self.entry(object)?))
                };
                Entry::Open(Box::new(entries.iter().map(entry).collect::<Result<Dir, Errno>>()?))
            }
        })
    }

    fn close(&mut self, mut dir: Dir, blobs: &mut Blobs) -> (Blobref, Rc<Dir>) {
        for entry in dir.entries.values_mut() {
            if let Entry::Open(sub) = entry {
                let (blobref, _) = self.close(std::mem::take(&mut **sub), blobs);
                *entry = Entry::Dirref(blobref);
            }
        }
        let mut blob = Vec::with_capacity(dir.entries.len() * 128 + 64);
        dir.encode(&mut blob);
        let size = blob.len();
        let blobref = self.blob(blob.into());
        let dir = Rc::new(dir);
        self.noops += u64::from(blobs.contains(&blobref));
        blobs.insert_dir(blobref, dir.clone(), size);
        (blobref, dir)
    }
}
