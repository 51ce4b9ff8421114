//! How the database is kept: the `[content-sqlite]` table, then module arguments.

use std::path::PathBuf;

use flux_protocol::blobref::HashType;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;

use crate::config::Config;
use crate::services::backing::place::Place;

const JOURNAL_MODES: [&str; 6] = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL", "OFF"];
const SYNCHRONOUS: [&str; 4] = ["EXTRA", "FULL", "NORMAL", "OFF"];
const MAX_CHECKPOINTS: i64 = 5;

#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub(super) path: PathBuf,
    pub(super) hash: HashType,
    /// SQLite's `journal_mode`.
    pub(super) journal_mode: String,
    /// SQLite's `synchronous` for blobs; checkpoints are written with at least `FULL`, unless this
    /// is `OFF`.
    pub(super) synchronous: String,
    /// Older ones are removed.
    pub(super) max_checkpoints: i64,
    /// The file may have so many pages of 4 KiB; past them it is as if the disk were full.
    pub(super) max_pages: Option<i64>,
    /// What is here is to outlive the broker.
    pub(super) is_kept: bool,
    pub(super) begin: Begin,
}

/// What a store begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    AsItIs,
    Empty,
    /// Empty, and filled from a dump: until its checkpoint is there, what there was is set aside.
    Restored,
}

impl Options {
    /// EINVAL: a value that is none of those allowed, with its name in the text.
    pub(super) fn new(place: Place, config: &Config, args: &[String]) -> Result<Options, Failure> {
        // What is removed at exit need not outlive a crash of the machine. A journal it has all
        // the same, so that a transaction on a full disk can be undone.
        let (journal_mode, synchronous) =
            if place.is_kept { ("WAL", "NORMAL") } else { ("MEMORY", "OFF") };
        let mut options = Options {
            path: place.directory.join("content.sqlite"),
            hash: place.hash,
            journal_mode: journal_mode.to_owned(),
            synchronous: synchronous.to_owned(),
            max_checkpoints: MAX_CHECKPOINTS,
            max_pages: None,
            is_kept: place.is_kept,
            begin: Begin::AsItIs,
        };
        options.apply_config(config)?;
        for arg in args {
            options.apply_arg(arg)?;
        }
        Ok(options)
    }

    fn apply_config(&mut self, config: &Config) -> Result<(), Failure> {
        if let Some(mode) = config.get("content-sqlite.journal_mode") {
            self.set_journal_mode(mode.as_str().unwrap_or_default())?;
        }
        if let Some(level) = config.get("content-sqlite.synchronous") {
            self.set_synchronous(level.as_str().unwrap_or_default())?;
        }
        if let Some(count) = config.get("content-sqlite.max_checkpoints") {
            self.set_max_checkpoints(count.as_i64())?;
        }
        Ok(())
    }

    fn apply_arg(&mut self, arg: &str) -> Result<(), Failure> {
        match arg.split_once('=') {
            Some(("journal_mode", mode)) => self.set_journal_mode(mode),
            Some(("synchronous", level)) => self.set_synchronous(level),
            Some(("max-pages", count)) => {
                let bad = |_| invalid(format!("{arg}: not a number of pages"));
                self.max_pages = Some(count.parse().map_err(bad)?);
                Ok(())
            }
            Some(("max-checkpoints", count)) => self.set_max_checkpoints(count.parse().ok()),
            None if arg == "truncate" => {
                self.begin = Begin::Empty;
                Ok(())
            }
            None if arg == "restore" => {
                self.begin = Begin::Restored;
                Ok(())
            }
            _ => Err(invalid(format!("Unknown module option: '{arg}'"))),
        }
    }

    fn set_journal_mode(&mut self, mode: &str) -> Result<(), Failure> {
        choose(&mut self.journal_mode, mode, &JOURNAL_MODES, "journal_mode")
    }

    fn set_synchronous(&mut self, level: &str) -> Result<(), Failure> {
        choose(&mut self.synchronous, level, &SYNCHRONOUS, "synchronous")
    }

    fn set_max_checkpoints(&mut self, count: Option<i64>) -> Result<(), Failure> {
        self.max_checkpoints = count
            .filter(|count| *count > 0)
            .ok_or_else(|| invalid("content-sqlite.max_checkpoints must be a positive integer"))?;
        Ok(())
    }
}

fn choose(into: &mut String, value: &str, allowed: &[&str], name: &str) -> Result<(), Failure> {
    if !allowed.contains(&value) {
        let allowed = allowed.join(", ");
        let text = format!("content-sqlite.{name} '{value}' is not one of {allowed}");
        return Err(invalid(text));
    }
    *into = value.to_owned();
    Ok(())
}

fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(Errno::EINVAL, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs::{Access, Attrs};
    use serde_json::json;

    fn place(pairs: &[(&str, &str)]) -> Place {
        let attrs = Attrs::default();
        for (name, value) in pairs {
            attrs.put(name, *value, Access::Immutable);
        }
        Place::of(&attrs).unwrap()
    }

    #[test]
    fn a_kept_database_is_safer_than_a_temporary_one() {
        let kept = place(&[("statedir", "/s"), ("rundir", "/r")]);
        let options = Options::new(kept, &Config::default(), &[]).unwrap();
        assert_eq!(options.path, PathBuf::from("/s/content.sqlite"));
        assert_eq!((&*options.journal_mode, &*options.synchronous), ("WAL", "NORMAL"));
        let temporary = place(&[("rundir", "/r")]);
        let options = Options::new(temporary, &Config::default(), &[]).unwrap();
        assert_eq!(options.path, PathBuf::from("/r/content.sqlite"));
        assert_eq!((&*options.journal_mode, &*options.synchronous), ("MEMORY", "OFF"));
    }

    #[test]
    fn arguments_win_over_the_table_and_bad_values_are_named() {
        let config = json!({"content-sqlite": {"synchronous": "FULL", "max_checkpoints": 2}});
        let config = Config::from_object(config.as_object().unwrap().clone());
        let place = place(&[("statedir", "/s")]);
        let args = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let options =
            Options::new(place.clone(), &config, &args(&["synchronous=EXTRA", "truncate"]))
                .unwrap();
        assert_eq!((&*options.synchronous, options.max_checkpoints), ("EXTRA", 2));
        assert_eq!(options.begin, Begin::Empty);
        for bad in ["journal_mode=wal", "synchronous=", "max-checkpoints=0", "fast"] {
            let failure = Options::new(place.clone(), &config, &args(&[bad])).unwrap_err();
            assert_eq!(failure.errno, Errno::EINVAL, "{bad}");
            assert!(failure.text.is_some(), "{bad}");
        }
    }
}
