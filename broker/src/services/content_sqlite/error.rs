//! What can go wrong with the database, and the errno that callers get for it.

use std::path::PathBuf;

use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use rusqlite::ErrorCode;

#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{}: {}", path.display(), Errno::from(error))]
    File { path: PathBuf, error: std::io::Error },
    #[error("{} is in use by another broker", path.display())]
    InUse { path: PathBuf },
    #[error("{} is not a content database: {reason}; move it away, or restore it from a dump",
        path.display())]
    NoDatabase { path: PathBuf, reason: String },
    #[error("{} is damaged: {reason}; move it away, and restore it from a dump", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("{} is {what}, and {} shows that it was not: remove {} to begin with an empty store, \
        or restore it from a dump", path.display(), trace.display(), remedy.display())]
    Emptied { path: PathBuf, what: &'static str, trace: PathBuf, remedy: PathBuf },
    #[error("{} holds {holds} content, but content.hash is {wanted}", path.display())]
    HashType { path: PathBuf, holds: HashType, wanted: HashType },
    #[error("{}: {error}", path.display())]
    Sqlite { path: PathBuf, error: rusqlite::Error },
    #[error("no such blob")]
    Unknown,
    #[error("blob {0} is damaged in the database: {1}")]
    Damaged(Blobref, String),
    #[error("no checkpoint")]
    NoCheckpoint,
    #[error("{}: a checkpoint in the database is invalid: {reason}; restore it from a dump",
        path.display())]
    BadCheckpoint { path: PathBuf, reason: String },
    #[error("{0}")]
    Invalid(String),
    /// The error of a transaction that several blobs were in.
    #[error("{0}")]
    Reported(Failure),
    #[error("the database has been closed")]
    Closed,
}

impl StoreError {
    pub(super) fn errno(&self) -> Errno {
        match self {
            StoreError::File { error, .. } => Errno::from(error),
            StoreError::InUse { .. } => Errno::EBUSY,
            StoreError::Sqlite { error, .. } => sqlite_errno(error),
            StoreError::Unknown | StoreError::NoCheckpoint => Errno::ENOENT,
            StoreError::Damaged(..) => Errno::EIO,
            StoreError::Reported(failure) => failure.errno,
            StoreError::Closed => Errno::ENOSYS,
            StoreError::NoDatabase { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Emptied { .. }
            | StoreError::HashType { .. }
            | StoreError::BadCheckpoint { .. }
            | StoreError::Invalid(_) => Errno::EINVAL,
        }
    }

    /// What is wrong with one blob is no reason to refuse its neighbours.
    pub(super) fn is_about_one_blob(&self) -> bool {
        matches!(self, StoreError::Sqlite { error, .. }
            if error.sqlite_error_code() == Some(ErrorCode::TooBig))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            StoreError::Reported(failure) => failure,
            // Nothing to explain: the caller knows what it asked for.
            StoreError::Unknown | StoreError::NoCheckpoint => error.errno().into(),
            // SQLite says "database or disk is full".
            StoreError::Sqlite { ref path, .. } if error.errno() == Errno::ENOSPC => {
                let (path, what) = (path.display(), Errno::ENOSPC);
                Failure::new(Errno::ENOSPC, format!("{path}: {what}, make room there"))
            }
            _ => Failure::new(error.errno(), error.to_string()),
        }
    }
}

fn sqlite_errno(error: &rusqlite::Error) -> Errno {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Errno::ENOSPC,
        Some(ErrorCode::SystemIoFailure) => Errno::EIO,
        Some(ErrorCode::OutOfMemory) => Errno::ENOMEM,
        Some(ErrorCode::TooBig) => Errno::EFBIG,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Errno::EBUSY,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::OperationAborted) => {
            Errno::EPERM
        }
        Some(ErrorCode::CannotOpen) => Errno::EACCES,
        _ => Errno::EINVAL,
    }
}
