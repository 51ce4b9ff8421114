//! `flux sproc`: the processes that brokers run for others, such as those of `flux exec --bg`.

use std::borrow::Cow;
use std::io::Write;

use clap::{Args, Subcommand};
use flux_client::{Client, Request};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Payload};
use flux_protocol::rpc::rexec::{self, Io, ListResponse, Process, WaitResponse};

use super::exec::bytes;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::listing::{Listing, Print, Row, Value};
use crate::signal::Ended;

const FORMAT: &str = "{pid:>9} {state:<2} {label:<12} {cmd}";

#[derive(Debug, Args)]
#[command(override_usage = "flux-sproc ps|kill|wait [OPTIONS]")]
pub(crate) struct Sproc {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List active and zombie subprocesses
    #[command(override_usage = "flux-sproc ps [OPTIONS]")]
    Ps(Ps),
    /// Send a signal to a subprocess
    #[command(override_usage = "flux-sproc kill [OPTIONS] SIGNUM PID|LABEL")]
    Kill(Kill),
    /// Wait for a waitable subprocess and exit with its code
    #[command(override_usage = "flux-sproc wait [OPTIONS] PID|LABEL")]
    Wait(Wait),
}

/// Whom to ask.
#[derive(Debug, Args)]
struct Server {
    /// Send RPC to specified broker rank
    #[arg(short, long, value_name = "RANK")]
    rank: Option<u32>,
    /// Send RPC to specified service (default rexec)
    #[arg(short, long, value_name = "NAME", default_value = "rexec", hide_default_value = true)]
    service: String,
}

#[derive(Debug, Args)]
struct Ps {
    #[command(flatten)]
    server: Server,
    /// Specify output format using Python's string format syntax
    #[arg(short = 'o', long, default_value = FORMAT, hide_default_value = true)]
    format: String,
    /// Suppress printing of header line
    #[arg(short, long)]
    no_header: bool,
}

#[derive(Debug, Args)]
struct Kill {
    #[command(flatten)]
    server: Server,
    /// Wait for the process after sending the signal, and exit with its code
    #[arg(short, long)]
    wait: bool,
    #[arg(value_name = "SIGNUM")]
    signum: i32,
    #[arg(value_name = "PID|LABEL")]
    process: String,
}

#[derive(Debug, Args)]
struct Wait {
    #[command(flatten)]
    server: Server,
    /// Write any output retained by the server to stdout and stderr
    #[arg(short, long)]
    output: bool,
    #[arg(value_name = "PID|LABEL")]
    process: String,
}

impl Sproc {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        match self.command {
            Command::Ps(ps) => ps.run(&flux).await,
            Command::Kill(kill) => kill.run(&flux).await,
            Command::Wait(wait) => wait.run(&flux).await,
        }
    }
}

impl Server {
    fn request<M: flux_protocol::rpc::Method>(
        &self,
        request: &M::Request,
    ) -> Result<Request, Failure> {
        let nodeid = self.rank.map_or(Nodeid::ANY, Nodeid);
        Ok(Request::of::<M>(nodeid, request)?.service(&self.service))
    }

    fn wait(&self, process: &str) -> Result<Request, Failure> {
        let (pid, label) = pid_or_label(process);
        self.request::<rexec::Wait>(&rexec::WaitRequest { pid, label })
    }
}

/// As in requests: a pid, or -1 and a label.
fn pid_or_label(text: &str) -> (i64, Option<String>) {
    match text.parse() {
        Ok(pid) => (pid, None),
        Err(_) => (-1, Some(text.to_owned())),
    }
}

impl Ps {
    async fn run(self, flux: &Client) -> Outcome {
        let listing = Listing::parse(&self.format, heading).map_err(Failure::new)?;
        let request = self.server.request::<rexec::List>(&Empty)?;
        let answer = flux.rpc_raw(request).await.map_err(|error| Failure::of("ps", error))?;
        let list = ListResponse::decode(answer.payload.as_ref())
            .map_err(|error| Failure::of("ps", error))?;
        let rank = list.rank;
        let mut lines: Vec<Line> =
            list.procs.into_iter().map(|process| Line { rank, process }).collect();
        let print = Print { no_header: self.no_header, width: None };
        listing.print(&mut lines, print).map_err(Failure::new)?;
        Ok(0)
    }
}

impl Kill {
    async fn run(self, flux: &Client) -> Outcome {
        // Asked for first, or the process might be gone before it is waited for.
        let waiting = match self.wait {
            true => Some(flux.start_raw(self.server.wait(&self.process)?)?),
            false => None,
        };
        let (pid, label) = pid_or_label(&self.process);
        let kill = rexec::KillRequest { pid, label, signum: self.signum };
        let killed = flux.rpc_raw(self.server.request::<rexec::Kill>(&kill)?).await;
        if let Err(error) = killed {
            // It may have ended by itself, and then its code is there all the same.
            if waiting.is_none() || error.errno() != Errno::ESRCH {
                return Err(Failure::of("kill", error));
            }
            eprintln!("flux-sproc: kill: {error}");
        }
        let Some(waiting) = waiting else { return Ok(0) };
        let failed = |error: &dyn std::fmt::Display| Failure::of("kill: wait failed", error);
        let answer = waiting.await.map_err(|error| failed(&error))?;
        let answer =
            WaitResponse::decode(answer.payload.as_ref()).map_err(|error| failed(&error))?;
        Ok(Ended::from_status(answer.status).code())
    }
}

impl Wait {
    async fn run(self, flux: &Client) -> Outcome {
        let failed = |error: &dyn std::fmt::Display| Failure::of("wait", error);
        let request = self.server.wait(&self.process)?;
        let answer = flux.rpc_raw(request).await.map_err(|error| failed(&error))?;
        let answer =
            WaitResponse::decode(answer.payload.as_ref()).map_err(|error| failed(&error))?;
        if self.output {
            show(&answer.output).map_err(|error| failed(&strerror(&error)))?;
        }
        Ok(Ended::from_status(answer.status).code())
    }
}

fn show(output: &[Io]) -> std::io::Result<()> {
    for io in output {
        match io.stream.as_str() {
            "stdout" => std::io::stdout().write_all(&bytes(io))?,
            _ => std::io::stderr().write_all(&bytes(io))?,
        }
    }
    std::io::stdout().flush()
}

struct Line {
    rank: u32,
    process: Process,
}

impl Row for Line {
    fn field(&self, name: &str) -> Value {
        let Process { pid, cmd, label, state } = &self.process;
        match name {
            "pid" => Value::Int(*pid),
            "rank" => Value::Int(i64::from(self.rank)),
            "state" => state.clone().into(),
            "label" => label.clone().into(),
            "cmd" => cmd.clone().into(),
            _ => Value::None,
        }
    }
}

fn heading(field: &str) -> Option<Cow<'static, str>> {
    let heading = match field {
        "pid" => "PID",
        "rank" => "RANK",
        "state" => "ST",
        "label" => "LABEL",
        "cmd" => "COMMAND",
        _ => return None,
    };
    Some(Cow::Borrowed(heading))
}
