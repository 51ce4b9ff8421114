//! Terminals: those of tasks, and others that a user asks for, with everybody who is attached.
//! The service is `UID-shell-ID.terminus`, or without a job that of a [`server`].
//!
//! ```text
//!   attach --> data, resize ... --> detach
//!                   |
//!   program has ended, terminal is closed, and somebody has been there: exit to all attached
//! ```

use std::collections::BTreeMap;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::message::Message;
use flux_protocol::payload::{decode_json, encode_json};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::clock;
use crate::job::{Job, TaskId};
use crate::log::Log;
use crate::task::spawn::{Special, spawn};
use crate::task::{Plan, Streams};

pub(crate) mod config;
mod pty;
pub(crate) mod server;

use pty::Pty;
pub(crate) use pty::Said;

const COMPONENT: &str = "pty";
/// Pieces of output that wait to be sent on.
const QUEUE: usize = 64;

/// An error response.
type Refused = (Errno, &'static str);

pub(crate) struct Terminus {
    flux: Client,
    log: Log,
    service: String,
    broker_rank: u32,
    ctime: f64,
    sessions: BTreeMap<u32, Session>,
    said: mpsc::Sender<(u32, Said)>,
    exits: mpsc::UnboundedSender<(u32, i32)>,
    /// Who wants to know when there is no session left.
    stopping: Vec<Message>,
}

/// What terminals and their programs do.
pub(crate) struct Sources {
    pub(crate) said: mpsc::Receiver<(u32, Said)>,
    pub(crate) exits: mpsc::UnboundedReceiver<(u32, i32)>,
}

struct Session {
    name: String,
    pty: Pty,
    /// Process of a session that is no task's.
    pid: Option<i32>,
    ctime: f64,
    clients: Vec<Attached>,
    /// Want to know of the end only.
    watchers: Vec<Message>,
    captured: bool,
    wait_for_client: bool,
    closed: bool,
    /// wait(2) status of the program.
    status: Option<i32>,
}

struct Attached {
    uuid: Bytes,
    request: Message,
    reads: bool,
    writes: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ToPty {
    Attach { mode: String, winsize: Option<WindowSize> },
    Resize { winsize: WindowSize },
    Data { data: String, encoding: Option<String> },
    Detach,
}

#[derive(Deserialize)]
struct WindowSize {
    rows: u16,
    cols: u16,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FromPty<'a> {
    Attach,
    Data {
        #[serde(skip_serializing_if = "Option::is_none")]
        encoding: Option<&'a str>,
        data: &'a str,
    },
    Exit {
        message: &'a str,
        status: i32,
    },
}

#[derive(Deserialize)]
struct NewRequest {
    name: Option<String>,
    cmd: Option<Vec<String>>,
    environ: Option<BTreeMap<String, String>>,
    cwd: Option<String>,
    /// Whether the session lasts until somebody has seen it; it does unless told otherwise.
    wait: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct NewResponse<'a> {
    name: &'a str,
    pty_service: String,
    id: u32,
}

#[derive(Deserialize)]
struct KillRequest {
    id: i64,
    signal: i32,
    #[serde(default)]
    wait: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct ListResponse<'a> {
    sessions: Vec<SessionInfo<'a>>,
    server: ServerInfo<'a>,
}

#[derive(Serialize)]
struct SessionInfo<'a> {
    id: u32,
    name: &'a str,
    clients: usize,
    pid: i32,
    exited: u8,
    ctime: f64,
}

#[derive(Serialize)]
struct ServerInfo<'a> {
    service: &'a str,
    rank: u32,
    ctime: f64,
}

// === impl Terminus ===

impl Terminus {
    pub(crate) fn new(job: &Job, flux: &Client, log: &Log) -> (Terminus, Sources) {
        Terminus::named(format!("{}.terminus", job.service), job.broker_rank, flux, log)
    }

    /// `service` is what goes before the methods in topics.
    fn named(service: String, broker_rank: u32, flux: &Client, log: &Log) -> (Terminus, Sources) {
        let (said_sender, said) = mpsc::channel(QUEUE);
        let (exits_sender, exits) = mpsc::unbounded_channel();
        let terminus = Terminus {
            flux: flux.clone(),
            log: log.clone(),
            service,
            broker_rank,
            ctime: clock::now(),
            sessions: BTreeMap::new(),
            said: said_sender,
            exits: exits_sender,
            stopping: Vec::new(),
        };
        (terminus, Sources { said, exits })
    }

    /// A terminal for a task; returns the path that the task is to open.
    pub(crate) fn open_task(
        &mut self,
        rank: u32,
        captured: bool,
        wait_for_client: bool,
    ) -> Result<String, nix::errno::Errno> {
        let pty = Pty::open(rank, self.said.clone())?;
        let follower = pty.follower.clone();
        let mut session = Session::new(format!("task{rank}"), pty);
        session.captured = captured;
        session.wait_for_client = wait_for_client;
        self.sessions.insert(rank, session);
        Ok(follower)
    }

    /// Tasks have been started: what they write may be read now.
    pub(crate) fn begin(&mut self) {
        self.sessions.values().for_each(Session::update_reading);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether the task's terminal is its output, and may still show something.
    pub(crate) fn is_captured_and_open(&self, rank: u32) -> bool {
        self.sessions.get(&rank).is_some_and(|session| session.captured && !session.closed)
    }

    /// A terminal shows something. Returns whether that is a task's output.
    pub(crate) fn said(&mut self, id: u32, said: &Said) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        match said {
            Said::Data(data) => session.send_data(&self.flux, data),
            Said::Closed => session.closed = true,
        }
        let captured = session.captured;
        self.check(id);
        captured
    }

    /// The program in a terminal has ended.
    pub(crate) fn exited(&mut self, id: u32, status: i32) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.status = Some(status);
            session.update_reading();
            self.check(id);
        }
    }

    /// The job is to end: who has not attached by now won't.
    pub(crate) fn hurry(&mut self) {
        let ids: Vec<u32> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.wait_for_client = false;
                session.update_reading();
            }
            self.check(id);
        }
    }

    /// A request to `terminus.METHOD`.
    pub(crate) fn request(&mut self, request: &Message, method: &str, userid: u32) {
        if method == "disconnect" {
            self.disconnect(request);
            return;
        }
        let result = if request.cred.userid.0 != userid {
            Err((Errno::EPERM, ""))
        } else {
            match method {
                "list" => self.list(request),
                "new" => self.new_session(request),
                "kill" => self.kill(request),
                "kill-server" => self.kill_server(request),
                id => match id.parse() {
                    Ok(id) if self.sessions.contains_key(&id) => self.session_request(id, request),
                    _ => Err((Errno::ENOSYS, "")),
                },
            }
        };
        if let Err((errno, text)) = result {
            // Who asked has gone if that fails.
            let _ = self.flux.refuse(request, errno, text);
        }
    }

    fn session_request(&mut self, id: u32, request: &Message) -> Result<(), Refused> {
        let message: ToPty = decode(request)?;
        let uuid = request.first_route().cloned().ok_or((Errno::EPROTO, ""))?;
        let session = self.sessions.get_mut(&id).ok_or((Errno::ENOENT, ""))?;
        let known = session.clients.iter().position(|client| client.uuid == uuid);
        match (message, known) {
            (ToPty::Attach { .. }, Some(_)) => return Err((Errno::EEXIST, "")),
            (ToPty::Attach { mode, winsize }, None) => {
                session.attach(&self.flux, request, uuid, &mode, winsize)?;
                self.check(id);
                return Ok(());
            }
            (_, None) => return Err((Errno::ENOENT, "")),
            (ToPty::Resize { winsize }, Some(_)) => session.resize(&winsize)?,
            (ToPty::Data { data, encoding }, Some(at)) => {
                if session.clients.get(at).is_some_and(|client| client.writes) {
                    session.pty.write(decode_data(data, encoding.as_deref())?);
                }
            }
            (ToPty::Detach, Some(at)) => session.detach(&self.flux, at),
        }
        let _ = self.flux.respond(request, None);
        self.check(id);
        Ok(())
    }

    fn new_session(&mut self, request: &Message) -> Result<(), Refused> {
        const BAD: Refused = (Errno::EPROTO, "failed to parse cmd field");
        let NewRequest { name, cmd, environ, cwd, wait } = decode(request)?;
        let shell = || vec![std::env::var("SHELL").unwrap_or_else(|_| "bash".to_owned())];
        let argv = cmd.filter(|cmd| !cmd.is_empty()).unwrap_or_else(shell);
        let id = (0..u32::MAX).find(|id| !self.sessions.contains_key(id)).ok_or(BAD)?;
        let mut env = environ.unwrap_or_else(|| std::env::vars().collect());
        env.insert("FLUX_TERMINUS_SESSION".to_owned(), id.to_string());
        let name = name.filter(|name| !name.is_empty());
        let name = name.or_else(|| argv.first().cloned()).ok_or(BAD)?;
        let pty = Pty::open(id, self.said.clone()).map_err(|e| (errno(e), ""))?;
        let special = Special {
            terminal: Some(pty.follower.clone()),
            cwd: cwd.map(Into::into),
            ..Special::default()
        };
        let plan = Plan { id: TaskId { rank: id, index: 0 }, argv, env };
        let null =
            || Streams { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() };
        let mut child = spawn(&plan, null(), &special, Vec::new()).map_err(|e| {
            self.log.debug(COMPONENT, format_args!("terminus: failed to run {name}: {e}"));
            (Errno::from(&e), "")
        })?;
        let exits = self.exits.clone();
        let mut session = Session::new(name.clone(), pty);
        session.pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        session.wait_for_client = wait.as_ref().is_none_or(crate::options::is_on);
        session.update_reading();
        self.sessions.insert(id, session);
        tokio::spawn(async move {
            use std::os::unix::process::ExitStatusExt as _;
            let status = child.wait().await.map_or(1 << 8, |status| status.into_raw());
            let _ = exits.send((id, status));
        });
        let pty_service = format!("{}.{id}", self.service);
        let response = NewResponse { name: &name, pty_service, id };
        let _ = self.flux.respond(request, encode_json(&response).unwrap_or_default());
        Ok(())
    }

    fn kill(&mut self, request: &Message) -> Result<(), Refused> {
        let KillRequest { id, signal, wait } = decode(request)?;
        let id = u32::try_from(id).map_err(|_| (Errno::ENOENT, ""))?;
        let session = self.sessions.get_mut(&id).ok_or((Errno::ENOENT, ""))?;
        session.kill(signal)?;
        if wait.as_ref().is_some_and(crate::options::is_on) {
            session.watchers.push(request.clone());
        } else {
            let _ = self.flux.respond(request, None);
        }
        self.check(id);
        Ok(())
    }

    fn kill_server(&mut self, request: &Message) -> Result<(), Refused> {
        if self.sessions.is_empty() {
            let _ = self.flux.respond(request, None);
            return Ok(());
        }
        self.stopping.push(request.clone());
        let ids: Vec<u32> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                // One that has ended in the meantime needs no signal.
                let _ = session.kill(libc::SIGKILL);
            }
            self.check(id);
        }
        Ok(())
    }

    fn list(&self, request: &Message) -> Result<(), Refused> {
        let sessions = self.sessions.iter().map(|(&id, session)| SessionInfo {
            id,
            name: &session.name,
            clients: session.clients.len(),
            pid: session.pid.unwrap_or(-1),
            exited: u8::from(session.status.is_some()),
            ctime: session.ctime,
        });
        let server =
            ServerInfo { service: &self.service, rank: self.broker_rank, ctime: self.ctime };
        let response = ListResponse { sessions: sessions.collect(), server };
        let _ = self.flux.respond(request, encode_json(&response).unwrap_or_default());
        Ok(())
    }

    fn disconnect(&mut self, request: &Message) {
        let Some(uuid) = request.first_route() else { return };
        let ids: Vec<u32> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.clients.retain(|client| client.uuid != uuid);
                session.watchers.retain(|watcher| watcher.first_route() != Some(uuid));
                session.update_reading();
            }
            self.check(id);
        }
    }

    /// End a session that has nothing left to wait for.
    fn check(&mut self, id: u32) {
        let over = |session: &Session| session.status.is_some() && session.is_over();
        if !self.sessions.get(&id).is_some_and(over) {
            return;
        }
        if let Some(session) = self.sessions.remove(&id) {
            session.end(&self.flux);
        }
        if self.sessions.is_empty() {
            for request in self.stopping.drain(..) {
                let _ = self.flux.respond(&request, None);
            }
        }
    }
}

// === impl Session ===

impl Session {
    fn new(name: String, pty: Pty) -> Session {
        Session {
            name,
            pty,
            pid: None,
            ctime: clock::now(),
            clients: Vec::new(),
            watchers: Vec::new(),
            captured: false,
            wait_for_client: false,
            closed: false,
            status: None,
        }
    }

    fn is_over(&self) -> bool {
        self.closed && !self.wait_for_client
    }

    /// Output is read when there is somebody for it.
    fn update_reading(&self) {
        let wanted = self.captured || self.clients.iter().any(|client| client.reads);
        // What nobody will read must not keep the terminal open.
        let abandoned = self.status.is_some() && !self.wait_for_client;
        self.pty.set_reading(!self.wait_for_client && (wanted || abandoned));
    }

    fn attach(
        &mut self,
        flux: &Client,
        request: &Message,
        uuid: Bytes,
        mode: &str,
        winsize: Option<WindowSize>,
    ) -> Result<(), Refused> {
        let (reads, writes) = match mode {
            "rw" => (true, true),
            "ro" => (true, false),
            "wo" => (false, true),
            _ => return Err((Errno::EPROTO, "")),
        };
        if reads && writes {
            self.resize(&winsize.ok_or((Errno::EPROTO, ""))?)?;
        }
        self.wait_for_client &= !reads;
        self.clients.push(Attached { uuid, request: request.clone(), reads, writes });
        send(flux, request, &FromPty::Attach);
        self.update_reading();
        Ok(())
    }

    fn resize(&self, size: &WindowSize) -> Result<(), Refused> {
        if size.rows == 0 || size.cols == 0 {
            return Err((Errno::EINVAL, ""));
        }
        self.pty.resize(size.rows, size.cols).map_err(|e| (errno(e), ""))
    }

    fn detach(&mut self, flux: &Client, at: usize) {
        let client = self.clients.remove(at);
        let exit = FromPty::Exit { message: "Client requested detach", status: 0 };
        send(flux, &client.request, &exit);
        let _ = flux.refuse(&client.request, Errno::ENODATA, "");
        self.update_reading();
    }

    fn kill(&mut self, signum: i32) -> Result<(), Refused> {
        if signum != libc::SIGWINCH {
            self.wait_for_client = false;
        }
        self.update_reading();
        if self.status.is_some() {
            return Ok(());
        }
        let in_terminal = self.pty.kill(signum);
        // A terminal takes few signals; the program, and what it has in the background, takes all.
        let killed = match self.pid {
            Some(pid) => crate::sys::kill_realtime(-pid, signum),
            None => in_terminal,
        };
        killed.map_err(|e| (errno(e), ""))
    }

    fn send_data(&self, flux: &Client, data: &Bytes) {
        let encoded;
        let message = match std::str::from_utf8(data) {
            Ok(text) if !text.contains('\0') => FromPty::Data { encoding: None, data: text },
            _ => {
                encoded = STANDARD.encode(data);
                FromPty::Data { encoding: Some("base64"), data: &encoded }
            }
        };
        for client in self.clients.iter().filter(|client| client.reads) {
            send(flux, &client.request, &message);
        }
    }

    fn end(self, flux: &Client) {
        let status = self.status.unwrap_or(0);
        let waiting = self.clients.iter().map(|client| &client.request).chain(&self.watchers);
        for request in waiting {
            send(flux, request, &FromPty::Exit { message: "session exiting", status });
            if request.is_streaming() {
                let _ = flux.refuse(request, Errno::ENODATA, "");
            }
        }
    }
}

fn send(flux: &Client, request: &Message, message: &FromPty<'_>) {
    // Who attached has gone if that fails.
    let _ = flux.respond(request, encode_json(message).unwrap_or_default());
}

fn decode<T: serde::de::DeserializeOwned>(request: &Message) -> Result<T, Refused> {
    decode_json(request.payload.as_ref()).map_err(|e| (e.errno(), ""))
}

fn decode_data(data: String, encoding: Option<&str>) -> Result<Bytes, Refused> {
    match encoding {
        None => Ok(data.into()),
        Some("base64") => STANDARD.decode(data).map(Bytes::from).map_err(|_| (Errno::EPROTO, "")),
        Some(_) => Err((Errno::EPROTO, "")),
    }
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno(u32::try_from(error as i32).unwrap_or(Errno::EIO.0))
}
