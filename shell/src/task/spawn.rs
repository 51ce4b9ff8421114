//! Starting a process the cheap way: everything that a task inherits is prepared in this single
//! thread beforehand, so that nothing has to run between fork and exec.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use tokio::process::{Child, Command};

use super::{Inherited, Plan, Streams};
use crate::sys;

/// How a task's process differs from a plain one.
#[derive(Debug, Default)]
pub(crate) struct Special {
    /// Stay in the shell's process group.
    pub(crate) no_group: bool,
    /// Make this terminal the controlling one and stdin, stdout and stderr.
    pub(crate) terminal: Option<String>,
    /// Another directory than the shell's.
    pub(crate) cwd: Option<std::path::PathBuf>,
    /// Stop when exec has succeeded, for a debugger to attach.
    pub(crate) stop_in_exec: bool,
}

/// Start the process. `inherited` descriptors stay open in it.
///
/// The error is exec's own: ENOENT, EACCES...
pub(crate) fn spawn(
    plan: &Plan,
    streams: Streams,
    special: &Special,
    inherited: Inherited,
) -> io::Result<Child> {
    let program = plan.argv.first().map(String::as_str).unwrap_or_default();
    let path = resolve(program, plan.env.get("PATH").map(String::as_str))?;
    let command = |path: &Path, first: &[&str]| {
        let mut command = std::process::Command::new(path);
        command.args(first).args(plan.argv.get(1..).unwrap_or_default());
        command.env_clear().envs(&plan.env);
        command
    };
    let mut streams = Some(streams);
    let mut start = |mut command: std::process::Command| {
        let Streams { stdin, stdout, stderr } = streams.take().unwrap_or_default();
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        prepare(&mut command, special);
        Command::from(command).spawn()
    };
    let mut plain = command(&path, &[]);
    plain.arg0(program);
    let result = match start(plain) {
        // A script without an interpreter line is for sh, as execvp(3) has it.
        Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => {
            let script = path.to_string_lossy().into_owned();
            start(command(Path::new("/bin/sh"), &[&script]))
        }
        result => result,
    };
    drop(inherited);
    result
}

fn prepare(command: &mut std::process::Command, special: &Special) {
    if let Some(terminal) = &special.terminal {
        // A new session has its own process group.
        sys::attach_terminal(command, terminal);
    } else if !special.no_group {
        command.process_group(0);
    }
    if let Some(cwd) = &special.cwd {
        command.current_dir(cwd);
    }
    if special.stop_in_exec {
        sys::stop_in_exec(command);
    }
}

/// The file that execvp(3) would run. Looking it up here lets the process be started without
/// a fork of this one.
fn resolve(program: &str, path: Option<&str>) -> io::Result<std::path::PathBuf> {
    if program.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    if program.contains('/') {
        return Ok(program.into());
    }
    let mut error = libc::ENOENT;
    for directory in path.unwrap_or("/bin:/usr/bin").split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(program);
        match nix::unistd::access(&candidate, nix::unistd::AccessFlags::X_OK) {
            Ok(()) if candidate.is_dir() => error = libc::EACCES,
            Ok(()) => return Ok(candidate),
            Err(nix::errno::Errno::EACCES) => error = libc::EACCES,
            Err(_) => {}
        }
    }
    Err(io::Error::from_raw_os_error(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_up_in_the_path_of_the_task() {
        assert_eq!(resolve("sh", Some("/nonexistent:/bin")).unwrap(), Path::new("/bin/sh"));
        assert_eq!(resolve("./x", None).unwrap(), Path::new("./x"));
        let error = |program, path| resolve(program, path).unwrap_err().raw_os_error();
        assert_eq!(error("sh", Some("/nonexistent")), Some(libc::ENOENT));
        assert_eq!(error("", None), Some(libc::ENOENT));
    }

    #[test]
    fn a_file_that_may_not_be_run_is_eacces() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("prog"), "x").unwrap();
        let error = resolve("prog", dir.path().to_str()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }
}
