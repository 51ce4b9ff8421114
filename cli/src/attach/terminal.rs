//! This terminal as that of a job.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::message::{Message, Nodeid};
use flux_protocol::payload::{decode_json, encode_json};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::AbortHandle;

use crate::failure::Failure;

const CHUNK: usize = 4096;
/// Control and backslash: away from the terminal, which stays.
const DETACH: u8 = 0x1c;
/// How often it is made sure that the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// What comes from the other end; an error is the end.
#[derive(Debug)]
pub(crate) enum Said {
    Message(Message),
    End(Option<RpcError>),
    /// Keys could not be sent: it went without a word.
    Lost(RpcError),
}

/// What it means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Attached,
    /// There is no such terminal any more.
    Unreachable,
    /// With the wait status of its program.
    Closed(i32),
}

const DISAPPEARED: &str = "remote pty disappeared";

type Tell = Arc<dyn Fn(Said) -> bool + Send + Sync>;

pub(crate) struct Terminal {
    peer: Peer,
    tell: Tell,
    attached: bool,
    /// As it was before.
    saved: Option<Termios>,
    status: i32,
    message: Option<String>,
    tasks: Vec<AbortHandle>,
}

#[derive(Debug, Clone)]
struct Peer {
    flux: Client,
    topic: String,
    leader: Nodeid,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FromPty {
    Attach,
    Data { data: String, encoding: Option<String> },
    Resize,
    Exit { message: String, status: i32 },
}

impl Terminal {
    /// `tell` hears what the other end says, and returns false when nobody listens.
    pub(crate) fn attach(
        flux: &Client,
        topic: String,
        leader: Nodeid,
        tell: impl Fn(Said) -> bool + Send + Sync + 'static,
    ) -> Result<Terminal, Failure> {
        let tell: Tell = Arc::new(tell);
        let peer = Peer { flux: flux.clone(), topic, leader };
        let attach = json!({"type": "attach", "mode": "rw", "winsize": window_size()});
        let mut stream = flux.stream_raw(peer.request(&attach)?)?;
        let listen = tell.clone();
        let listener = tokio::spawn(async move {
            loop {
                let said = match stream.next().await {
                    Ok(Some(message)) => Said::Message(message),
                    Ok(None) => Said::End(None),
                    Err(error) => Said::End(Some(error)),
                };
                let is_last = matches!(said, Said::End(_));
                if !listen(said) || is_last {
                    return;
                }
            }
        });
        let tasks = vec![listener.abort_handle()];
        let saved = None;
        Ok(Terminal { peer, tell, attached: false, saved, status: 0, message: None, tasks })
    }

    /// Ask to be let go; the other end answers with the end.
    pub(crate) fn detach(&self) {
        self.peer.notify(&json!({"type": "detach"}));
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    pub(crate) fn said(&mut self, said: Said) -> Result<Outcome, Failure> {
        match said {
            Said::Message(message) => {
                self.message(&message)?;
                Ok(Outcome::Attached)
            }
            Said::End(_) | Said::Lost(_) if !self.attached => Ok(Outcome::Unreachable),
            Said::Lost(error) => {
                self.status = 1;
                self.message = Some(match error.errno() {
                    Errno::ENOSYS => DISAPPEARED.to_owned(),
                    _ => format!("error writing to remote pty: {error}"),
                });
                Ok(self.closed())
            }
            Said::End(error) => {
                match error {
                    Some(error) if error.errno() == Errno::ENOSYS => {
                        self.message = Some("No such session".to_owned());
                        self.status = 1;
                    }
                    Some(error) => {
                        self.message = Some(error.to_string());
                        self.status = 1;
                    }
                    None => {}
                }
                Ok(self.closed())
            }
        }
    }

    /// There is nobody left at the other end.
    pub(crate) fn disappeared(mut self) {
        self.message = Some(DISAPPEARED.to_owned());
        self.closed();
    }

    fn closed(&self) -> Outcome {
        let why = self.message.as_deref().unwrap_or("unknown reason");
        crate::out!("\x1b[999H[detached: {why}]\x1b[K\n\r");
        crate::output::flush();
        Outcome::Closed(self.status)
    }

    fn message(&mut self, message: &Message) -> Result<(), Failure> {
        match decode_json::<FromPty>(message.payload.as_ref()).map_err(Failure::new)? {
            FromPty::Attach => {
                self.attached = true;
                self.make_raw();
                let input = pass_input(self.peer.clone(), self.tell.clone());
                self.tasks.push(tokio::spawn(input).abort_handle());
                self.tasks.push(tokio::spawn(pass_size(self.peer.clone())).abort_handle());
            }
            FromPty::Data { data, encoding } => {
                let bytes = match encoding.as_deref() {
                    Some("base64") => STANDARD.decode(data).map_err(Failure::new)?,
                    _ => data.into_bytes(),
                };
                crate::output::emit_bytes(&bytes);
                crate::output::flush();
            }
            FromPty::Resize => {
                self.peer.notify(&json!({"type": "resize", "winsize": window_size()}))
            }
            FromPty::Exit { message, status } => {
                self.message = Some(message);
                self.status = status;
            }
        }
        Ok(())
    }

    /// All keys go to the other end.
    fn make_raw(&mut self) {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return;
        }
        if let Ok(saved) = tcgetattr(&stdin) {
            let mut raw = saved.clone();
            cfmakeraw(&mut raw);
            if tcsetattr(&stdin, SetArg::TCSANOW, &raw).is_ok() {
                self.saved = Some(saved);
            }
        }
    }
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(saved) = &self.saved {
            // Programs may have hidden the cursor.
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, saved);
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(b"\x1b[?25h").and_then(|()| out.flush());
        }
    }
}

// === impl Peer ===

impl Peer {
    fn request(&self, payload: &Value) -> Result<Request, Failure> {
        let payload = encode_json(payload).map_err(Failure::new)?;
        Ok(Request::new(self.topic.clone()).to(self.leader).payload(payload))
    }

    /// A service that is gone does not end its streams, but takes no keys either.
    fn data(&self, data: &[u8], tell: &Tell) {
        let Ok(request) = self.request(&encode_data(data)) else { return };
        let Ok(answer) = self.flux.start_raw(request) else { return };
        let tell = tell.clone();
        tokio::spawn(async move {
            match answer.await {
                // It has let go of us, and says so in the stream.
                Err(error) if error.errno() == Errno::ENOENT => {}
                Err(error) => drop(tell(Said::Lost(error))),
                Ok(_) => {}
            }
        });
    }

    /// Whether it was taken shows in the stream.
    fn notify(&self, payload: &Value) {
        if let Ok(request) = self.request(payload) {
            let _ = self.flux.start_raw(request);
        }
    }
}

async fn pass_input(peer: Peer, tell: Tell) {
    let mut stdin = tokio::io::stdin();
    let mut buf = vec![0; CHUNK];
    let mut keepalive = tokio::time::interval(KEEPALIVE);
    loop {
        tokio::select! {
            count = stdin.read(&mut buf) => {
                let data = count.ok().and_then(|count| buf.get(..count)).unwrap_or_default();
                match data.first() {
                    None => return,
                    Some(&DETACH) => peer.notify(&json!({"type": "detach"})),
                    Some(_) => peer.data(data, &tell),
                }
            }
            _ = keepalive.tick() => peer.data(b"", &tell),
        }
    }
}

async fn pass_size(peer: Peer) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        peer.notify(&json!({"type": "resize", "winsize": window_size()}));
    }
}

pub(crate) fn encode_data(data: &[u8]) -> Value {
    match std::str::from_utf8(data) {
        Ok(text) if !text.contains('\0') => json!({"type": "data", "data": text}),
        _ => json!({"type": "data", "data": STANDARD.encode(data), "encoding": "base64"}),
    }
}

/// A terminal of no size is not of any use.
fn window_size() -> Value {
    let size = terminal_size::terminal_size();
    let (columns, rows) =
        size.map_or((80, 24), |(columns, rows)| (columns.0.max(1), rows.0.max(1)));
    json!({"rows": rows, "cols": columns})
}
