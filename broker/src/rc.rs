//! Scripts of the broker's life: rc1.d and rc3.d fragments, the initial program, the cleanup.
//!
//! Each is logged when it begins and when it ends: `rc1.0: running PATH`, then
//! `rc1.0: COMMAND Exited (rc=0) 0.4s`; its output is logged line by line.

pub mod script;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Instant;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::layout::Layout;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::signal;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::broker::Broker;
use crate::handle::Handle;
use crate::life::Running;
use crate::log::Severity;
pub use script::Script;
use script::user_shell;

impl Script {
    /// The command with the environment that finds this broker.
    pub fn command(&self, broker: &Broker) -> Command {
        let mut command = match self {
            Script::Program(args) => {
                let mut args = args.iter();
                let mut command = Command::new(args.next().map_or("", String::as_str));
                command.args(args);
                command
            }
            Script::Line(line) => {
                let mut command = Command::new(user_shell());
                command.arg("-c").arg(line);
                command
            }
            Script::SystemLine(line) => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(line);
                command
            }
            Script::Shell => Command::new(user_shell()),
        };
        set_environment(&mut command, broker);
        command
    }
}

/// What programs that the broker starts must not inherit: they would take themselves for the
/// broker, or for tasks of the job that the broker is in, of an enclosing instance or another
/// launcher.
const PRIVATE_ENVIRONMENT: [&str; 13] = [
    "FLUX_ENCLOSING_ID",
    "FLUX_JOB_ID",
    "FLUX_JOB_ID_PATH",
    "FLUX_JOB_SIZE",
    "FLUX_JOB_NNODES",
    "FLUX_JOB_TMPDIR",
    "FLUX_TASK_RANK",
    "FLUX_TASK_LOCAL_ID",
    "FLUX_KVS_NAMESPACE",
    "FLUX_PMI_LIBRARY_PATH",
    "FLUX_PROXY_REMOTE",
    "I_MPI_PMI_LIBRARY",
    "NOTIFY_SOCKET",
];
/// The same, by how their names begin.
const PRIVATE_PREFIXES: [&str; 4] = ["PMI_", "PMIX_", "SLURM_", "PALS_"];

/// The environment of programs that the broker starts by itself: its own, with its `flux` first in
/// `PATH`.
pub(crate) fn environment(broker: &Broker) -> BTreeMap<String, String> {
    let mut env = broker.environment().vars();
    env.retain(|name, _| {
        !PRIVATE_ENVIRONMENT.contains(&name.as_str())
            && !PRIVATE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    if let Some(jobid) = broker.attrs().get("jobid") {
        env.insert("FLUX_ENCLOSING_ID".to_owned(), jobid);
    }
    if let Some(uri) = broker.attrs().get("local-uri") {
        env.insert("FLUX_URI".to_owned(), uri);
    }
    if let Some(bin) = crate::paths::bin_dir() {
        let bin = bin.to_string_lossy().into_owned();
        let path = env.get("PATH").cloned().unwrap_or_else(|| "/usr/bin:/bin".to_owned());
        if !path.split(':').any(|dir| dir == bin) {
            env.insert("PATH".to_owned(), format!("{bin}:{path}"));
        }
    }
    env
}

pub fn set_environment(command: &mut Command, broker: &Broker) {
    command.env_clear().envs(environment(broker));
}

/// What runs when a broker comes up, or goes down.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    pub name: &'static str,
    /// The attribute with a command of the user, who then loads (or unloads) what he wants himself.
    pub attr: &'static str,
    /// What the attribute says where nobody has set it: this broker's modules and the fragments of
    /// the administrator.
    pub builtin: &'static str,
}

pub const RC1: Phase = Phase { name: "rc1", attr: "broker.rc1_path", builtin: "flux modprobe rc1" };
pub const RC3: Phase = Phase { name: "rc3", attr: "broker.rc3_path", builtin: "flux modprobe rc3" };

pub fn is_builtin(broker: &Broker, phase: Phase) -> bool {
    broker.attrs().get(phase.attr).is_none_or(|line| line == phase.builtin)
}

/// The user wants nothing to run.
pub fn is_none(broker: &Broker, phase: Phase) -> bool {
    broker.attrs().get(phase.attr).is_some_and(|line| line.is_empty())
}

/// Run the command that the attribute names, else the executables of `/etc/flux/NAME.d` (of the folder
/// that the attribute `conf.rc_path` names, where it is set), then those of `NAME.d` in each folder of
/// the search path `FLUX_RC_EXTRA`.
///
/// The first that fails ends it, with EIO and its line.
pub async fn run_all(broker: &Rc<Broker>, phase: Phase) -> Result<(), ScriptFailure> {
    let name = phase.name;
    if !is_builtin(broker, phase) {
        let line = broker.attrs().get(phase.attr).unwrap_or_default();
        if line.is_empty() {
            return Ok(());
        }
        return run(broker, &format!("{name}.0"), &Script::SystemLine(line)).await;
    }
    for path in fragments(broker, name) {
        let path = path.to_string_lossy().into_owned();
        let label = format!("{name}.0");
        broker.log().append(Severity::Info, "broker", &format!("{label}: running {path}"));
        run(broker, &label, &Script::Program(vec![path])).await?;
    }
    Ok(())
}

fn fragments(broker: &Broker, name: &str) -> Vec<PathBuf> {
    let dir = broker.attrs().get("conf.rc_path").map(PathBuf::from).or_else(|| {
        let program = std::env::current_exe().ok()?;
        Some(Layout::from_program(&program).confdir())
    });
    let extra = broker.environment().vars().remove("FLUX_RC_EXTRA").unwrap_or_default();
    let extra = extra.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from);
    dir.into_iter()
        .chain(extra)
        .flat_map(|dir| executables(&dir.join(format!("{name}.d"))))
        .collect()
}

/// The executables of a folder in the order of their names; none where there is no folder.
fn executables(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .collect();
    paths.sort();
    paths
}

/// A script that did not end well.
#[derive(Debug)]
pub struct ScriptFailure {
    pub failure: Failure,
    /// As a shell tells it; the log has it already. None: the script could not be run at all.
    pub code: Option<u8>,
}

impl From<Failure> for ScriptFailure {
    fn from(failure: Failure) -> ScriptFailure {
        ScriptFailure { failure, code: None }
    }
}

impl From<ScriptFailure> for Failure {
    fn from(failed: ScriptFailure) -> Failure {
        failed.failure
    }
}

/// Run one script to its end and log it under `label`.
pub async fn run(broker: &Rc<Broker>, label: &str, script: &Script) -> Result<(), ScriptFailure> {
    let started = Instant::now();
    let line = script.command_line();
    let mut command = script.command(broker);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(Errno::from(&error), format!("{line}: {error}")))?;
    let mut group = Group::of(broker, &child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, (), ()) = tokio::join!(
        child.wait(),
        log_lines(broker, label, Severity::Info, stdout),
        log_lines(broker, label, Severity::Err, stderr),
    );
    group.is_over = true;
    let status = status.map_err(Failure::from)?;
    let took = started.elapsed().as_secs_f64();
    let severity = if status.success() { Severity::Info } else { Severity::Err };
    let text = format!("{label}: {line} {} {took:.1}s", describe(status));
    broker.log().append(severity, "broker", &text);
    if status.success() {
        return Ok(());
    }
    let failure = Failure::new(Errno::EIO, format!("{line} failed: {}", describe(status)));
    Err(ScriptFailure { failure, code: Some(shell_exit_code(status)) })
}

/// The processes of a script. A signal to the broker hangs them up, and where the script is not
/// waited for any longer they end with it.
struct Group<'a> {
    broker: &'a Broker,
    pid: Option<Pid>,
    is_over: bool,
}

impl Group<'_> {
    fn of<'a>(broker: &'a Broker, child: &Child) -> Group<'a> {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let group = Group { broker, pid, is_over: false };
        group.set_running(pid);
        group
    }

    fn set_running(&self, pid: Option<Pid>) {
        if let Some(life) = self.broker.life() {
            life.set_running(pid.map(|pid| Running { pid, own_group: true }));
        }
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.set_running(None);
        if let (Some(pid), false) = (self.pid, self.is_over) {
            // It may just have gone.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

async fn log_lines<R: AsyncRead + Unpin>(
    broker: &Rc<Broker>,
    label: &str,
    severity: Severity,
    stream: Option<R>,
) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        broker.log().append(severity, "broker", &format!("{label}: {line}"));
    }
}

/// `Exited (rc=0)`, `Hangup (rc=129)`.
pub fn describe(status: ExitStatus) -> String {
    let how = match status.signal() {
        None => "Exited".to_owned(),
        Some(number) => signal::describe(number),
    };
    format!("{how} (rc={})", shell_exit_code(status))
}

/// As a shell tells it: 128 and the signal's number after a signal.
pub fn shell_exit_code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// A step that the broker does by itself, by the name of the command that does it in flux-core, which
/// is what scripts that read logs look for.
pub fn log_step(broker: &Broker, step: &str, started: Instant, result: &Result<(), Failure>) {
    let took = started.elapsed().as_secs_f64();
    let (severity, how) = match result {
        Ok(()) => (Severity::Info, "Exited (rc=0)".to_owned()),
        Err(failure) => (Severity::Err, format!("failed: {failure}")),
    };
    broker.log().append(severity, "broker", &format!("{step} {how} {took:.1}s"));
}

/// What rank 0 does before the services go: what was pushed with `flux admin cleanup-push`, the last
/// first; then, where there are jobs, stop the queues, keep the scheduler from hearing of nodes that
/// leave, cancel what runs, wait until it has ended. False when there was nothing to do.
pub async fn cleanup(broker: &Rc<Broker>, handle: &Handle) -> Result<bool, Failure> {
    let mut failed = None;
    let mut first = 0;
    while let Some(line) = broker.pushed().pop("cleanup") {
        let result = run(broker, &format!("cleanup.{first}"), &Script::Line(line)).await;
        failed = failed.or(result.err().map(Failure::from));
        first += 1;
    }
    // As for flux-core's rc1, for those who test what becomes of running jobs.
    let keeps_jobs = std::env::var_os("FLUX_DISABLE_JOB_CLEANUP").is_some();
    if keeps_jobs || broker.modules().get("job-manager").is_none() {
        return failed.map_or(Ok(first > 0), Err);
    }
    let steps = [
        (
            "flux queue stop --quiet --all --nocheckpoint",
            "job-manager.queue-start",
            json!({"start": false, "all": true, "nocheckpoint": true}),
        ),
        ("flux resource acquire-mute", "resource.acquire-mute", json!({})),
        (
            "flux cancel --user=all --quiet --states RUN",
            "job-manager.raiseall",
            json!({
                "dry_run": false, "userid": u32::MAX, "states": 16, "severity": 0,
                "type": "cancel", "note": "instance is shutting down",
            }),
        ),
        ("flux queue idle --quiet", "job-manager.idle", json!({})),
    ];
    for (index, (line, topic, request)) in steps.into_iter().enumerate() {
        let started = Instant::now();
        let payload = flux_protocol::payload::encode_json(&request)?;
        let mut responses =
            handle.send_raw::<()>(topic.to_owned(), Nodeid(0), Flags::default(), payload);
        let result = responses.next_raw().await.map(drop);
        log_step(broker, &format!("cleanup.{}: {line}", first + index), started, &result);
        failed = failed.or(result.err());
    }
    failed.map_or(Ok(true), Err)
}
