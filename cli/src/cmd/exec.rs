//! `flux exec`: run a command on brokers, with its input and output here.

use std::time::Duration;

use clap::Args;
use flux_client::{Client, Request};
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::config;
use flux_protocol::rpc::rexec::{self, Command, ExecRequest, ExecResponse, flags};

pub(crate) use self::input::bytes;
use self::run::Run;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::outln;

mod input;
mod job;
mod run;

#[derive(Debug, Args)]
#[command(override_usage = "flux-exec [OPTIONS]... COMMAND [ARGS...]")]
pub(crate) struct Exec {
    /// Specify target ranks.  Default is "all"
    #[arg(short, long, value_name = "IDSET", default_value = "all")]
    rank: String,
    /// Exclude ranks from target.
    #[arg(short = 'x', long, value_name = "IDSET")]
    exclude: Option<String>,
    /// Run process in background and exit
    #[arg(long)]
    bg: bool,
    /// Process remains a zombie until exit status is collected
    #[arg(long)]
    waitable: bool,
    /// Attach to a running background process (arg is pid or label)
    #[arg(long)]
    attach: bool,
    /// Set a remote process label.
    #[arg(long)]
    label: Option<String>,
    /// Set the working directory to PATH
    #[arg(short, long, value_name = "PATH")]
    dir: Option<String>,
    /// Label lines of output with the source RANK
    #[arg(short, long)]
    label_io: bool,
    /// Redirect stdin from /dev/null
    #[arg(short, long)]
    noinput: bool,
    /// Run with more verbosity.
    #[arg(short, long)]
    verbose: bool,
    /// Suppress extraneous output.
    #[arg(short, long)]
    quiet: bool,
    /// Override service name (default: rexec).
    #[arg(long, value_name = "NAME", hide = true)]
    service: Option<String>,
    /// Set subprocess option NAME to VALUE (multiple use ok)
    #[arg(long, value_name = "NAME=VALUE", hide = true, action = clap::ArgAction::Append)]
    setopt: Vec<String>,
    /// Forcibly enable or disable stdin flow control
    #[arg(long, value_name = "on|off", hide = true)]
    stdin_flow: Option<String>,
    /// Run args under 'flux-imp run'
    #[arg(long)]
    with_imp: bool,
    /// Set target ranks to nodes assigned to JOBID and service name to job shell exec service
    #[arg(short, long)]
    jobid: Option<String>,
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// What to run, or to attach to, and where.
struct Plan {
    service: String,
    targets: Idset,
    command: Command,
    /// A background process that runs already.
    attach: Option<Process>,
    /// Announce how much may be written to stdin.
    flow: bool,
}

#[derive(Clone)]
enum Process {
    Pid(i64),
    Label(String),
}

impl Exec {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let attach = self.attach_to()?;
        if self.label.as_deref() == Some("") {
            return Err(Failure::of("failed to set label", "Invalid argument"));
        }
        if self.waitable && !self.bg {
            return Err(Failure::new("--waitable can only be used with --bg"));
        }
        let mut command = self.command(&context, attach.is_some())?;
        let flux = context.connect().await?;
        let size = flux.attr("size").await.map_err(|e| Failure::of("flux_get_size", e))?;
        let size: u32 = size.parse().map_err(|e| Failure::of("flux_get_size", e))?;
        if self.with_imp {
            let imp = imp_path(&flux).await?;
            command.cmdline.splice(0..0, [imp, "run".to_owned()]);
        }
        let owner = flux
            .attr("security.owner")
            .await
            .map_err(|e| Failure::of("failed to fetch security.owner attribute", e))?;
        // Lets systemctl --user find the manager of the instance's owner.
        command
            .env
            .entry("DBUS_SESSION_BUS_ADDRESS".to_owned())
            .or_insert_with(|| format!("unix:path=/run/user/{owner}/bus"));
        let (mut targets, mut service) = (Idset::first_n(size), None);
        if let Some(jobid) = &self.jobid {
            let job = job::find(&flux, jobid).await?;
            (targets, service) = (job.ranks, Some(job.service));
        }
        let service = self.service.clone().or(service).unwrap_or_else(|| "rexec".to_owned());
        let targets = self.filter(&targets)?;
        if targets.is_empty() {
            return Err(Failure::new("No targets specified"));
        }
        if matches!(attach, Some(Process::Pid(_))) && targets.count() > 1 {
            let text = "--attach by pid requires a single target rank (use --rank)";
            return Err(Failure::new(text));
        }
        let flow = match self.stdin_flow.as_deref() {
            Some("on") => true,
            Some("off") => false,
            Some(_) => return Err(Failure::new("Set --stdin-flow to on or off")),
            None => service != "sdexec",
        };
        let plan = Plan { service, targets, command, attach, flow };
        if self.bg {
            return self.background(&flux, plan).await;
        }
        Run::start(&flux, &self, plan)?.finish().await
    }

    fn attach_to(&self) -> Result<Option<Process>, Failure> {
        if !self.attach {
            return Ok(None);
        }
        if self.bg || self.waitable {
            return Err(Failure::new("--attach cannot be used with --bg or --waitable"));
        }
        let [target] = self.command.as_slice() else {
            return Err(Failure::new("--attach takes a single pid or label argument"));
        };
        // A number that no process can have is a label.
        Ok(Some(match target.parse::<i32>() {
            Ok(pid) if pid > 0 => Process::Pid(i64::from(pid)),
            _ => Process::Label(target.clone()),
        }))
    }

    fn command(&self, context: &Context, attach: bool) -> Result<Command, Failure> {
        let mut command = Command { env: context.env.all().clone(), ..Command::default() };
        command.env.remove("FLUX_PROXY_REMOTE");
        if attach {
            return Ok(command);
        }
        command.cmdline = self.command.clone();
        command.label = self.label.clone();
        command.cwd = match &self.dir {
            Some(dir) if dir == "none" => None,
            Some(dir) => Some(dir.clone()),
            None => Some(current_dir(context)?),
        };
        for option in &self.setopt {
            let (name, value) = option.split_once('=').ok_or_else(|| {
                Failure::new(format_args!("error handling '{option}' option: no value"))
            })?;
            command.opts.insert(name.to_owned(), value.to_owned());
        }
        Ok(command)
    }

    /// Of the job's or the instance's ranks, those that are meant: `--rank` counts them.
    fn filter(&self, ranks: &Idset) -> Result<Idset, Failure> {
        let decode = |text: &str| {
            Idset::decode(text)
                .map_err(|e| Failure::of(format_args!("failed to decode idset '{text}'"), e))
        };
        let include = match self.rank.as_str() {
            "all" => None,
            text => Some(decode(text)?),
        };
        if include
            .as_ref()
            .and_then(Idset::last)
            .is_some_and(|last| u64::from(last) >= ranks.count())
        {
            let text = format_args!("One or more invalid --ranks specified: {}", self.rank);
            return Err(Failure::new(text));
        }
        let exclude = self.exclude.as_deref().map(decode).transpose()?.unwrap_or_default();
        let mut filtered = Idset::new();
        for (index, rank) in (0..).zip(ranks.iter()) {
            // Exclusion counts a job's ranks, too.
            let excluded = exclude.contains(if self.jobid.is_some() { index } else { rank });
            let included = include.as_ref().is_none_or(|include| include.contains(index));
            if included && !excluded {
                filtered.insert(rank);
            }
        }
        Ok(filtered)
    }

    /// Start processes, and tell their ids.
    async fn background(&self, flux: &Client, plan: Plan) -> Outcome {
        let flags = if self.waitable { flags::WAITABLE } else { 0 };
        let request = ExecRequest { cmd: plan.command, flags, local_flags: 0 };
        let mut pending = Vec::new();
        for rank in plan.targets.iter() {
            let request = Request::of::<rexec::Exec>(Nodeid(rank), &request)?;
            pending.push((rank, flux.start_raw(request.service(&plan.service))?));
        }
        let mut failed = false;
        for (rank, pending) in pending {
            match pending.decode::<ExecResponse>().await {
                Ok(ExecResponse::Started { pid }) => outln!("{rank}: {pid}"),
                Ok(other) => return Err(Failure::of("unexpected response", format!("{other:?}"))),
                Err(e) => {
                    let argv0 = self.command.first().map_or("", String::as_str);
                    eprintln!("flux-exec: Error: rank {rank}: {argv0}: {e}");
                    failed = true;
                }
            }
        }
        Ok(u8::from(failed))
    }
}

impl Plan {
    fn exec_flags(&self) -> u32 {
        flags::STDOUT | flags::STDERR | if self.flow { flags::WRITE_CREDIT } else { 0 }
    }
}

/// The folder as the shell names it, where that is the same one.
fn current_dir(context: &Context) -> Result<String, Failure> {
    let real = std::env::current_dir()
        .map_err(|e| Failure::of("can't get the working directory", strerror(&e)))?;
    if let Some(pwd) = context.env.get("PWD")
        && std::fs::canonicalize(pwd).is_ok_and(|dir| dir == real)
    {
        return Ok(pwd.to_owned());
    }
    Ok(real.to_string_lossy().into_owned())
}

/// Where the IMP is, by the configuration of the instance.
pub(crate) async fn imp_path(flux: &Client) -> Result<String, Failure> {
    let config = flux
        .rpc_within::<config::Get>(Duration::from_secs(60), Nodeid::ANY, &Empty)
        .await
        .map_err(|e| Failure::of("error fetching config object", e))?;
    let imp = config.get("exec").and_then(|exec| exec.get("imp")).and_then(|imp| imp.as_str());
    imp.map(str::to_owned)
        .ok_or_else(|| Failure::new("--with-imp: exec.imp path not found in config"))
}
