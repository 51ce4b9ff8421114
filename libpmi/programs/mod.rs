//! C programs, compiled by whoever tests, in instances of the programs of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder with a compiled program, `./prog`.
pub(crate) struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    /// From C, that loads the library itself, as MPIs do.
    pub(crate) fn compile(source: &str) -> Program {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("prog.c"), dir.path().join("prog"));
        std::fs::write(&from, source).unwrap();
        let mut gcc = Command::new("gcc");
        let made = gcc.args(["-Wall", "-Werror", "-o"]).arg(&to).arg(&from).args(["-ldl"]);
        assert!(made.status().unwrap().success(), "gcc");
        Program { dir }
    }

    /// Outside of any job.
    pub(crate) fn alone(&self, library: &str, args: &[&str]) -> Output {
        let mut command = Command::new("./prog");
        for name in ["PMI_FD", "PMI_RANK", "PMI_SIZE"] {
            command.env_remove(name);
        }
        let library = built().join("deps").join(library);
        command.args(args).env("FLUX_PMI_LIBRARY_PATH", library).current_dir(&self.dir);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// What a script says on both outputs, in an instance of two brokers.
    pub(crate) fn in_an_instance(&self, script: &str) -> String {
        let flux = built().join("flux");
        let output = Command::new("timeout")
            .args(["-k", "5", "120"])
            .arg(&flux)
            .args([
                "start",
                "-s",
                "2",
                &format!("exec 2>&1\nflux() {{ \"$FLUX\" \"$@\"; }}\n{script}"),
            ])
            .env("FLUX", &flux)
            .env("SHELL", "/bin/sh")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("FLUX_URI")
            .env_remove("LD_LIBRARY_PATH")
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        format!("{}{}", said(&output), String::from_utf8_lossy(&output.stderr))
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where the programs are; the libraries are in `deps` below.
pub(crate) fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}
