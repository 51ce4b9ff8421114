//! The scripts of a folder, all at once, on this host and as this user.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::{Perilog, Stop, next_signal};
use crate::failure::{Failure, Outcome, strerror};
use crate::signal::Ended;

impl Perilog {
    /// The highest exit code; 0 where there is no folder or nothing in it.
    pub(super) async fn scripts(&self) -> Outcome {
        let directory = self.directory();
        let scripts =
            executables(&directory).map_err(|e| Failure::of(directory.display(), strerror(&e)))?;
        if scripts.is_empty() {
            return Ok(0);
        }
        self.info(format_args!("running {} scripts from {}", scripts.len(), directory.display()));
        let mut running = Vec::with_capacity(scripts.len());
        for script in scripts {
            let started = Command::new(&script).stdin(Stdio::null()).spawn();
            let stop = self.stop.clone();
            running.push((script, tokio::spawn(async move { wait(started?, stop).await })));
        }
        let mut code = 0;
        for (script, ended) in running {
            let script = script.display();
            match ended.await.map_err(Failure::new)? {
                Ok(Ended::Exited(0)) => self.info(format_args!("{script} completed successfully")),
                Ok(ended) => {
                    eprintln!("{}: {script} failed with rc={}", self.id.f58(), ended.code());
                    code = code.max(ended.code());
                }
                Err(e) => {
                    eprintln!("{}: {script}: {}", self.id.f58(), strerror(&e));
                    code = code.max(126);
                }
            }
        }
        Ok(code)
    }
}

/// In the order of their names.
fn executables(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut scripts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // A link that leads nowhere is nothing to run.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            scripts.push(path);
        }
    }
    scripts.sort();
    Ok(scripts)
}

async fn wait(mut child: Child, mut stop: Stop) -> io::Result<Ended> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    loop {
        tokio::select! {
            status = child.wait() => {
                use std::os::unix::process::ExitStatusExt;
                return Ok(Ended::from_status(status?.into_raw()));
            }
            signum = next_signal(&mut stop) => {
                if let (Some(pid), Ok(signal)) = (pid, Signal::try_from(signum)) {
                    // It may have ended just now.
                    let _ = kill(Pid::from_raw(pid), signal);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_can_be_executed_are_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        make("20-b", 0o755);
        make("10-a", 0o700);
        make("README", 0o644);
        std::fs::create_dir(dir.path().join("more")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let found = executables(dir.path()).unwrap();
        assert_eq!(found, [dir.path().join("10-a"), dir.path().join("20-b")]);
        assert!(executables(&dir.path().join("none")).unwrap().is_empty());
    }
}
