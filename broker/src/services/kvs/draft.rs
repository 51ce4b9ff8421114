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

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::treeobj::Symlink;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// What a tree is, said in the simplest way.
    #[derive(Debug, Clone, PartialEq)]
    enum Node {
        Val(Vec<u8>),
        Dir(BTreeMap<String, Node>),
    }

    #[derive(Debug, Clone)]
    enum Action {
        Put(Vec<u8>),
        Append(Vec<u8>),
        Mkdir,
        Unlink,
    }

    impl Action {
        fn op(&self, key: &str) -> Op {
            let (flags, dirent) = match self {
                Action::Put(data) => (0, Some(Treeobj::val(data))),
                Action::Append(data) => (OP_APPEND, Some(Treeobj::val(data))),
                Action::Mkdir => (0, Some(Treeobj::empty_dir())),
                Action::Unlink => (0, None),
            };
            Op { key: key.to_owned(), flags, dirent }
        }
    }

    impl Node {
        fn apply(&mut self, names: &[&str], action: &Action) -> Result<(), Errno> {
            let (name, rest) = names.split_first().unwrap();
            if let Node::Val(_) = self {
                if matches!(action, Action::Unlink) {
                    return Ok(());
                }
                *self = Node::Dir(BTreeMap::new());
            }
            let Node::Dir(entries) = self else { unreachable!() };
            if !rest.is_empty() {
                if matches!(action, Action::Unlink) && !entries.contains_key(*name) {
                    return Ok(());
                }
                let empty = || Node::Dir(BTreeMap::new());
                return entries.entry((*name).to_owned()).or_insert_with(empty).apply(rest, action);
            }
            match (action, entries.get_mut(*name)) {
                (Action::Append(_), Some(Node::Dir(_))) => return Err(Errno::EISDIR),
                (Action::Append(data), Some(Node::Val(before))) => before.extend(data),
                (Action::Put(data) | Action::Append(data), _) => {
                    entries.insert((*name).to_owned(), Node::Val(data.clone()));
                }
                (Action::Mkdir, _) => {
                    entries.insert((*name).to_owned(), Node::Dir(BTreeMap::new()));
                }
                (Action::Unlink, _) => {
                    entries.remove(*name);
                }
            }
            Ok(())
        }
    }

    /// Read a stored tree back.
    fn read(dir: &Dir, blobs: &mut Blobs) -> Node {
        let mut node = BTreeMap::new();
        for (name, entry) in &dir.entries {
            let child = match entry {
                Entry::Val(data) => Node::Val(data.decode().unwrap()),
                Entry::Valref(refs) => {
                    Node::Val(refs.iter().flat_map(|r| blobs.raw(r).unwrap()).collect())
                }
                Entry::Dirref(blobref) => {
                    let dir = blobs.dir(blobref).unwrap().unwrap();
                    read(&dir, blobs)
                }
                other => panic!("{other:?} in a stored directory"),
            };
            node.insert(name.to_string(), child);
        }
        Node::Dir(node)
    }

    fn action() -> impl Strategy<Value = (String, Action)> {
        let data = || prop::collection::vec(any::<u8>(), 0..120);
        let action = prop_oneof![
            3 => data().prop_map(Action::Put),
            3 => data().prop_map(Action::Append),
            1 => Just(Action::Mkdir),
            2 => Just(Action::Unlink),
        ];
        ("[abc](\\.[abc]){0,3}", action)
    }

    proptest! {
        #[test]
        fn transactions_do_to_the_tree_what_they_do_to_a_simple_one(
            transactions in prop::collection::vec(prop::collection::vec(action(), 0..6), 1..8)
        ) {
            let (mut blobs, mut root) = (Blobs::default(), Rc::new(Dir::default()));
            let mut model = Node::Dir(BTreeMap::new());
            for transaction in transactions {
                let mut draft = Draft::new("primary", HashType::Sha1, (*root).clone());
                let mut expected = model.clone();
                let mut result = (Ok(()), Ok(()));
                for (key, action) in &transaction {
                    let names: Vec<&str> = key.split('.').collect();
                    result.0 = expected.apply(&names, action).map_err(Problem::Failed);
                    result.1 = draft.apply(&action.op(key), &mut blobs);
                    if result.0.is_err() || result.1.is_err() {
                        break;
                    }
                }
                prop_assert_eq!(&result.0, &result.1);
                if result.0.is_ok() {
                    root = draft.finish(&mut blobs).root;
                    model = expected;
                }
                prop_assert_eq!(read(&root, &mut blobs), model.clone());
            }
        }

        #[test]
        fn an_appended_value_is_the_concatenation_and_keeps_its_blobs(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..10)
        ) {
            let mut blobs = Blobs::default();
            let mut root = Rc::new(Dir::default());
            let mut refs_before = Vec::new();
            for part in &parts {
                let mut draft = Draft::new("primary", HashType::Sha1, (*root).clone());
                draft.apply(&Action::Append(part.clone()).op("log"), &mut blobs).unwrap();
                root = draft.finish(&mut blobs).root;
                if let Some(Entry::Valref(refs)) = root.entries.get("log") {
                    prop_assert!(refs.starts_with(&refs_before));
                    refs_before = refs.to_vec();
                }
            }
            let expected = BTreeMap::from([("log".to_owned(), Node::Val(parts.concat()))]);
            prop_assert_eq!(read(&root, &mut blobs), Node::Dir(expected));
        }
    }

    fn apply(root: &Dir, op: &Op, blobs: &mut Blobs) -> Result<Rc<Dir>, Problem> {
        let mut draft = Draft::new("primary", HashType::Sha1, root.clone());
        draft.apply(op, blobs)?;
        Ok(draft.finish(blobs).root)
    }

    fn link(namespace: Option<&str>, target: &str) -> (Rc<str>, Entry) {
        let namespace = namespace.map(str::to_owned);
        ("link".into(), Entry::Symlink(Rc::new(Symlink { namespace, target: target.to_owned() })))
    }

    #[test]
    fn a_key_below_a_link_is_put_where_the_link_leads() {
        let mut blobs = Blobs::default();
        let root = Dir::from_iter([link(None, "real")]);
        let root = apply(&root, &Action::Put(b"1".into()).op("link.x"), &mut blobs).unwrap();
        assert!(matches!(root.entries.get("link"), Some(Entry::Symlink(_))));
        let Some(Entry::Dirref(real)) = root.entries.get("real") else { panic!("{root:?}") };
        assert!(blobs.dir(real).unwrap().unwrap().entries.contains_key("x"));
        let same = Dir::from_iter([link(Some("primary"), "real")]);
        assert!(apply(&same, &Action::Unlink.op("link.x"), &mut blobs).is_ok());
    }

    #[test]
    fn links_to_other_namespaces_and_endless_links_fail() {
        let mut blobs = Blobs::default();
        let put = Action::Put(b"1".into()).op("link.x");
        let other = Dir::from_iter([link(Some("other"), "real")]);
        let error = apply(&other, &put, &mut blobs).unwrap_err();
        assert_eq!(error, Problem::Failed(Errno::EINVAL));
        let endless = Dir::from_iter([link(None, "link.a")]);
        let error = apply(&endless, &put, &mut blobs).unwrap_err();
        assert_eq!(error, Problem::Failed(Errno::ELOOP));
    }

    #[test]
    fn what_can_not_be_appended_to_is_refused() {
        let mut blobs = Blobs::default();
        let root =
            Dir::from_iter([link(None, "real"), ("dir".into(), Entry::Open(Box::default()))]);
        let failed = |key, blobs: &mut Blobs| {
            apply(&root, &Action::Append(b"1".into()).op(key), blobs).unwrap_err()
        };
        assert_eq!(failed("link", &mut blobs), Problem::Failed(Errno::ENOTSUP));
        assert_eq!(failed("dir", &mut blobs), Problem::Failed(Errno::EISDIR));
        let mut op = Action::Mkdir.op("new");
        op.flags = OP_APPEND;
        assert_eq!(apply(&root, &op, &mut blobs).unwrap_err(), Problem::Failed(Errno::EPROTO));
        for key in ["", ".", "..."] {
            let error = apply(&root, &Action::Unlink.op(key), &mut blobs).unwrap_err();
            assert_eq!(error, Problem::Failed(Errno::EINVAL), "{key}");
        }
        let deep = vec!["a"; DEPTH_MAX + 1].join(".");
        let error = apply(&root, &Action::Mkdir.op(&deep), &mut blobs).unwrap_err();
        assert_eq!(error, Problem::Failed(Errno::ENAMETOOLONG));
    }

    #[test]
    fn a_missing_directory_is_named_and_the_operation_can_be_tried_again() {
        let (mut blobs, mut elsewhere) = (Blobs::default(), Blobs::default());
        let root = apply(&Dir::default(), &Action::Put(b"1".into()).op("a.b"), &mut elsewhere);
        let root = root.unwrap();
        let Some(Entry::Dirref(a)) = root.entries.get("a").cloned() else { panic!("{root:?}") };
        let mut draft = Draft::new("primary", HashType::Sha1, (*root).clone());
        let put = Action::Append(b"2".into()).op("a.b");
        assert_eq!(draft.apply(&put, &mut blobs), Err(Problem::Missing(a)));
        let dir = elsewhere.dir(&a).unwrap().unwrap();
        let mut blob = Vec::new();
        dir.encode(&mut blob);
        blobs.insert_raw(a, blob.into());
        assert_eq!(draft.apply(&put, &mut blobs), Ok(()));
        let root = draft.finish(&mut blobs).root;
        let expected = BTreeMap::from([("b".to_owned(), Node::Val(b"12".to_vec()))]);
        let expected = BTreeMap::from([("a".to_owned(), Node::Dir(expected))]);
        assert_eq!(read(&root, &mut blobs), Node::Dir(expected));
    }
}
