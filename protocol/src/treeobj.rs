//! KVS tree objects, RFC 11: values, directories, references to either, and symbolic links.

mod wire;

use crate::blobref::{Blobref, HashType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

/// A node of the KVS tree. The JSON form is `{"data":…,"type":"…","ver":1}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treeobj {
    /// A value, kept inside of the tree.
    Val(Base64),
    /// A value whose bytes are the blobs one after another. At least one.
    Valref(Vec<Blobref>),
    /// A directory, kept inside of the tree.
    Dir(Dir),
    /// A directory whose JSON text is the blobs one after another. At least one.
    Dirref(Vec<Blobref>),
    Symlink(Symlink),
}

/// Entries of a directory by name.
pub type Dir = BTreeMap<String, Treeobj>;

/// A pointer to another key, in another namespace if one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symlink {
    pub namespace: Option<String>,
    pub target: String,
}

/// The bytes of a value in base64. Flux checks the encoding only when the bytes are wanted, so what
/// a client stored may turn out to be none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(String);

#[derive(Debug, thiserror::Error)]
pub enum TreeobjError {
    #[error("invalid tree object: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a {0} needs at least one blobref")]
    NoBlobref(&'static str),
    #[error("value is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
}

// === impl Treeobj ===

impl Treeobj {
    pub fn val(data: &[u8]) -> Self {
        Self::Val(Base64::new(data))
    }

    pub fn empty_dir() -> Self {
        Self::Dir(Dir::new())
    }

    pub fn dirref(blobref: Blobref) -> Self {
        Self::Dirref(vec![blobref])
    }

    pub fn valref(blobref: Blobref) -> Self {
        Self::Valref(vec![blobref])
    }

    pub fn symlink(namespace: Option<&str>, target: &str) -> Self {
        let namespace = namespace.map(str::to_owned);
        Self::Symlink(Symlink { namespace, target: target.to_owned() })
    }

    /// A reference to `data` cut into blobs of at most `max_blob` bytes, and those blobs. No data is
    /// one empty blob.
    pub fn valref_of(hash: HashType, data: &[u8], max_blob: usize) -> (Self, Vec<&[u8]>) {
        let mut blobs: Vec<&[u8]> = data.chunks(max_blob.max(1)).collect();
        if blobs.is_empty() {
            blobs.push(data);
        }
        (Self::Valref(blobs.iter().map(|blob| hash.hash(blob)).collect()), blobs)
    }

    /// The name of the type, as in the JSON form.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Val(_) => "val",
            Self::Valref(_) => "valref",
            Self::Dir(_) => "dir",
            Self::Dirref(_) => "dirref",
            Self::Symlink(_) => "symlink",
        }
    }

    /// Blobs, directory entries, or 1.
    pub fn count(&self) -> usize {
        match self {
            Self::Valref(blobs) | Self::Dirref(blobs) => blobs.len(),
            Self::Dir(entries) => entries.len(),
            Self::Val(_) | Self::Symlink(_) => 1,
        }
    }

    pub fn as_dir(&self) -> Option<&Dir> {
        match self {
            Self::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn as_dir_mut(&mut self) -> Option<&mut Dir> {
        match self {
            Self::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    /// The references of a valref or dirref.
    pub fn blobrefs(&self) -> &[Blobref] {
        match self {
            Self::Valref(blobs) | Self::Dirref(blobs) => blobs,
            _ => &[],
        }
    }

    /// Read and check the JSON form.
    pub fn decode(json: &[u8]) -> Result<Self, TreeobjError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The one JSON text of this object: compact, keys in byte order. Blobrefs of directories are
    /// digests of it.
    pub fn encode(&self) -> Result<String, TreeobjError> {
        if let (Self::Valref(blobs) | Self::Dirref(blobs), name) = (self, self.type_name())
            && blobs.is_empty()
        {
            return Err(TreeobjError::NoBlobref(name));
        }
        Ok(crate::json::to_string(self)?)
    }
}

// === impl Base64 ===

impl Base64 {
    pub fn new(data: &[u8]) -> Self {
        Self(STANDARD.encode(data))
    }

    pub fn decode(&self) -> Result<Vec<u8>, TreeobjError> {
        Ok(STANDARD.decode(&self.0)?)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Number of bytes after decoding.
    pub fn data_len(&self) -> usize {
        let padding = self.0.bytes().rev().take(2).filter(|&b| b == b'=').count();
        (self.0.len() / 4 * 3).saturating_sub(padding)
    }
}
