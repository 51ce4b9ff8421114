//! Nodes that come late, brokers with next to no surroundings, and what the command says of itself.
//! Two brokers with pretended hosts, started by hand. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(180);

/// With `flux` in it.
fn path() -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_flux")).parent().unwrap();
    format!("{}:/usr/bin:/bin", programs.display())
}

struct System {
    dir: tempfile::TempDir,
    brokers: Vec<Child>,
}

impl System {
    fn configure() -> System {
        let system = System { dir: tempfile::tempdir().unwrap(), brokers: Vec::new() };
        let dir = system.dir.path();
        for name in ["conf", "state"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        let cert = dir.join("curve.cert");
        assert!(system.flux(&["keygen", cert.to_str().unwrap()]).status.success());
        let r = system.flux(&["R", "encode", "--hosts=node[0-1]", "--cores=0"]);
        std::fs::write(dir.join("R"), r.stdout).unwrap();
        let text = format!(
            "[bootstrap]\ncurve_cert = {cert:?}\ndefault_bind = \"ipc://{dir}/%h\"\n\
             default_connect = \"ipc://{dir}/%h\"\nhosts = [{{ host = \"node[0-1]\" }}]\n\
             [resource]\npath = \"{dir}/R\"\nnoverify = true\n",
            dir = dir.display(),
        );
        std::fs::write(dir.join("conf/system.toml"), text).unwrap();
        system
    }

    /// Ranks are started in order.
    fn start(&mut self, more: &[&str]) {
        let flux = Path::new(env!("CARGO_BIN_EXE_flux"));
        let broker = flux.with_file_name("flux-broker");
        assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
        let (rank, dir) = (self.brokers.len(), self.dir.path().display());
        std::fs::create_dir_all(self.dir.path().join(format!("run{rank}"))).unwrap();
        let log = std::fs::File::create(self.dir.path().join(format!("log{rank}"))).unwrap();
        // What systemd leaves of an environment to a user without a home and a shell.
        let child = Command::new(flux)
            .env_clear()
            .env("PATH", path())
            .env("HOME", "/nonexistent")
            .env("SHELL", "/usr/sbin/nologin")
            .env("FLUX_FAKE_HOSTNAME", format!("node{rank}"))
            .current_dir("/")
            .arg("broker")
            .arg(format!("--config-path={dir}/conf"))
            .arg(format!("-Srundir={dir}/run{rank}"))
            .arg(format!("-Sstatedir={dir}/state"))
            .arg(format!("-Slocal-uri=local://{dir}/run{rank}/local"))
            .args(["-Slog-stderr-level=6", "-Slog-stderr-mode=local", "-Sbroker.rc2_none"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.brokers.push(child);
    }

    fn log(&self, rank: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("log{rank}"))).unwrap_or_default()
    }

    fn flux(&self, args: &[&str]) -> Output {
        Command::new("timeout")
            .arg(LIMIT.as_secs().to_string())
            .arg(env!("CARGO_BIN_EXE_flux"))
            .args(args)
            .env("FLUX_URI", format!("local://{}/run0/local", self.dir.path().display()))
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn succeeds(&self, command: &str) -> String {
        let output = self.flux(&command.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{command}: {output:?}\n{}", self.log(0));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    fn until(&self, command: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let output = self.flux(&command.split(' ').collect::<Vec<_>>());
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if wanted(&said) {
                return said;
            }
            assert!(begin.elapsed() < LIMIT, "{command}: {output:?}\n{}", self.log(0));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All brokers at once, without warning.
    fn crash(&mut self) {
        for mut broker in std::mem::take(&mut self.brokers) {
            broker.kill().unwrap();
            broker.wait().unwrap();
        }
    }

    #[track_caller]
    fn shutdown(mut self) {
        self.succeeds("shutdown --quiet");
        for (rank, mut broker) in std::mem::take(&mut self.brokers).into_iter().enumerate() {
            let begin = Instant::now();
            while broker.try_wait().unwrap().is_none() {
                if begin.elapsed() > LIMIT {
                    broker.kill().unwrap();
                    panic!("rank {rank} does not end: {}", self.log(rank));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for broker in &mut self.brokers {
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}

#[test]
fn a_leader_works_while_a_node_is_offline_and_a_drain_is_there_when_the_node_comes() {
    let mut system = System::configure();
    system.start(&["-Sbroker.quorum=1", "-Sbroker.quorum-warn=none"]);
    system.until("uptime", |said| said.contains(" run "));
    assert_eq!(system.succeeds("run pwd"), std::env::current_dir().unwrap().to_str().unwrap());
    let both = system.succeeds("submit -N2 true");
    system.succeeds("resource drain node1 new memory");
    let offline = system.until("resource drain -no {state},{ranks},{reason}", |s| !s.is_empty());
    assert_eq!(offline, "drained*,1,new memory");
    assert!(system.succeeds("resource list -s down -no {nodelist}").contains("node1"));

    system.start(&[]);
    let online = |said: &str| said == "drained,1,new memory";
    system.until("resource drain -no {state},{ranks},{reason}", online);
    let state = system.succeeds(&format!("jobs -no {{state}} {both}"));
    assert_eq!(state, "SCHED", "it has not started on a drained node");
    system.succeeds("resource undrain node1");
    system.succeeds(&format!("job wait-event {both} clean"));
    assert_eq!(system.succeeds(&format!("jobs -no {{status}} {both}")), "COMPLETED");
    system.shutdown();
}

#[test]
fn hosts_that_are_waited_for_are_named_until_there_is_a_quorum() {
    let mut system = System::configure();
    system.start(&["-Sbroker.quorum=2", "-Sbroker.quorum-warn=200ms"]);
    let begin = Instant::now();
    let warned = |log: &str| {
        log.lines().any(|line| line.contains(".warning[0]") || line.contains(".err[0]"))
    };
    while !warned(&system.log(0)) {
        assert!(begin.elapsed() < LIMIT, "{}", system.log(0));
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = system.log(0);
    let warning = log.lines().find(|line| warned(line)).unwrap();
    assert!(warning.contains("quorum") && warning.contains("node1"), "{warning}");
    assert!(system.succeeds("uptime").contains(" quorum "));
    system.start(&[]);
    system.until("uptime", |said| said.contains(" run "));
    assert_eq!(system.succeeds("resource info"), "2 Nodes, 2 Cores, 0 GPUs");
    system.shutdown();
}

/// The leader waits for jobs that do not end and for brokers that do not answer, but not for ever.
#[test]
fn a_shutdown_goes_on_without_who_does_not_end_in_time() {
    let mut system = System::configure();
    let limits = ["-Sbroker.cleanup-timeout=300ms", "-Sbroker.shutdown-timeout=300ms"];
    let quorum = ["-Sbroker.quorum=2", "-Sbroker.quorum-warn=none"];
    system.start(&[&limits[..], &quorum].concat());
    system.start(&[]);
    system.until("uptime", |said| said.contains(" run "));
    let stays = system.dir.path().join("stays");
    // It outlives its instance, and ends with the test's folder.
    let script =
        format!("trap '' TERM; echo >{0}; while [ -e {0} ]; do sleep 0.05; done", stays.display());
    assert!(system.flux(&["submit", "-N1", "sh", "-c", &script]).status.success());
    let begin = Instant::now();
    while !stays.exists() {
        assert!(begin.elapsed() < LIMIT, "{}", system.log(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    let signal = |child: &Child, signal: &str| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    signal(&system.brokers[1], "-STOP");
    signal(&system.brokers[0], "-TERM");
    let begin = Instant::now();
    while system.brokers[0].try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < LIMIT, "the leader waits: {}", system.log(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = system.log(0);
    for line in [
        "cleanup: not done in broker.cleanup-timeout",
        "shutdown timeout: node1 not gone in broker.shutdown-timeout",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
}

#[test]
fn scripts_of_another_folder_run_in_place_of_the_sites() {
    let dir = tempfile::tempdir().unwrap();
    let scripts = dir.path().join("scripts");
    for name in ["conf", "scripts"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    for (name, mode) in [("first", 0o755), ("second", 0o755), ("no-program", 0o644)] {
        let file = scripts.join(name);
        std::fs::write(&file, format!("#!/bin/sh\necho {name} of $FLUX_JOB_ID\n")).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    }
    let flux = env!("CARGO_BIN_EXE_flux");
    let text = format!(
        "[job-manager]\nplugins = [{{ load = \"perilog.so\" }}]\n[job-manager.prolog]\n\
         command = [{flux:?}, \"perilog-run\", \"prolog\", \"-d\", {scripts:?}]\n"
    );
    std::fs::write(dir.path().join("conf/a.toml"), text).unwrap();
    let program = "flux run true && flux job last && flux dmesg";
    let output = Command::new("timeout")
        .args(["180", flux, "start"])
        .arg(format!("-o,--config-path={}/conf", dir.path().display()))
        .args(["sh", "-c", program])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let id = said.lines().next().unwrap();
    let mut printed: Vec<&str> =
        said.lines().filter_map(|line| line.split_once("stdout: ")).map(|(_, text)| text).collect();
    // They run at the same time.
    printed.sort_unstable();
    assert_eq!(printed, [format!("first of {id}"), format!("second of {id}")], "{said}");
}

#[test]
fn who_asks_why_a_job_waits_learns_whose_prolog_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let (script, go) = (dir.path().join("script"), dir.path().join("go"));
    let text = format!(
        "#!/bin/sh\ntest $(flux getattr rank) = 0 && exit\n\
         while ! test -e {go:?}; do sleep 0.1; done\n"
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let forms = [
        format!("command = [\"flux\", \"perilog-run\", \"prolog\", \"-e\", {script:?}]"),
        format!("command = [{script:?}]\nper-rank = true"),
    ];
    for form in forms {
        let text = format!(
            "[job-manager]\nplugins = [{{ load = \"perilog.so\" }}]\n[job-manager.prolog]\n{form}\n"
        );
        std::fs::write(dir.path().join("a.toml"), text).unwrap();
        let program = format!(
            "id=$(flux submit -N2 true)\n\
             until flux job why $id | grep 'perilog: prolog is not done yet on c4$'; do sleep 0.1; done\n\
             touch {go:?}; flux job wait-event $id finish >/dev/null; flux job why $id; rm {go:?}"
        );
        let output = Command::new("timeout")
            .args(["180", env!("CARGO_BIN_EXE_flux"), "start", "-s2", "--test-hosts=c[3-4]"])
            .arg(format!("-o,--config-path={}", dir.path().join("a.toml").display()))
            .args(["sh", "-c", &program])
            .env("PATH", path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{form}: {output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        // What was told is taken back with the prolog's end.
        assert_eq!(said.matches("not done yet").count(), 1, "{form}: {said}");
    }
}

/// Many at once and on a disk, since it is then that R of one job waits for what others have stored.
#[test]
fn prologs_find_the_resources_of_their_jobs_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[job-manager]\nplugins = [{ load = \"perilog.so\" }]\n[job-manager.prolog]\n\
                command = [\"sh\", \"-c\", \"flux job info $FLUX_JOB_ID R && flux job eventlog \
                $FLUX_JOB_ID | grep alloc\"]\n";
    std::fs::write(dir.path().join("a.toml"), text).unwrap();
    let program = "flux submit --quiet --cc=1-16 true && flux queue drain && \
                   flux jobs -ano {status} | sort | uniq -c && flux dmesg";
    let output = Command::new("timeout")
        .args(["180", env!("CARGO_BIN_EXE_flux"), "start"])
        .arg(format!("-o,--config-path={}", dir.path().display()))
        .arg(format!("-Sstatedir={}", dir.path().display()))
        .args(["sh", "-c", program])
        .env("PATH", path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said.lines().next().unwrap().trim(), "16 COMPLETED", "{said}");
}

#[test]
fn prologs_that_were_under_way_at_a_crash_wait_for_their_nodes_and_run_again() {
    let mut system = System::configure();
    let path = |name: &str| system.dir.path().join(name);
    let (prolog, begun, go) = (path("prolog"), path("begun"), path("go"));
    let text = format!(
        "#!/bin/sh\necho $FLUX_JOB_ID >> {0}\nwhile [ -e {0} ] && [ ! -e {1} ]; do sleep 0.05; done\n",
        begun.display(),
        go.display()
    );
    std::fs::write(&prolog, text).unwrap();
    std::fs::set_permissions(&prolog, PermissionsExt::from_mode(0o755)).unwrap();
    let text = format!(
        "[job-manager]\nplugins = [{{ load = \"perilog.so\" }}]\n[job-manager.prolog]\ncommand = \
         [\"flux\", \"perilog-run\", \"prolog\", \"-d\", {:?}, \"-e\", {prolog:?}]\n",
        path("none")
    );
    std::fs::write(path("conf/prolog.toml"), text).unwrap();
    let leader = ["-Sbroker.quorum=1", "-Sbroker.quorum-warn=none"];
    system.start(&leader);
    system.start(&[]);
    system.until("resource status -s online -no {nnodes}", |said| said == "2");
    let id = system.succeeds("submit -N2 true");
    let times = || std::fs::read_to_string(&begun).unwrap_or_default().lines().count();
    system.until("uptime", |_| times() == 2);
    system.crash();
    std::fs::write(&go, "").unwrap();

    system.start(&leader);
    system.until("uptime", |said| said.contains(" run "));
    system.start(&[]);
    system.succeeds(&format!("job wait-event {id} clean"));
    assert_eq!(system.succeeds(&format!("jobs -no {{status}} {id}")), "COMPLETED");
    assert_eq!(times(), 4);
    let log = system.succeeds(&format!("job eventlog {id}"));
    assert_eq!(log.matches("prolog-start").count(), 1, "{log}");
    system.shutdown();
}

#[test]
fn a_node_with_processes_that_nobody_can_kill_is_drained_and_its_job_ends() {
    for limit in ["max-kill-count = 2", "max-kill-timeout = \"100ms\"\nmax-kill-count = 1000"] {
        unkillable(limit);
    }
}

fn unkillable(limit: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("conf")).unwrap();
    // Out of reach of signals to the shell, and with its output open.
    let shell = dir.path().join("shell");
    let script = format!(
        "#!/bin/sh\nsetsid sh -c 'while [ -d {0} ] && [ ! -e {0}/stop ]; do sleep 0.05; done' &\nexec sleep 1000\n",
        dir.path().display()
    );
    std::fs::write(&shell, script).unwrap();
    std::fs::set_permissions(&shell, PermissionsExt::from_mode(0o755)).unwrap();
    let text = format!("[exec]\njob-shell = {shell:?}\nkill-timeout = \"20ms\"\n{limit}\n");
    std::fs::write(dir.path().join("conf/a.toml"), text).unwrap();
    let program = format!(
        "id=$(flux submit true) && flux job wait-event $id start >/dev/null && flux cancel $id
         until flux resource drain -no '{{state}} {{reason}}' | grep .; do sleep 0.05; done
         echo $id; flux job wait-event $id clean >/dev/null && test ! -e {0}/stop && echo clean",
        dir.path().display()
    );
    let output = Command::new("timeout")
        .args(["180", env!("CARGO_BIN_EXE_flux"), "start"])
        .arg(format!("-o,--config-path={}/conf", dir.path().display()))
        .args(["sh", "-c", &program])
        .env("PATH", path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    std::fs::write(dir.path().join("stop"), "").unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let reason = format!("unkillable user processes for job {}", lines[1]);
    // The node is in use until the job is given up.
    assert!(lines[0] == format!("draining {reason}") || lines[0] == format!("drained {reason}"));
    assert_eq!(lines[2], "clean", "{said}");
}

#[test]
fn the_command_says_what_it_is_and_what_is_no_command() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flux"));
        command.args(args).env_remove("FLUX_URI").stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for args in [&["version"][..], &["--version"], &["-V"]] {
        let (code, stdout, _) = run(args);
        assert_eq!(code, Some(0), "{args:?}");
        for word in ["commands:", "libflux-core:", env!("CARGO_PKG_VERSION")] {
            assert!(stdout.contains(word), "{args:?}: {stdout}");
        }
    }
    let (code, stdout, _) = run(&["help"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("Usage: flux [OPTIONS] COMMAND ARGS"), "{stdout}");
    let (code, stdout, stderr) = run(&["nope"]);
    let line = "flux: `nope' is not a flux command.  See 'flux --help'\n";
    assert_eq!((code, &*stdout), (Some(1), ""));
    assert!(stderr.starts_with(line), "{stderr}");
}

#[test]
fn help_lists_the_commands_of_other_packages() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"[{"name": "x", "description": "site commands",
                    "commands": [{"name": "mine", "description": "is ours"}]}]"#;
    std::fs::write(dir.path().join("site.json"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_flux"))
        .arg("help")
        .env("FLUX_CMDHELP_PATTERN", format!("{}/*.json", dir.path().display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("\nsite commands\n   mine               is ours\n"), "{output:?}");
}

#[test]
fn help_of_a_program_of_its_own_is_what_it_says_itself() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("flux-mine");
    std::fs::write(&program, "#!/bin/sh\necho \"mine: $*\"\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_flux"))
        .args(["help", "mine"])
        .env("FLUX_EXEC_PATH", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"mine: --help\n");
    // A page that another package has.
    let Ok(man) = Command::new("man").arg("--version").output() else {
        return println!("man is not installed: skipped");
    };
    let page = dir.path().join("man/man1/flux-mine.1");
    std::fs::create_dir_all(page.parent().unwrap()).unwrap();
    std::fs::write(&page, ".TH MINE 1\n.SH NAME\nmine \\- what is mine\n").unwrap();
    let shown = Command::new(env!("CARGO_BIN_EXE_flux"))
        .args(["help", "mine"])
        .env("FLUX_EXEC_PATH", dir.path())
        .env("MANPATH", dir.path().join("man"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success() && text.contains("what is mine"), "{shown:?} {man:?}");
}

#[test]
fn a_program_that_can_t_be_run_ends_the_instance_as_it_ends_a_shell() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let nonsense = dir.path().join("nonsense");
    std::fs::write(&nonsense, "nonsense\n").unwrap();
    std::fs::set_permissions(&nonsense, PermissionsExt::from_mode(0o755)).unwrap();
    for (program, code) in [(nonsense, 126), (dir.path().join("nope"), 127)] {
        let output = Command::new("timeout")
            .args(["180", env!("CARGO_BIN_EXE_flux"), "start"])
            .args(["-Sbroker.rc1_path=", "-Sbroker.rc3_path="])
            .arg(program)
            .env("PATH", path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[test]
fn an_attribute_that_would_not_be_looked_at_is_refused() {
    let own = "attribute may not be set on the command line";
    for (setting, why) in [
        ("rank=5", own),
        ("broker.pid=5", own),
        ("instance-level=5", own),
        ("log-levl=5", "unknown attribute"),
        ("foo", "unknown attribute"),
        ("log-syslog-enable", "attribute needs a value, as in -S NAME=VALUE"),
    ] {
        let attr = setting.split('=').next().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_flux"))
            .args(["start", &format!("-S{setting}"), "true"])
            .env("PATH", path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let line = format!("flux-broker: {attr}: {why}");
        assert!(said.lines().any(|found| found == line), "{said}");
    }
}
