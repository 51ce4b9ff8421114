//! A caller that does what no broker does: arguments and environments that nobody expects, input
//! without end, signals at every moment.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use flux_guests::{ALICE, FLUX, Sandbox};

use crate::{host, input, probe};

fn configure_run(host: &Sandbox, path: &str) {
    let text = format!("[run.show]\nallowed-users = [\"flux\"]\npath = \"{path}\"\n");
    host.write("/etc/flux/imp/conf.d/run.toml", &text);
}

#[test]
fn an_environment_as_large_as_the_kernel_takes_changes_nothing() {
    let Some(host) = host() else { return };
    configure_run(&host, &host.script("show", "echo ran\nenv | sed s/^/env:/"));
    let large = "x".repeat(100_000);
    for args in [&["exec", &probe(&host), "1"][..], &["run", "show"]] {
        let mut command = host.command(FLUX, host.imp_path());
        command.args(args).env("FLUX_JOB_ID", "1").env("FLUX_JOB_USERID", "1");
        for number in 0..14 {
            command.env(format!("LARGE{number}"), &large);
        }
        for number in 0..5000 {
            command.env(format!("SMALL{number}"), "y");
        }
        // Bytes that are no text, and names that shells take for functions.
        command.env("BASH_FUNC_echo%%", "() { :; }").env("A\nB", "\x01\x7f");
        let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
        outcome.assert_success();
        assert!(outcome.stdout.starts_with("ran\n"), "{args:?}: {outcome:?}");
        assert!(!outcome.stdout.contains("LARGE") && !outcome.stdout.contains("SMALL"), "{args:?}");
    }
}

#[test]
fn no_name_but_a_commands_own_is_a_command() {
    let Some(host) = host() else { return };
    let long = "exec".repeat(25_000);
    let words =
        ["EXEC", "exec ", " exec", "exec\n", "./exec", "../exec", "--exec", "-c", "", "run\trun"];
    for word in words.into_iter().chain([&*long]) {
        let stdin = input(&host.sign(ALICE, "{}"));
        let outcome = host.imp(FLUX, &[word, &probe(&host), "1"], &stdin);
        outcome.assert_refused("flux-imp: Fatal: Unknown IMP command: ");
    }
}

#[test]
fn options_before_a_command_are_not_taken_for_anything() {
    let Some(host) = host() else { return };
    for args in [&["--", "exec"][..], &["-x", "exec"], &["--config=/tmp/evil", "exec"]] {
        let probe = probe(&host);
        let args = [args, &[&*probe, "1"]].concat();
        let stdin = input(&host.sign(ALICE, "{}"));
        host.imp(FLUX, &args, &stdin).assert_refused("Unknown IMP command: -");
    }
}

#[test]
fn it_goes_by_its_arguments_not_by_the_name_it_is_called() {
    let Some(host) = host() else { return };
    for name in ["''", "/bin/sh", "-exec", "$(printf '%0100000d')"] {
        let mut command = host.command(FLUX, "bash");
        command.args(["-c", &format!("exec -a {name} \"$0\" exec \"$1\" 1")]);
        command.arg(host.imp_path()).arg(probe(&host));
        let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
        outcome.assert_success();
        assert_eq!(outcome.value("uid"), Some(&*ALICE.uid.to_string()), "{name}");
    }
}

#[test]
fn ten_thousand_arguments_reach_nobody_but_the_users_own_shell() {
    let Some(host) = host() else { return };
    let many: Vec<String> = (0..10_000).map(|number| format!("--{number}")).collect();
    let mut command = host.command(FLUX, host.imp_path());
    command.args(["exec", &probe(&host)]).args(&many);
    let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
    outcome.assert_success();
    assert_eq!(outcome.value("uid"), Some(&*ALICE.uid.to_string()));
    assert!(outcome.value("args").unwrap().ends_with(" --9998 --9999"));

    configure_run(&host, &host.script("show", "echo ran\necho count=$#"));
    let mut command = host.command(FLUX, host.imp_path());
    command.args(["run", "show"]).args(&many);
    let outcome = host.run(command, "");
    assert_ne!(outcome.value("count"), Some("10000"), "root's script got them: {outcome:?}");
}

#[test]
fn input_without_end_is_refused_before_it_is_read() {
    let Some(host) = host() else { return };
    let mut command = host.command(FLUX, host.imp_path());
    command.args(["exec", &probe(&host), "1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut written = 0;
    let _ = stdin.write_all(b"{\"J\":\"");
    // It ends with EPIPE, since nobody reads any more.
    while written < 1 << 30 && stdin.write_all(&[b'A'; 1 << 16]).is_ok() {
        written += 1 << 16;
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(written < 1 << 28, "{written} bytes were read");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("too large"), "{stderr}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ran"));
}

/// Signals come before, during and after the switch to the other user. Whenever they do, either
/// the shell runs as him or nothing does, and nobody is left behind.
#[test]
fn signals_during_the_switch_leave_no_process_of_roots() {
    let Some(host) = host() else { return };
    host.script("probe", "echo ran\necho uid=$(id -u)\nexec sleep 0.1");
    let j = input(&host.sign(ALICE, "{}"));
    let signals = ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "PIPE", "ALRM", "CHLD", "KILL"];
    let mut ran = 0;
    for round in 0..60_u64 {
        let mut command = host.command(FLUX, host.imp_path());
        command.args(["exec", &probe(&host), "1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(j.as_bytes());
        // Not a wait for anything: another moment each time.
        std::thread::sleep(Duration::from_micros(round * 400));
        let signal = signals[usize::try_from(round).unwrap() % signals.len()];
        let mut kill = host.command(FLUX, "kill");
        kill.args(["-s", signal, &child.id().to_string()]);
        host.run(kill, "");
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let uid = stdout.lines().find_map(|line| line.strip_prefix("uid="));
        let alice = ALICE.uid.to_string();
        assert!(uid.is_none_or(|uid| uid == alice), "SIG{signal}: {stdout}");
        ran += u32::from(uid.is_some());
        let ended = output.status.code().is_some() || output.status.signal().is_some();
        assert!(ended, "SIG{signal}: {output:?}");
        assert_eq!(left_behind(&host, pid), Vec::<String>::new(), "SIG{signal}, round {round}");
    }
    // Some of the signals end nothing.
    assert!(ran > 0, "the shell never ran");
}

/// Command lines of processes of root's that are the IMP, with the given one above them or nobody.
fn left_behind(host: &Sandbox, pid: u32) -> Vec<String> {
    let imp = host.imp_path();
    let of_root = |entry: &std::path::Path| -> Option<String> {
        let exe = std::fs::read_link(entry.join("exe")).ok()?;
        let status = std::fs::read_to_string(entry.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t"))?;
        let is_ours = exe == imp && (parent == "1" || parent == pid.to_string());
        is_ours.then_some(status)
    };
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let left: Vec<String> = entries.filter_map(|entry| of_root(&entry.path())).collect();
        if left.is_empty() || std::time::Instant::now() > limit {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
