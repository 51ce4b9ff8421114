//! The database that a dump is about to take the place of, until it has.
//!
//! ```text
//! set aside   FILE, then its log, get another name
//! restored    they go: FILE first, so that a log alone is nothing to put back
//! else        the next start puts them back: the log first, so that FILE alone says that it is done
//! ```

use std::fs::OpenOptions;
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

const ASIDE: &str = ".before-restore";
/// Beside the file, with what it does not have by itself.
const LOGS: [&str; 2] = ["-wal", "-journal"];
/// Bytes that SQLite locks.
const LOCKED_FROM: libc::off_t = 0x4000_0000;
const LOCKED_LENGTH: libc::off_t = 512;

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether one is set aside.
pub(super) fn is_there(path: &Path) -> bool {
    beside(path, ASIDE).exists()
}

/// Whether a process has the database open.
pub(super) fn is_in_use(path: &Path) -> Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: LOCKED_FROM,
        l_len: LOCKED_LENGTH,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// One that is set aside already is what there was before; the other has come half way.
pub(super) fn set_aside(path: &Path) -> Result<()> {
    let aside = beside(path, ASIDE);
    if aside.exists() {
        return remove(path);
    }
    // Of one that was there before.
    remove_logs(&aside)?;
    if !path.is_file() {
        return remove(path);
    }
    std::fs::rename(path, &aside)?;
    for log in LOGS {
        rename_if_there(&beside(path, log), &beside(&aside, log))?;
    }
    sync_folder(path)
}

/// True when there was one.
pub(super) fn put_back(path: &Path) -> Result<bool> {
    let aside = beside(path, ASIDE);
    if !aside.exists() {
        remove_logs(&aside)?;
        return Ok(false);
    }
    // Without the file, a log is the one that belongs to what is aside.
    if path.exists() {
        remove(path)?;
    }
    for log in LOGS {
        rename_if_there(&beside(&aside, log), &beside(path, log))?;
    }
    std::fs::rename(&aside, path)?;
    sync_folder(path)?;
    Ok(true)
}

pub(super) fn forget(path: &Path) -> Result<()> {
    let aside = beside(path, ASIDE);
    if aside.exists() {
        std::fs::remove_file(&aside)?;
        sync_folder(path)?;
    }
    remove_logs(&aside)
}

/// The logs first: alone they would be taken for those of another.
pub(super) fn remove(path: &Path) -> Result<()> {
    remove_logs(path)?;
    remove_if_there(&beside(path, "-shm"))?;
    remove_if_there(path)
}

fn remove_logs(path: &Path) -> Result<()> {
    LOGS.iter().try_for_each(|log| remove_if_there(&beside(path, log)))
}

fn remove_if_there(file: &Path) -> Result<()> {
    unless_missing(std::fs::remove_file(file))
}

fn rename_if_there(from: &Path, to: &Path) -> Result<()> {
    unless_missing(std::fs::rename(from, to))
}

fn unless_missing(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn sync_folder(entry: &Path) -> Result<()> {
    std::fs::File::open(entry.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and contents, as one line.
    fn state(dir: &Path) -> String {
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                format!("{name}={}", std::fs::read_to_string(&path).unwrap())
            })
            .collect();
        files.sort();
        files.join(" ")
    }

    #[test]
    fn what_was_set_aside_comes_back_wherever_a_restore_has_stopped() {
        let before = "db-wal=log db=old";
        // How far setting aside, filling and putting back have come.
        let states: [&[(&str, &str)]; 5] = [
            &[("db.before-restore", "old"), ("db-wal", "log")],
            &[("db.before-restore", "old"), ("db.before-restore-wal", "log")],
            &[
                ("db.before-restore", "old"),
                ("db.before-restore-wal", "log"),
                ("db", "half"),
                ("db-wal", "half"),
            ],
            &[("db.before-restore", "old"), ("db.before-restore-wal", "log"), ("db", "half")],
            &[("db.before-restore", "old"), ("db-wal", "log")],
        ];
        for files in states {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            assert!(put_back(&dir.path().join("db")).unwrap());
            assert_eq!(state(dir.path()), before, "{files:?}");
        }
    }

    #[test]
    fn the_first_that_was_set_aside_stays_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        for (name, text) in [("db", "old"), ("db-wal", "log")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let aside = "db.before-restore-wal=log db.before-restore=old";
        set_aside(&path).unwrap();
        assert_eq!(state(dir.path()), aside);
        std::fs::write(&path, "half").unwrap();
        set_aside(&path).unwrap();
        assert_eq!(state(dir.path()), aside);
        std::fs::write(&path, "new").unwrap();
        forget(&path).unwrap();
        assert_eq!(state(dir.path()), "db=new");
        assert!(!put_back(&path).unwrap());
        // A log that is left alone belongs to nothing.
        std::fs::write(dir.path().join("db.before-restore-wal"), "log").unwrap();
        assert!(!put_back(&path).unwrap());
        assert_eq!(state(dir.path()), "db=new");
    }
}
