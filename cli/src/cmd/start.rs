//! `flux start`: become a broker, or (test mode) start a whole instance on this host.

mod brokers;
mod control;
mod rundir;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::taskmap::{Form, Taskmap};

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};

/// Where the system instance keeps what lasts.
const SYSTEM_STATEDIR: &str = "/var/lib/flux";

#[derive(Debug, Clone, Args)]
#[command(override_usage = "flux-start [OPTIONS] command ...")]
pub(crate) struct Start {
    /// Set broker attribute
    #[arg(short = 'S', long, value_name = "ATTR=VAL", value_delimiter = ',')]
    setattr: Vec<String>,
    /// Set broker config from PATH (default: none)
    #[arg(short = 'c', long, value_name = "PATH")]
    config_path: Option<PathBuf>,
    /// Update broker config from VALUE
    #[arg(long, value_name = "VALUE")]
    conf: Vec<String>,
    /// Start instance in recovery mode with dump file or statedir
    #[arg(short = 'r', long, value_name = "TARGET", num_args = 0..=1, require_equals = true)]
    recovery: Option<Option<PathBuf>>,
    /// Load system configuration
    #[arg(long)]
    sysconfig: bool,
    /// Be annoyingly informative by degrees
    #[arg(short, long, value_name = "LEVEL", num_args = 0..=1, require_equals = true,
          default_missing_value = "1", action = clap::ArgAction::Append)]
    verbose: Vec<u8>,
    /// Don't execute (useful with -v, --verbose)
    #[arg(short = 'X', long)]
    noexec: bool,
    /// Add comma-separated broker options, e.g. "-o,-v"
    #[arg(
        short = 'o',
        long,
        value_name = "OPTS",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    broker_opts: Vec<String>,
    /// Set rundir for the instance; made if it does not exist
    #[arg(long, value_name = "DIR")]
    rundir: Option<PathBuf>,
    /// Wrap broker execution in comma-separated arguments
    #[arg(long, value_name = "ARGS,...", value_delimiter = ',', allow_hyphen_values = true)]
    wrap: Vec<String>,
    /// Start a test instance by launching N brokers locally
    #[arg(short = 's', long, value_name = "N")]
    test_size: Option<u32>,
    /// Set fake hostnames for brokers
    #[arg(long, value_name = "HOSTLIST")]
    test_hosts: Option<String>,
    /// After a broker exits, kill other brokers after timeout
    #[arg(long, value_name = "FSD")]
    test_exit_timeout: Option<String>,
    /// Trigger exit timer on leader/any broker exit (default=any)
    #[arg(long, value_name = "any|leader")]
    test_exit_mode: Option<String>,
    /// Start all brokers immediately or just leader (default=all)
    #[arg(long, value_name = "all|leader")]
    test_start_mode: Option<String>,
    /// Use DIR as broker run directory
    #[arg(long, value_name = "DIR")]
    test_rundir: Option<PathBuf>,
    /// Clean up --test-rundir DIR upon flux-start completion
    #[arg(long)]
    test_rundir_cleanup: bool,
    /// Set PMI_process_mapping mode (default=single)
    #[arg(long, value_name = "single|per-broker|none|TASKMAP")]
    test_pmi_clique: Option<String>,
    /// initial program and its arguments
    #[arg(trailing_var_arg = true, hide = true)]
    command: Vec<String>,
}

/// What test mode was asked for, checked.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    pub(crate) size: u32,
    pub(crate) hosts: Option<Hostlist>,
    /// After a broker has exited; nothing is "never".
    pub(crate) exit_timeout: Option<Duration>,
    pub(crate) exit_any: bool,
    pub(crate) start_all: bool,
    /// Value of `PMI_process_mapping`, if it is set.
    pub(crate) mapping: Option<String>,
    pub(crate) verbose: u32,
}

impl Start {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        // Of a directory that was removed, brokers and jobs would fail one by one.
        std::env::current_dir().map_err(|error| {
            let why = strerror(&error);
            Failure::new(format_args!("Unable to get current working directory: {why}"))
        })?;
        let args = self.broker_args(&context)?;
        let verbose = self.verbose.iter().map(|level| u32::from(*level)).sum();
        let Some(size) = self.test_size else {
            self.refuse_test_options()?;
            return self.become_broker(args, verbose);
        };
        let test = self.test(size, verbose)?;
        let rundir = rundir::Rundir::prepare(self.rundir.as_deref(), self.test_rundir.as_deref())?;
        let rundir = rundir.cleaned_up(self.test_rundir_cleanup);
        if self.noexec {
            for rank in 0..size {
                eprintln!("flux-start: {}", brokers::command_line(&args, rank, &self.command));
            }
            return Ok(0);
        }
        brokers::run(&test, &rundir, &args, &self.command).await
    }

    /// Wrapper, broker and options that all brokers have in common.
    fn broker_args(&self, context: &Context) -> Result<Vec<String>, Failure> {
        let broker = broker_program(context);
        let mut args = self.wrap.clone();
        args.push(broker.to_string_lossy().into_owned());
        args.extend(self.setattr.iter().map(|setting| format!("-S{setting}")));
        args.extend(self.broker_opts.iter().filter(|opt| !opt.is_empty()).cloned());
        let mut config_path =
            self.sysconfig.then(|| context.layout.confdir().join("system/conf.d"));
        if let Some(target) = &self.recovery {
            args.push("-Sbroker.recovery-mode=1".to_owned());
            args.push("-Sbroker.quorum=1".to_owned());
            args.push(recovery_attr(target.as_deref())?);
            if target.is_none() {
                config_path = Some(context.layout.confdir().join("system/conf.d"));
            }
        }
        if let Some(path) = &self.config_path {
            if config_path.is_some() {
                let path = path.display();
                eprintln!("flux-start: Warning: overriding recovery/--sysconfig path with {path}");
            }
            config_path = Some(path.clone());
        }
        if let Some(path) = config_path {
            args.push(format!("-c{}", path.display()));
        }
        args.extend(self.conf.iter().map(|value| format!("--conf={value}")));
        Ok(args)
    }

    fn become_broker(self, mut args: Vec<String>, verbose: u32) -> Outcome {
        if let Some(rundir) = &self.rundir {
            args.push(format!("-Srundir={}", rundir.display()));
        }
        args.extend(self.command);
        if verbose > 0 {
            eprintln!("flux-start: {}", args.join(" "));
        }
        if self.noexec {
            return Ok(0);
        }
        let (program, rest) = args.split_first().ok_or_else(|| Failure::new("no broker"))?;
        let error = std::process::Command::new(program).args(rest).exec();
        Err(Failure::of(program, strerror(&error)))
    }

    fn refuse_test_options(&self) -> Result<(), Failure> {
        let given = [
            ("test-hosts", self.test_hosts.is_some()),
            ("test-exit-timeout", self.test_exit_timeout.is_some()),
            ("test-exit-mode", self.test_exit_mode.is_some()),
            ("test-start-mode", self.test_start_mode.is_some()),
            ("test-rundir", self.test_rundir.is_some()),
            ("test-rundir-cleanup", self.test_rundir_cleanup),
            ("test-pmi-clique", self.test_pmi_clique.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                Err(Failure::new(format_args!("--{name} only works with --test-size=N")))
            }
            None => Ok(()),
        }
    }

    fn test(&self, size: u32, verbose: u32) -> Result<Test, Failure> {
        if size == 0 {
            return Err(Failure::new("--test-size argument must be > 0"));
        }
        let hosts = self.test_hosts.as_deref().map(|hosts| parse_hosts(hosts, size)).transpose()?;
        let exit_timeout = match self.test_exit_timeout.as_deref() {
            None => 20.0,
            Some("none") => f64::INFINITY,
            Some(text) => flux_protocol::fsd::parse(text)
                .map_err(|error| Failure::of("--test-exit-timeout", error))?,
        };
        let exit_mode = one_of("test-exit-mode", &self.test_exit_mode, &["any", "leader"])?;
        let start_mode = one_of("test-start-mode", &self.test_start_mode, &["all", "leader"])?;
        Ok(Test {
            size,
            hosts,
            exit_timeout: Duration::try_from_secs_f64(exit_timeout).ok(),
            exit_any: exit_mode == "any",
            start_all: start_mode == "all",
            mapping: self.mapping(size)?,
            verbose,
        })
    }

    fn mapping(&self, size: u32) -> Result<Option<String>, Failure> {
        Ok(match self.test_pmi_clique.as_deref().unwrap_or("single") {
            "single" => Some(format!("(vector,(0,1,{size}))")),
            "per-broker" => Some(format!("(vector,(0,{size},1))")),
            "none" => None,
            text => {
                let map =
                    Taskmap::decode(text).map_err(|error| Failure::of("test-pmi-clique", error))?;
                let text = map.encode(Form::Pmi);
                Some(text.map_err(|error| Failure::of("test-pmi-clique", error))?)
            }
        })
    }
}

fn parse_hosts(text: &str, size: u32) -> Result<Hostlist, Failure> {
    let hosts: Hostlist = text.parse().map_err(|error| Failure::of("--test-hosts", error))?;
    if hosts.count() != u64::from(size) {
        return Err(Failure::new("--test-hosts hostlist has incorrect size"));
    }
    Ok(hosts)
}

/// The value of an option, by default the first that is allowed.
fn one_of<'a>(
    name: &str,
    value: &'a Option<String>,
    allowed: &[&'a str],
) -> Result<&'a str, Failure> {
    match value.as_deref() {
        None => Ok(allowed.first().copied().unwrap_or("")),
        Some(value) if allowed.contains(&value) => Ok(value),
        Some(value) => {
            Err(Failure::new(format_args!("unknown --{name} argument '{value}': use {allowed:?}")))
        }
    }
}

/// The broker of this installation, unless `FLUX_EXEC_PATH_PREPEND` has another: a wrapper, or one
/// that is being tried.
fn broker_program(context: &Context) -> PathBuf {
    let first = context.env.get("FLUX_EXEC_PATH_PREPEND").unwrap_or_default();
    let mut dirs = first.split(':').filter(|dir| !dir.is_empty());
    dirs.find_map(|dir| {
        let program = Path::new(dir).join("flux-broker");
        let executable = std::fs::metadata(&program)
            .is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0);
        // With a folder of the current directory's, too, it is a path and not a name.
        executable.then(|| std::path::absolute(&program).unwrap_or(program))
    })
    .unwrap_or_else(|| context.layout.libexecdir().join("flux-broker"))
}

/// A directory is the statedir of an instance; a file is a dump of its KVS.
fn recovery_attr(target: Option<&Path>) -> Result<String, Failure> {
    let path = target.unwrap_or(Path::new(SYSTEM_STATEDIR));
    if target.is_none() && system_instance_is_running() {
        return Err(Failure::new("system instance is already running"));
    }
    let meta =
        std::fs::metadata(path).map_err(|error| Failure::of(path.display(), strerror(&error)))?;
    if !meta.is_dir() {
        return Ok(format!("-Scontent.restore={}", path.display()));
    }
    let path_shown = path.display();
    if meta.uid() != nix::unistd::getuid().as_raw() {
        return Err(Failure::new(format_args!("{path_shown}: not owned by you")));
    }
    if meta.mode() & 0o700 != 0o700 {
        return Err(Failure::new(format_args!("{path_shown}: no access: chmod u+rwx it")));
    }
    let store = path.join("content.sqlite");
    if let Err(error) = std::fs::metadata(&store) {
        return Err(Failure::of(store.display(), strerror(&error)));
    }
    Ok(format!("-Sstatedir={}", path.display()))
}

fn system_instance_is_running() -> bool {
    let uri = flux_client::default_uri();
    let path = uri.strip_prefix("local://").unwrap_or(&uri);
    std::os::unix::net::UnixStream::connect(path).is_ok()
}
