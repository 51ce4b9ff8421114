//! One child process: its pipes, and its end.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::rexec::{ExecRequest, Io, flags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::broker::Broker;

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// A process that runs.
pub(super) struct Process {
    child: Child,
    pid: i64,
    stdin: Option<mpsc::UnboundedSender<Option<Vec<u8>>>>,
}

/// What happens to it, in this order; output may come after the exit.
pub(super) enum Told {
    /// Data, or nothing at the end of the stream.
    Output { stream: &'static str, data: Option<Vec<u8>> },
    /// wait(2) status.
    Exited { status: i32 },
    /// It has exited, and all its output was told.
    Done,
}

impl Process {
    /// Start a process in a group of its own.
    pub(super) fn spawn(
        broker: &Broker,
        request: &ExecRequest,
        background: bool,
    ) -> Result<Process, Failure> {
        let cmd = &request.cmd;
        let (program, args) = cmd.cmdline.split_first().ok_or(Errno::EPROTO)?;
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&cmd.env).process_group(0);
        if let Some(uri) = broker.attrs().get("local-uri") {
            command.env("FLUX_URI", uri);
        }
        if let Some(cwd) = cmd.cwd.as_ref().filter(|cwd| std::path::Path::new(cwd).is_dir()) {
            command.current_dir(cwd);
        }
        let wanted = |flag| {
            let told = request.flags & flag != 0 && !background;
            if told { Stdio::piped() } else { Stdio::null() }
        };
        command.stdout(wanted(flags::STDOUT)).stderr(wanted(flags::STDERR));
        command.stdin(if background { Stdio::null() } else { Stdio::piped() });
        let mut child = command.spawn().map_err(|error| {
            let errno = Errno::from(&error);
            Failure::new(errno, format!("error launching process: {errno}"))
        })?;
        let pid = child.id().map_or(-1, i64::from);
        let stdin = child.stdin.take().map(|mut pipe| {
            let (data, mut queue) = mpsc::unbounded_channel::<Option<Vec<u8>>>();
            tokio::task::spawn_local(async move {
                while let Some(Some(data)) = queue.recv().await {
                    if pipe.write_all(&data).await.is_err() {
                        return;
                    }
                }
            });
            data
        });
        Ok(Process { child, pid, stdin })
    }

    pub(super) fn pid(&self) -> i64 {
        self.pid
    }

    /// Where to write to its stdin; closed when dropped.
    pub(super) fn take_stdin(&mut self) -> Option<mpsc::UnboundedSender<Option<Vec<u8>>>> {
        self.stdin.take()
    }

    /// Until it has exited and closed its output.
    pub(super) async fn run(mut self, tell: impl Fn(Told)) {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let exit = async {
            let status = self.child.wait().await.map_or(0x7f00, ExitStatusExt::into_raw);
            tell(Told::Exited { status });
        };
        tokio::join!(exit, read(stdout, "stdout", &tell), read(stderr, "stderr", &tell),);
        tell(Told::Done);
    }
}

async fn read<R: AsyncRead + Unpin>(pipe: Option<R>, stream: &'static str, tell: &impl Fn(Told)) {
    let Some(mut pipe) = pipe else { return };
    let mut buf = vec![0; CHUNK];
    while let Ok(count @ 1..) = pipe.read(&mut buf).await {
        let data = buf.get(..count).unwrap_or_default().to_vec();
        tell(Told::Output { stream, data: Some(data) });
    }
    tell(Told::Output { stream, data: None });
}

/// Data as it travels: text, or base64 where it is not UTF-8.
pub(super) fn io(stream: &str, rank: u32, data: Option<&[u8]>) -> Io {
    let (encoding, text) = match data.map(|data| (std::str::from_utf8(data), data)) {
        None => (None, None),
        Some((Ok(text), _)) => (None, Some(text.to_owned())),
        Some((Err(_), data)) => (Some("base64".to_owned()), Some(STANDARD.encode(data))),
    };
    Io {
        stream: stream.to_owned(),
        rank: rank.to_string(),
        encoding,
        data: text,
        eof: data.is_none(),
    }
}

/// EPROTO: not what the encoding says.
pub(super) fn decode(io: &Io) -> Result<Option<Vec<u8>>, Failure> {
    match (&io.data, io.encoding.as_deref()) {
        (None, _) => Ok(None),
        (Some(text), None | Some("UTF-8")) => Ok(Some(text.clone().into_bytes())),
        (Some(text), Some("base64")) => {
            let data = STANDARD.decode(text).map_err(|_| Failure::from(Errno::EPROTO))?;
            Ok(Some(data))
        }
        (Some(_), Some(_)) => Err(Errno::EPROTO.into()),
    }
}
