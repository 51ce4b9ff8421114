//! Files that only root can have written.
//!
//! A directory is trusted when it and every directory above it belong to root and can be written
//! to by nobody else, a sticky bit aside; then what is in it can't be exchanged between a check
//! and its use. A file is opened without following a link, without waiting for a fifo's other
//! end, and judged by what was opened.
//!
//! Where a process has no privilege to lose, its own user may own these files as well: `trusted`
//! is root for the IMP, and the effective user otherwise.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest configuration file.
const MAX_LEN: u64 = 1 << 20;

/// Which path is at fault, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insecure {
    pub path: PathBuf,
    pub fault: String,
}

impl fmt::Display for Insecure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.fault)
    }
}

/// The files `*.toml` of a directory, in order of their names, with what is in them.
pub fn read_toml_dir(dir: &Path, trusted: u32) -> Result<Vec<(PathBuf, String)>, Insecure> {
    let insecure = |error: std::io::Error| Insecure { path: dir.to_owned(), fault: reason(&error) };
    let paths = toml_paths(dir).map_err(insecure)?;
    paths.into_iter().map(|path| read(&path, trusted).map(|text| (path, text))).collect()
}

/// What of a directory is configuration, whoever reads it: the paths `*.toml`, in order of their
/// names, without hidden ones.
pub fn toml_paths(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Read a file that is to be trusted.
pub fn read(path: &Path, trusted: u32) -> Result<String, Insecure> {
    let insecure = |fault: &str| Insecure { path: path.to_owned(), fault: fault.to_owned() };
    let file = open(path, trusted)?;
    let mut text = String::new();
    file.take(MAX_LEN + 1)
        .read_to_string(&mut text)
        .map_err(|error| insecure(&format!("unable to open: {}", reason(&error))))?;
    if text.len() as u64 > MAX_LEN {
        return Err(insecure("file is too large"));
    }
    Ok(text)
}

/// Is it a regular file that only root can have written, in such a directory?
pub fn check(path: &Path, trusted: u32) -> Result<(), Insecure> {
    let meta = std::fs::symlink_metadata(path)
        .map_err(|error| Insecure { path: path.to_owned(), fault: reason(&error) })?;
    judge(path, &meta, trusted)?;
    check_dir(path, trusted)
}

fn open(path: &Path, trusted: u32) -> Result<File, Insecure> {
    let failed = |error: &std::io::Error| Insecure {
        path: path.to_owned(),
        fault: format!("unable to open: {}", reason(error)),
    };
    // First the link itself, to say that it is one; what counts is what is opened after it.
    check(path, trusted).map_err(|insecure| Insecure {
        fault: format!("unable to open: {}", insecure.fault),
        ..insecure
    })?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| failed(&error))?;
    let meta = file.metadata().map_err(|error| failed(&error))?;
    judge(path, &meta, trusted)?;
    Ok(file)
}

fn judge(path: &Path, meta: &Metadata, trusted: u32) -> Result<(), Insecure> {
    let fault = |fault: &str| Err(Insecure { path: path.to_owned(), fault: fault.to_owned() });
    let kind = meta.file_type();
    if kind.is_symlink() {
        return fault("symbolic link");
    }
    if kind.is_fifo() || !kind.is_file() {
        return fault("File is not a regular file");
    }
    if meta.uid() != 0 && meta.uid() != trusted {
        return fault("insecure file ownership");
    }
    if meta.mode() & 0o002 != 0 || (meta.mode() & 0o020 != 0 && meta.gid() != 0) {
        return fault(&format!("bad file permissions ({:04o})", meta.mode() & 0o7777));
    }
    Ok(())
}

/// The directory of a file, and all above it.
fn check_dir(path: &Path, trusted: u32) -> Result<(), Insecure> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let insecure = |fault: &str| Insecure { path: path.to_owned(), fault: fault.to_owned() };
    let stat = |dir: &Path| {
        let meta = std::fs::symlink_metadata(dir);
        meta.map_err(|_| insecure("Unable to stat parent directory"))
    };
    if !stat(dir)?.is_dir() {
        return Err(insecure("Unable to check parent directory. Unexpected file type"));
    }
    let real = dir.canonicalize().map_err(|_| insecure("Unable to get dirname"))?;
    for dir in real.ancestors() {
        let meta = stat(dir)?;
        // The fault is the file's, as long as it is about the directory that it is in.
        let of = |fault: &str| match dir == real {
            true => insecure(fault),
            false => insecure(&format!("{fault} {}", dir.display())),
        };
        if meta.uid() != 0 && meta.uid() != trusted {
            return Err(of("Invalid ownership on parent directory"));
        }
        let sticky = meta.mode() & 0o1000 != 0;
        if meta.mode() & 0o002 != 0 && !sticky {
            return Err(of("parent directory is world-writeable without sticky bit"));
        }
        if meta.mode() & 0o020 != 0 && meta.gid() != 0 && !sticky {
            return Err(of("parent directory is group-writeable without sticky bit"));
        }
    }
    Ok(())
}

/// The system's words, without the number that Rust adds.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of this user's, with one file.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            let place = Place(tempfile::tempdir().unwrap());
            std::fs::write(place.file(), "a = 1\n").unwrap();
            place.mode(&place.file(), 0o644);
            place.mode(place.0.path(), 0o755);
            place
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("a.toml")
        }

        fn mode(&self, path: &Path, mode: u32) {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn me(&self) -> u32 {
            std::fs::metadata(self.0.path()).unwrap().uid()
        }

        fn fault(&self) -> String {
            read(&self.file(), self.me()).unwrap_err().fault
        }
    }

    #[test]
    fn a_file_that_only_its_owner_can_write_is_read() {
        let place = Place::new();
        assert_eq!(read(&place.file(), place.me()).unwrap(), "a = 1\n");
        place.mode(place.0.path(), 0o1777);
        assert_eq!(read(&place.file(), place.me()).unwrap(), "a = 1\n");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let place = Place::new();
        place.mode(&place.file(), 0o606);
        assert_eq!(place.fault(), "unable to open: bad file permissions (0606)");
    }

    #[test]
    fn a_file_in_a_directory_that_others_can_write_is_refused() {
        let place = Place::new();
        place.mode(place.0.path(), 0o777);
        assert!(place.fault().contains("parent directory is world-writeable without sticky bit"));
    }

    #[test]
    fn a_directory_far_above_that_others_can_write_is_refused() {
        let place = Place::new();
        let deep = place.0.path().join("x/y");
        std::fs::create_dir_all(&deep).unwrap();
        let file = deep.join("a.toml");
        std::fs::write(&file, "").unwrap();
        place.mode(&file, 0o644);
        assert_eq!(read(&file, place.me()), Ok(String::new()));
        place.mode(place.0.path(), 0o777);
        assert!(read(&file, place.me()).unwrap_err().fault.contains("world-writeable"));
    }

    #[test]
    fn links_fifos_and_directories_are_no_files() {
        let place = Place::new();
        let link = place.0.path().join("b.toml");
        std::os::unix::fs::symlink(place.file(), &link).unwrap();
        let fault = read(&link, place.me()).unwrap_err().fault;
        assert_eq!(fault, "unable to open: symbolic link");
        let fifo = place.0.path().join("c.toml");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let fault = read(&fifo, place.me()).unwrap_err().fault;
        assert_eq!(fault, "unable to open: File is not a regular file");
        assert!(read(place.0.path(), place.me()).is_err());
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let place = Place::new();
        if place.me() == 0 {
            std::os::unix::fs::chown(place.file(), Some(65534), None).unwrap();
            assert_eq!(place.fault(), "unable to open: insecure file ownership");
        } else {
            let fault = read(&place.file(), 0).unwrap_err().fault;
            assert_eq!(fault, "unable to open: insecure file ownership");
        }
    }

    #[test]
    fn only_names_that_end_in_toml_are_read_in_their_order() {
        let place = Place::new();
        for name in ["c.toml", "b.toml", "d.conf", ".e.toml", "f.toml.bak"] {
            let path = place.0.path().join(name);
            std::fs::write(&path, name).unwrap();
            place.mode(&path, 0o644);
        }
        let read = read_toml_dir(place.0.path(), place.me()).unwrap();
        let names: Vec<_> = read.iter().map(|(path, _)| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.toml", "b.toml", "c.toml"]);
    }
}
