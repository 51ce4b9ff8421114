//! `flux terminus`: terminals that stay when one leaves them.
//!
//! Sessions belong to a server, which is a service on the broker where the first session was
//! started, and ends with the last.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Command as Process, Stdio};

use clap::{Args, Subcommand};
use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{decode_json, encode_json};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::unistd::getuid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::attach::terminal::{Outcome as Attachment, Terminal};
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::outln;

/// Set in sessions.
const SESSION: &str = "FLUX_TERMINUS_SESSION";
const SIGKILL: i32 = 9;
const CHUNK: usize = 4096;

#[derive(Debug, Args)]
#[command(override_usage = "flux-terminus COMMAND [OPTIONS]")]
pub(crate) struct Terminus {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a new session
    Start(Start),
    /// Attach to existing session
    Attach(Attach),
    /// list active sessions
    List(Server),
    /// kill active session ID
    Kill(Kill),
    /// tell terminus server to exit
    KillServer(Server),
}

/// Where sessions are.
#[derive(Debug, Args)]
struct Server {
    /// Server on rank RANK (default: local rank)
    #[arg(short, long, allow_negative_numbers = true)]
    rank: Option<i64>,
    /// Use service NAME (default USERID-terminus)
    #[arg(short, long, value_name = "NAME")]
    service: Option<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-terminus start [OPTIONS] [COMMAND...]")]
struct Start {
    #[command(flatten)]
    server: Server,
    /// Start new session and immediately detach
    #[arg(short, long)]
    detach: bool,
    /// With --detach, keep the session after its end until somebody has attached
    #[arg(short, long)]
    wait: bool,
    /// Set session name to NAME (default: arg0)
    #[arg(short, long)]
    name: Option<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-terminus attach [OPTIONS] ID")]
struct Attach {
    #[command(flatten)]
    server: Server,
    /// Pipe stdin to the session and exit. Do not display output
    #[arg(short, long)]
    pipe: bool,
    id: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-terminus kill [OPTIONS] ID")]
struct Kill {
    #[command(flatten)]
    server: Server,
    id: String,
}

#[derive(Deserialize)]
struct NewResponse {
    pty_service: String,
}

#[derive(Deserialize)]
struct ListResponse {
    sessions: Vec<Session>,
    server: ServerInfo,
}

#[derive(Deserialize)]
struct Session {
    id: u32,
    name: String,
    clients: u32,
    exited: u8,
    ctime: f64,
}

#[derive(Deserialize)]
struct ServerInfo {
    service: String,
    rank: u32,
    ctime: f64,
}

impl Terminus {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        match self.command {
            Command::Start(command) => command.run(&context).await,
            Command::Attach(command) => command.run(&context).await,
            Command::List(server) => server.list(&context).await,
            Command::Kill(command) => command.run(&context).await,
            Command::KillServer(server) => {
                let flux = context.connect().await?;
                let ended = server.ask(&flux, "kill-server", &json!({})).await;
                ended.map_err(|e| server.failure("kill-server", &e))?;
                Ok(0)
            }
        }
    }
}

impl Server {
    fn service(&self) -> String {
        self.service.clone().unwrap_or_else(|| format!("{}-terminus", getuid()))
    }

    fn rank(&self) -> Nodeid {
        let rank = self.rank.and_then(|rank| u32::try_from(rank).ok());
        rank.map_or(Nodeid::ANY, Nodeid)
    }

    fn request(&self, topic: String, payload: &Value) -> Result<Request, RpcError> {
        Ok(Request::new(topic).to(self.rank()).payload(encode_json(payload)?))
    }

    /// The payload of the answer; null where there is none.
    async fn ask(&self, flux: &Client, method: &str, payload: &Value) -> Result<Value, RpcError> {
        let topic = format!("{}.{method}", self.service());
        let answer = flux.rpc_raw(self.request(topic, payload)?).await?;
        match answer.payload {
            Some(payload) => Ok(decode_json(Some(&payload))?),
            None => Ok(Value::Null),
        }
    }

    fn failure(&self, what: &str, error: &RpcError) -> Failure {
        match error.errno() {
            Errno::ENOSYS => Failure::new(format_args!("no server running at {}", self.service())),
            _ => Failure::of(what, error),
        }
    }

    async fn list(&self, context: &Context) -> Outcome {
        let flux = context.connect().await?;
        let answer = self.ask(&flux, "list", &json!({})).await;
        let answer = answer.map_err(|e| self.failure("list sessions failed", &e))?;
        let ListResponse { sessions, server } =
            serde_json::from_value(answer).map_err(Failure::new)?;
        let since = time(server.ctime);
        outln!("server at {} running on rank {} since {since}", server.service, server.rank);
        match sessions.len() {
            0 => outln!("no sessions"),
            1 => outln!("1 current session:"),
            more => outln!("{more} current sessions:"),
        }
        for Session { id, name, clients, exited, ctime } in sessions {
            let exited = if exited == 0 { "" } else { " (exited)" };
            let created = time(ctime);
            outln!("{id}: [{name}]{exited} {clients} clients (created {created})");
        }
        Ok(0)
    }

    /// Have a server started on this node.
    fn launch(&self, context: &Context) -> Result<(), Failure> {
        let failed =
            |reason: &dyn std::fmt::Display| Failure::of("Failed to start a new server", reason);
        let mut child = Process::new(context.layout.libexecdir().join("flux-shell"))
            .arg(format!("--terminus={}", self.service()))
            .env_clear()
            .envs(context.env.all())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| failed(&strerror(&e)))?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said).map_err(|e| failed(&strerror(&e)))?;
        }
        match said.trim() {
            "ready" => Ok(()),
            "" => Err(failed(&"it ended at once")),
            reason => Err(failed(&reason)),
        }
    }

    async fn attach(&self, flux: &Client, pty: String) -> Outcome {
        let invalid = Failure::new(format_args!("Invalid session or server at {pty}"));
        let (tell, mut heard) = mpsc::unbounded_channel();
        let mut terminal =
            Terminal::attach(flux, pty, self.rank(), move |said| tell.send(said).is_ok())?;
        let mut detach = signal(SignalKind::user_defined1()).map_err(Failure::new)?;
        loop {
            let said = tokio::select! {
                said = heard.recv() => said,
                _ = detach.recv() => {
                    terminal.detach();
                    continue;
                }
            };
            let Some(said) = said else { return Ok(1) };
            let new = !terminal.is_attached();
            match terminal.said(said)? {
                Attachment::Attached if new && std::io::stdout().is_terminal() => {
                    // The session begins on an empty screen.
                    crate::out!("\x1b[H\x1b[2J");
                    crate::output::flush();
                }
                Attachment::Attached => {}
                Attachment::Unreachable => return Err(invalid),
                Attachment::Closed(status) => return Ok(exit_code(status)),
            }
        }
    }

    /// Type what is on standard input into the session.
    async fn pipe(&self, flux: &Client, pty: String) -> Outcome {
        let attach = json!({"type": "attach", "mode": "wo"});
        let invalid = |e: RpcError| match e.errno() {
            Errno::ENOSYS => Failure::new(format_args!("Invalid session or server at {pty}")),
            _ => Failure::of("attach", e),
        };
        let request = self.request(pty.clone(), &attach).map_err(invalid)?;
        let mut stream = flux.stream_raw(request)?;
        stream.next().await.map_err(invalid)?;
        let mut stdin = tokio::io::stdin();
        let mut buf = vec![0; CHUNK];
        loop {
            let count = stdin.read(&mut buf).await.map_err(|e| Failure::of("stdin", e))?;
            let data = buf.get(..count).unwrap_or_default();
            if data.is_empty() {
                return Ok(0);
            }
            let data = crate::attach::terminal::encode_data(data);
            flux.rpc_raw(self.request(pty.clone(), &data).map_err(invalid)?)
                .await
                .map_err(invalid)?;
        }
    }
}

impl Start {
    async fn run(self, context: &Context) -> Outcome {
        refuse_nesting(context)?;
        let flux = context.connect().await?;
        if let Err(error) = self.server.ask(&flux, "list", &json!({})).await {
            if error.errno() != Errno::ENOSYS {
                return Err(self.server.failure("list", &error));
            }
            if self.server.rank.is_some() {
                let text = "Unable to start a new server with --rank option";
                return Err(Failure::new(text));
            }
            self.server.launch(context)?;
        }
        let mut request = json!({
            "name": self.name.clone().unwrap_or_default(),
            "cmd": self.command,
            "wait": i32::from(!self.detach || self.wait),
        });
        // On another node the server's own is as good.
        if self.server.rank.is_none()
            && let (Value::Object(request), Ok(cwd)) = (&mut request, std::env::current_dir())
        {
            request.insert("cwd".to_owned(), json!(cwd.display().to_string()));
        }
        let answer = self.server.ask(&flux, "new", &request).await.map_err(|e| {
            let command = self.command.first().map_or("a shell", String::as_str);
            Failure::of(format_args!("Failed to start new session: failed to run {command}"), e)
        })?;
        let NewResponse { pty_service } = serde_json::from_value(answer).map_err(Failure::new)?;
        if self.detach {
            return Ok(0);
        }
        self.server.attach(&flux, pty_service).await
    }
}

impl Attach {
    async fn run(self, context: &Context) -> Outcome {
        refuse_nesting(context)?;
        let pty = format!("{}.{}", self.server.service(), session_id(&self.id)?);
        let flux = context.connect().await?;
        match self.pipe {
            true => self.server.pipe(&flux, pty).await,
            false => self.server.attach(&flux, pty).await,
        }
    }
}

impl Kill {
    async fn run(self, context: &Context) -> Outcome {
        let id = session_id(&self.id)?;
        let flux = context.connect().await?;
        let request = json!({"id": id, "signal": SIGKILL, "wait": 1});
        let killed = self.server.ask(&flux, "kill", &request).await;
        killed.map_err(|e| self.server.failure("kill failed", &e))?;
        Ok(0)
    }
}

fn refuse_nesting(context: &Context) -> Result<(), Failure> {
    match context.env.get(SESSION) {
        Some(_) => Err(Failure::new("Nesting flux-terminus sessions not supported")),
        None => Ok(()),
    }
}

fn session_id(text: &str) -> Result<u32, Failure> {
    text.parse().map_err(|_| Failure::new("session ID must be an integer"))
}

/// Of a wait status, as a shell has it.
fn exit_code(status: i32) -> u8 {
    let code = match status & 0x7f {
        0 => status >> 8,
        signal => 128 + signal,
    };
    u8::try_from(code).unwrap_or(1)
}

fn time(seconds: f64) -> String {
    let time = Timestamp::from_second(seconds as i64).unwrap_or_default();
    time.to_zoned(TimeZone::UTC).strftime("%a %b %e %H:%M:%S %Y").to_string()
}
