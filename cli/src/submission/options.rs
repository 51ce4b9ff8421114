//! The options. Values stay text until a job is made: `flux bulksubmit` and `--cc` substitute in
//! them first.

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

/// Options of every submission command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Submit a job to a specific named bank
    #[arg(short = 'B', long, value_name = "BANK")]
    pub bank: Option<String>,
    /// Submit a job to a specific named queue
    #[arg(short = 'q', long, value_name = "NAME")]
    pub queue: Option<String>,
    /// Time limit in minutes when no units provided, otherwise in Flux standard duration, e.g.
    /// 30s, 2d, 1.5h
    #[arg(short = 't', long, value_name = "MIN|FSD", allow_negative_numbers = true)]
    pub time_limit: Option<String>,
    /// Set job urgency (0-31), hold=0, default=16, expedite=31
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub urgency: Option<String>,
    /// Set an optional name for job to NAME
    #[arg(long, value_name = "NAME")]
    pub job_name: Option<String>,
    /// Set shell option OPT. An optional value is supported with OPT=VAL (default VAL=1) (multiple
    /// use OK)
    #[arg(short = 'o', long, value_name = "OPT", action = ArgAction::Append)]
    pub setopt: Vec<String>,
    /// Set job attribute ATTR. An optional value is supported with ATTR=VAL (default VAL=1). If
    /// ATTR starts with ^, then VAL is a file containing valid JSON which will be used as the value
    /// of the attribute. (multiple use OK)
    #[arg(short = 'S', long, value_name = "ATTR", action = ArgAction::Append)]
    pub setattr: Vec<String>,
    /// Add a file at PATH with optional NAME to jobspec. The file will be extracted to
    /// {{tmpdir}}/NAME. If NAME is not specified, then the basename of PATH will be used. If
    /// necessary, permissions may be specified via NAME:PERMS. (multiple use OK)
    #[arg(long, value_name = "[NAME=]PATH", action = ArgAction::Append)]
    pub add_file: Vec<String>,
    #[command(flatten)]
    pub dependencies: Dependencies,
    /// Specify job constraints in RFC 35 syntax
    #[arg(long, value_name = "CONSTRAINT", alias = "require", action = ArgAction::Append,
          allow_hyphen_values = true)]
    pub requires: Vec<String>,
    #[command(flatten)]
    pub env: EnvRules,
    /// Control how soft resource limits are propagated to the job. If RULE starts with a '-', then
    /// do not propagate matching resource limits (e.g. '-*' propagates nothing). Otherwise,
    /// propagate the current limit or a specific value, e.g. --rlimit=core or --rlimit=core=16.
    #[arg(long, value_name = "RULE", action = ArgAction::Append, allow_hyphen_values = true)]
    pub rlimit: Vec<String>,
    /// Redirect job stdin from FILENAME, bypassing KVS
    #[arg(long, value_name = "FILENAME")]
    pub input: Option<String>,
    /// Redirect job stdout to FILENAME, bypassing KVS
    #[arg(long, value_name = "FILENAME")]
    pub output: Option<String>,
    /// Redirect job stderr to FILENAME, bypassing KVS
    #[arg(long, value_name = "FILENAME")]
    pub error: Option<String>,
    /// Disable buffering of input and output
    #[arg(short = 'u', long)]
    pub unbuffered: bool,
    /// Add rank labels to stdout, stderr lines
    #[arg(short = 'l', long)]
    pub label_io: bool,
    /// Set job working directory
    #[arg(long, value_name = "DIRECTORY")]
    pub cwd: Option<String>,
    /// Set comma separated list of job submission flags. Possible flags:  debug, waitable,
    /// novalidate
    #[arg(long, value_name = "FLAGS", action = ArgAction::Append)]
    pub flags: Vec<String>,
    /// Schedule delivery of signal SIG at a defined TIME before job expiration. Default SIG is
    /// SIGUSR1, default TIME is 60s.
    #[arg(long, value_name = "[SIG][@TIME]")]
    pub signal: Option<String>,
    /// Don't actually submit job, just emit jobspec
    #[arg(long, alias = "dry")]
    pub dry_run: bool,
    /// Do not print jobid to stdout on submission
    #[arg(long)]
    pub quiet: bool,
    /// As if a debugger ran this command, for tests
    #[arg(long, hide = true)]
    pub debug_emulate: bool,
    /// `flux mini`: a time limit without unit is in seconds, and refusals have their number.
    #[arg(skip)]
    pub as_mini: bool,
}

// Options of the commands that run tasks: not as a doc comment, which would be the command's.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tasks {
    /// Select the scheme for mapping task ids to nodes as a URI (i.e. SCHEME[:VALUE]). Value
    /// options include block, cyclic, cyclic:N, or manual:TASKMAP (default: block)
    #[arg(long, value_name = "URI")]
    pub taskmap: Option<String>,
    /// Number of nodes to allocate
    #[arg(short = 'N', long, value_name = "N", allow_negative_numbers = true)]
    pub nodes: Option<String>,
    /// With -N, --nodes, allocate nodes exclusively
    #[arg(short = 'x', long)]
    pub exclusive: bool,
    /// Number of tasks to start
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub ntasks: Option<String>,
    /// Number of cores to allocate per task
    #[arg(short = 'c', long, value_name = "N", allow_negative_numbers = true)]
    pub cores_per_task: Option<String>,
    /// Number of GPUs to allocate per task
    #[arg(short = 'g', long, value_name = "N", allow_negative_numbers = true)]
    pub gpus_per_task: Option<String>,
    /// Request a total number of cores
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cores: Option<String>,
    /// Force number of tasks per node
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub tasks_per_node: Option<String>,
    /// Force number of tasks per core
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub tasks_per_core: Option<String>,
    /// Request a number of GPUs per node with --nodes
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub gpus_per_node: Option<String>,
    /// Increase verbosity on stderr (multiple use OK)
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Options of the commands that send many jobs.
#[derive(Debug, Clone, Args)]
pub(crate) struct Many {
    /// Replicate job for each ID in IDSET. (FLUX_JOB_CC=ID will be set for each job submitted)
    #[arg(long, value_name = "IDSET")]
    pub cc: Option<String>,
    /// Like --cc, but FLUX_JOB_CC is not set
    #[arg(long, value_name = "IDSET")]
    pub bcc: Option<String>,
    #[command(flatten)]
    pub wait: WaitEvent,
    /// Watch all job output (implies --wait)
    #[arg(long)]
    pub watch: bool,
    /// Print program log messages (e.g. submitted jobid) to FILE instead of terminal
    #[arg(long, value_name = "FILE")]
    pub log: Option<String>,
    /// Separate stderr messages into FILE instead of terminal or logfile destination
    #[arg(long, value_name = "FILE")]
    pub log_stderr: Option<String>,
    /// Show progress of job submission or completion (with --wait)
    #[arg(long)]
    pub progress: bool,
    /// With --progress, show job throughput
    #[arg(long)]
    pub jps: bool,
}

/// `--env`, `--env-remove` and `--env-file` as rules, in the order of the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvRules(pub Vec<String>);

/// `--dependency` and `--begin-time`, in the order of the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dependencies(pub Vec<Dependency>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dependency {
    Uri(String),
    BeginTime(String),
}

/// The event that `--wait-event` names, or `clean` for `--wait`; the last one counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct WaitEvent(pub Option<String>);

// === impl EnvRules ===

impl Args for EnvRules {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
            .arg(repeated("env", "RULE").help(
                "Control how environment variables are exported. If RULE starts with '-' apply \
                 rest of RULE as a remove filter (see --env-remove), if '^' then read rules from a \
                 file (see --env-file). Otherwise, set matching environment variables from the \
                 current environment (--env=PATTERN) or set a value explicitly (--env=VAR=VALUE). \
                 Rules are applied in the order they are used on the command line. (multiple use \
                 OK)",
            ))
            .arg(repeated("env-remove", "PATTERN").help(
                "Remove environment variables matching PATTERN. If PATTERN starts with a '/', then \
                 it is matched as a regular expression, otherwise PATTERN is a shell glob \
                 expression. (multiple use OK)",
            ))
            .arg(
                repeated("env-file", "FILE")
                    .help("Read a set of environment rules from FILE. (multiple use OK)"),
            )
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for EnvRules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let options = ["env", "env-remove", "env-file"];
        let rules = in_order(matches, &options).into_iter().map(|(option, text)| match option {
            "env-remove" => format!("-{text}"),
            "env-file" => format!("^{text}"),
            _ => text,
        });
        Ok(EnvRules(rules.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

// === impl Dependencies ===

impl Args for Dependencies {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
            .arg(
                repeated("dependency", "URI")
                    .help("Set an RFC 26 dependency URI for this job (multiple use OK)"),
            )
            .arg(repeated("begin-time", "+FSD|TIME").help(
                "Set minimum start time as offset in FSD (e.g. +1h) or an absolute TIME (e.g. \
                 \"3pm\") for job",
            ))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Dependencies {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let all = in_order(matches, &["dependency", "begin-time"]);
        let all = all.into_iter().map(|(option, text)| match option {
            "begin-time" => Dependency::BeginTime(text),
            _ => Dependency::Uri(text),
        });
        Ok(Dependencies(all.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

// === impl WaitEvent ===

impl Args for WaitEvent {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
            .arg(
                repeated("wait-event", "NAME")
                    .help("Wait for event NAME for all jobs after submission"),
            )
            .arg(Arg::new("wait").long("wait").action(ArgAction::SetTrue).help(
                "Wait for all jobs to complete after submission (same as --wait-event=clean)",
            ))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for WaitEvent {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let named = in_order(matches, &["wait-event"]).pop().map(|(_, text)| text);
        let last_named = matches.indices_of("wait-event").and_then(Iterator::last);
        if matches.get_flag("wait") && matches.index_of("wait") > last_named {
            return Ok(WaitEvent(Some("clean".to_owned())));
        }
        Ok(WaitEvent(named))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn repeated(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).action(ArgAction::Append).allow_hyphen_values(true)
}

/// Values of several options in the order in which they were given.
fn in_order(matches: &ArgMatches, options: &[&'static str]) -> Vec<(&'static str, String)> {
    let mut found: Vec<(usize, &'static str, String)> = Vec::new();
    for option in options {
        let indices = matches.indices_of(option).into_iter().flatten();
        let values = matches.get_many::<String>(option).into_iter().flatten();
        found.extend(indices.zip(values).map(|(at, text)| (at, *option, text.clone())));
    }
    found.sort_by_key(|(at, ..)| *at);
    found.into_iter().map(|(_, option, text)| (option, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        many: Many,
    }

    fn parse(words: &[&str]) -> Line {
        <Line as clap::Parser>::try_parse_from(words).unwrap()
    }

    #[test]
    fn rules_keep_the_order_of_the_command_line() {
        let line = parse(&[
            "--env-remove=A*",
            "--env=PATH",
            "--env-file=f",
            "--env=-*",
            "--begin-time=+1s",
            "--dependency=afterok:1",
        ]);
        assert_eq!(line.common.env.0, ["-A*", "PATH", "^f", "-*"]);
        let begin = Dependency::BeginTime("+1s".to_owned());
        assert_eq!(line.common.dependencies.0, [begin, Dependency::Uri("afterok:1".to_owned())]);
    }

    #[test]
    fn last_of_wait_and_wait_event_counts() {
        let wait = |words: &[&str]| parse(words).many.wait.0;
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&["--wait"]).as_deref(), Some("clean"));
        assert_eq!(wait(&["--wait", "--wait-event=start"]).as_deref(), Some("start"));
        assert_eq!(wait(&["--wait-event=start", "--wait"]).as_deref(), Some("clean"));
    }
}
