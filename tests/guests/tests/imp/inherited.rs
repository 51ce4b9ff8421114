//! What the caller leaves for the IMP to inherit.

use flux_guests::{ALICE, FLUX};

use crate::{host, input, probe};

#[test]
fn no_descriptor_of_the_callers_reaches_what_the_imp_starts() {
    let Some(host) = host() else { return };
    let probe = probe(&host);
    let mut command = host.command(FLUX, "sh");
    command.args(["-c", "exec 3</etc/passwd 9</etc/group; exec \"$0\" exec \"$1\" 1"]);
    command.arg(host.imp_path()).arg(&probe);
    let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
    outcome.assert_success();
    assert!(outcome.stdout.contains("fd:") && !outcome.stdout.contains("/etc/"), "{outcome:?}");
}

#[test]
fn closed_standard_streams_are_not_what_the_imp_opens_next() {
    let Some(host) = host() else { return };
    let seen = host.path("seen");
    let show = host.script("show", &format!("ls -l /proc/$$/fd > {}", seen.display()));
    host.write(
        "/etc/flux/imp/conf.d/run.toml",
        &format!("[run.show]\nallowed-users = [\"flux\"]\npath = \"{show}\"\n"),
    );
    let mut command = host.command(FLUX, "sh");
    command.args(["-c", "exec \"$0\" run show <&- >&- 2>&-"]).arg(host.imp_path());
    let outcome = host.run(command, "");
    outcome.assert_success();
    let seen = std::fs::read_to_string(seen).unwrap();
    // Both the C library and Rust's fill them.
    for fd in [" 0 -> /dev/", " 2 -> /dev/"] {
        assert!(seen.contains(fd), "{seen}");
    }
    assert!(!seen.contains("/etc/"), "{seen}");
}

#[test]
fn the_environment_of_the_caller_does_not_reach_the_shell() {
    let Some(host) = host() else { return };
    let mut command = host.command(FLUX, host.imp_path());
    command.args(["exec", &probe(&host), "1"]);
    let hostile = [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "GLIBC_TUNABLES",
        "BASH_ENV",
        "ENV",
        "IFS",
        "PYTHONPATH",
        "PERL5OPT",
        "RUST_BACKTRACE",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "NOTIFY_SOCKET",
        "FLUX_IMP_EXEC_HELPER",
        "FOO",
    ];
    for name in hostile {
        command.env(name, "/tmp/evil");
    }
    command.env("PATH", "/tmp/evil").env("HOME", "/tmp/evil").env("USER", "root");
    command.env("FLUX_SHELL_VERIFY", "").env("BASH_FUNC_id%%", "() { echo 0; }");
    command.env("FLUX_URI", "local:///run/flux/local").env("LANG", "C").env("TZ", "/tmp/evil");
    let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
    outcome.assert_success();
    assert_eq!(outcome.value("uid"), Some(&*ALICE.uid.to_string()));
    let mut names: Vec<&str> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("env:")?.split('=').next())
        // The interpreter's own.
        .filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
        .collect();
    names.sort_unstable();
    let expected =
        ["FLUX_SHELL_VERIFY", "FLUX_URI", "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"];
    assert_eq!(names, expected);
    assert_eq!(outcome.value("env:FLUX_SHELL_VERIFY"), Some("1"));
    assert_eq!(outcome.value("env:HOME"), host.home(ALICE).to_str());
    assert_eq!(outcome.value("env:USER"), Some("alice"));
    assert!(!outcome.stdout.contains("evil"), "{outcome:?}");
}

#[test]
fn ignored_and_blocked_signals_are_not_inherited() {
    let Some(host) = host() else { return };
    host.script("probe", "echo ran; grep -E 'Sig(Blk|Ign):' /proc/self/status");
    let mut command = host.command(FLUX, "sh");
    // A caller that ignores SIGCHLD has no children to wait for.
    command.args(["-c", "trap '' CHLD TERM HUP; exec \"$0\" exec \"$1\" 1"]);
    command.arg(host.imp_path()).arg(probe(&host));
    let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
    outcome.assert_success();
    assert!(outcome.stdout.contains("SigBlk:\t0000000000000000"), "{outcome:?}");
    let ignored = outcome.stdout.split_once("SigIgn:\t").unwrap().1.trim();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    // Two signals are the C library's own, and nobody else's to change.
    assert_eq!(ignored & !(3 << 31), 0, "{outcome:?}");
}

#[test]
fn the_umask_and_directory_of_the_caller_do_not_matter() {
    let Some(host) = host() else { return };
    let mut command = host.command(FLUX, "sh");
    command.args(["-c", "umask 0; cd; exec \"$0\" exec \"$1\" 1"]);
    command.arg(host.imp_path()).arg(probe(&host));
    let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
    outcome.assert_success();
    assert_eq!((outcome.value("umask"), outcome.value("pwd")), (Some("0022"), Some("/")));
}

#[test]
fn arguments_that_are_no_text_are_passed_on_or_refused_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let Some(host) = host() else { return };
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    for place in 0..3 {
        let mut command = host.command(FLUX, host.imp_path());
        let probe = probe(&host);
        let mut args = ["exec".as_ref(), probe.as_ref(), "1".as_ref()];
        args[place] = odd;
        command.args(args);
        let outcome = host.run(command, &input(&host.sign(ALICE, "{}")));
        match place {
            0 => outcome.assert_refused("Unknown IMP command"),
            1 => outcome.assert_refused("exec: shell not in allowed-shells list"),
            _ => outcome.assert_success(),
        }
    }
}

#[test]
fn the_shell_is_in_a_session_of_its_own() {
    let Some(host) = host() else { return };
    host.script("probe", "echo ran; test $(cut -d' ' -f6 /proc/$$/stat) = $$ && echo leader=yes");
    let outcome = crate::exec(&host, &host.sign(ALICE, "{}"));
    assert_eq!(outcome.value("leader"), Some("yes"), "{outcome:?}");
}
