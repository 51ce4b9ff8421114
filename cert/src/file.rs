//! Certificate files: for their owner's eyes only, both when written and when read.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flux_protocol::errno::Errno;

use crate::{Certificate, ParseError};

const OWNER_ONLY: u32 = 0o600;

/// A certificate has less than 1 KiB; do not read more of what may be anything.
const MAX_FILE_LEN: u64 = 64 * 1024;

/// Why a certificate could not be loaded. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("Error loading certificate: {}: {}{}", path.display(), text_of(source), advice(source))]
    Read { path: PathBuf, source: io::Error },
    /// Others may have copied the secret key.
    #[error("Error loading certificate: {}: readable by group/other; make it its owner's alone with chmod 600",
        .0.display())]
    Readable(PathBuf),
    /// Others may have put in a key that they know.
    #[error("Error loading certificate: {}: writable by group/other; make it its owner's alone with chmod 600",
        .0.display())]
    Writable(PathBuf),
    #[error("Error loading certificate: {}: {source}", path.display())]
    Parse { path: PathBuf, source: ParseError },
}

/// Why a certificate could not be written: `VERB PATH: REASON`, VERB being open or write.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {}", path.display(), text_of(source))]
pub struct SaveError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

// === impl Certificate ===

impl Certificate {
    /// Reads a certificate file, unless its mode lets others than the owner read or write it.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = read_private(path)?;
        Self::parse(&text).map_err(|source| LoadError::Parse { path: path.to_owned(), source })
    }

    /// Writes a certificate file with mode 0600, over one that is there already.
    pub fn save(&self, path: &Path) -> Result<(), SaveError> {
        let error = |action| move |source| SaveError { action, path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(OWNER_ONLY)
            .open(path)
            .map_err(error("open"))?;
        restrict(&file).map_err(error("chmod"))?;
        file.write_all(self.to_text().as_bytes()).map_err(error("write"))
    }
}

fn read_private(path: &Path) -> Result<String, LoadError> {
    let error = |source| LoadError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    let metadata = file.metadata().map_err(error)?;
    if metadata.is_dir() {
        // Before its mode, which is that of a folder.
        return Err(error(io::Error::from_raw_os_error(Errno::EISDIR.0.cast_signed())));
    }
    let mode = metadata.permissions().mode();
    if mode & 0o044 != 0 {
        return Err(LoadError::Readable(path.to_owned()));
    }
    if mode & 0o022 != 0 {
        return Err(LoadError::Writable(path.to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_FILE_LEN).read_to_string(&mut text).map_err(error)?;
    Ok(text)
}

/// An existing file keeps its mode when it is opened: take it back before the key is in it.
fn restrict(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let is_open = metadata.permissions().mode() & 0o077 != 0;
    if metadata.is_file() && is_open {
        file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    }
    Ok(())
}

/// What to do about it.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; make one with flux keygen, and give all brokers of the instance the same"
        }
        io::ErrorKind::IsADirectory => "; name the file that flux keygen has written",
        io::ErrorKind::PermissionDenied => "; it has to belong to the user who runs the broker",
        _ => "",
    }
}

/// The text of strerror(3), without the number that std appends.
fn text_of(error: &io::Error) -> String {
    error
        .raw_os_error()
        .and_then(|number| Errno(number.cast_unsigned()).text())
        .map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn saved_certificate_is_for_its_owner_and_loads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curve.cert");
        let cert = Certificate::generate().unwrap();
        cert.save(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(Certificate::load(&path).unwrap(), cert);
    }

    #[test]
    fn existing_file_is_overwritten_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curve.cert");
        fs::write(&path, "x".repeat(2000)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let cert = Certificate::generate().unwrap();
        cert.save(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(Certificate::load(&path).unwrap(), cert);
    }

    #[test]
    fn folder_is_told_as_one_whatever_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o700, 0o755] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let text = Certificate::load(dir.path()).unwrap_err().to_string();
            let told = format!("{}: Is a directory; name the file", dir.path().display());
            assert!(text.contains(&told), "{text}");
        }
    }

    #[test]
    fn file_open_to_others_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curve.cert");
        Certificate::generate().unwrap().save(&path).unwrap();
        for (bits, word) in [(0o640, "readable"), (0o604, "readable"), (0o620, "writable")] {
            fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
            let text = Certificate::load(&path).unwrap_err().to_string();
            let expected =
                format!("Error loading certificate: {}: {word} by group/other", path.display());
            assert!(text.starts_with(&expected), "{text}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(Certificate::load(&path).is_ok());
    }

    #[test]
    fn errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none");
        let text = Certificate::load(&path).unwrap_err().to_string();
        let expected =
            format!("Error loading certificate: {}: No such file or directory; ", path.display());
        assert!(text.starts_with(&expected), "{text}");
        let below = dir.path().join("no/such/folder");
        assert_eq!(
            Certificate::generate().unwrap().save(&below).unwrap_err().to_string(),
            format!("open {}: No such file or directory", below.display())
        );
        fs::write(&path, "curve\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            Certificate::load(&path).unwrap_err().to_string(),
            format!("Error loading certificate: {}: no public-key", path.display())
        );
    }
}
