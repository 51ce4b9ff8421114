//! A tunnel to a broker's socket on another host: `ssh HOST flux relay PATH`.
//!
//! `FLUX_SSH` names another remote shell, `FLUX_SSH_RCMD` the path of `flux` over there. What the
//! remote shell has to say (a host that is not known, a warning, a banner) goes where ours goes.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::OpenError;

/// How long a remote shell whose connection is closed may take to end.
const GRACE: Duration = Duration::from_secs(2);

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
            .stderr(Stdio::inherit());
        let child = command.spawn().map_err(failed)?;
        let stream = UnixStream::from_std(ours).map_err(failed)?;
        Ok(Tunnel { stream, child })
    }

    /// Why the other side did not welcome us: the remote shell has ended, or something answered
    /// that is no broker.
    pub(super) async fn explain(mut self) -> String {
        drop(self.stream);
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(Ok(status)) if !status.success() => format!("the remote command failed: {status}"),
            _ => "no clean connection: do shell start files over there write to stdout?".to_owned(),
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
