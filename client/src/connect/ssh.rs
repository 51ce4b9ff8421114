//! A tunnel to a broker's socket on another host: `ssh HOST flux relay PATH`.
//!
//! `FLUX_SSH` names another remote shell, `FLUX_SSH_RCMD` the path of `flux` over there.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::OpenError;

pub(super) struct Tunnel {
    pub(super) stream: UnixStream,
    child: Child,
}

impl Tunnel {
    pub(super) fn start(target: &str, port: Option<u16>, path: &str) -> Result<Tunnel, OpenError> {
        let shell = std::env::var_os("FLUX_SSH").unwrap_or_else(|| OsString::from("ssh"));
        let failed = |e: std::io::Error| {
            let shell = shell.to_string_lossy();
            OpenError::Ssh(format!("{shell}: {e} (FLUX_SSH names another remote shell)"))
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let stdin = OwnedFd::from(theirs.try_clone().map_err(failed)?);
        let mut command = Command::new(&shell);
        command
            .args(arguments(target, port, path))
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(failed)?;
        let stream = UnixStream::from_std(ours).map_err(failed)?;
        Ok(Tunnel { stream, child })
    }

    /// What the remote shell had to say about its failure.
    pub(super) async fn explain(mut self) -> String {
        let mut text = String::new();
        drop(self.stream);
        if let Some(mut stderr) = self.child.stderr.take() {
            // Best effort: the text is for people.
            let _ = stderr.read_to_string(&mut text).await;
        }
        let text = text.trim();
        if text.is_empty() {
            "no clean connection: do shell start files over there write to stdout?".to_owned()
        } else {
            text.to_owned()
        }
    }
}

fn arguments(target: &str, port: Option<u16>, path: &str) -> Vec<String> {
    let mut args = Vec::new();
    if let Some(port) = port {
        args.extend(["-p".to_owned(), port.to_string()]);
    }
    args.push(target.to_owned());
    let libraries = std::env::var("LD_LIBRARY_PATH").ok();
    let remote_flux = std::env::var("FLUX_SSH_RCMD").ok();
    if libraries.is_some() || remote_flux.is_none() {
        args.push("env".to_owned());
    }
    if remote_flux.is_none() {
        args.push(format!("PATH={}", search_path(path)));
    }
    if let Some(libraries) = libraries {
        args.push(format!("LD_LIBRARY_PATH={libraries}"));
    }
    args.push(remote_flux.unwrap_or_else(|| "flux".to_owned()));
    args.extend(["relay".to_owned(), path.to_owned()]);
    args
}

/// Over there `flux` is where the instance has linked it, where it is here, or in a system folder.
fn search_path(socket: &str) -> String {
    let mut dirs = Vec::new();
    if let Some(rundir) = Path::new(socket).parent() {
        dirs.push(format!("{}/bin", rundir.display()));
    }
    let here = std::env::var("PATH").unwrap_or_default();
    if let Some(dir) = here.split(':').find(|dir| Path::new(dir).join("flux").is_file()) {
        dirs.push(dir.to_owned());
    }
    dirs.extend(["/bin".to_owned(), "/usr/bin".to_owned()]);
    dirs.join(":")
}
