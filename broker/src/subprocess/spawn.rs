//! Starting a process, and the tasks that watch it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio as StdStdio};
use std::rc::Rc;

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::mpsc;

use super::input::Input;
use super::output::read;
use super::{DEFAULT_BUFSIZE, EVENTS_MAX, Event, Events, Process, Spec, Stdio, Stream, sys};

/// Why a process can't be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("command string is empty")]
    NoCommand,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Start a process. ENOENT and EACCES are about the program.
pub fn spawn(spec: &Spec) -> Result<(Process, Events), SpawnError> {
    let (program, args) = spec.argv.split_first().ok_or(SpawnError::NoCommand)?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(&spec.env);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(if cwd.is_dir() { cwd.as_path() } else { "/tmp".as_ref() });
    }
    if spec.group {
        command.process_group(0);
    }
    command.stdin(if spec.stdin { StdStdio::piped() } else { StdStdio::null() });
    command.stdout(stdio(spec.stdout)).stderr(stdio(spec.stderr));
    let channels = open_channels(spec, &mut command)?;
    let child = tokio::process::Command::from(command).spawn()?;
    // The child's ends of the channels close here.
    let ours = channels.into_iter().map(|channel| (channel.name, channel.stream, channel.ours));
    Ok(watch(spec, child, ours.collect())?)
}

fn stdio(stdio: Stdio) -> StdStdio {
    match stdio {
        Stdio::Inherit => StdStdio::inherit(),
        Stdio::Null => StdStdio::null(),
        Stdio::Piped(_) => StdStdio::piped(),
    }
}

struct Channel {
    name: String,
    stream: Stream,
    ours: StdUnixStream,
    _theirs: OwnedFd,
}

fn open_channels(spec: &Spec, command: &mut Command) -> io::Result<Vec<Channel>> {
    let mut channels = Vec::new();
    let mut keep = Vec::new();
    for (name, stream) in &spec.channels {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let theirs = OwnedFd::from(theirs);
        command.env(name, theirs.as_raw_fd().to_string());
        keep.push(theirs.as_raw_fd());
        channels.push(Channel { name: name.clone(), stream: *stream, ours, _theirs: theirs });
    }
    sys::prepare(command, keep, spec.dies_with_broker);
    Ok(channels)
}

/// The tasks that write input, read output, and wait.
fn watch(
    spec: &Spec,
    mut child: Child,
    channels: Vec<(String, Stream, StdUnixStream)>,
) -> io::Result<(Process, Events)> {
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(-1);
    let bufsize = |name: &str| spec.bufsize.get(name).copied().unwrap_or(DEFAULT_BUFSIZE);
    let mut inputs = BTreeMap::new();
    if let Some(stdin) = child.stdin.take() {
        let input = Input::start("stdin".into(), stdin, bufsize("stdin"), events.downgrade());
        inputs.insert("stdin".to_owned(), input);
    }
    if let (Some(stdout), Stdio::Piped(stream)) = (child.stdout.take(), spec.stdout) {
        let reader = read("stdout".into(), stdout, stream, bufsize("stdout"), events.clone());
        tokio::task::spawn_local(reader);
    }
    if let (Some(stderr), Stdio::Piped(stream)) = (child.stderr.take(), spec.stderr) {
        let reader = read("stderr".into(), stderr, stream, bufsize("stderr"), events.clone());
        tokio::task::spawn_local(reader);
    }
    for (name, stream, ours) in channels {
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();
        let size = bufsize(&name);
        let stream_name: Rc<str> = name.as_str().into();
        tokio::task::spawn_local(read(stream_name.clone(), reader, stream, size, events.clone()));
        inputs.insert(name, Input::start(stream_name, writer, size, events.downgrade()));
    }
    let exited = Rc::new(Cell::new(false));
    tokio::task::spawn_local(wait(child, exited.clone(), events));
    let process = Process {
        pid,
        group: spec.group,
        kill_signal: spec.kill_signal,
        inputs: RefCell::new(inputs),
        exited,
    };
    Ok((process, receiver))
}

async fn wait(mut child: Child, exited: Rc<Cell<bool>>, events: mpsc::Sender<Event>) {
    let status = child.wait().await;
    exited.set(true);
    // A child that can't be waited for is no child of ours: as if it had been killed.
    let status = status.map_or(nix::libc::SIGKILL, ExitStatusExt::into_raw);
    let _ = events.send(Event::Exited { status }).await;
}
