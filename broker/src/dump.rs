//! Dumps of the store, for garbage collection between two lives of an instance.
//!
//! ```text
//! end    kvs has gone -> flux dump STATEDIR/dump/TIME.tgz -> link dump/RESTORE to it
//! start  dump/RESTORE is there -> empty database -> flux restore -> link away -> kvs
//! ```
//!
//! `content.dump` and `content.restore` ask for it: `auto` is the above, anything else names a file.
//! The link is there from when the dump is on the disk until what it holds is in the database, so
//! that a crash at any point loses nothing.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::content;
use jiff::Zoned;

use crate::attrs::Attrs;
use crate::broker::Broker;
use crate::handle::Handle;
use crate::log::Severity;
use crate::rc::{self, Script};

const AUTO: &str = "auto";
const LINK: &str = "RESTORE";
const PART: &str = "part.tgz";

/// A dump that the store is to be filled from.
#[derive(Debug)]
pub struct Restore {
    file: PathBuf,
    /// To be removed afterwards.
    link: Option<PathBuf>,
}

impl Restore {
    /// What `content.restore` asks for. ENOENT: the dump isn't there; nothing has been touched.
    pub fn planned(attrs: &Attrs) -> Result<Option<Restore>, Failure> {
        let Some(wanted) = attrs.get("content.restore").filter(|wanted| !wanted.is_empty()) else {
            return Ok(None);
        };
        if wanted != AUTO {
            let file = PathBuf::from(wanted);
            let failed = |error| failure("content.restore", &file, &error);
            File::open(&file).map_err(failed)?;
            return Ok(Some(Restore { file, link: None }));
        }
        let link = folder(attrs).join(LINK);
        match std::fs::read_link(&link) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failure("content.restore", &link, &error)),
        }
        let file = std::fs::canonicalize(&link)
            .and_then(|file| File::open(&file).map(|_| file))
            .map_err(|error| {
                let text = format!(
                    "{}: the dump that it links to can't be read: {error}; remove the link to \
                     start from the database as it is",
                    link.display()
                );
                Failure::new(Errno::from(&error), text)
            })?;
        Ok(Some(Restore { file, link: Some(link) }))
    }

    /// Fill the store, which is empty, and see to it that this happens once.
    pub async fn run(self, broker: &Rc<Broker>) -> Result<(), Failure> {
        let text = format!("rc1.0: restoring content from {}", self.file.display());
        broker.log().append(Severity::Info, "broker", &text);
        let args = ["restore", "--sd-notify", "--quiet", "--checkpoint"];
        flux(broker, "rc1.0", &args, &self.file).await?;
        let Some(link) = self.link else { return Ok(()) };
        // Were it still there after the next crash, all that comes now would be lost.
        std::fs::remove_file(&link)
            .and_then(|()| sync_folder(&link))
            .map_err(|error| failure("cannot remove", &link, &error))
    }
}

/// Write what `content.dump` asks for. To be called when the KVS has gone and the store is there.
pub async fn write(broker: &Rc<Broker>) -> Result<(), Failure> {
    let attrs = broker.attrs();
    let Some(wanted) = attrs.get("content.dump").filter(|wanted| !wanted.is_empty()) else {
        return Ok(());
    };
    Handle::new(broker.router().clone()).rpc::<content::Flush>(&Empty).await?;
    if wanted != AUTO {
        let file = Path::new(&wanted);
        return write_to(broker, file, file).await;
    }
    let folder = folder(attrs);
    let failed = |error| failure("content.dump", &folder, &error);
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let name = format!("{}.tgz", Zoned::now().strftime("%Y%m%d_%H%M%S"));
    // A part of one is not to be taken for one.
    let part = folder.join(PART);
    write_to(broker, &part, &folder.join(&name)).await?;
    std::fs::rename(&part, folder.join(&name)).map_err(failed)?;
    // Another one may be left from an instance that does not restore.
    let (link, new) = (folder.join(LINK), folder.join(format!("{LINK}.new")));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(&name, &new)
        .and_then(|()| std::fs::rename(&new, &link))
        .and_then(|()| sync_folder(&link))
        .map_err(failed)
}

async fn write_to(broker: &Rc<Broker>, file: &Path, name: &Path) -> Result<(), Failure> {
    let text = format!("rc3.0: dumping content to {}", name.display());
    broker.log().append(Severity::Info, "broker", &text);
    let args = [
        "dump",
        "--sd-notify",
        "--quiet",
        "--ignore-failed-read",
        "--no-cache",
        "--maxreqs=128",
        "--checkpoint",
    ];
    flux(broker, "rc3.0", &args, file).await
}

async fn flux(broker: &Rc<Broker>, label: &str, args: &[&str], file: &Path) -> Result<(), Failure> {
    let program = crate::paths::bin_dir().map_or("flux".into(), |dir| dir.join("flux"));
    let mut line = vec![program.to_string_lossy().into_owned()];
    line.extend(args.iter().map(|arg| (*arg).to_owned()));
    line.push(file.to_string_lossy().into_owned());
    Ok(rc::run(broker, label, &Script::Program(line)).await?)
}

/// Where `auto` dumps are: where the database is kept, else where the broker was started.
fn folder(attrs: &Attrs) -> PathBuf {
    let statedir = attrs.kept_statedir();
    Path::new(statedir.as_deref().unwrap_or(".")).join("dump")
}

fn sync_folder(entry: &Path) -> std::io::Result<()> {
    File::open(entry.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn failure(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Errno::from(error), format!("{what}: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs::Access;

    #[test]
    fn a_dump_is_restored_when_it_is_there_and_an_empty_store_is_never_begun_for_one_that_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let attrs = Attrs::default();
        assert!(Restore::planned(&attrs).unwrap().is_none());
        attrs.put("statedir", dir.path().to_str().unwrap(), Access::Immutable);
        attrs.put("content.restore", AUTO, Access::Runtime);
        assert!(Restore::planned(&attrs).unwrap().is_none());

        let folder = dir.path().join("dump");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink("x.tgz", folder.join(LINK)).unwrap();
        let failure = Restore::planned(&attrs).unwrap_err();
        assert_eq!(failure.errno, Errno::ENOENT);
        assert!(failure.to_string().contains("dump/RESTORE"), "{failure}");
        std::fs::write(folder.join("x.tgz"), "").unwrap();
        let planned = Restore::planned(&attrs).unwrap().unwrap();
        assert!(planned.file.ends_with("dump/x.tgz") && planned.link.is_some());

        attrs.put("content.restore", "/no/such/file.tar", Access::Runtime);
        assert_eq!(Restore::planned(&attrs).unwrap_err().errno, Errno::ENOENT);
    }
}
