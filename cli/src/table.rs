//! The table of commands: name, what it is for, and the type that holds its arguments.
//!
//! A command is a file in `cmd/` with a type that clap can fill from arguments and that has
//! `async fn run(self, context: Context) -> Outcome`; one line here makes it known.

use std::pin::Pin;

use clap::{Args, FromArgMatches};

use crate::cmd;
use crate::context::Context;
use crate::failure::Outcome;

/// Whose habits a command has; they show in usage errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Called `flux NAME`; usage errors exit with 1.
    Builtin,
    /// Called `flux-NAME`; usage errors exit with 1.
    Optparse,
    /// Called `flux-NAME`; usage errors exit with 2.
    Argparse,
}

type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Command {
    pub name: &'static str,
    pub style: Style,
    /// Its arguments.
    pub build: fn() -> clap::Command,
    /// Run it with parsed arguments.
    pub run: fn(clap::ArgMatches, Context) -> Result<Running, clap::Error>,
}

macro_rules! commands {
    ($($name:literal $style:ident $args:ty: $about:literal;)*) => {
        /// Every command that is part of this program.
        pub(crate) const COMMANDS: &[Command] = &[$(
            Command {
                name: $name,
                style: Style::$style,
                build: || <$args as Args>::augment_args(blank($name, Style::$style, $about)),
                run: |matches, context| {
                    let args = <$args as FromArgMatches>::from_arg_matches(&matches)?;
                    Ok(Box::pin(args.run(context)))
                },
            },
        )*];
    };
}

commands! {
    "R" Optparse cmd::r::R: "Read, generate, and process RFC 20 Resource Set objects.";
    "bench" Builtin cmd::bench::Bench: "Measure how fast this instance is";
    "admin" Argparse cmd::admin::Admin: "Flux administration subcommands";
    "alloc" Argparse cmd::alloc::Alloc: "Allocate a new instance for interactive use";
    "archive" Builtin cmd::archive::Archive: "Flux KVS file archive utility";
    "batch" Argparse cmd::batch::Batch: "Enqueue a batch script";
    "broker" Builtin cmd::broker::Broker: "Run a Flux message broker";
    "cancel" Argparse cmd::cancel::Cancel: "Cancel pending or running jobs with an optional exception note.";
    "bulksubmit" Argparse cmd::bulksubmit::BulkSubmit: "Enqueue jobs in bulk";
    "completion" Builtin cmd::completion::Completion: "Print a script that completes command lines";
    "config" Builtin cmd::config::Config: "Manage configuration";
    "content" Builtin cmd::content::Content: "Access content store";
    "cron" Optparse cmd::cron::Cron: "Schedule and manage cron-like jobs in a flux session";
    "dmesg" Builtin cmd::dmesg::Dmesg: "Print or control log ring buffer";
    "doctor" Builtin cmd::doctor::Doctor: "Look for what would keep this node from running a broker";
    "dump" Builtin cmd::dump::Dump: "Dump KVS snapshot to a portable archive format";
    "env" Builtin cmd::env::Env: "Print the flux environment or execute COMMAND inside it";
    "event" Optparse cmd::event::Event: "Send and receive Flux events";
    "exec" Optparse cmd::exec::Exec: "Execute processes across flux ranks";
    "filemap" Builtin cmd::filemap::Filemap: "Flux KVS file archive utility (deprecated name)";
    "fsck" Builtin cmd::fsck::Fsck: "Check integrity of content store data";
    "gc" Builtin cmd::gc::Gc: "Online garbage collection for KVS content";
    "getattr" Builtin cmd::attr::Getattr: "Get broker attribute";
    "help" Builtin cmd::help::Help: "Display help information for flux commands";
    "hostlist" Argparse cmd::hostlist::HostlistArgs: "Fetch, combine, and manipulate Flux hostlists";
    "housekeeping" Argparse cmd::housekeeping::Housekeeping: "List and kill housekeeping tasks";
    "job" Optparse cmd::job::JobCommand: "Job housekeeping and control";
    "job-exec-override" Argparse cmd::job_exec_override::JobExecOverride: "Start and finish simulated jobs by hand";
    "job-frobnicator" Argparse cmd::job_ingest::JobFrobnicator: "Modify Flux jobs from lines of JSON input on stdin";
    "job-validator" Argparse cmd::job_ingest::JobValidator: "Validate Flux jobs from lines of JSON input on stdin";
    "jobs" Argparse cmd::jobs::Jobs: "List jobs submitted to Flux";
    "jobtap" Argparse cmd::jobtap::Jobtap: "List, remove, and load job-manager plugins";
    "keygen" Optparse cmd::keygen::Keygen: "Generate a certificate for the overlay network";
    "kvs" Optparse cmd::kvs::Kvs: "Flux key-value store utility";
    "logger" Optparse cmd::logger::Logger: "Create a Flux log entry";
    "lptest" Builtin cmd::lptest::Lptest: "Generate a ripple test pattern";
    "lsattr" Builtin cmd::attr::Lsattr: "List broker attributes";
    "mini" Argparse cmd::mini::Mini: "Submit jobs, by the names of old";
    "module" Optparse cmd::module::Module: "Manage Flux extension modules";
    "multi-prog" Argparse cmd::multi_prog::MultiProg: "Run a parallel program with a different executable and arguments for each task";
    "overlay" Builtin cmd::overlay::Overlay: "Manage overlay network";
    "perilog-run" Argparse cmd::perilog_run::PerilogRun: "Run the prolog or epilog of a job";
    "pgrep" Argparse cmd::pgrep::Pgrep: "Look up jobs by name or range of ids";
    "ping" Optparse cmd::ping::Ping: "Measure round-trip latency to Flux services";
    "pkill" Argparse cmd::pgrep::Pkill: "Cancel jobs by name or range of ids";
    "plugin" Argparse cmd::plugin::Plugin: "Make, inspect, check and test plugins";
    "pmi" Builtin cmd::pmi::PmiArgs: "Simple PMI test client";
    "post-job-event" Argparse cmd::post_job_event::PostJobEvent: "Post an event to a job's eventlog";
    "proxy" Builtin cmd::proxy::Proxy: "Create proxy environment for Flux instance";
    "pstree" Argparse cmd::pstree::Pstree: "Display job hierarchies";
    "queue" Argparse cmd::queue::Queue: "List and manipulate flux queues";
    "relay" Builtin cmd::relay::Relay: "Relay messages between stdio and local://path";
    "resource" Argparse cmd::resource::Resource: "List/manipulate Flux resource status";
    "restore" Builtin cmd::restore::Restore: "Restore KVS snapshot from a portable archive format";
    "run" Argparse cmd::run::Run: "Run a job interactively";
    "setattr" Builtin cmd::attr::Setattr: "Set broker attribute";
    "sched" Builtin cmd::sched::Sched: "Ask why jobs wait";
    "shutdown" Builtin cmd::shutdown::Shutdown: "Shut down the Flux instance";
    "sproc" Argparse cmd::sproc::Sproc: "List, signal and wait for subprocesses of brokers";
    "submit" Argparse cmd::submit::Submit: "Enqueue a job";
    "start" Optparse cmd::start::Start: "Bootstrap a local Flux instance";
    "startlog" Builtin cmd::startlog::Startlog: "List Flux instance startlog";
    "terminus" Optparse cmd::terminus::Terminus: "Simple terminal session manager and multiplexer for Flux";
    "top" Optparse cmd::top::Top: "Display running Flux jobs";
    "update" Argparse cmd::update::Update: "Update active Flux jobs";
    "uptime" Builtin cmd::uptime::Uptime: "Tell how long Flux has been up and running";
    "uri" Argparse cmd::uri::Uri: "Resolve TARGET to a Flux URI";
    "watch" Argparse cmd::watch::Watch: "Monitor one or more Flux jobs";
    "version" Builtin cmd::version::Version: "Display flux version information";
}

/// The help of `flux` itself: what to show under which heading.
pub(crate) const GROUPS: &[(&str, &[(&str, &str)])] = &[
    (
        "run and submit jobs, allocate resources",
        &[
            ("submit", "submit a job to a Flux instance"),
            ("run", "run a Flux job interactively"),
            ("bulksubmit", "submit jobs in bulk to a Flux instance"),
            ("alloc", "allocate a new Flux instance for interactive use"),
            ("batch", "submit a batch script to Flux"),
        ],
    ),
    (
        "list and interact with jobs",
        &[
            ("jobs", "list jobs submitted to Flux"),
            ("top", "display running Flux jobs"),
            ("pstree", "display job hierarchies"),
            ("cancel", "cancel one or more jobs"),
            ("pgrep/pkill", "search or cancel matching jobs"),
            ("job", "get job status, info, etc (see: flux help job)"),
            ("proxy", "proxy connections to Flux jobs and instances"),
            ("watch", "monitor one or more Flux jobs"),
            ("update", "update active Flux jobs"),
        ],
    ),
    (
        "get resource, queue and other instance information",
        &[
            ("resource", "list/manipulate Flux resource status"),
            ("queue", "list and manipulate flux queues"),
            ("overlay", "Show flux overlay network status"),
            ("uptime", "Tell how long Flux has been up and running"),
        ],
    ),
    (
        "other useful commands",
        &[
            ("start", "bootstrap a local Flux instance"),
            ("version", "Display flux version information"),
            ("config", "Manage/query Flux configuration"),
            ("env", "Print the flux environment or execute a command inside it"),
            ("admin", "Flux administration subcommands"),
            ("hostlist", "fetch, combine, and manipulate Flux hostlists"),
        ],
    ),
];

pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

impl Style {
    /// What a command calls itself in usage text.
    pub(crate) fn full_name(self, name: &str) -> String {
        match self {
            Style::Builtin => format!("flux {name}"),
            Style::Optparse | Style::Argparse => format!("flux-{name}"),
        }
    }
}

fn blank(name: &'static str, style: Style, about: &'static str) -> clap::Command {
    with_habits(clap::Command::new(name).bin_name(style.full_name(name)).about(about))
}

/// How all commands read their arguments.
pub(crate) fn with_habits(command: clap::Command) -> clap::Command {
    command
        .infer_long_args(true)
        .args_override_self(true)
        .disable_help_subcommand(true)
        .no_binary_name(true)
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("name", &self.name).finish_non_exhaustive()
    }
}
