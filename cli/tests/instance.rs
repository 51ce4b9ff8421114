//! Real instances of several processes. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

/// Run `flux start ARGS...`; `flux` in the arguments is this build's.
fn start(args: &[&str]) -> Output {
    let flux = env!("CARGO_BIN_EXE_flux");
    let broker = std::path::Path::new(flux).with_file_name("flux-broker");
    assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
    let args = args.iter().map(|arg| if *arg == "flux" { flux } else { arg });
    Command::new(flux)
        .arg("start")
        .args(args)
        .stdin(std::process::Stdio::null())
        .env("FLUX_PROGRAM", flux)
        .env("SHELL", "/bin/sh")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_instance_of_four_brokers_runs_a_task_on_each() {
    let output = start(&["-s", "4", "flux", "run", "-N4", "-l", "echo", "here"]);
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["0: here", "1: here", "2: here", "3: here"], "{}", text(&output.stderr));
    assert!(output.status.success());
}

#[test]
fn an_instance_exits_with_the_code_of_its_initial_program() {
    assert_eq!(start(&["sh", "-c", "exit 7"]).status.code(), Some(7));
}

#[test]
fn a_job_that_fails_ends_flux_run_with_its_code() {
    let output = start(&["flux", "run", "sh", "-c", "exit 3"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn eight_brokers_form_a_full_tree() {
    let output = start(&["-s", "8", "flux", "overlay", "status", "--summary"]);
    assert_eq!(text(&output.stdout).trim(), "full", "{}", text(&output.stderr));
}

#[test]
fn standard_input_reaches_the_job() {
    let line = "echo data | \"$FLUX_PROGRAM\" run cat";
    let output = start(&[line]);
    assert_eq!(text(&output.stdout), "data\n", "{}", text(&output.stderr));
}

#[test]
fn every_benchmark_prints_its_figures() {
    let bench = "\
        \"$FLUX_PROGRAM\" bench rpc -n 20 && \"$FLUX_PROGRAM\" bench overlay -n 20 && \
        \"$FLUX_PROGRAM\" bench kvs -n 20 && \"$FLUX_PROGRAM\" bench event -n 20 && \
        \"$FLUX_PROGRAM\" bench jobs -n 4 && \"$FLUX_PROGRAM\" bench memory && \
        \"$FLUX_PROGRAM\" bench start -s 1 -n 1 && \"$FLUX_PROGRAM\" kvs ls";
    let output = start(&["-s", "2", bench]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for figure in [
        "rpc, 64 at a time",
        "depth 1 (rank 1), each",
        "commit to disk",
        "lookup, 64 at a time",
        "to 16 subscribers",
        "submit to inactive",
        "rank 0 resident",
        "size 1: to the program",
    ] {
        let mut lines = printed.lines();
        assert!(lines.any(|line| line.starts_with(figure)), "{figure} is missing:\n{printed}");
    }
    assert!(!printed.contains("bench-"), "keys are left behind:\n{printed}");
}
