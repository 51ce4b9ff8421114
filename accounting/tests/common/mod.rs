//! A database in a folder of its own, and `flux-account` at work on it.
#![allow(dead_code, reason = "not every suite needs all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_flux-account");

#[derive(Debug)]
pub(crate) struct Accounting {
    dir: tempfile::TempDir,
}

/// What a command has printed, and its exit code.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Accounting {
    /// With the tables of create-db.
    pub(crate) fn new() -> Accounting {
        let this = Accounting { dir: tempfile::tempdir().unwrap() };
        this.ok("create-db");
        this
    }

    /// And some banks below `root`, each with one share.
    pub(crate) fn with_banks(banks: &[&str]) -> Accounting {
        let this = Accounting::new();
        this.ok("add-bank root 1");
        for bank in banks {
            this.ok(&format!("add-bank --parent-bank=root {bank} 1"));
        }
        this
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("accounting.db")
    }

    /// Words are separated by spaces.
    pub(crate) fn run(&self, words: &str) -> Said {
        said(
            Command::new(PROGRAM)
                .arg("--path")
                .arg(self.path())
                .args(words.split_whitespace())
                .current_dir(self.dir()),
        )
    }

    /// What a command that succeeds prints.
    pub(crate) fn ok(&self, words: &str) -> String {
        let said = self.run(words);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{words}");
        said.out
    }

    /// What a command that fails says, in one line.
    pub(crate) fn fails(&self, words: &str) -> String {
        let said = self.run(words);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{words}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{words}: {}", said.err);
        let text = said.err.trim_end().strip_prefix("flux-account: ");
        text.unwrap_or_else(|| panic!("{words}: {}", said.err)).to_owned()
    }

    pub(crate) fn db(&self) -> rusqlite::Connection {
        let db = rusqlite::Connection::open(self.path()).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
        db
    }

    /// Number in the first field of the first row.
    pub(crate) fn number(&self, query: &str) -> f64 {
        self.db().query_row(query, [], |row| row.get(0)).unwrap()
    }
}

pub(crate) fn said(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Said {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}
