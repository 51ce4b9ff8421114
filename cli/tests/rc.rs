//! What an instance begins and ends with: rc1 and rc3, the directories, the limits on waiting. The
//! programs are those of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const FLUX: &str = env!("CARGO_BIN_EXE_flux");
/// An instance without modules.
const BARE: [&str; 2] = ["-Sbroker.rc1_path=", "-Sbroker.rc3_path="];

/// `flux start ARGS...`, with a folder for temporary files of its own, and this build's `flux`.
fn start(args: &[&str], tmp: &Path) -> Output {
    command(args, tmp).output().unwrap()
}

fn command(args: &[&str], tmp: &Path) -> Command {
    let programs = Path::new(FLUX).parent().unwrap();
    assert!(programs.join("flux-broker").is_file(), "build the workspace first");
    let mut command = Command::new("timeout");
    command
        .args(["120", FLUX, "start"])
        .args(args)
        .env("TMPDIR", tmp)
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
        .env("SHELL", "/bin/sh")
        .env_remove("FLUX_URI")
        .stdin(Stdio::null());
    command
}

#[track_caller]
fn says(args: &[&str], tmp: &Path) -> String {
    let output = start(args, tmp);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_rc1_of_ones_own_loads_what_it_wants() {
    let tmp = tempfile::tempdir().unwrap();
    let names = "flux module list | tail -n +2 | cut -d' ' -f1 | sort";
    let [rc1, rc3] = BARE;
    let bare = says(&[rc1, rc3, names], tmp.path());
    assert_eq!(bare, "config\nconnector-local\ngroups\noverlay\nrexec\n");
    let rc1 = "-Sbroker.rc1_path=flux module load content && flux module load content-sqlite && \
               flux module load kvs";
    let program = "flux module list | grep -cE '^(content|content-sqlite|kvs) '; flux kvs put a=b; \
                   flux kvs get a; flux getattr broker.rc3_path";
    assert_eq!(says(&[rc1, program], tmp.path()), "3\nb\nflux modprobe rc3\n");
}

#[test]
fn states_tell_that_there_was_no_rc1_and_an_rc3_that_fails_is_the_instances_failure() {
    let tmp = tempfile::tempdir().unwrap();
    let [rc1, rc3] = BARE;
    let output = start(&[rc1, rc3, "-Slog-stderr-level=6", "true"], tmp.path());
    let log = String::from_utf8_lossy(&output.stderr);
    for line in ["rc1-none: init->quorum", "cleanup-none: cleanup->", "rc3-none: finalize->"] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    assert!(output.status.success());
    let output = start(&[rc1, "-Sbroker.rc3_path=exit 3", "true"], tmp.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_folder_that_has_gone_is_no_place_to_start_in() {
    let tmp = tempfile::tempdir().unwrap();
    let line = "mkdir gone && cd gone && rmdir ../gone && exec \"$0\" start true";
    let output = Command::new("/bin/sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_flux")])
        .current_dir(&tmp)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let why = "flux-start: Unable to get current working directory: No such file or directory";
    assert!(said.contains(why), "{said}");
}

#[test]
fn what_was_pushed_for_the_cleanup_runs_without_jobs_too() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("done");
    let program = format!("echo 'echo yes >{}' | flux admin cleanup-push", file.display());
    let [rc1, rc3] = BARE;
    says(&[rc1, rc3, &program], tmp.path());
    assert_eq!(std::fs::read_to_string(file).unwrap(), "yes\n");
    let fails = start(&[rc1, rc3, "flux", "admin", "cleanup-push", "false"], tmp.path());
    assert_eq!(fails.status.code(), Some(1), "{fails:?}");
}

#[test]
fn directories_that_nobody_named_go_with_the_instance() {
    let tmp = tempfile::tempdir().unwrap();
    let program = "for a in rundir statedir; do d=$(flux getattr $a); test -d $d; \
                   echo $d $(flux getattr $a-cleanup); done; \
                   $(flux getattr rundir)/bin/flux getattr size; \
                   flux run true; ls $(flux getattr statedir)";
    let said = says(&[program], tmp.path());
    let lines: Vec<&str> = said.lines().collect();
    let [rundir, statedir, size, file] = lines[..] else { panic!("{said}") };
    for line in [rundir, statedir] {
        assert!(line.starts_with(tmp.path().to_str().unwrap()) && line.ends_with(" 1"), "{said}");
    }
    assert_eq!((size, file), ("1", "content.sqlite"));
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0, "{said}");

    let kept = tmp.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    let set = format!("-Sstatedir={}", kept.display());
    assert_eq!(says(&[&set, "flux getattr statedir-cleanup"], tmp.path()), "0\n");
    assert!(kept.join("content.sqlite").is_file());
}

#[test]
fn a_quorum_and_limits_that_make_no_sense_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    for (attr, words) in [
        ("broker.quorum=9-10", "Error parsing broker.quorum attribute: '9-10'"),
        ("broker.quorum=99", "more than there are in an instance of size 1"),
        ("broker.quorum=many", "no number of brokers"),
        ("broker.quorum-timeout=x", "broker.quorum-timeout: 'x' is no duration"),
        ("broker.quorum-warn=x", "broker.quorum-warn: 'x' is no duration"),
        ("broker.cleanup-timeout=x", "broker.cleanup-timeout: 'x'"),
        ("broker.shutdown-timeout=1y", "broker.shutdown-timeout: '1y'"),
    ] {
        let output = start(&[&format!("-S{attr}"), "true"], tmp.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{attr}: {said}");
    }
    let older = start(&["-s", "2", "-Sbroker.quorum=0-1", "true"], tmp.path());
    assert!(older.status.success());
    assert!(String::from_utf8_lossy(&older.stderr).contains("assuming ranks 0-1"), "{older:?}");
    let values = "for a in quorum quorum-warn cleanup-timeout; do flux getattr broker.$a; done";
    let said = says(&["-s", "2", "-Sbroker.cleanup-timeout=3h", values], tmp.path());
    assert_eq!(said, "2\n1m\n3h\n");
}

#[test]
fn a_shell_wants_a_terminal() {
    let tmp = tempfile::tempdir().unwrap();
    let output = start(&[], tmp.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("stdin is not a tty"), "{output:?}");
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0, "nothing is left behind");
}

/// The first thing that anybody asks of an instance, as soon as it can be asked.
#[test]
fn resources_are_known_to_the_first_who_asks() {
    let tmp = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let said = says(&["-s", "3", "flux", "resource", "info"], tmp.path());
        assert!(said.starts_with("3 Nodes, "), "{said}");
    }
}

#[test]
fn a_dump_without_a_backing_store_is_told_that_there_is_none() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("x.tar");
    let program = format!("flux dump --checkpoint {}", file.display());
    let rc1 = "-Sbroker.rc1_path=flux module load content";
    let output = start(&[rc1, &program], tmp.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line =
        "flux-dump: error fetching checkpoints: checkpoint get unavailable, no backing store";
    assert!(said.contains(line), "{said}");
}

#[test]
fn an_instance_whose_rc1_fails_tells_systemd_not_to_try_again() {
    let tmp = tempfile::tempdir().unwrap();
    let rc1 = "-Sbroker.rc1_path=false";
    let code = |args: &[&str]| start(args, tmp.path()).status.code();
    assert_eq!(code(&[rc1, "true"]), Some(1));
    // What the script has told is told on, and logged once.
    let output = start(&["-Sbroker.rc1_path=exit 23", "true"], tmp.path());
    assert_eq!(output.status.code(), Some(23));
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(log.matches("rc1.0: exit 23 Exited (rc=23)").count(), 1, "{log}");
    assert_eq!(log.matches("exit 23").count(), 1, "{log}");
    assert_eq!(code(&[rc1, "-Sbroker.exit-norestart=42", "true"]), Some(42));
    let recovery = "-Sbroker.recovery-mode=1";
    assert_eq!(code(&[rc1, recovery, "-Sbroker.exit-norestart=42", "true"]), Some(0));
}

#[test]
fn folders_of_the_users_own_add_scripts_to_rc1_and_rc3() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = |name: &str| tmp.path().join(name);
    for (file, text) in [("a/rc1.d/1", "first"), ("b/rc1.d/1", "second"), ("b/rc3.d/1", "last")] {
        std::fs::create_dir_all(dir(file).parent().unwrap()).unwrap();
        std::fs::write(dir(file), format!("#!/bin/sh\necho {text} $(flux getattr size)\n"))
            .unwrap();
        std::fs::set_permissions(dir(file), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let extra = format!("{}:{}", dir("a").display(), dir("b").display());
    let args = ["-Slog-stderr-level=6", "-Sconf.rc_path=/no/such", "echo program"];
    let output = command(&args, tmp.path()).env("FLUX_RC_EXTRA", extra).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr);
    let scripts: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("]: ").map(|(_, text)| text))
        .filter(|text| text.ends_with(" 1"))
        .collect();
    assert_eq!(scripts, ["rc1.0: first 1", "rc1.0: second 1", "rc3.0: last 1"], "{log}");
}

#[test]
fn a_socket_is_refused_where_there_can_be_none_of_the_owners() {
    let tmp = tempfile::tempdir().unwrap();
    let long = tmp.path().join("x".repeat(120));
    let readonly = tmp.path().join("readonly");
    let file = tmp.path().join("file");
    std::fs::write(&file, "").unwrap();
    for dir in [&long, &readonly] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::set_permissions(&readonly, PermissionsExt::from_mode(0o500)).unwrap();
    for (attr, words) in [
        ("local-uri=baduri".to_owned(), "'baduri' is malformed"),
        ("local-uri=local:///no/such/x".to_owned(), "cannot stat /no/such: No such file"),
        (format!("local-uri=local://{}/x", readonly.display()), "owner=rwx permissions"),
        (format!("local-uri=local://{}/x", file.display()), "file: Not a directory"),
        (format!("local-uri=local://{}/x", long.display()), "exceeds max 107"),
        (format!("rundir={}", long.display()), "exceeds max 107"),
    ] {
        let output = start(&[&format!("-S{attr}"), "true"], tmp.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("local-uri"), "{attr}: {said}");
        assert!(said.contains(words), "{attr}: {said}");
    }
}

/// `srun flux start` and the like.
#[test]
fn programs_of_an_instance_do_not_take_themselves_for_tasks_of_the_launcher() {
    let tmp = tempfile::tempdir().unwrap();
    let [rc1, rc3] = BARE;
    let names = ["SLURM_JOB_ID", "PALS_RANKID", "PMIX_RANK", "FLUX_ENCLOSING_ID"];
    let mut outer = command(&[rc1, rc3, "env; flux exec env"], tmp.path());
    outer.envs(names.map(|name| (name, "7"))).env("SLURMISH", "7");
    let said = String::from_utf8(outer.output().unwrap().stdout).unwrap();
    assert_eq!(said.lines().filter(|line| line.ends_with("=7")).count(), 2, "{said}");
    let inner = "flux run flux start -Sbroker.rc1_path= -Sbroker.rc3_path= \
                 'env | grep -E \"FLUX_(JOB|TASK|ENCLOSING)\"'; flux job last";
    let said = says(&[inner], tmp.path());
    let lines: Vec<&str> = said.lines().collect();
    let [enclosing, id] = lines[..] else { panic!("{said}") };
    assert_eq!(enclosing, format!("FLUX_ENCLOSING_ID={id}"));
}

/// Start an instance whose `script` makes the file `began` and then takes its time; end it by a
/// signal. What it has said, and its exit code.
fn interrupted(args: &[&str], tmp: &Path) -> (String, Option<i32>) {
    let mut command = command(args, tmp);
    let broker = command.current_dir(tmp).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let broker = broker.unwrap();
    while !tmp.join("began").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = nix::unistd::Pid::from_raw(broker.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = broker.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.code())
}

#[test]
fn a_signal_ends_an_rc1_with_all_that_it_has_started() {
    let tmp = tempfile::tempdir().unwrap();
    let rc1 = "-Sbroker.rc1_path=sleep 1000 & echo $! > pid; touch began; wait";
    let (said, code) = interrupted(&[rc1, "echo", "the-program"], tmp.path());
    assert!(said.contains("Hangup (rc=129)") && !said.contains("the-program\n"), "{said}");
    assert_eq!(code, Some(129), "{said}");
    let pid = std::fs::read_to_string(tmp.path().join("pid")).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    // Its parent is gone: whoever inherits it may take a moment.
    while std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_a_cleanup_that_does_not_end() {
    let tmp = tempfile::tempdir().unwrap();
    let program = "flux admin cleanup-push 'touch began; sleep 1000'";
    let (said, code) = interrupted(&[program], tmp.path());
    assert!(said.contains("cleanup: ended by SIGTERM"), "{said}");
    assert_eq!(code, Some(1), "{said}");
}
