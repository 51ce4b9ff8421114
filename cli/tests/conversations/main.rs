//! Commands against a broker that is made of captured conversations of a real Flux.
//!
//! Each command of a file of `tests/vectors` is run as it was then. The broker here gives the
//! answers that the real one gave, but only to the requests that the real command sent: those it
//! must get, all of them and no others. What the command prints and returns must be the same, too.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod broker;
mod compare;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use flux_replay::{Run, Vector};
use tempfile::TempDir;

use crate::broker::FakeBroker;
use crate::compare::Output;

/// Run the commands of a file, but for those that `skip` names by a part of the command line, with
/// the reason why.
fn converse(name: &str, skip: &[(&str, &str)]) {
    converse_in_guise(name, skip, str::to_owned, |output| output);
}

/// [`converse`] with commands that are called otherwise than the real ones, and whose output is
/// otherwise.
fn converse_in_guise(
    name: &str,
    skip: &[(&str, &str)],
    rewrite: fn(&str) -> String,
    translate: fn(Output) -> Output,
) {
    converse_as(name, skip, rewrite, translate, |output| output);
}

/// [`converse`] with what tells how long jobs have run.
fn converse_at_any_time(name: &str, skip: &[(&str, &str)]) {
    converse_as(name, skip, str::to_owned, |output| output, compare::timeless);
}

fn converse_as(
    name: &str,
    skip: &[(&str, &str)],
    rewrite: fn(&str) -> String,
    translate: fn(Output) -> Output,
    both: fn(Output) -> Output,
) {
    let vector = Vector::load(name).unwrap();
    let mut failures = Vec::new();
    let mut count = 0;
    for run in &vector.runs {
        let skipped = skip.iter().any(|(part, _)| run.command.contains(part));
        if run.rc.is_none() || skipped || !run.command.contains("flux ") {
            continue;
        }
        count += 1;
        let run = Run { command: rewrite(&run.command), ..run.clone() };
        let problems = play(&run, translate, both);
        if !problems.is_empty() {
            failures.push(format!("$ {}\n{}", run.command, problems.join("\n")));
        }
    }
    assert!(count > 0, "{name}: nothing to run");
    assert!(failures.is_empty(), "{} of {count} differ:\n{}", failures.len(), failures.join("\n"));
}

/// Run one command; returns what is not as it was.
fn play(run: &Run, translate: fn(Output) -> Output, both: fn(Output) -> Output) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_flux"), bin.join("flux")).unwrap();
    let broker = FakeBroker::start(&dir.path().join("tap"), Some(&run.rows));
    // Some commands went around the tap in between, to make something happen.
    let untapped = FakeBroker::start(&dir.path().join("local-0"), None);
    let output = translate(shell(run, &dir, &bin));
    let mut problems = broker.finish();
    problems.extend(untapped.finish());
    let real = Output {
        code: run.rc,
        stdout: run.stdout.clone().unwrap_or_default(),
        stderr: run.stderr.clone(),
    };
    problems.extend(compare::differences(&both(real), &both(output)));
    problems
}

fn shell(run: &Run, dir: &TempDir, bin: &Path) -> Output {
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // A command that waits for something else than the real one would wait for good.
    let output = Command::new("timeout")
        .args(["--kill-after=1", "20", "bash", "-c"])
        .arg(&run.command)
        .current_dir("/tmp")
        .env_clear()
        .env("PATH", path)
        .env("PWD", "/tmp")
        .env("HOME", "/tmp")
        .env("TZ", "UTC0")
        .env("LANG", "C.UTF-8")
        .env("RUNDIR", dir.path())
        .env("CWD", dir.path())
        .env("FLUX_URI", format!("local://{}/tap", dir.path().display()))
        .envs(&run.env)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Output {
        code: output.status.code().map(i64::from),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: Some(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn attribute_commands_talk_as_the_real_ones() {
    converse("attr", &[("lsattr -v", "names in its messages were cut")]);
}

#[test]
fn ping_talks_as_the_real_one() {
    converse("ping", &[]);
}

#[test]
fn kvs_commands_talk_as_the_real_ones() {
    converse(
        "kvs",
        &[
            ("head -c", "cuts JSON whose keys came in another order"),
            ("unlink -f nokey", "whether the real one unlinks what is not there is chance"),
        ],
    );
}

#[test]
fn kvs_watches_talk_as_the_real_ones() {
    converse("kvs-watch", &[]);
}

#[test]
fn content_commands_talk_as_the_real_ones() {
    converse("content", &[("head -c", "cuts JSON whose keys came in another order")]);
}

#[test]
fn event_commands_talk_as_the_real_ones() {
    converse("event", &[]);
}

#[test]
fn exec_talks_as_the_real_one() {
    converse(
        "exec",
        &[
            ("flux sproc", "a command of its own"),
            ("timeout -s INT", "whether two signals at once are one or two is chance"),
        ],
    );
}

#[test]
fn jobtap_talks_as_the_real_one() {
    converse("jobtap", &[]);
}

#[test]
fn log_commands_talk_as_the_real_ones() {
    converse("dmesg-log", &[]);
}

#[test]
fn cron_commands_talk_as_the_real_ones() {
    converse("cron", &[]);
}

#[test]
fn config_commands_talk_as_the_real_ones() {
    let skip = [
        ("[bad", "each TOML parser has its own words"),
        ("config reload", "it asks before and after, to tell what needs a restart"),
    ];
    converse("config", &skip);
}

#[test]
fn module_commands_talk_as_the_real_ones() {
    converse("module", &[("--full", "prints JSON whose keys came in another order")]);
}

#[test]
fn overlay_commands_talk_as_the_real_ones() {
    converse("overlay", &[]);
}

#[test]
fn hostlist_talks_as_the_real_one() {
    converse("hostlist", &[("avail", "takes one request where the real one takes three")]);
}

#[test]
fn shutdown_talks_as_the_real_one() {
    converse("shutdown", &[]);
}

#[test]
fn queue_commands_talk_as_the_real_ones() {
    let skip = [
        ("flux submit", "a command of its own"),
        ("flux jobs", "a command of its own"),
        ("flux resource", "goes with those of resources"),
        ("'tests'", "a reason may be given without an option"),
        ("'closed'", "a reason may be given without an option"),
        ("nosuch -q nosuch", "a reason may be given without an option"),
    ];
    for name in ["queue", "queue-named"] {
        let rewrite =
            |command: &str| command.replace("flux queue list", "flux queue list --color=always");
        converse_in_guise(name, &skip, rewrite, untranslate_queue);
    }
}

/// State is told as the administrator's guide has it: on standard error, in other words.
fn untranslate_queue(mut output: Output) -> Output {
    let told = output.stderr.take().unwrap_or_default();
    let (state, errors): (Vec<&str>, Vec<&str>) =
        told.lines().partition(|line| !line.starts_with("flux-queue: ERROR"));
    for line in state.iter().filter(|line| !line.contains("free requests")) {
        let line = line.trim_start_matches("flux-queue: ");
        let line = line.replace("Scheduling is enabled", "Scheduling is started");
        let line = line.replace("Scheduling is disabled", "Scheduling is stopped");
        output.stdout.push_str(&format!("{line}\n"));
    }
    output.stderr = Some(errors.join("\n"));
    output
}

#[test]
fn resource_commands_talk_as_the_real_ones() {
    let skip = [
        ("--json", "usage texts are ours"),
        ("timeout -s INT", "ends of interrupted commands are not captured"),
        ("eventlog", "shows the order of keys, which captured messages have lost"),
    ];
    let rewrite = |command: &str| {
        let command = match command {
            "flux resource drain" => "flux resource drain -o default".to_owned(),
            other => other.replace("flux resource status", "flux resource status -o default"),
        };
        command.replace("flux resource list", "flux resource list -o default")
    };
    let name = "resource-status-list-drain-undrain";
    converse_in_guise(name, &skip, rewrite, |output| output);
}

#[test]
fn job_lists_talk_as_the_real_ones() {
    let skip = [
        ("FLUX_URI=", "acts on a job that was made for it"),
        ("flux top", "draws another screen"),
        ("flux job list -a | head", "prints JSON whose keys came in another order"),
        ("flux pstree", "asks which instance it stands in"),
        ("--stats", "the real one asks for numbers on a connection of their own"),
    ];
    converse_at_any_time("jobs-list", &skip);
}

/// What `flux run` says after the submission, the real one says on a second connection.
#[test]
fn submissions_talk_as_the_real_ones() {
    let skip = [
        ("FLUX_URI=", "acts on a job that was made for it"),
        ("flux run -n 2", "attaches on the connection that it has"),
        ("flux run sh", "attaches on the connection that it has"),
        ("| flux run", "attaches on the connection that it has"),
        ("flux run --label-io", "attaches on the connection that it has"),
        ("flux run --env", "attaches on the connection that it has"),
        ("--begin-time", "asks for a time of today"),
    ];
    converse_at_any_time("submit-run-attach", &skip);
}

#[test]
fn wrong_submissions_talk_as_the_real_ones() {
    let skip = [("flux run nosuchcommand", "attaches on the connection that it has")];
    converse_at_any_time("ingest-errors", &skip);
}

#[test]
fn job_control_talks_as_the_real_one() {
    let skip = [
        ("FLUX_URI=", "acts on a job that was made for it"),
        ("flux job eventlog", "says who may read it, in place of what failed"),
    ];
    for name in ["job-cancel-kill-raise-urgency", "cancelall", "job-update"] {
        converse_at_any_time(name, &skip);
    }
}
