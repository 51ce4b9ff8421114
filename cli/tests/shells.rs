//! Shells that do not come up, or stay behind when their job is over: the job ends all the same. The
//! programs are those of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod script;

/// A shell that does something else instead, or afterwards, on the second node. Hosts are the same
/// there, so that tasks are told apart by ranks.
const PRELUDE: &str = "
set -e
wrapper() {
    printf '#!/bin/sh\\nrank=$(flux getattr rank)\\n%s\\n' \"$1\" >shell
    printf '%s \"$@\"\\nrc=$?\\n%s\\nexit $rc\\n' $(command -v flux-shell) \"$2\" >>shell
    chmod +x shell
}
submit() { flux submit -N2 -n2 -o exit-timeout=none --setattr=exec.job_shell=$PWD/shell \"$@\"; }
note() {
    flux job wait-event -t 60s -m severity=0 $1 exception | sed 's/.*note=//; s/ userid=.*//; s/ on [^ ]* (/ on HOST (/'
    flux job wait-event -t 60s $1 clean >/dev/null
}
";

fn run(script: &str) -> String {
    script::run(&format!("{PRELUDE}{script}"))
}

#[test]
fn a_node_whose_shell_does_not_come_up_is_drained_and_its_job_ends() {
    let said = run("
wrapper 'test $rank = 1 && exec sleep 1000' ''
echo 'exec.barrier-timeout = \"300ms\"' | flux config load
flux module stats job-exec | grep -o '\"default_barrier_timeout\": *[0-9.]*' | tr -d ' '
id=$(submit true)
note $id
flux resource drain -no '{ranks} {reason}' | sed s/$id/ID/
flux resource undrain 1
echo 'exec.barrier-timeout = \"0\"' | flux config load
id=$(submit --setattr=exec.bulkexec.barrier-timeout=0.3 true)
note $id
");
    let note = "\"start barrier timeout waiting for 1/2 nodes (rank 1)\"\n";
    let drained = "1 job ID start timeout: possible node hang\n";
    assert_eq!(said, format!("\"default_barrier_timeout\":0.3\n{note}{drained}{note}"));
}

#[test]
fn shells_that_stay_behind_the_first_end_their_job() {
    let said = run("
wrapper '' 'test $rank = 0 || exec sleep 1000'
flux module reload job-exec shell-exit-timeout=200ms
id=$(submit true)
note $id
flux job status $id 2>/dev/null || echo failed
");
    let note = "job shells still active on HOST (rank 1) 0.2s after leader shell exit";
    assert_eq!(said, format!("\"{note}\"\nfailed\n"));
}

#[test]
fn shells_that_end_in_time_after_the_first_fail_nothing() {
    let said = run("
wrapper '' \"test \\$rank = 0 || until test -e $PWD/go; do sleep 0.05; done\"
for timeout in none 5m; do
    flux module reload job-exec shell-exit-timeout=$timeout
    rm -f go
    id=$(submit true)
    until flux module stats job-exec | grep -q '\"active_shells\": *1'; do sleep 0.05; done
    touch go
    flux job wait-event -t 60s $id clean >/dev/null
    flux job status $id && echo fine
done
");
    assert_eq!(said, "fine\nfine\n");
}
