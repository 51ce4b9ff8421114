//! `flux-imp exec`: who runs what, and how it ends.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flux_guests::{ALICE, BOB, FLUX, Outcome, ROOT, Sandbox};

use crate::{exec, host, input, probe};

#[test]
fn the_shell_runs_as_the_user_that_signed_for_good_and_with_his_groups() {
    let Some(host) = host() else { return };
    let outcome = exec(&host, &host.sign(ALICE, "{}"));
    outcome.assert_success();
    let id = ALICE.uid.to_string();
    assert_eq!(outcome.value("uid"), Some(&*id));
    assert_eq!(outcome.value("gid"), Some(&*id));
    assert_eq!(outcome.value("groups"), Some(&*format!("{id} {}", ALICE.extra)));
    assert_eq!(outcome.value("ids"), Some(&*format!("Uid: {id} {id} {id} {id}")));
    assert_eq!(outcome.value("pwd"), Some("/"));
    assert_eq!(outcome.value("umask"), Some("0022"));
    assert_eq!(outcome.value("args"), Some("1234"));
}

#[test]
fn only_listed_users_may_call_it() {
    let Some(host) = host() else { return };
    let j = input(&host.sign(ALICE, "{}"));
    for user in [ALICE, BOB] {
        let outcome = host.imp(user, &["exec", &probe(&host), "1"], &j);
        let text = format!("flux-imp: Fatal: exec: user {} not in allowed-users list", user.name);
        outcome.assert_refused(&text);
    }
}

#[test]
fn only_listed_shells_are_started() {
    let Some(host) = host() else { return };
    let j = input(&host.sign(ALICE, "{}"));
    host.script("other", "echo ran");
    let up = format!("{}/../probe", host.path("home").display());
    let shells =
        ["/bin/sh", "probe", "./probe", "", &up, &host.path("other").display().to_string()];
    for shell in shells {
        let outcome = host.imp(FLUX, &["exec", shell, "1"], &j);
        outcome.assert_refused("exec: shell not in allowed-shells list");
    }
}

#[test]
fn a_shell_that_is_listed_by_a_relative_path_is_not_started() {
    let Some(host) = host() else { return };
    let j = input(&host.sign(ALICE, "{}"));
    host.configure_imp("[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"sh\"]\n");
    let outcome = host.imp(FLUX, &["exec", "sh", "1"], &j);
    outcome.assert_refused("exec: shell not in allowed-shells list");
}

#[test]
fn root_neither_calls_it_nor_is_become() {
    let Some(host) = host() else { return };
    let outcome = host.imp(ROOT, &["exec", &probe(&host), "1"], "");
    outcome.assert_refused("Refusing to run as root");
    let outcome = exec(&host, &host.sign(ROOT, "{}"));
    outcome.assert_refused("exec: switching to user root not supported");
}

#[test]
fn an_exit_code_is_passed_on_and_so_is_a_signal() {
    let Some(host) = host() else { return };
    host.script("probe", "exit 42");
    assert_eq!(exec(&host, &host.sign(ALICE, "{}")).code, Some(42));
    host.script("probe", "kill -9 $$");
    assert_eq!(exec(&host, &host.sign(ALICE, "{}")).signal, Some(9));
    let shell = host.script("probe", "true");
    host.chmod(&shell, 0o600);
    let outcome = exec(&host, &host.sign(ALICE, "{}"));
    assert_eq!(outcome.code, Some(126), "{outcome:?}");
    std::fs::remove_file(&shell).unwrap();
    let outcome = exec(&host, &host.sign(ALICE, "{}"));
    assert_eq!(outcome.code, Some(127), "{outcome:?}");
}

#[test]
fn what_is_not_a_request_is_refused() {
    let Some(host) = host() else { return };
    let cases = [
        ("", "exec: invalid json input: premature end of input"),
        ("foo", "exec: invalid json input"),
        ("[]", "exec: invalid json input: Expected object"),
        ("{}", "exec: invalid json input: Object item not found: J"),
        ("{\"J\":1}", "exec: invalid json input: Expected string: J"),
        ("{\"J\":\"a\",\"J\":\"b\"}", "exec: invalid json input: duplicate object key"),
        ("{\"J\":\"a\\u0000b\"}", "exec: invalid json input: invalid Unicode"),
        ("{\"J\":\"x\"} {}", "exec: invalid json input: end of file expected"),
        ("{\"J\":\"x\"}", "exec: signature validation failed: sign-unwrap: header decode error"),
    ];
    for (stdin, text) in cases {
        host.imp(FLUX, &["exec", &probe(&host), "1"], stdin).assert_refused(text);
    }
    let deep = "[".repeat(1 << 20);
    host.imp(FLUX, &["exec", &probe(&host), "1"], &deep).assert_refused("nested too deeply");
    host.imp(FLUX, &["exec", &probe(&host)], "{}").assert_refused("exec: missing arguments");
    host.imp(FLUX, &["exec"], "{}").assert_refused("exec: missing arguments");
}

#[test]
fn containment_that_is_not_supported_is_not_promised() {
    let Some(host) = host() else { return };
    let j = host.sign(ALICE, "{}");
    let stdin = serde_json::json!({ "J": j, "options": { "DevicePolicy": "closed" } }).to_string();
    let outcome = host.imp(FLUX, &["exec", &probe(&host), "1"], &stdin);
    outcome.assert_refused("device containment is not supported");
}

/// A shell that tells when it is there.
fn start(host: &Sandbox) -> (Child, u32) {
    let mut command = host.command(FLUX, host.imp_path());
    command.args(["exec", &probe(host), "1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let j = input(&host.sign(ALICE, "{}"));
    child.stdin.take().unwrap().write_all(j.as_bytes()).unwrap();
    wait_for(&host.path("home/alice/ready"));
    let pid = child.id();
    (child, pid)
}

fn wait_for(path: &std::path::Path) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < limit, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal_as(host: &Sandbox, signal: &str, pid: u32) -> Outcome {
    let mut command = host.command(FLUX, "kill");
    command.args([signal, &pid.to_string()]);
    host.run(command, "")
}

#[test]
fn the_owner_signals_the_shell_by_way_of_the_imp() {
    let Some(host) = host() else { return };
    host.script(
        "probe",
        "trap 'echo got TERM; exit 7' TERM\n: > $HOME/ready\nwhile :; do sleep 0.05; done",
    );
    let (child, pid) = start(&host);
    signal_as(&host, "-TERM", pid).assert_success();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got TERM\n");
}

#[test]
fn sigusr1_kills_everything_below_the_imp() {
    let Some(host) = host() else { return };
    host.script(
        "probe",
        "trap '' TERM USR1\nsetsid setsid sleep 1000 &\necho $! > $HOME/pid\n: > $HOME/ready\n\
         while :; do sleep 0.05; done",
    );
    let (child, pid) = start(&host);
    let orphan = std::fs::read_to_string(host.path("home/alice/pid")).unwrap();
    signal_as(&host, "-USR1", pid).assert_success();
    let output = child.wait_with_output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9));
    let orphan = std::path::Path::new("/proc").join(orphan.trim());
    let limit = Instant::now() + Duration::from_secs(60);
    while std::fs::read_to_string(orphan.join("stat")).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(Instant::now() < limit, "it is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_shell_does_not_outlive_an_imp_that_is_killed() {
    let Some(host) = host() else { return };
    host.script("probe", "echo $$ > $HOME/pid\n: > $HOME/ready\nexec sleep 1000");
    let (mut child, pid) = start(&host);
    let shell = std::fs::read_to_string(host.path("home/alice/pid")).unwrap();
    signal_as(&host, "-KILL", pid).assert_success();
    child.wait().unwrap();
    let stat = std::path::Path::new("/proc").join(shell.trim()).join("stat");
    let limit = Instant::now() + Duration::from_secs(60);
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(Instant::now() < limit, "it is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn without_the_setuid_bit_nothing_is_executed() {
    let Some(host) = host() else { return };
    host.chmod(host.imp_path(), 0o755);
    let j = host.sign(ALICE, "{}");
    exec(&host, &j).assert_refused("exec: IMP not installed setuid, operation disabled.");
    host.configure_imp(&format!(
        "[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"{}\"]\n\
         allow-unprivileged-exec = true\n",
        probe(&host)
    ));
    let outcome = exec(&host, &j);
    outcome.assert_success();
    assert_eq!(outcome.value("uid"), Some(&*FLUX.uid.to_string()));
    let warning = "flux-imp: Warning: Running without privilege, userid switching not available";
    assert!(outcome.stderr.contains(warning), "{outcome:?}");
}

#[test]
fn an_imp_that_is_setuid_to_another_user_or_setgid_does_nothing() {
    let Some(host) = host() else { return };
    host.chown(host.imp_path(), BOB);
    host.chmod(host.imp_path(), 0o4755);
    host.imp(FLUX, &["whoami"], "").assert_refused("Refusing to run setgid, or setuid");
    host.chown(host.imp_path(), ROOT);
    host.chmod(host.imp_path(), 0o2755);
    host.imp(FLUX, &["whoami"], "").assert_refused("Refusing to run setgid, or setuid");
}

#[test]
fn both_halves_say_who_they_are_and_unknown_commands_are_refused() {
    let Some(host) = host() else { return };
    let outcome = host.imp(FLUX, &["whoami"], "");
    outcome.assert_success();
    let uid = FLUX.uid;
    let both = format!(
        "flux-imp: unprivileged: uid={uid} euid={uid} gid={uid} egid={uid}\n\
         flux-imp: privileged: uid={uid} euid=0 gid={uid} egid={uid}\n"
    );
    assert_eq!(outcome.stdout, both);
    let outcome = host.imp(FLUX, &["version"], "");
    outcome.assert_success();
    assert!(outcome.stdout.starts_with("flux-imp "), "{outcome:?}");
    host.imp(FLUX, &["bogus"], "").assert_refused("flux-imp: Fatal: Unknown IMP command: bogus");
    host.imp(FLUX, &[], "").assert_refused("flux-imp: Fatal: command required");
}

#[test]
fn what_the_caller_says_is_read_by_a_child_that_has_given_up_privilege() {
    let Some(host) = host() else { return };
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        return println!("skipped: needs strace");
    }
    // strace has to be root for the setuid bit to count, and starts the IMP as the user.
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-u", "flux", "-e", "trace=read,setresuid,openat,socket,connect", "-o"]);
    command.arg(host.path("trace")).arg(host.imp_path()).args(["exec", &probe(&host), "1"]);
    let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
    let trace = std::fs::read_to_string(host.path("trace")).unwrap();
    if !outcome.stdout.contains("ran") {
        return println!("skipped: strace can't run setuid programs here: {outcome:?}");
    }
    let calls: Vec<(&str, &str)> = trace.lines().filter_map(|line| line.split_once(' ')).collect();
    let parent = calls[0].0;
    let first_input = calls.iter().position(|(_, call)| call.contains("read(0, \"{")).unwrap();
    let reader = calls[first_input].0;
    assert_ne!(reader, parent, "the privileged half does not read it");
    let dropped = calls[..first_input].iter().any(|(pid, call)| {
        *pid == reader && call.contains(&format!("setresuid({0}, {0}, {0})", FLUX.uid))
    });
    assert!(dropped, "{trace}");
    assert!(calls.iter().all(|(pid, call)| *pid != parent || !call.contains("read(0,")));
    let sockets = calls.iter().filter(|(_, call)| call.contains("socket(AF_"));
    for (_, call) in sockets {
        assert!(call.contains("socket(AF_UNIX"), "{call}");
    }
}
