//! Where a store is, and whose.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flux_protocol::blobref::HashType;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;

use crate::attrs::Attrs;

/// Each module with what it leaves of an instance, where the last write shows.
const TRACES: [(&str, &[&str]); 2] = [
    ("content-sqlite", &["content.sqlite", "content.sqlite-wal", "content.sqlite.before-restore"]),
    ("content-files", &["content.files/kvs-primary", "content.files-before-restore/kvs-primary"]),
];

/// As the attributes say: in the state directory, or in the run directory when there is none.
#[derive(Debug, Clone)]
pub struct Place {
    pub directory: PathBuf,
    pub hash: HashType,
    /// It has to outlive a crash of the machine; what is removed at exit need not.
    pub is_kept: bool,
}

impl Place {
    pub fn of(attrs: &Attrs) -> Result<Place, Failure> {
        let hash = attrs.get("content.hash").unwrap_or_else(|| HashType::default().to_string());
        let hash = hash.parse().map_err(|error| invalid(format!("content.hash: {error}")))?;
        let directory = attrs
            .get("statedir")
            .or_else(|| attrs.get("rundir"))
            .ok_or_else(|| invalid("neither statedir nor rundir is set"))?;
        let is_kept = attrs.kept_statedir().is_some();
        Ok(Place { directory: directory.into(), hash, is_kept })
    }

    /// What another module has kept here is the instance, as long as this one has nothing: it is
    /// not for this one to begin with an empty one in its place. When both have something, the one
    /// used last should be the one used next; the text is for the log when it isn't.
    pub fn check_for_another_store(&self, module: &str) -> Result<Option<String>, Failure> {
        let last_write = |traces: &[&str]| {
            traces.iter().filter_map(|name| modified(&self.directory.join(name))).max()
        };
        let own = TRACES.iter().find(|(name, _)| *name == module);
        let own = own.and_then(|(_, traces)| last_write(traces));
        for (other, traces) in TRACES.iter().filter(|(name, _)| *name != module) {
            let Some(theirs) = last_write(traces) else { continue };
            let file = self.directory.join(traces.first().copied().unwrap_or_default());
            let file = file.display();
            let way = format!(
                "-Scontent.backing-module={other} goes on with it, and a flux dump made there, \
                 with -Scontent.restore=FILE, brings it here"
            );
            match own {
                None => {
                    let text = format!(
                        "{file} holds the state of an instance, which {module} can't read: {way}"
                    );
                    return Err(invalid(text));
                }
                Some(own) if own < theirs => {
                    let text = format!(
                        "{file} holds a later state of the instance than {module} has: {way}"
                    );
                    return Ok(Some(text));
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }
}

/// When something was last written to a file that has something.
fn modified(file: &Path) -> Option<SystemTime> {
    let file = file.metadata().ok().filter(|file| file.len() > 0)?;
    file.modified().ok()
}

fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(Errno::EINVAL, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_store_does_not_begin_where_another_has_the_instance() {
        let dir = tempfile::tempdir().unwrap();
        let place =
            Place { directory: dir.path().into(), hash: HashType::default(), is_kept: true };
        let check = |module| place.check_for_another_store(module);
        let (sqlite, files) = ("content-sqlite", "content-files");
        assert_eq!(check(sqlite).unwrap(), None);
        assert_eq!(check(files).unwrap(), None);

        let checkpoint = dir.path().join("content.files/kvs-primary");
        std::fs::create_dir(dir.path().join("content.files")).unwrap();
        std::fs::write(&checkpoint, "{}").unwrap();
        assert_eq!(check(files).unwrap(), None);
        let failure = check(sqlite).unwrap_err();
        assert_eq!(failure.errno, Errno::EINVAL);
        let said = failure.to_string();
        assert!(said.contains("kvs-primary holds the state of an instance"), "{said}");
        assert!(said.contains("-Scontent.backing-module=content-files goes on"), "{said}");

        // Brought over, and then used where it came from: not what anybody wants.
        let database = dir.path().join("content.sqlite");
        std::fs::write(&database, "SQLite").unwrap();
        let set = |file: &Path, seconds| {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        };
        set(&checkpoint, 10);
        set(&database, 20);
        assert_eq!(check(sqlite).unwrap(), None);
        assert!(check(files).unwrap().unwrap().contains("content.sqlite holds a later state"));
        set(&checkpoint, 30);
        assert_eq!(check(files).unwrap(), None);
        assert!(check(sqlite).unwrap().unwrap().contains("kvs-primary holds a later state"));
        // What is in the log is later than what is in the file.
        std::fs::write(dir.path().join("content.sqlite-wal"), "log").unwrap();
        assert_eq!(check(sqlite).unwrap(), None);
    }
}
