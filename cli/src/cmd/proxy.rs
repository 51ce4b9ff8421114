//! `flux proxy`: run a command, or a shell, as if it were in another instance.
//!
//! A socket here stands for that of the instance: each connection to it gets one of its own over
//! there, and bytes pass between the two without a look at them.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use flux_client::{Client, Uri, connect};
use flux_protocol::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getuid, mkdtemp};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::cmd::uri;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};

const RECONNECT_DELAY: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(override_usage = "flux proxy [OPTIONS] JOBID|URI [COMMAND...]")]
pub(crate) struct Proxy {
    /// Skip version check when connecting to a broker
    #[arg(short, long)]
    force: bool,
    /// Do not send SIGHUP to child processes when connection to Flux is lost
    #[arg(short, long)]
    nohup: bool,
    /// If broker connection is lost, try to reconnect
    #[arg(long)]
    reconnect: bool,
    #[arg(value_name = "TARGET")]
    target: String,
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// A folder with the socket; both go away with it.
struct Socket {
    dir: PathBuf,
}

impl Proxy {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let address = uri::resolve(&context, &self.target, false).await.map_err(|e| {
            Failure::new(format_args!("Unable to resolve {} to a URI: {e}", self.target))
        })?;
        let upstream: Uri = address.parse().map_err(Failure::new)?;
        let flux = Client::open(Some(&address)).await.map_err(|e| Failure::of(&address, e))?;
        self.check_version(&flux).await?;
        let socket = Socket::create(&context)?;
        let path = socket.dir.join("local");
        let listener =
            UnixListener::bind(&path).map_err(|e| Failure::of(path.display(), strerror(&e)))?;
        let mut listener = Some(listener);
        let terminal = terminal_state();
        let mut child = self.start(&context, &path, &address)?;
        // The terminal's signals are for the child.
        let mut interrupts = signal(SignalKind::interrupt()).map_err(Failure::new)?;
        let mut quits = signal(SignalKind::quit()).map_err(Failure::new)?;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.map_err(Failure::new)?,
                accepted = accept(listener.as_ref()) => {
                    if let Ok((stream, _)) = accepted {
                        tokio::spawn(serve(stream, upstream.clone(), self.reconnect));
                    }
                }
                reason = flux.closed(), if listener.is_some() && !self.reconnect => {
                    // Who comes now is refused, rather than left to wait for nobody.
                    listener = None;
                    eprintln!("flux-proxy: Lost connection to Flux: {reason}");
                    if !self.nohup {
                        eprintln!("flux-proxy: Sending SIGHUP to child processes");
                        hang_up(&child);
                    }
                }
                _ = interrupts.recv() => {}
                _ = quits.recv() => {}
            }
        };
        if listener.is_none() {
            restore_terminal(terminal);
        }
        Ok(exit_code(status))
    }

    /// Major and minor version must be the same.
    async fn check_version(&self, flux: &Client) -> Result<(), Failure> {
        let theirs = flux.attr("version").await.map_err(|e| Failure::of("version", e))?;
        let ours = env!("CARGO_PKG_VERSION");
        let series = |version: &str| {
            let mut parts = version.split(['.', '-']).map(str::to_owned);
            (parts.next(), parts.next())
        };
        if series(&theirs) == series(ours) {
            return Ok(());
        }
        let text =
            format!("proxy version {ours} may not interoperate with broker version {theirs}");
        if !self.force {
            let text = format_args!("fatal: {text} (--force to connect anyway)");
            return Err(Failure::new(text));
        }
        eprintln!("flux-proxy: warning: {text}");
        Ok(())
    }

    fn start(&self, context: &Context, socket: &Path, address: &str) -> Result<Child, Failure> {
        let shell = context.env.get("SHELL").unwrap_or("/bin/sh");
        let mut command = Command::new(shell);
        if !self.command.is_empty() {
            command.arg("-c").arg(self.command.join(" "));
        }
        command
            .env_clear()
            .envs(context.env.all())
            .env("FLUX_URI", format!("local://{}", socket.display()));
        if let Some(authority) = uri::authority(address) {
            command.env("FLUX_PROXY_REMOTE", authority);
        }
        command.spawn().map_err(|e| Failure::of(shell, strerror(&e)))
    }
}

async fn accept(listener: Option<&UnixListener>) -> std::io::Result<(UnixStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Connect a client here to the instance, if it is the same user.
async fn serve(mut here: UnixStream, upstream: Uri, reconnect: bool) {
    let ours = here.peer_cred().is_ok_and(|peer| peer.uid() == getuid().as_raw());
    if !ours {
        refuse(here, Errno::EPERM).await;
        return;
    }
    let mut there = loop {
        match connect(&upstream).await {
            Ok(stream) => break stream,
            Err(_) if reconnect => tokio::time::sleep(RECONNECT_DELAY).await,
            Err(e) => {
                refuse(here, e.errno()).await;
                return;
            }
        }
    };
    if here.write_u8(0).await.is_ok() {
        // Ends when either side leaves, which is all there is to know.
        let _ = copy_bidirectional(&mut here, &mut there).await;
    }
}

async fn refuse(mut here: UnixStream, errno: Errno) {
    let verdict = u8::try_from(errno.0).unwrap_or(1);
    // Whoever has left needs no refusal.
    let _ = here.write_u8(verdict).await;
}

fn hang_up(child: &Child) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    for signal in [Signal::SIGHUP, Signal::SIGCONT] {
        // A child that has just ended can't be signalled, and that is fine.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn terminal_state() -> Option<Termios> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None }
}

/// A child that was hung up may have left the terminal without echo or cursor.
fn restore_terminal(state: Option<Termios>) {
    if let Some(state) = state {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &state);
        crate::outln!("\x1b[?25h\r");
    }
}

impl Socket {
    fn create(context: &Context) -> Result<Socket, Failure> {
        let tmpdir = context.env.get("TMPDIR").filter(|dir| Path::new(dir).is_dir());
        let template = Path::new(tmpdir.unwrap_or("/tmp")).join("flux-proxy-XXXXXX");
        let dir = mkdtemp(&template)
            .map_err(|e| Failure::of("error creating proxy socket directory", e.desc()))?;
        Ok(Socket { dir })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What stays behind is an empty folder below /tmp.
        let _ = std::fs::remove_file(self.dir.join("local"));
        let _ = std::fs::remove_dir(&self.dir);
    }
}
