//! Why a command failed, in one line.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Text(String),
    /// The same with the exit code that flux-accounting's compiled commands have.
    #[error("{0}")]
    Walk(String),
    #[error("{}", explain(path, error))]
    Database { path: PathBuf, error: rusqlite::Error },
    /// Before it is known which database it was.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

impl Error {
    pub(crate) fn text(text: impl Into<String>) -> Error {
        Error::Text(text.into())
    }

    /// `PATH: REASON`, without Rust's `(os error N)`.
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Error {
        let reason = match error.raw_os_error() {
            Some(_) => flux_protocol::errno::Errno::from(error).to_string(),
            None => error.to_string(),
        };
        Error::Text(format!("{}: {reason}", path.display()))
    }

    /// Name the database that an SQL error came from.
    pub(crate) fn of(self, path: &Path) -> Error {
        match self {
            Error::Sql(error) => Error::Database { path: path.to_owned(), error },
            other => other,
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Error::Walk(_) => 255,
            _ => 1,
        }
    }
}

fn explain(path: &Path, error: &rusqlite::Error) -> String {
    let path = path.display();
    let text = match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        other => other.to_string(),
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            format!("{path}: {text}: run this command as the owner of the database")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!(
                "{path}: {text}: another process has been writing to it for too long; try again"
            )
        }
        _ if text.contains("no such table") || text.contains("no such column") => {
            format!("{path}: {text}: see flux account update-db for databases of older versions")
        }
        _ => format!("{path}: {text}"),
    }
}
