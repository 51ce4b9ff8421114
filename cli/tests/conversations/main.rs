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
    let vector = Vector::load(name).unwrap();
    let mut failures = Vec::new();
    let mut count = 0;
    for run in &vector.runs {
        let skipped = skip.iter().any(|(part, _)| run.command.contains(part));
        if run.rc.is_none() || skipped || !run.command.contains("flux ") {
            continue;
        }
        count += 1;
        let problems = play(run);
        if !problems.is_empty() {
            failures.push(format!("$ {}\n{}", run.command, problems.join("\n")));
        }
    }
    assert!(count > 0, "{name}: nothing to run");
    assert!(failures.is_empty(), "{} of {count} differ:\n{}", failures.len(), failures.join("\n"));
}

/// Run one command; returns what is not as it was.
fn play(run: &Run) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_flux"), bin.join("flux")).unwrap();
    let broker = FakeBroker::start(&dir.path().join("tap"), Some(&run.rows));
    // Some commands went around the tap in between, to make something happen.
    let untapped = FakeBroker::start(&dir.path().join("local-0"), None);
    let output = shell(run, &dir, &bin);
    let mut problems = broker.finish();
    problems.extend(untapped.finish());
    let real = Output {
        code: run.rc,
        stdout: run.stdout.clone().unwrap_or_default(),
        stderr: run.stderr.clone(),
    };
    problems.extend(compare::differences(&real, &output));
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
fn log_commands_talk_as_the_real_ones() {
    converse("dmesg-log", &[]);
}

#[test]
fn cron_commands_talk_as_the_real_ones() {
    converse("cron", &[]);
}

#[test]
fn config_commands_talk_as_the_real_ones() {
    converse("config", &[("[bad", "each TOML parser has its own words")]);
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
