//! `flux start` and other launchers of brokers. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use flux_client::{Client, Request};
use flux_protocol::payload::{decode_json, encode_json};
use serde_json::{Value, json};

/// Longer than anything takes on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);
const FLUX: &str = env!("CARGO_BIN_EXE_flux");

fn broker() -> PathBuf {
    let broker = Path::new(FLUX).with_file_name("flux-broker");
    assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
    broker
}

/// A program outside any instance, with a folder for temporary files of its own.
fn clean(program: impl AsRef<std::ffi::OsStr>, tmp: &Path) -> Command {
    broker();
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env("TMPDIR", tmp).env("LANG", "C.UTF-8").env("SHELL", "/bin/sh");
    for name in ["FLUX_URI", "PMI_FD", "PMI_RANK", "PMI_SIZE", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

/// `flux start ARGS...`; `flux` among them is this build's.
fn start(args: &[&str], tmp: &Path) -> Output {
    let args = args.iter().map(|arg| if *arg == "flux" { FLUX } else { arg });
    let mut command = clean("timeout", tmp);
    command.arg(LIMIT.as_secs().to_string()).args([FLUX, "start"]).args(args).output().unwrap()
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_broker_of_a_set_runs_commands() {
    let tmp = tempfile::tempdir().unwrap();
    let output = start(&["-s", "4", "flux", "exec", "flux", "getattr", "rank"], tmp.path());
    let said = text(&output.stdout);
    let mut ranks: Vec<&str> = said.lines().collect();
    ranks.sort_unstable();
    assert_eq!(ranks, ["0", "1", "2", "3"], "{}", text(&output.stderr));
}

#[test]
fn nothing_of_an_instance_is_left_when_it_has_ended() {
    let tmp = tempfile::tempdir().unwrap();
    let mark = format!("FLUX_TEST_MARK={}", tmp.path().display());
    let mut command = clean(FLUX, tmp.path());
    command.args(["start", "-s", "4", "true"]).env("FLUX_TEST_MARK", tmp.path());
    assert!(command.status().unwrap().success());
    let left: Vec<_> = std::fs::read_dir(tmp.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let ours = processes.filter(|process| {
        // Of somebody else's it can not be read.
        let environ = std::fs::read(process.path().join("environ")).unwrap_or_default();
        text(&environ).split('\0').any(|variable| variable == mark)
    });
    let ours: Vec<_> = ours.map(|process| process.file_name()).collect();
    assert!(ours.is_empty(), "processes {ours:?}");
}

#[test]
fn test_hosts_and_cliques_are_what_the_brokers_believe() {
    let tmp = tempfile::tempdir().unwrap();
    let facts = "flux getattr hostlist; flux getattr broker.mapping; \
                 flux exec -r 1 flux getattr hostname";
    let facts = facts.replace("flux ", &format!("{FLUX} "));
    let run = |args: &[&str]| {
        let output = start(&[args, &["sh", "-c", &facts]].concat(), tmp.path());
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    let alone = run(&["-s", "2", "--test-hosts=c[3-4]", "--test-pmi-clique=per-broker"]);
    assert_eq!(alone, "c[3-4]\n[[0,2,1,1]]\nc4\n");
    let single = run(&["-s", "2", "--test-hosts=c[3-4]"]);
    assert_eq!(single, "c[3-4]\n[[0,1,2,1]]\nc4\n");
    for (args, error) in [
        (vec!["-s", "2", "--test-hosts=c3", "true"], "hostlist has incorrect size"),
        (vec!["--test-hosts=c3", "true"], "--test-hosts only works with --test-size=N"),
        (vec!["-s", "0", "true"], "--test-size argument must be > 0"),
        (vec!["-s", "1", "--test-exit-mode=x", "true"], "unknown --test-exit-mode argument 'x'"),
    ] {
        let output = start(&args, tmp.path());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains(error), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_log_that_can_not_be_written_ends_the_start() {
    let tmp = tempfile::tempdir().unwrap();
    for name in ["", "/nonexistent/log"] {
        let output = start(&[&format!("-Slog-filename={name}"), "true"], tmp.path());
        let error = format!("log-filename: '{name}': No such file or directory");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(&error), "{}", text(&output.stderr));
    }
}

/// A shell around a script would get the signals that are meant for the script.
#[test]
fn a_script_is_started_without_a_shell_and_a_line_with_one() {
    let tmp = tempfile::tempdir().unwrap();
    let script = tmp.path().join("script");
    std::fs::write(&script, "#!/bin/sh\ncat /proc/$PPID/comm\n").unwrap();
    Command::new("chmod").arg("+x").arg(&script).status().unwrap();
    let run = |line: &str| text(&start(&["-s", "1", line], tmp.path()).stdout);
    assert_eq!(run(&script.display().to_string()), "flux-broker-0\n");
    assert_eq!(run(&format!("{}; true", script.display())), "sh\n");
}

#[test]
fn a_broker_that_is_put_in_front_is_the_one_that_starts() {
    let tmp = tempfile::tempdir().unwrap();
    let program = tmp.path().join("flux-broker");
    let other = |text: &str, mode| {
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
        let run = |args: &[&str]| {
            let mut command = clean(FLUX, tmp.path());
            command.arg("start").args(args).args(["echo", "hi"]).current_dir(tmp.path());
            let output = command.env("FLUX_EXEC_PATH_PREPEND", "/no/such:.").output().unwrap();
            (output.status.success(), text_of(&output))
        };
        [run(&[]), run(&["-s", "1"])]
    };
    let wrapper = format!("#!/bin/sh\necho wrapped\nexec {} \"$@\"\n", broker().display());
    for (success, said) in other(&wrapper, 0o755) {
        assert!(success && said.starts_with("wrapped\nhi\n"), "{said}");
    }
    for (success, said) in other("#!/no/such/interpreter\n", 0o755) {
        assert!(!success && said.contains("No such file or directory"), "{said}");
    }
    for (success, said) in other("no program", 0o644) {
        assert!(success && said.starts_with("hi\n"), "{said}");
    }
}

#[test]
fn an_instance_tells_whether_its_rundir_goes_with_it() {
    let tmp = tempfile::tempdir().unwrap();
    let given = tmp.path().display().to_string();
    for (args, expected) in [
        (vec![], "1\n"),
        (vec![format!("-Srundir={given}")], "0\n"),
        (vec![format!("-Srundir={given}/new")], "1\n"),
        (vec![format!("-Srundir={given}/kept"), "-Srundir-cleanup=0".to_owned()], "0\n"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let args = [&args, &["flux", "getattr", "rundir-cleanup"][..]].concat();
        let output = start(&args, tmp.path());
        assert_eq!(text(&output.stdout), expected, "{args:?} {}", text(&output.stderr));
    }
    assert!(tmp.path().join("kept").is_dir() && !tmp.path().join("new").exists());
}

#[test]
fn who_repairs_an_instance_from_a_shell_is_told_where_it_is() {
    let tmp = tempfile::tempdir().unwrap();
    let state = tmp.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let state = state.display().to_string();
    let started = start(&["-s", "1", &format!("-Sstatedir={state}"), "true"], tmp.path());
    assert!(started.status.success(), "{started:?}");
    // On a terminal at which somebody has typed the end of input already.
    let terminal = nix::pty::openpty(None, None).unwrap();
    nix::unistd::write(&terminal.master, b"\x04").unwrap();
    let mut command = clean("timeout", tmp.path());
    command.args(["--foreground", &LIMIT.as_secs().to_string(), FLUX, "start", "-s", "1"]);
    command.arg(format!("--recovery={state}")).stdin(terminal.slave);
    let output = command.output().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("| Entering Flux recovery mode."), "{output:?}");
    assert!(said.contains(&format!("| statedir           {state}\n")), "{said}");
}

/// A `flux start` whose brokers are started and killed one by one.
struct Controlled {
    dir: tempfile::TempDir,
    start: Child,
    runtime: tokio::runtime::Runtime,
}

impl Controlled {
    fn start(args: &[&str]) -> Controlled {
        let dir = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let start = clean(FLUX, dir.path())
            .arg("start")
            .arg(format!("--test-rundir={}", dir.path().join("run").display()))
            .args(["-Sbroker.rc2_none", "--test-exit-timeout=none"])
            .args(args)
            .stderr(log)
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let controlled = Controlled { dir, start, runtime };
        controlled.until("the service", || controlled.socket().exists());
        controlled
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/start")
    }

    /// The error is a number of errno(3): ENOTCONN where nobody is there to be asked any more.
    fn ask(&self, topic: &'static str, request: Value) -> Result<Value, u32> {
        const ENOTCONN: u32 = 107;
        let uri = format!("local://{}", self.socket().display());
        let answer = self.runtime.block_on(async {
            let client = Client::open(Some(&uri)).await.map_err(|_| ENOTCONN)?;
            let request = Request::new(topic).payload(encode_json(&request).unwrap());
            client.rpc_raw(request).await.map_err(|error| error.errno().0)
        })?;
        assert!(answer.cred.is_owner(), "clients of flux-core drop a response without a role");
        let payload = answer.payload.as_ref();
        Ok(payload.map_or(Value::Null, |payload| decode_json(Some(payload)).unwrap()))
    }

    /// Which brokers run.
    fn running(&self) -> Vec<bool> {
        let status = self.ask("start.status", json!({})).unwrap();
        let procs = status["procs"].as_array().unwrap();
        procs.iter().map(|proc| proc["pid"].as_i64().unwrap() > 0).collect()
    }

    fn says(&self, rank: u32, command: &str) -> String {
        let uri = format!("local://{}/run/local-{rank}", self.dir.path().display());
        let mut flux = clean("timeout", self.dir.path());
        flux.args([&LIMIT.as_secs().to_string(), FLUX]).args(command.split(' '));
        let output = flux.env("FLUX_URI", uri).output().unwrap();
        text(&[output.stdout, output.stderr].concat()).trim().to_owned()
    }

    fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !condition() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(begin.elapsed() < LIMIT, "never: {what}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Controlled {
    fn drop(&mut self) {
        let running = if self.socket().exists() { self.running() } else { Vec::new() };
        for rank in 0..running.len() {
            // It ends with the last of its brokers, and does not wait to be asked about others.
            let _ = self.ask("start.kill", json!({ "rank": rank, "signum": 9 }));
        }
        let _ = self.start.wait();
    }
}

#[test]
fn the_leader_may_be_started_alone_and_the_others_one_by_one() {
    let set = Controlled::start(&["-s", "3", "--test-start-mode=leader"]);
    assert_eq!(set.running(), [true, false, false]);
    assert_eq!(set.ask("start.run", json!({ "rank": 2 })), Ok(Value::Null));
    assert_eq!(set.ask("start.run", json!({ "rank": 1 })), Ok(Value::Null));
    set.until("full", || set.says(0, "overlay status --summary") == "full");
    const EEXIST: u32 = 17;
    const ESRCH: u32 = 3;
    assert_eq!(set.ask("start.run", json!({ "rank": 1 })), Err(EEXIST));
    assert_eq!(set.ask("start.run", json!({ "rank": 9 })), Err(ESRCH));
    // One ends in good order, and one does not.
    assert_eq!(set.ask("start.kill", json!({ "rank": 2, "signum": 15 })), Ok(Value::Null));
    assert_eq!(set.ask("start.wait", json!({ "rank": 2 })), Ok(json!({ "exit_rc": 0 })));
    assert_eq!(set.ask("start.kill", json!({ "rank": 1, "signum": 9 })), Ok(Value::Null));
    assert_eq!(set.ask("start.wait", json!({ "rank": 1 })), Ok(json!({ "exit_rc": 137 })));
    assert_eq!(set.running(), [true, false, false]);
    set.until("lost and offline", || {
        let status = set.says(0, "overlay status --down --no-pretty");
        status.contains(": lost") && status.contains(": offline")
    });
}

#[test]
fn the_others_are_killed_when_the_leader_has_ended_and_the_time_is_over() {
    let tmp = tempfile::tempdir().unwrap();
    let args = ["-s", "2", "--test-exit-mode=leader", "--test-exit-timeout=0.1s"];
    // Rank 1 is stopped, so it can not end by itself.
    let stop = "kill -STOP $(flux exec -r 1 sh -c \"echo \\$PPID\"); kill -9 $PPID";
    let stop = stop.replace("flux ", &format!("{FLUX} "));
    let output = start(&[&args[..], &["sh", "-c", &stop]].concat(), tmp.path());
    let said = text(&output.stderr);
    assert!(said.contains("timeout: killing 1 of 2 brokers"), "{said}");
    assert_eq!(output.status.code(), Some(137), "{said}");
}

#[test]
fn followers_that_the_failed_leader_never_heard_of_do_not_wait_for_it() {
    let tmp = tempfile::tempdir().unwrap();
    let conf = tmp.path().join("r.toml");
    std::fs::write(&conf, "[resource]\npath = \"/no/R\"\n").unwrap();
    let option = format!("--config-path={}", conf.display());
    // Some of the brokers have got to their parent before it ended, and some have not.
    let output = start(&["-s", "8", "-o", &option, "true"], tmp.path());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/no/R: No such file"), "{said}");
    assert!(!said.contains("timeout: killing"), "{said}");
}

/// As small as a launcher of that protocol can be.
#[test]
fn any_launcher_that_speaks_pmi_1_can_start_an_instance() {
    const SIZE: usize = 3;
    let tmp = tempfile::tempdir().unwrap();
    let kvs = Arc::new(Mutex::new(HashMap::new()));
    let barrier = Arc::new(Barrier::new(SIZE));
    let mut brokers: Vec<Child> = Vec::new();
    for rank in 0..SIZE {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let no_flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
        nix::fcntl::fcntl(&theirs, no_flags).unwrap();
        let mut command = clean(broker(), tmp.path());
        command
            .env("PMI_FD", theirs.as_raw_fd().to_string())
            .env("PMI_RANK", rank.to_string())
            .env("PMI_SIZE", SIZE.to_string())
            .stdout(Stdio::piped());
        if rank == 0 {
            command.arg(format!("{FLUX} overlay status --wait=full --summary"));
        }
        brokers.push(command.spawn().unwrap());
        let (kvs, barrier) = (kvs.clone(), barrier.clone());
        std::thread::spawn(move || serve_pmi(ours, SIZE, &kvs, &barrier));
    }
    let outputs: Vec<Output> =
        brokers.into_iter().map(|broker| broker.wait_with_output().unwrap()).collect();
    assert_eq!(text(&outputs[0].stdout), "full\n");
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
}

/// Libraries of a launcher that offers nothing else; the dynamic linker finds them, as Slurm's.
#[test]
fn launchers_that_offer_a_library_can_start_an_instance() {
    const SIZE: usize = 3;
    for (library, flag) in [("libpmi", "-UPMI2"), ("libpmi2", "-DPMI2")] {
        let tmp = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launcher/pmi.c");
        let file = tmp.path().join(format!("{library}.so"));
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-Wall", flag, "-o"]).arg(&file).arg(source);
        assert!(gcc.status().unwrap().success(), "gcc");
        let start = |rank: usize| {
            let mut command = clean(broker(), tmp.path());
            let status = format!(
                "{FLUX} overlay status --wait=full --summary; {FLUX} getattr broker.boot-method"
            );
            command
                .arg(status)
                .env("LD_LIBRARY_PATH", tmp.path())
                .env("LAUNCH_DIR", tmp.path())
                .env("LAUNCH_RANK", rank.to_string())
                .env("LAUNCH_SIZE", SIZE.to_string())
                .stdout(Stdio::piped());
            command.spawn().unwrap()
        };
        let brokers: Vec<Child> = (0..SIZE).map(start).collect();
        let outputs: Vec<Output> =
            brokers.into_iter().map(|broker| broker.wait_with_output().unwrap()).collect();
        assert_eq!(text(&outputs[0].stdout), format!("full\n{library}\n"));
        assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    }
}

/// MPICH's launcher offers PMI-1 to what it starts.
#[test]
fn mpiexec_can_start_an_instance() {
    let tmp = tempfile::tempdir().unwrap();
    let mut version = clean("mpiexec.mpich", tmp.path());
    if version.arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no mpiexec.mpich here");
        return;
    }
    let status = format!("{FLUX} overlay status --wait=full --summary; {FLUX} getattr size");
    let output = clean("timeout", tmp.path())
        .arg(LIMIT.as_secs().to_string())
        .args(["mpiexec.mpich", "-n", "3", FLUX, "start", &status])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "full\n3\n", "{}", text(&output.stderr));
    assert!(output.status.success());
}

fn serve_pmi(
    mut stream: UnixStream,
    size: usize,
    kvs: &Mutex<HashMap<String, String>>,
    barrier: &Barrier,
) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        // A value may have blanks in it, and comes last.
        let (head, value) = line.split_once(" value=").unwrap_or((&line, ""));
        let fields: HashMap<&str, &str> =
            head.split(' ').filter_map(|field| field.split_once('=')).collect();
        let key = fields.get("key").copied().unwrap_or_default();
        let reply = match fields["cmd"] {
            "init" => "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0".to_owned(),
            "get_maxes" => "cmd=maxes kvsname_max=64 keylen_max=64 vallen_max=1024".to_owned(),
            "get_appnum" => "cmd=appnum appnum=0".to_owned(),
            "get_universe_size" => format!("cmd=universe_size size={size}"),
            "get_my_kvsname" => "cmd=my_kvsname kvsname=test".to_owned(),
            "put" => {
                kvs.lock().unwrap().insert(key.to_owned(), value.to_owned());
                "cmd=put_result rc=0 msg=success".to_owned()
            }
            "get" => match kvs.lock().unwrap().get(key) {
                Some(value) => format!("cmd=get_result rc=0 msg=success value={value}"),
                None => "cmd=get_result rc=-1 msg=key_not_found".to_owned(),
            },
            "barrier_in" => {
                barrier.wait();
                "cmd=barrier_out".to_owned()
            }
            "finalize" => "cmd=finalize_ack".to_owned(),
            other => panic!("PMI-1 has no command {other}"),
        };
        stream.write_all(format!("{reply}\n").as_bytes()).unwrap();
    }
}
