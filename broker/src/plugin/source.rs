//! Finding and reading a plugin's file.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest module.
pub const MODULE_MAX: u64 = 10 << 20;

/// Digests of the plugins that belong to this broker: "HEX  NAME.wasm" a line.
const BUNDLED: &str = include_str!("../../../plugins-wasm/dist/SHA256SUMS");

/// A file that was read.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Last part of the path: the name in `flux jobtap list`.
    pub(super) file_name: String,
    /// What it holds.
    pub(super) bytes: Vec<u8>,
    /// SHA-256, hex.
    pub(super) digest: String,
    /// One of ours, byte for byte.
    pub(super) bundled: bool,
    /// The configuration named a native plugin, and the module of that name was taken.
    pub(super) renamed: bool,
}

/// A file that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not in the plugin path.
    #[error("No such plugin found")]
    NotFound,
    /// It cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Of the file.
        path: PathBuf,
        /// From the system.
        error: std::io::Error,
    },
    /// Someone else could write it.
    #[error("insecure plugin file permissions: {path} {what}")]
    Insecure {
        /// Of the file.
        path: PathBuf,
        /// Owner or mode.
        what: String,
    },
    /// A directory, a device.
    #[error("{0}: not a regular file")]
    NotAFile(PathBuf),
    /// Past [`MODULE_MAX`].
    #[error("module of {0} bytes exceeds the limit of {MODULE_MAX}")]
    TooLarge(u64),
    /// Not the digest that the configuration wants.
    #[error(
        "sha256 mismatch: configured {wanted}, file has {found}: put the module back that was \
         meant, or pin this one"
    )]
    Digest {
        /// Configured.
        wanted: String,
        /// Computed.
        found: String,
    },
}

/// Finds a plugin by name in the path, or by its own path, and reads it.
pub(super) fn read(
    load: &str,
    path: &[PathBuf],
    sha256: Option<&str>,
) -> Result<Source, SourceError> {
    let (path, renamed) = find(load, path).ok_or(SourceError::NotFound)?;
    let io = |error| SourceError::Io { path: path.clone(), error };
    // A fifo is opened without waiting for somebody who writes to it, and refused.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile(path));
    }
    if metadata.len() > MODULE_MAX {
        return Err(SourceError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::new();
    file.take(MODULE_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    let digest = hex(&Sha256::digest(&bytes));
    let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bundled = is_bundled(&file_name, &digest);
    if !bundled {
        check_owner(&path, metadata.uid(), metadata.mode())?;
    }
    match sha256 {
        Some(wanted) if wanted != digest => {
            Err(SourceError::Digest { wanted: wanted.to_owned(), found: digest })
        }
        _ => Ok(Source { path, file_name, bytes, digest, bundled, renamed }),
    }
}

/// The file, and whether a native plugin's name led to it.
fn find(load: &str, path: &[PathBuf]) -> Option<(PathBuf, bool)> {
    if load.contains('/') {
        let given = Path::new(load);
        let module = given.with_extension("wasm");
        return match given.extension() {
            Some(extension) if extension == "so" && module.is_file() => Some((module, true)),
            _ => given.exists().then(|| (given.to_owned(), false)),
        };
    }
    let renamed = load.ends_with(".so");
    let stem = load.strip_suffix(".so").or_else(|| load.strip_suffix(".wasm")).unwrap_or(load);
    let name = format!("{stem}.wasm");
    path.iter().map(|folder| folder.join(&name)).find(|file| file.is_file()).map(|f| (f, renamed))
}

/// Names of the modules in the plugin path, without `.wasm`, sorted; the first of a name counts.
pub(super) fn available(path: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = std::collections::BTreeMap::new();
    for folder in path {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for file in entries.map(|entry| entry.path()) {
            if file.extension().is_some_and(|extension| extension == "wasm") {
                let name = file.file_name().unwrap_or_default().to_owned();
                found.entry(name).or_insert(file);
            }
        }
    }
    found.into_values().collect()
}

/// Only root and the broker's own user may be able to change a plugin.
fn check_owner(path: &Path, uid: u32, mode: u32) -> Result<(), SourceError> {
    let insecure = |what: String| SourceError::Insecure { path: path.to_owned(), what };
    let user = nix::unistd::geteuid().as_raw();
    if uid != 0 && uid != user {
        return Err(insecure(format!("is owned by uid {uid}")));
    }
    if mode & 0o022 != 0 {
        return Err(insecure(format!("has mode {:04o}", mode & 0o7777)));
    }
    Ok(())
}

fn is_bundled(file_name: &str, digest: &str) -> bool {
    let mut lines = BUNDLED.lines().filter_map(|line| line.split_once("  "));
    lines.any(|(hex, name)| hex == digest && name == file_name)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn write(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let file = folder.join(name);
        std::fs::write(&file, b"\0asm").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn names_are_found_in_the_path_also_by_a_native_plugins_name() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "perilog.wasm", 0o644);
        let path = [folder.path().to_owned()];
        for (name, renamed) in [("perilog.wasm", false), ("perilog", false), ("perilog.so", true)] {
            let source = read(name, &path, None).unwrap();
            assert_eq!((source.file_name.as_str(), source.renamed), ("perilog.wasm", renamed));
        }
        let error = read("nope.so", &path, None).unwrap_err();
        assert_eq!(error.to_string(), "No such plugin found");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "x.wasm", 0o646);
        let error = read(file.to_str().unwrap(), &[], None).unwrap_err().to_string();
        assert!(error.starts_with("insecure plugin file permissions") && error.ends_with("0646"));
    }

    #[test]
    fn a_digest_that_differs_is_refused_with_both() {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "x.wasm", 0o600);
        let wanted = "0".repeat(64);
        let error = read(file.to_str().unwrap(), &[], Some(&wanted)).unwrap_err().to_string();
        let found = hex(&Sha256::digest(b"\0asm"));
        assert!(error.contains(&wanted) && error.contains(&found), "{error}");
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "x.wasm", 0o600);
        File::options().write(true).open(&file).unwrap().set_len(200 << 20).unwrap();
        let error = read(file.to_str().unwrap(), &[], None).unwrap_err().to_string();
        assert!(error.contains("209715200"), "{error}");
    }

    #[test]
    fn nobody_is_waited_for_who_would_write_to_a_fifo() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wasm");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = read(path.to_str().unwrap(), &[], None).unwrap_err();
        assert!(matches!(error, SourceError::NotAFile(_)), "{error}");
    }
}
