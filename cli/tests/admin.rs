//! The commands of the administrator's guide, on a system instance of 16 brokers as the guide has
//! one: configured by files, started by hand, with hosts that are pretended. The programs are those
//! of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SIZE: usize = 16;
/// Longer than anything takes on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(180);

struct System {
    dir: tempfile::TempDir,
    brokers: Vec<Option<Child>>,
}

impl System {
    /// A configuration, and no broker yet. Rank 0 is `fluke25`.
    fn configure() -> System {
        let system = System {
            dir: tempfile::tempdir().unwrap(),
            brokers: (0..SIZE).map(|_| None).collect(),
        };
        let conf = system.path("system/conf.d");
        for dir in [&conf, &system.path("run"), &system.path("state")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let cert = system.path("system/curve.cert");
        system.flux(&["keygen", cert.to_str().unwrap()]);
        let r = system.flux(&["R", "encode", "--hosts=fluke[25-40]", "--cores=0-3"]);
        std::fs::write(system.path("system/R"), r.stdout).unwrap();
        let run = system.path("run");
        let text = format!(
            "[access]\nallow-guest-user = true\nallow-root-owner = true\n\n\
             [bootstrap]\ncurve_cert = \"{cert}\"\ndefault_port = 8050\n\
             default_bind = \"ipc://{run}/%h\"\ndefault_connect = \"ipc://{run}/%h\"\n\
             hosts = [\n  {{ host = \"fluke[25-40]\" }},\n]\n\n\
             [tbon]\ntcp_user_timeout = \"2m\"\n\n\
             [resource]\npath = \"{r}\"\nnoverify = true\n#exclude = \"fluke[39-40]\"\n\n\
             [kvs]\ncheckpoint-period = \"30m\"\n\n\
             [job-manager]\ninactive-age-limit = \"7d\"\n\n\
             [policy.jobspec.defaults.system]\nduration = \"1h\"\n\n\
             [policy.limits]\nduration = \"2h\"\njob-size.max.nnodes = 16\n",
            cert = cert.display(),
            run = run.display(),
            r = system.path("system/R").display(),
        );
        std::fs::write(system.config_file(), text).unwrap();
        system
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config_file(&self) -> PathBuf {
        self.path("system/conf.d/system.toml")
    }

    /// With the arguments of the systemd unit, but for its paths.
    fn start(&mut self, rank: usize) {
        let broker = Path::new(env!("CARGO_BIN_EXE_flux")).with_file_name("flux-broker");
        assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
        let rundir = self.path(&format!("run/{rank}"));
        std::fs::create_dir_all(&rundir).unwrap();
        let log = std::fs::File::create(self.path(&format!("{rank}.log"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_flux"))
            .arg("broker")
            .arg(format!("--config-path={}", self.path("system/conf.d").display()))
            .arg(format!("-Srundir={}", rundir.display()))
            .arg(format!("-Sstatedir={}", self.path("state").display()))
            .arg(format!("-Slocal-uri=local://{}/local", rundir.display()))
            .args(["-Slog-stderr-level=6", "-Slog-stderr-mode=local", "-Sbroker.rc2_none"])
            .args(["-Sbroker.quorum=1", "-Sbroker.quorum-warn=none"])
            .args(["-Sbroker.cleanup-timeout=45s", "-Sbroker.exit-norestart=42"])
            .arg("-Scontent.restore=auto")
            .env("FLUX_FAKE_HOSTNAME", format!("fluke{}", 25 + rank))
            .args(["-Sbroker.sd-notify=1", "-Sbroker.sd-stop-timeout=90s"])
            .env("NOTIFY_SOCKET", self.path(&format!("{rank}.notify")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.brokers[rank] = Some(child);
    }

    fn signal(&self, rank: usize, signal: Signal) {
        let id = self.brokers[rank].as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }

    /// The exit code of a broker that is about to end.
    fn exit_code(&mut self, rank: usize) -> Option<i32> {
        let mut child = self.brokers[rank].take().unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if begin.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("rank {rank} does not end:\n{}", self.log(rank));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Play systemd for a broker that is not started yet: what it is told, in order.
    fn listen(&self, rank: usize) -> mpsc::Receiver<String> {
        let socket = UnixDatagram::bind(self.path(&format!("{rank}.notify"))).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn log(&self, rank: usize) -> String {
        std::fs::read_to_string(self.path(&format!("{rank}.log"))).unwrap_or_default()
    }

    /// A command at rank 0.
    fn flux(&self, args: &[&str]) -> Output {
        self.flux_at(0, args)
    }

    fn flux_at(&self, rank: usize, args: &[&str]) -> Output {
        Command::new("timeout")
            .arg(LIMIT.as_secs().to_string())
            .arg(env!("CARGO_BIN_EXE_flux"))
            .args(args)
            .env("FLUX_URI", format!("local://{}/run/{rank}/local", self.dir.path().display()))
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What it prints on either stream, words apart by one blank.
    fn says(&self, command: &str) -> String {
        let output = self.flux(&command.split(' ').collect::<Vec<_>>());
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect::<Vec<_>>().join("\n")
    }

    fn succeeds(&self, command: &str) {
        let output = self.flux(&command.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{command}: {output:?}");
    }

    /// Ask again until the answer is the wanted one.
    fn until(&self, command: &str, wanted: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        loop {
            let said = self.says(command);
            if wanted(&said) {
                return;
            }
            assert!(begin.elapsed() < LIMIT, "flux {command} still says: {said}\n{}", self.log(0));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn until_online(&self, count: usize) {
        self.until("resource status -s online -no {nnodes}", |said| said == count.to_string());
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for mut child in self.brokers.iter_mut().filter_map(Option::take) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_guides_commands_do_what_the_guide_says() {
    let mut system = System::configure();
    let (leader, member) = (system.listen(0), system.listen(1));
    // In any order; nobody comes online before its parent.
    for rank in (1..SIZE).rev() {
        system.start(rank);
    }
    // Systemd must not wait for it until the leader comes.
    let told = member.recv_timeout(LIMIT).unwrap();
    assert!(told.starts_with("READY=1\nSTATUS=Joining Flux instance via ipc://"), "{told}");
    let refused = system.flux_at(1, &["submit", "true"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("broker is offline"), "{refused:?}");
    let state = system.flux_at(1, &["uptime"]).stdout;
    assert!(String::from_utf8_lossy(&state).contains(" join "), "{state:?}");
    system.start(0);
    system.until_online(SIZE);
    tells(&leader, "READY=1\nSTATUS=Running as leader of 16 node Flux instance");
    tells(&member, "READY=1\nSTATUS=Running as member of 16 node Flux instance");
    system.until("overlay status --summary", |said| said == "full");
    let log = system.log(2);
    for line in ["start: none->join", "parent-ready: join->init", "quorum-full: quorum->run"] {
        assert!(log.contains(&format!("broker.info[2]: {line} ")), "{log}");
    }

    status_of_resources(&system);
    draining(&system);
    queues(&system);
    jobs(&system);
    overlay(&system);
    configuration(&system);
    leaving(&mut system);
    crash(&mut system);
    shutdown(&mut system, &leader);
}

fn tells(systemd: &mpsc::Receiver<String>, text: &str) {
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != text) {
        let next = systemd.recv_timeout(LIMIT);
        told.push(next.unwrap_or_else(|_| panic!("{text} is not in {told:?}")));
    }
}

fn status_of_resources(system: &System) {
    system.succeeds("resource drain fluke25 management");
    assert_eq!(
        system.says("resource status"),
        "STATUS NNODES RANKS NODELIST\navail 15 1-15 fluke[26-40]\ndrained 1 0 fluke25"
    );
    assert_eq!(
        system.says("resource status --states=offline,exclude"),
        "STATUS NNODES RANKS NODELIST\noffline 0\nexclude 0"
    );
    assert_eq!(system.says("resource status -s all -no {nodelist}"), "fluke[25-40]");
    assert_eq!(
        system.says("resource list"),
        "STATE NNODES NCORES NGPUS NODELIST\nfree 15 60 0 fluke[26-40]\nallocated 0 0 0\n\
         down 1 4 0 fluke25"
    );
    assert_eq!(
        system.says("resource list -v"),
        "STATE NNODES NCORES NGPUS LIST\nfree 15 60 0 rank[1-15]/core[0-3]\nallocated 0 0 0\n\
         down 1 4 0 rank0/core[0-3]"
    );
    assert_eq!(system.says("resource info"), "16 Nodes, 64 Cores, 0 GPUs");
    system.succeeds("resource undrain 0");
}

/// Work on a node that is drained goes on, and then the node is drained.
fn draining(system: &System) {
    let go = system.path("go");
    let line = format!("until test -e {}; do sleep 0.1; done", go.display());
    let job = system.flux(&["submit", "-N16", "sh", "-c", &line]);
    assert!(job.status.success(), "{job:?}");
    system.until("resource list -s allocated -no {nnodes}", |said| said == "16");
    system.succeeds("resource drain fluke31 node is fubar");
    let listed = system.says("resource drain");
    let (head, row) = listed.split_once('\n').unwrap();
    assert_eq!(head, "TIMESTAMP STATE RANK REASON NODELIST");
    let (time, row) = row.split_once(' ').unwrap();
    assert_eq!(row, "draining 6 node is fubar fluke31");
    assert!(time.len() == 19 && time.contains('T'), "{time}");
    let again = system.says("resource drain 6 again");
    assert!(again.contains("rank 6 already drained"), "{again}");
    std::fs::write(&go, "").unwrap();
    system.until("resource drain -no {state}", |said| said == "drained");
    system.succeeds("resource undrain fluke31");
    assert_eq!(system.says("resource drain"), "TIMESTAMP STATE RANK REASON NODELIST");
    assert!(system.says("resource undrain 6").contains("rank 6 not drained"));
}

fn queues(system: &System) {
    let open = "flux-queue: Job submission is enabled\nflux-queue: Scheduling is enabled";
    assert_eq!(system.says("queue status"), open);
    let unexplained = system.says("queue disable --message=");
    assert!(unexplained.ends_with("disabled: disabled by administrator"), "{unexplained}");
    system.succeeds("queue disable maintenance");
    let refused = system.says("submit true");
    assert!(refused.contains("job submission is disabled: maintenance"), "{refused}");
    system.succeeds("queue enable");
    system.succeeds("queue stop my reason");
    system.succeeds("submit true");
    let status = system.says("queue status -v").replace(|c: char| c.is_ascii_digit(), "#");
    assert_eq!(
        status,
        "flux-queue: Job submission is enabled\nflux-queue: Scheduling is disabled: my reason\n\
         flux-queue: # alloc requests queued\nflux-queue: # alloc requests pending to scheduler\n\
         flux-queue: # free requests pending to scheduler\nflux-queue: # running jobs"
    );
    assert_eq!(system.says("queue idle"), "1 jobs");
    assert_eq!(system.says("queue drain --timeout=200ms"), "flux-queue: ERROR: drain: timeout");
    assert!(system.says("uptime").ends_with("\nscheduler stopped"));
    system.succeeds("queue start");
    system.succeeds("queue drain");
}

/// Urgency and cancellation, as the guide has them.
fn jobs(system: &System) {
    system.succeeds("queue stop");
    let ids: Vec<String> = (0..5)
        .map(|_| String::from_utf8(system.flux(&["submit", "true"]).stdout).unwrap())
        .map(|id| id.trim().to_owned())
        .collect();
    system.succeeds(&format!("job urgency {} EXPEDITE", ids[0]));
    system.succeeds(&format!("job urgency {} HOLD", ids[1]));
    let priorities = system.says("jobs -no {priority}");
    assert!(priorities.starts_with("4294967295\n") && priorities.ends_with("\n0"), "{priorities}");
    let asked = system.says("job cancelall");
    assert_eq!(asked, "flux-job: Command matched 5 jobs (-f to confirm)");
    assert_eq!(system.says("job cancelall -f"), "flux-job: Canceled 5 jobs (0 errors)");
    system.succeeds("queue start");
    system.succeeds("queue drain");
}

fn overlay(system: &System) {
    let tree = system.says("overlay status");
    assert!(
        tree.starts_with("0 fluke25: full\n├─ 1 fluke26: full\n│ ├─ 3 fluke28: full"),
        "{tree}"
    );
    assert_eq!(system.says("overlay parentof 14"), "6");
    assert!(system.says("ping -c1 14").contains("14!broker.ping pad=0 seq=0 time="));
    assert_eq!(system.says("overlay status -r 6 --summary"), "full");
}

fn configuration(system: &System) {
    assert_eq!(system.says("config get bootstrap.default_port"), "8050");
    assert_eq!(
        system.says("config get --type=fsd-integer job-manager.inactive-age-limit"),
        "604800"
    );
    let broken = system.path("system/conf.d/zz.toml");
    std::fs::write(&broken, "[policy]\nbogus = 1\n").unwrap();
    let refused = system.says("config reload");
    assert!(refused.contains("zz.toml:2: ") && refused.contains("bogus"), "{refused}");
    assert_eq!(system.says("config get policy.limits.duration"), "2h");
    std::fs::remove_file(broken).unwrap();
    let text = std::fs::read_to_string(system.config_file()).unwrap();
    let text = text.replace("#exclude", "exclude").replace("8050", "9999");
    std::fs::write(system.config_file(), text).unwrap();
    assert_eq!(
        system.says("config reload"),
        "flux-config: bootstrap.default_port: has no effect until the broker restarts"
    );
    assert_eq!(system.says("overlay status --summary"), "full");
    assert_eq!(system.says("resource status -s exclude -no {nodelist}"), "fluke[39-40]");
    system.until("resource list -s all -no {nnodes}", |said| said == "14");
}

/// One node is stopped; the others go on.
fn leaving(system: &mut System) {
    system.signal(15, Signal::SIGTERM);
    assert_eq!(system.exit_code(15), Some(0), "{}", system.log(15));
    system.until("resource status -s offline -no {nodelist}", |said| said == "fluke40");
    system.until("uptime", |said| said.contains("size 16, 1 offline"));
    system.signal(14, Signal::SIGKILL);
    assert_eq!(system.exit_code(14), None);
    system.until("overlay status", |said| said.contains("└─ 14 fluke39: lost"));
    assert!(system.says("overlay status").starts_with("0 fluke25: degraded\n"));
    assert_eq!(
        system.says("overlay disconnect 13"),
        "flux-overlay: asking fluke31 (rank 6) to disconnect child fluke38 (rank 13)"
    );
    system.until("resource status -s offline -no {nodelist}", |said| said == "fluke[38-40]");
    let code = system.exit_code(13);
    assert_ne!(code, Some(0), "{}", system.log(13));
    system.succeeds("submit -N2 true");
    system.succeeds("queue drain");
}

/// After a crash queues are closed, and what was drained is drained.
fn crash(system: &mut System) {
    system.succeeds("resource drain fluke28 before the crash");
    let drained = system.says("resource drain");
    system.signal(0, Signal::SIGKILL);
    for rank in 0..13 {
        // Those below the first level are stopped in order by their parents.
        let code = system.exit_code(rank);
        assert!(rank > 2 || code != Some(0), "rank {rank}: {}", system.log(rank));
    }
    for rank in 0..4 {
        system.start(rank);
    }
    system.until_online(4);
    let safe = "Flux is in safe mode due to an incomplete shutdown.";
    assert_eq!(
        system.says("queue status"),
        format!(
            "flux-queue: Job submission is disabled: {safe}\n\
             flux-queue: Scheduling is disabled: {safe}"
        )
    );
    assert!(system.says("startlog").contains(" - crashed\n"));
    assert!(!system.flux(&["startlog", "--check", "--quiet"]).status.success());
    assert_eq!(system.says("resource drain"), drained);
    system.succeeds("queue enable");
    system.succeeds("queue start");
    system.succeeds("submit -N3 true");
    system.succeeds("queue drain");
}

/// Jobs that run are cancelled, while the brokers on which they run are still there; those that wait
/// wait.
fn shutdown(system: &mut System, systemd: &mpsc::Receiver<String>) {
    system.succeeds("submit -N3 sleep 3000");
    system.until("resource list -s allocated -no {nnodes}", |said| said == "3");
    system.succeeds("submit -N4 true");
    let refused = system.flux_at(1, &["shutdown"]);
    assert!(!refused.status.success(), "{refused:?}");
    let shutdown = system.says("shutdown");
    assert!(shutdown.contains("rc3.0: flux modprobe rc3 Exited (rc=0) "), "{shutdown}");
    assert!(shutdown.contains("rc3-success: finalize->goodbye"), "{shutdown}");
    assert!(!shutdown.contains("No route to host"), "{shutdown}");
    tells(systemd, "STOPPING=1");
    // 45 s of the cleanup itself beyond the 90 s of the unit.
    tells(systemd, "EXTEND_TIMEOUT_USEC=135000000");
    tells(systemd, "STATUS=Exiting");
    assert_eq!(system.exit_code(0), Some(42), "{}", system.log(0));
    for rank in 1..4 {
        let code = system.exit_code(rank);
        assert_ne!(code, Some(42), "rank {rank}: {}", system.log(rank));
    }
    system.start(0);
    system.until_online(1);
    let startlog = system.says("startlog");
    assert!(startlog.lines().nth(1).is_some_and(|line| line.ends_with(')')), "{startlog}");
    assert!(system.flux(&["startlog", "--check", "--quiet"]).status.success());
    assert!(system.says("queue status").contains("Job submission is enabled"));
    let jobs = system.says("jobs -a --filter=pending,canceled -no {name}:{status_abbrev}:{nnodes}");
    assert!(jobs.contains("true:S:4") && jobs.contains("sleep:CA:3"), "{jobs}");
    system.signal(0, Signal::SIGTERM);
    assert_eq!(system.exit_code(0), Some(0), "{}", system.log(0));
}

fn config_check(dir: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_flux"))
        .args(["config", "check"])
        .arg(dir)
        .env_remove("FLUX_URI")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn mistakes_in_configuration_files_are_found_without_a_broker() {
    let system = System::configure();
    let dir = system.dir.path();
    let (good, said) = config_check(dir);
    assert!(good && said == "ok\n", "{said}");

    let conf = dir.join("system/conf.d");
    let text = std::fs::read_to_string(system.config_file()).unwrap();
    let text = text.replace("\"2m\"", "\"xx\"").replace("fluke[25-40]", "fluke[25-39]");
    std::fs::write(system.config_file(), text.replace("guest-user = true", "guest-user = 1"))
        .unwrap();
    std::fs::write(conf.join("b.toml"), "\n[archive]\nperiod = \"\"\n[ingest]\ntypo = 1\n")
        .unwrap();
    std::fs::write(conf.join("c.toml"), "[job-manager]\nplugins = [\n {load = \"no.so\"}\n]\n")
        .unwrap();
    // A table in two files is joined; the same key in both would be refused.
    let cert = dir.join("system/curve.cert");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&cert, mode).unwrap();
    for (space, text) in [
        ("security", "[sign]\nmax-ttl = 1209600\ntypo = 1\n[sign.munge]\nbogus = 1\n"),
        ("imp", "[exec]\nallowed-users = \"flux\"\n"),
    ] {
        let conf = dir.join(space).join("conf.d");
        std::fs::create_dir_all(&conf).unwrap();
        std::fs::write(conf.join(format!("{space}.toml")), text).unwrap();
    }
    let (good, said) = config_check(dir);
    assert!(!good, "{said}");
    for finding in [
        "system.toml:2: error parsing [access] config table: allow-guest-user: expected boolean",
        "tcp_user_timeout",
        "b.toml:3: error parsing [archive] config table",
        "b.toml:5: error parsing [ingest] config table",
        "c.toml:3: [job-manager.plugins][0]: load: no.so: No such plugin found (looked in ",
        "curve.cert: readable by group/other",
        "fluke40: in R, but not in bootstrap.hosts",
        "security.toml:3: unknown key 'typo' in [sign]",
        "security.toml:5: unknown key 'bogus' in [sign.munge], which has 'socket-path' alone",
        "imp.toml:2: bad or unknown key 'allowed-users' in [exec]",
    ] {
        assert!(said.contains(finding), "{finding} is not in:\n{said}");
    }
    assert!(!said.contains("Object item not found"), "period is there, if wrong:\n{said}");

    // A space of its own, and a folder in which there is none.
    let (good, said) = config_check(&dir.join("imp/conf.d"));
    assert!(!good && said.lines().count() == 1, "{said}");
    assert!(!config_check(&conf).0);
    let empty = tempfile::tempdir().unwrap();
    let (good, said) = config_check(empty.path());
    assert!(!good && said.contains("nor *.toml"), "{said}");
}
