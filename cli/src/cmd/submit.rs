//! `flux submit` and `flux run`: send a job, and (run) wait for it with its output on the terminal.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use flux_client::{Client, Request};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::jobspec::{Extras, Jobspec, TaskRequest};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::encode_json;
use flux_protocol::rpc::{job_info, job_ingest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;

/// What both commands take.
#[derive(Debug, Args)]
pub(crate) struct JobRequest {
    /// Number of tasks to start
    #[arg(short = 'n', long, value_name = "N")]
    ntasks: Option<i64>,
    /// Number of nodes to allocate
    #[arg(short = 'N', long, value_name = "N")]
    nodes: Option<i64>,
    /// Number of cores to allocate per task
    #[arg(short = 'c', long, value_name = "N", default_value_t = 1)]
    cores_per_task: i64,
    /// Number of GPUs to allocate per task
    #[arg(short = 'g', long, value_name = "N")]
    gpus_per_task: Option<i64>,
    /// Reserve whole nodes
    #[arg(short = 'x', long)]
    exclusive: bool,
    /// Time limit in minutes, or Flux standard duration, e.g. 2d, 1.5h
    #[arg(short = 't', long, value_name = "MIN|FSD")]
    time_limit: Option<String>,
    /// Submit to this queue
    #[arg(short = 'q', long, value_name = "NAME")]
    queue: Option<String>,
    /// Submit with this bank
    #[arg(short = 'B', long, value_name = "NAME")]
    bank: Option<String>,
    /// Set an optional job name
    #[arg(long, value_name = "NAME")]
    job_name: Option<String>,
    /// Set job urgency (0-31), hold=0, default=16, expedite=31
    #[arg(long, value_name = "N", default_value = "default")]
    urgency: String,
    /// Redirect job stdout to FILENAME
    #[arg(long, value_name = "FILENAME")]
    output: Option<String>,
    /// Redirect job stderr to FILENAME
    #[arg(long, value_name = "FILENAME")]
    error: Option<String>,
    /// Set current working directory for job
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Do not submit, but print jobspec
    #[arg(long)]
    dry_run: bool,
    /// Prefix each line of output with the task rank
    #[arg(short = 'l', long)]
    label_io: bool,
    /// Print the job id
    #[arg(short, long)]
    verbose: bool,
    /// Command to run and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-submit [OPTIONS] COMMAND [ARGS...]")]
pub(crate) struct Submit {
    #[command(flatten)]
    request: JobRequest,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-run [OPTIONS] COMMAND [ARGS...]")]
pub(crate) struct Run {
    #[command(flatten)]
    request: JobRequest,
}

/// A data event of RFC 24.
#[derive(Deserialize)]
struct Data {
    stream: String,
    rank: String,
    data: Option<String>,
    encoding: Option<String>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "type")]
    kind: String,
    severity: u32,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
struct Finish {
    status: i32,
}

impl Submit {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let Some((_, id)) = self.request.send(&context).await? else { return Ok(0) };
        outln!("{}", id.f58());
        Ok(0)
    }
}

impl Run {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let Some((flux, id)) = self.request.send(&context).await? else { return Ok(0) };
        if self.request.verbose {
            eprintln!("jobid: {}", id.f58());
        }
        let label = self.request.label_io;
        // The output is complete when the job has left its namespace, which is before its end.
        let done = async { tokio::join!(print_output(&flux, id, label), wait_for_end(&flux, id)) };
        let input = async {
            // A job that does not read its input, or is over, has no use for it.
            let _ = send_input(&flux, id).await;
            std::future::pending::<()>().await;
        };
        let (output, end) = tokio::select! {
            done = done => done,
            () = input => return Err(Failure::silent(1)),
        };
        output?;
        end
    }
}

impl JobRequest {
    /// Submit; nothing when only the jobspec was wanted.
    async fn send(&self, context: &Context) -> Result<Option<(Client, JobId)>, Failure> {
        let jobspec = self.jobspec()?;
        let text = jobspec.encode().map_err(Failure::new)?;
        if self.dry_run {
            outln!("{text}");
            return Ok(None);
        }
        let flux = context.connect().await?;
        let userid = nix::unistd::getuid().as_raw();
        let request = job_ingest::SubmitRequest {
            j: flux_sign::wrap_none(userid, text.as_bytes()),
            urgency: self.urgency()?,
            flags: 0,
        };
        let response = flux
            .rpc::<job_ingest::Submit>(Nodeid::ANY, &request)
            .await
            .map_err(|error| Failure::new(format_args!("ERROR: {error}")))?;
        Ok(Some((flux, response.id)))
    }

    fn jobspec(&self) -> Result<Jobspec, Failure> {
        let mut tasks = TaskRequest::new(self.command.clone());
        tasks.num_tasks = self.ntasks.or(self.nodes).unwrap_or(1);
        tasks.cores_per_task = self.cores_per_task;
        tasks.gpus_per_task = self.gpus_per_task;
        tasks.num_nodes = self.nodes;
        tasks.exclusive = self.exclusive;
        let environment: Map<String, Value> = std::env::vars()
            .filter(|(name, _)| !name.starts_with("FLUX_JOB") && name != "FLUX_URI")
            .map(|(name, value)| (name, Value::String(value)))
            .collect();
        let here = std::env::current_dir().ok().map(|dir| dir.to_string_lossy().into_owned());
        let extras = Extras {
            duration: self.time_limit.as_deref().map(duration).transpose()?,
            environment,
            cwd: self.cwd.clone().or(here),
            name: self.job_name.clone(),
            output: self.output.clone(),
            error: self.error.clone(),
            label_io: self.label_io,
            queue: self.queue.clone(),
            bank: self.bank.clone(),
            ..Extras::default()
        };
        Jobspec::from_command(&tasks, &extras)
            .map_err(|error| Failure::new(format_args!("ERROR: {error}")))
    }

    fn urgency(&self) -> Result<i64, Failure> {
        match self.urgency.to_lowercase().as_str() {
            "default" => Ok(16),
            "hold" => Ok(0),
            "expedite" => Ok(31),
            text => text.parse().map_err(|_| {
                Failure::new(format_args!("ERROR: --urgency: '{text}' is not a number"))
            }),
        }
    }
}

/// A number alone is minutes.
fn duration(text: &str) -> Result<f64, Failure> {
    if let Ok(minutes) = text.parse::<f64>() {
        return Ok(minutes * 60.0);
    }
    flux_protocol::fsd::parse(text)
        .map_err(|_| Failure::new("ERROR: invalid Flux standard duration"))
}

fn watch(id: JobId, path: &str) -> job_info::EventlogWatchRequest {
    let flags = i64::from(job_info::watch::WAITCREATE);
    job_info::EventlogWatchRequest { id, path: path.to_owned(), flags }
}

async fn print_output(flux: &Client, id: JobId, label: bool) -> Result<(), Failure> {
    let mut events =
        flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &watch(id, "guest.output"))?;
    while let Some(response) = events.next().await.transpose() {
        let response = match response {
            Ok(response) => response,
            // A job that never started has no output.
            Err(error) if error.errno() == Errno::ENOENT => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Ok(event) = Event::decode(response.event.trim_end()) else { continue };
        if event.name == "data"
            && let Ok(data) = event.context_as::<Data>()
        {
            print_data(&data, label)?;
        }
    }
    Ok(())
}

fn print_data(data: &Data, label: bool) -> Result<(), Failure> {
    let Some(text) = &data.data else { return Ok(()) };
    let bytes = match data.encoding.as_deref() {
        Some("base64") => STANDARD.decode(text).map_err(Failure::new)?,
        _ => text.clone().into_bytes(),
    };
    let mut out: Box<dyn Write> = match data.stream.as_str() {
        "stderr" => Box::new(std::io::stderr().lock()),
        _ => Box::new(std::io::stdout().lock()),
    };
    let mut write = || -> std::io::Result<()> {
        if !label {
            out.write_all(&bytes)?;
            return out.flush();
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            write!(out, "{}: ", data.rank)?;
            out.write_all(line)?;
        }
        out.flush()
    };
    write().map_err(|error| Failure::of("output", crate::failure::strerror(&error)))
}

/// What the job's shell says of itself in `exec.eventlog`.
#[derive(Deserialize)]
struct ShellInit {
    service: String,
    #[serde(rename = "leader-rank")]
    leader_rank: u32,
}

/// Pass standard input on to all tasks, to its end.
async fn send_input(flux: &Client, id: JobId) -> Result<(), Failure> {
    use tokio::io::AsyncReadExt;
    let mut events =
        flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &watch(id, "guest.exec.eventlog"))?;
    let shell = loop {
        let Some(response) = events.next().await? else { return Ok(()) };
        let event = Event::decode(response.event.trim_end()).map_err(Failure::new)?;
        if event.name == "shell.init" {
            break event.context_as::<ShellInit>().map_err(Failure::new)?;
        }
    };
    let mut stdin = tokio::io::stdin();
    let mut buf = vec![0; 64 << 10];
    loop {
        let count = stdin.read(&mut buf).await.map_err(Failure::new)?;
        let data = buf.get(..count).unwrap_or_default();
        let piece = match (count, std::str::from_utf8(data)) {
            (0, _) => json!({ "stream": "stdin", "rank": "all", "eof": true }),
            (_, Ok(text)) => json!({ "stream": "stdin", "rank": "all", "data": text }),
            (_, Err(_)) => json!({
                "stream": "stdin", "rank": "all",
                "data": STANDARD.encode(data), "encoding": "base64",
            }),
        };
        let payload = encode_json(&piece).map_err(Failure::new)?;
        let request = Request::new(format!("{}.stdin", shell.service))
            .to(Nodeid(shell.leader_rank))
            .payload(payload);
        flux.rpc_raw(request).await?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// The exit code of the job, with what there is to say about it on standard error.
async fn wait_for_end(flux: &Client, id: JobId) -> Outcome {
    let mut events = flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &watch(id, "eventlog"))?;
    let mut status = None;
    let mut fatal = false;
    while let Some(response) = events.next().await? {
        let Ok(event) = Event::decode(response.event.trim_end()) else { continue };
        match event.name.as_str() {
            "finish" => status = event.context_as::<Finish>().ok().map(|finish| finish.status),
            "exception" => {
                if let Ok(exception) = event.context_as::<Exception>() {
                    let Exception { kind, severity, note } = exception;
                    eprintln!("flux-job: job.exception type={kind} severity={severity} {note}");
                    fatal |= severity == 0;
                }
            }
            _ => {}
        }
    }
    let code = match status {
        None => u8::from(fatal),
        Some(status) if status & 0x7f != 0 => u8::try_from(128 + (status & 0x7f)).unwrap_or(1),
        Some(status) => u8::try_from((status >> 8) & 0xff).unwrap_or(1),
    };
    if code != 0 && status.is_some() {
        eprintln!("flux-job: task(s) exited with exit code {code}");
    }
    Ok(code)
}
