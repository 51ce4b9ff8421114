//! Going through a tree of the key value store (RFC 11), blob by blob.

use std::collections::VecDeque;

use bytes::Bytes;
use flux_client::{Client, Pending};
use flux_protocol::blobref::Blobref;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::{content, content_backing};
use flux_protocol::treeobj::{Symlink, Treeobj};

use crate::failure::Failure;

/// Where blobs come from, and how they are asked for.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) flux: &'a Client,
    /// Between the parts of a path.
    pub(crate) separator: char,
    /// From the backing store itself, not through the caches.
    pub(crate) bypass: bool,
    /// Objects whose blobs are being waited for at a time.
    pub(crate) window: usize,
}

/// What is done with what is found. An error ends the walk.
pub(crate) trait Visitor {
    /// Whether a directory is to be looked into.
    fn enter(&mut self, _: Blobref) -> Result<bool, Failure> {
        Ok(true)
    }

    /// Whether the blobs of a value are to be loaded.
    fn wants(&mut self, _: &[Blobref]) -> Result<bool, Failure> {
        Ok(true)
    }

    /// There is something at a path; all that is in the tree is told of, below the root.
    fn found(&mut self, _: &str) {}

    fn value(&mut self, path: &str, pieces: &[Bytes]) -> Result<(), Failure>;

    fn symlink(&mut self, path: &str, link: &Symlink) -> Result<(), Failure>;

    /// Something can't be read.
    fn broken(&mut self, path: &str, reason: String) -> Result<(), Failure>;

    /// Some blobs of a value can't be loaded; each is named by where it is among them.
    fn value_lost(
        &mut self,
        path: &str,
        _: &[Blobref],
        lost: &[(usize, Errno)],
    ) -> Result<(), Failure> {
        match lost.first() {
            Some((at, errno)) => self.broken(path, format!("missing blobref {at}: {errno}")),
            None => Ok(()),
        }
    }

    /// A directory can't be loaded.
    fn directory_lost(&mut self, path: &str, errno: Errno) -> Result<(), Failure> {
        self.broken(path, format!("could not load content: {errno}"))
    }
}

struct Node {
    path: String,
    what: Reference,
}

enum Reference {
    Dir(Vec<Blobref>),
    Value(Vec<Blobref>),
}

impl Walk<'_> {
    /// Visit everything below a root, parts of a directory in their order as far as they are in
    /// the directory itself.
    pub(crate) async fn run(
        &self,
        root: Blobref,
        visitor: &mut impl Visitor,
    ) -> Result<(), Failure> {
        // The last first, so that no more waits than what the directories on the way hold.
        let mut waiting = Vec::new();
        let mut loading: VecDeque<(Node, Vec<Pending<Raw>>)> = VecDeque::new();
        if visitor.enter(root)? {
            waiting.push(Node { path: String::new(), what: Reference::Dir(vec![root]) });
        }
        loop {
            while loading.len() < self.window
                && let Some(node) = waiting.pop()
            {
                let pieces = node.what.blobs().iter().map(|blobref| self.load(blobref));
                let pieces = pieces.collect::<Result<_, _>>()?;
                loading.push_back((node, pieces));
            }
            let Some((node, pieces)) = loading.pop_front() else { return Ok(()) };
            let mut blobs = Vec::with_capacity(pieces.len());
            let mut lost = Vec::new();
            for (at, piece) in pieces.into_iter().enumerate() {
                match piece.await {
                    Ok(Raw(blob)) => blobs.push(blob),
                    Err(error) => lost.push((at, error.errno())),
                }
            }
            match (&node.what, lost.first()) {
                (Reference::Value(all), Some(_)) => visitor.value_lost(&node.path, all, &lost)?,
                (Reference::Dir(_), Some((_, errno))) => {
                    visitor.directory_lost(&node.path, *errno)?;
                }
                (Reference::Value(_), None) => visitor.value(&node.path, &blobs)?,
                (Reference::Dir(_), None) => {
                    self.directory(&node.path, &blobs.concat(), visitor, &mut waiting)?;
                }
            }
        }
    }

    fn directory(
        &self,
        path: &str,
        blob: &[u8],
        visitor: &mut impl Visitor,
        waiting: &mut Vec<Node>,
    ) -> Result<(), Failure> {
        let entries = match Treeobj::decode(blob) {
            Ok(Treeobj::Dir(entries)) => entries,
            Ok(_) => {
                let reason = "dirref references non-directory".to_owned();
                return visitor.broken(path, reason);
            }
            Err(_) => {
                return visitor.broken(path, "could not decode tree object".to_owned());
            }
        };
        // A directory may be within the one above; what waits from before goes on after it.
        let mut inner = vec![(path.to_owned(), entries)];
        let mut found = Vec::new();
        while let Some((path, entries)) = inner.pop() {
            for (name, object) in entries {
                let path = match path.is_empty() {
                    true => name,
                    false => format!("{path}{}{name}", self.separator),
                };
                visitor.found(&path);
                match object {
                    Treeobj::Val(data) => match data.decode() {
                        Ok(data) => visitor.value(&path, &[data.into()])?,
                        Err(_) => visitor.broken(&path, "invalid value object".to_owned())?,
                    },
                    Treeobj::Symlink(link) => visitor.symlink(&path, &link)?,
                    Treeobj::Dir(entries) => inner.push((path, entries)),
                    Treeobj::Valref(blobs) => {
                        if visitor.wants(&blobs)? {
                            found.push(Node { path, what: Reference::Value(blobs) });
                        }
                    }
                    Treeobj::Dirref(blobs) => {
                        let mut enter = false;
                        for blobref in &blobs {
                            enter |= visitor.enter(*blobref)?;
                        }
                        if enter {
                            found.push(Node { path, what: Reference::Dir(blobs) });
                        }
                    }
                }
            }
        }
        waiting.extend(found.into_iter().rev());
        Ok(())
    }

    fn load(&self, blobref: &Blobref) -> Result<Pending<Raw>, Failure> {
        let digest = Raw(blobref.digest().to_vec().into());
        Ok(match self.bypass {
            true => self.flux.start::<content_backing::Load>(Nodeid(0), &digest)?,
            false => self.flux.start::<content::Load>(Nodeid::ANY, &digest)?,
        })
    }
}

impl Reference {
    fn blobs(&self) -> &[Blobref] {
        match self {
            Reference::Dir(blobs) | Reference::Value(blobs) => blobs,
        }
    }
}
