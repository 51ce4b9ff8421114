//! Finding the entry that a key names.

use std::collections::VecDeque;
use std::rc::Rc;

use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::kvs_key;
use flux_protocol::rpc::kvs::lookup::{READLINK, TREEOBJ};
use flux_protocol::treeobj::Symlink;

use super::blobs::Blobs;
use super::dir::Entry;

/// Symbolic links inside of the targets of others.
const LINK_DEPTH_MAX: usize = 10;

/// A walk that stops where something has to be fetched, and can go on from there.
#[derive(Debug)]
pub(super) struct Walk {
    at: Entry,
    rest: VecDeque<Step>,
    /// A link at the end is what is looked for, not what it points to.
    keep_link: bool,
    started: bool,
}

/// A name to look up next.
#[derive(Debug)]
struct Step {
    name: Box<str>,
    /// Where targets of links begin.
    root: Blobref,
    depth: usize,
}

/// How far a walk got.
#[derive(Debug)]
pub(super) enum Outcome {
    Found(Entry),
    /// There is nothing of that name.
    Absent,
    /// This directory has to be loaded.
    Missing(Blobref),
    /// The root of this namespace has to be known.
    Namespace(String),
}

/// The root of a namespace: nothing when it isn't known here, an error when the caller may not
/// use it.
pub(super) type Roots<'a> = &'a dyn Fn(&str) -> Result<Option<Blobref>, Errno>;

impl Walk {
    pub(super) fn new(root: Blobref, key: &str, flags: u32) -> Walk {
        let step = |name: &str| Step { name: name.into(), root, depth: 0 };
        Walk {
            at: Entry::Dirref(root),
            rest: kvs_key::names(key).map(step).collect(),
            keep_link: flags & (READLINK | TREEOBJ) != 0,
            started: false,
        }
    }

    pub(super) fn proceed(
        &mut self,
        blobs: &mut Blobs,
        roots: Roots<'_>,
    ) -> Result<Outcome, Errno> {
        while let Some(step) = self.rest.front() {
            let found = match &self.at {
                Entry::Dirref(blobref) => {
                    // The first one is what the caller gave.
                    let blame = if self.started { Errno::ENOTRECOVERABLE } else { Errno::EINVAL };
                    match blobs.dir(blobref).map_err(|_| blame)? {
                        Some(dir) => dir.entries.get(&*step.name).cloned(),
                        None => return Ok(Outcome::Missing(*blobref)),
                    }
                }
                Entry::Open(dir) => dir.entries.get(&*step.name).cloned(),
                Entry::Val(_) | Entry::Valref(_) | Entry::Symlink(_) => None,
            };
            self.started = true;
            match found {
                None => return Ok(Outcome::Absent),
                Some(Entry::Symlink(link)) if self.rest.len() > 1 || !self.keep_link => {
                    if let Some(namespace) = self.follow(&link, roots)? {
                        return Ok(Outcome::Namespace(namespace));
                    }
                }
                Some(entry) => {
                    self.at = entry;
                    self.rest.pop_front();
                }
            }
        }
        Ok(Outcome::Found(self.at.clone()))
    }

    /// Go on at the target of a link; returns a namespace whose root is not known.
    fn follow(&mut self, link: &Rc<Symlink>, roots: Roots<'_>) -> Result<Option<String>, Errno> {
        let Some(step) = self.rest.front() else { return Ok(None) };
        let depth = step.depth + 1;
        if depth > LINK_DEPTH_MAX {
            return Err(Errno::ELOOP);
        }
        let root = match &link.namespace {
            None => step.root,
            Some(namespace) => match roots(namespace)? {
                Some(root) => root,
                None => return Ok(Some(namespace.clone())),
            },
        };
        self.rest.pop_front();
        for name in kvs_key::names(&link.target).rev() {
            self.rest.push_front(Step { name: name.into(), root, depth });
        }
        self.at = Entry::Dirref(root);
        Ok(None)
    }
}
