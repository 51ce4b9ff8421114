//! What a process launcher tells the broker that it starts, and tells the others of it: by the wire
//! protocol of PMI-1 (RFC 13) or by the launcher's own library.

mod library;
pub(super) mod simple;

use flux_pmi::library::LibraryError;

pub(super) use library::LibraryPmi;
use simple::SimplePmi;

/// Why the launcher could not be talked to.
#[derive(Debug, thiserror::Error)]
pub enum PmiError {
    #[error("simple: {name}={value} is invalid")]
    Environment { name: &'static str, value: String },
    #[error("simple: {command}: {error}")]
    Io { command: &'static str, error: std::io::Error },
    #[error("simple: {command}: the launcher closed the connection")]
    Closed { command: &'static str },
    #[error("simple: {command}: unexpected response '{line}'")]
    Unexpected { command: &'static str, line: String },
    #[error("simple: {command}: the launcher failed it (rc={rc})")]
    Refused { command: &'static str, rc: String },
    #[error("value of {key} has {len} bytes, of which the launcher takes {max}")]
    TooLong { key: String, len: usize, max: usize },
    #[error("{method}: {command}: {error}")]
    Library { method: &'static str, command: &'static str, error: LibraryError },
    #[error("{method}: {command}: the thread that the library was called in is gone")]
    Gone { method: &'static str, command: &'static str },
}

/// A conversation with a launcher, past its init.
#[derive(Debug)]
pub(super) enum Pmi {
    Simple(SimplePmi),
    Library(LibraryPmi),
}

// === impl Pmi ===

impl Pmi {
    /// As `broker.boot-method` has it.
    pub(super) fn method(&self) -> &'static str {
        match self {
            Pmi::Simple(_) => "simple",
            Pmi::Library(library) => library.method(),
        }
    }

    pub(super) fn rank(&self) -> u32 {
        match self {
            Pmi::Simple(simple) => simple.rank,
            Pmi::Library(library) => library.rank,
        }
    }

    pub(super) fn size(&self) -> u32 {
        match self {
            Pmi::Simple(simple) => simple.size,
            Pmi::Library(library) => library.size,
        }
    }

    /// Of the key-value space; for `flux-shell`, the job id.
    pub(super) fn kvsname(&self) -> &str {
        match self {
            Pmi::Simple(simple) => &simple.kvsname,
            Pmi::Library(library) => &library.kvsname,
        }
    }

    /// Longest value, with the terminating NUL of C clients.
    fn value_max(&self) -> usize {
        match self {
            Pmi::Simple(simple) => simple.value_max,
            Pmi::Library(_) => LibraryPmi::VALUE_MAX,
        }
    }

    /// Offer a value to all ranks; they may get it after the next barrier.
    pub(super) async fn put(&mut self, key: &str, value: &str) -> Result<(), PmiError> {
        let (len, max) = (value.len(), self.value_max().saturating_sub(1));
        if len > max {
            return Err(PmiError::TooLong { key: key.to_owned(), len, max });
        }
        match self {
            Pmi::Simple(simple) => simple.put(key, value).await,
            Pmi::Library(library) => library.put(key, value).await,
        }
    }

    /// Like [`Pmi::put`]; false, with nothing put, when the value is too long.
    pub(super) async fn try_put(&mut self, key: &str, value: &str) -> Result<bool, PmiError> {
        match self.put(key, value).await {
            Ok(()) => Ok(true),
            Err(PmiError::TooLong { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn get(&mut self, key: &str) -> Result<String, PmiError> {
        match self {
            Pmi::Simple(simple) => simple.get(key).await,
            Pmi::Library(library) => library.get(key).await,
        }
    }

    /// The value, or nothing when there is none.
    pub(super) async fn lookup(&mut self, key: &str) -> Result<Option<String>, PmiError> {
        match self.get(key).await {
            Ok(value) => Ok(Some(value)),
            // Which of their codes libraries use for a key that is not there differs.
            Err(PmiError::Refused { .. } | PmiError::Library { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Wait until all ranks are here.
    pub(super) async fn barrier(&mut self) -> Result<(), PmiError> {
        match self {
            Pmi::Simple(simple) => simple.barrier().await,
            Pmi::Library(library) => library.barrier().await,
        }
    }

    pub(super) async fn finalize(self) -> Result<(), PmiError> {
        match self {
            Pmi::Simple(simple) => simple.finalize().await,
            Pmi::Library(library) => library.finalize().await,
        }
    }
}
