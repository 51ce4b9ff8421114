//! `flux-imp run`: commands of the administrator's, as root.

use std::path::Path;
use std::time::{Duration, Instant};

use flux_guests::{ALICE, FLUX, Sandbox};

use crate::host;

const SHOW: &str = "echo ran\necho uid=$(id -u)\necho gid=$(id -g)\necho groups=$(id -G)\n\
    echo pwd=$(pwd)\nls -l /proc/$$/fd | sed s/^/fd:/\nenv | sed s/^/env:/";

fn prolog() -> Option<Sandbox> {
    let host = host()?;
    let path = host.script("prolog", SHOW);
    configure(&host, &path, "");
    Some(host)
}

fn configure(host: &Sandbox, path: &str, more: &str) {
    host.write(
        "/etc/flux/imp/conf.d/run.toml",
        &format!("[run.prolog]\nallowed-users = [\"flux\"]\npath = \"{path}\"\n{more}\n"),
    );
}

#[test]
fn it_runs_as_root_with_six_variables() {
    let Some(host) = prolog() else { return };
    let mut command = host.command(FLUX, "sh");
    command.args(["-c", "exec 9</etc/passwd; cd; exec \"$0\" run prolog extra args"]);
    command.arg(host.imp_path());
    command.env("FLUX_JOB_ID", "ƒ1").env("FLUX_JOB_USERID", "1000").env("FOO", "bar");
    command.env("PATH", "/usr/bin:/bin:/tmp/evil").env("FLUX_OWNER_USERID", "0");
    command.env("LD_PRELOAD", "/tmp/evil").env("BASH_ENV", "/tmp/evil").env("ENV", "/tmp/evil");
    let outcome = host.run(command, "");
    outcome.assert_success();
    assert_eq!((outcome.value("uid"), outcome.value("gid")), (Some("0"), Some("0")));
    assert_eq!(outcome.value("groups"), Some("0"), "not those of the caller");
    assert_eq!(outcome.value("pwd"), Some("/"));
    assert!(outcome.stdout.contains("fd:") && !outcome.stdout.contains("/etc/"), "{outcome:?}");
    let mut names: Vec<&str> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("env:")?.split('=').next())
        .filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
        .collect();
    names.sort_unstable();
    let six = ["FLUX_JOB_ID", "FLUX_JOB_USERID", "FLUX_OWNER_USERID", "HOME", "PATH", "USER"];
    assert_eq!(names, six);
    assert_eq!(outcome.value("env:PATH"), Some("/usr/sbin:/usr/bin:/sbin:/bin"));
    assert_eq!(outcome.value("env:FLUX_OWNER_USERID"), Some(&*FLUX.uid.to_string()));
    assert_eq!(outcome.value("env:FLUX_JOB_ID"), Some("ƒ1"));
    assert_eq!(outcome.value("env:USER"), Some("root"));
}

#[test]
fn patterns_let_variables_through_but_not_the_path() {
    let Some(host) = prolog() else { return };
    configure(
        &host,
        host.path("prolog").to_str().unwrap(),
        "allowed-environment = [\"FLUX_*\", \"P*\"]",
    );
    let mut command = host.command(FLUX, host.imp_path());
    command.args(["run", "prolog"]).env("FLUX_X", "1").env("OTHER", "1").env("PATH", "/tmp/evil");
    let outcome = host.run(command, "");
    assert_eq!(outcome.value("env:FLUX_X"), Some("1"));
    assert_eq!(outcome.value("env:OTHER"), None);
    assert_eq!(outcome.value("env:PATH"), Some("/usr/sbin:/usr/bin:/sbin:/bin"));
}

#[test]
fn what_it_runs_dies_with_the_caller_even_where_it_ignores_signals() {
    let Some(host) = host() else { return };
    let file = host.path("pid");
    let wait = "while :; do sleep 1000; done";
    let text =
        format!("trap '' TERM HUP\necho $$ > {0}.new; mv {0}.new {0}; {wait}", file.display());
    let path = host.script("prolog", &text);
    configure(&host, &path, "");
    let mut caller = host.command(FLUX, "sh");
    caller.args(["-c", "\"$0\" run prolog & wait"]).arg(host.imp_path());
    let mut caller = caller.spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(Instant::now() < limit, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("it does not start", &|| file.exists());
    let pid = std::fs::read_to_string(&file).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists());
    caller.kill().unwrap();
    caller.wait().unwrap();
    until("it goes on", &|| !process.exists());
}

#[test]
fn only_listed_users_run_it() {
    let Some(host) = prolog() else { return };
    host.imp(ALICE, &["run", "prolog"], "")
        .assert_refused("flux-imp: Fatal: run: permission denied");
    let path = host.path("prolog");
    host.write(
        "/etc/flux/imp/conf.d/run.toml",
        &format!("[run.prolog]\npath = \"{}\"\n", path.display()),
    );
    host.imp(FLUX, &["run", "prolog"], "").assert_refused("run: permission denied");
}

#[test]
fn only_names_that_are_configured_are_run() {
    let Some(host) = prolog() else { return };
    let refused = |name: &str, text: &str| host.imp(FLUX, &["run", name], "").assert_refused(text);
    refused("nope", "run: nope: no configuration found");
    refused("", "run: command required");
    refused("../prolog", "no configuration found");
    refused("prolog.path", "no configuration found");
    refused(host.path("prolog").to_str().unwrap(), "no configuration found");
    host.imp(FLUX, &["run"], "").assert_refused("run: command required");
}

#[test]
fn a_command_that_others_could_have_written_is_not_run() {
    let Some(host) = prolog() else { return };
    let path = host.path("prolog");
    let text = path.to_str().unwrap();
    let run = || host.imp(FLUX, &["run", "prolog"], "");
    host.chmod(&path, 0o757);
    run().assert_refused(&format!("run: {text}: bad file permissions (0757)"));
    host.chmod(&path, 0o755);
    host.chown(&path, FLUX);
    run().assert_refused("insecure file ownership");
    let moved = host.script("dir/prolog", SHOW);
    configure(&host, &moved, "");
    run().assert_success();
    host.chmod(host.path("dir"), 0o777);
    run().assert_refused("parent directory is world-writeable without sticky bit");
    host.chmod(host.path("dir"), 0o755);
    std::os::unix::fs::symlink(&moved, host.path("link")).unwrap();
    configure(&host, host.path("link").to_str().unwrap(), "");
    run().assert_refused("symbolic link");
    configure(&host, "prolog", "");
    run().assert_refused("run: prolog: path is missing or invalid");
    configure(&host, host.path("dir").to_str().unwrap(), "");
    run().assert_refused("File is not a regular file");
}

#[test]
fn its_exit_code_is_passed_on_and_what_can_t_be_executed_is_named() {
    let Some(host) = prolog() else { return };
    let path = host.script("prolog", "exit 9");
    assert_eq!(host.imp(FLUX, &["run", "prolog"], "").code, Some(9));
    host.chmod(&path, 0o644);
    let outcome = host.imp(FLUX, &["run", "prolog"], "");
    assert_eq!(outcome.code, Some(126));
    assert!(outcome.stderr.contains("Permission denied"), "{outcome:?}");
}
