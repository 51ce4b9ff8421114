//! What can go wrong with the database, and the errno that callers get for it.

use std::path::PathBuf;

use flux_protocol::blobref::{Blobref, HashType};
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use rusqlite::ErrorCode;

use crate::services::backing::Trouble;

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
    #[error("{} is damaged: its header is not valid, so that what it holds can't be read; move it and \
        {} away, and restore from a dump, or move it alone away to go on without what it holds",
        log.display(), path.display())]
    LogHeader { log: PathBuf, path: PathBuf },
    #[error("{} is damaged at byte {from}, and a checkpoint that was on the disk is behind it; move it \
        and {} away, and restore from a dump, or keep a copy of both and `truncate -s {from}` it to \
        go on with what is before the damage", log.display(), path.display())]
    LogFrames { log: PathBuf, path: PathBuf, from: u64 },
    #[error("{} is not the file any more that was opened: bring that back, or save what it has with \
        flux dump and end the instance", path.display())]
    Gone { path: PathBuf },
    #[error("{} is no regular file: move it away, and restore it from a dump", path.display())]
    NoFile { path: PathBuf },
    #[error("{} is a link to {}, which is not there: bring that back, or remove the link to begin \
        with an empty store", path.display(), target.display())]
    BrokenLink { path: PathBuf, target: PathBuf },
    #[error("{} has a table {table}, which a newer version of Flux made: use that, or restore from a \
        dump that it makes", path.display())]
    Newer { path: PathBuf, table: String },
    #[error("{} holds {holds} content, but content.hash is {wanted}", path.display())]
    HashType { path: PathBuf, holds: HashType, wanted: HashType },
    #[error("{}: {error}", path.display())]
    Sqlite { path: PathBuf, error: rusqlite::Error },
    #[error("no such blob")]
    Unknown,
    #[error("blob {0} is damaged in the database: {1}")]
    Damaged(Blobref, String),
    #[error("{}: a checkpoint in the database is invalid: {reason}; restore it from a dump",
        path.display())]
    BadCheckpoint { path: PathBuf, reason: String },
    #[error("{0}")]
    Invalid(String),
}

impl StoreError {
    pub(super) fn errno(&self) -> Errno {
        match self {
            StoreError::File { error, .. } => Errno::from(error),
            StoreError::InUse { .. } => Errno::EBUSY,
            StoreError::Sqlite { error, .. } => sqlite_errno(error),
            StoreError::Unknown => Errno::ENOENT,
            StoreError::Damaged(..) | StoreError::Gone { .. } => Errno::EIO,
            StoreError::NoDatabase { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Emptied { .. }
            | StoreError::LogHeader { .. }
            | StoreError::LogFrames { .. }
            | StoreError::NoFile { .. }
            | StoreError::BrokenLink { .. }
            | StoreError::Newer { .. }
            | StoreError::HashType { .. }
            | StoreError::BadCheckpoint { .. }
            | StoreError::Invalid(_) => Errno::EINVAL,
        }
    }

    /// What is wrong with one blob is no reason to refuse its neighbours.
    fn is_about_one_blob(&self) -> bool {
        matches!(self, StoreError::Sqlite { error, .. }
            if error.sqlite_error_code() == Some(ErrorCode::TooBig))
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble {
            is_for_the_log: matches!(error, StoreError::Damaged(..) | StoreError::Sqlite { .. }),
            is_about_one_blob: error.is_about_one_blob(),
            failure: error.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            // Nothing to explain: the caller knows what it asked for.
            StoreError::Unknown => error.errno().into(),
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
