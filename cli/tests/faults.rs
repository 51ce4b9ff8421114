//! What an administrator gets wrong, and what goes wrong with disks: each is one clear line, and
//! harms nothing. The programs are those of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(180);
const PAGE: usize = 4096;

/// A leader, with all its folders in one.
struct Site {
    dir: tempfile::TempDir,
    /// How many brokers have been started: each has a run directory of its own.
    starts: usize,
    /// The namespace with mounts of this site's own: what the broker and others are started by.
    namespace: Vec<String>,
}

struct Broker {
    child: Child,
    dir: PathBuf,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        for name in ["conf", "state"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::set_permissions(dir.path().join("state"), PermissionsExt::from_mode(0o700))
            .unwrap();
        Site { dir, starts: 0, namespace: Vec::new() }
    }

    /// One whose last run ended in order, with a job that is over and one that waits.
    fn with_jobs() -> Site {
        let mut site = Site::new();
        let broker = site.start();
        broker.succeeds("run true");
        broker.succeeds("submit --urgency=0 true");
        broker.shutdown();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.path("conf/system.toml"), text).unwrap();
    }

    /// A command that sees what is mounted here.
    fn command(&self, program: &str) -> Command {
        let mut words = self.namespace.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    fn launch(&mut self) -> Broker {
        let flux = env!("CARGO_BIN_EXE_flux");
        let broker = Path::new(flux).with_file_name("flux-broker");
        assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
        self.starts += 1;
        let dir = self.path(&format!("run{}", self.starts));
        std::fs::create_dir(&dir).unwrap();
        let child = self
            .command(flux)
            .arg("broker")
            .arg(format!("--config-path={}", self.path("conf").display()))
            .arg(format!("-Srundir={}", dir.display()))
            .arg(format!("-Sstatedir={}", self.path("state").display()))
            .arg(format!("-Slocal-uri=local://{}/local", dir.display()))
            .args(["-Slog-stderr-level=5", "-Slog-stderr-mode=local", "-Sbroker.rc2_none"])
            .args(["-Sbroker.exit-norestart=42", "-Sbroker.quorum=1"])
            .env("FLUX_FAKE_HOSTNAME", "leader")
            .env_remove("FLUX_CONF_DIR")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        Broker { child, dir }
    }

    fn start(&mut self) -> Broker {
        let broker = self.launch();
        broker.until("uptime", |said| said.contains(" run "));
        broker
    }

    /// All there is below the state directory, but for what can be made again.
    fn state(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(self.path("state")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    /// A broker that can't start says so in one line with all of these, and changes nothing.
    #[track_caller]
    fn refuses(&mut self, about: &str, words: &[&str]) {
        let before = self.state();
        self.does_not_start(about, words);
        assert!(self.state() == before, "{about}: the state was touched");
    }

    #[track_caller]
    fn does_not_start(&mut self, about: &str, words: &[&str]) {
        let mut broker = self.launch();
        // 42 tells systemd that what fails in rc1 would fail again.
        let code = broker.exit_code();
        assert!(matches!(code, Some(1 | 42)), "{about}: {code:?} {}", broker.log());
        let complaints = broker.complaints();
        assert_eq!(complaints.len(), 1, "{about}: {complaints:?}");
        for word in words {
            assert!(complaints[0].contains(word), "{about}: no {word:?} in {complaints:?}");
        }
    }

    /// It starts, and what was there is there.
    #[track_caller]
    fn goes_on(&mut self) {
        let broker = self.start();
        assert_eq!(broker.jobs(), "SCHED COMPLETED", "{}", broker.log());
        assert!(!broker.log().contains("safe mode"), "{}", broker.log());
        broker.shutdown();
    }
}

impl Broker {
    fn exit_code(&mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < LIMIT, "the broker does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// Lines that say that something is wrong.
    fn complaints(&self) -> Vec<String> {
        let severe = |line: &&str| {
            line.starts_with("flux-broker: ")
                || [".err[", ".crit[", ".alert[", ".emerg["].iter().any(|word| line.contains(word))
        };
        self.log().lines().filter(severe).map(str::to_owned).collect()
    }

    fn flux(&self, args: &[&str]) -> Output {
        Command::new("timeout")
            .arg(LIMIT.as_secs().to_string())
            .arg(env!("CARGO_BIN_EXE_flux"))
            .args(args)
            .env("FLUX_URI", format!("local://{}/local", self.dir.display()))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn says(&self, command: &str) -> String {
        let output = self.flux(&command.split(' ').collect::<Vec<_>>());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    }

    #[track_caller]
    fn succeeds(&self, command: &str) -> String {
        let output = self.flux(&command.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{command}: {output:?}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    fn until(&self, command: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let said = self.says(command);
            if wanted(&said) {
                return said;
            }
            assert!(begin.elapsed() < LIMIT, "flux {command} still says: {said}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// KiB that the process has in memory.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The status of all jobs, newest first.
    fn jobs(&self) -> String {
        self.succeeds("jobs -a -no {status}").replace('\n', " ")
    }

    /// The jobs that wait, in order.
    fn pending(&self) -> Vec<String> {
        let pending = self.succeeds("jobs --filter=pending -no {id}");
        pending.lines().map(|id| id.trim().to_owned()).collect()
    }

    fn shutdown(mut self) {
        self.succeeds("shutdown --quiet");
        assert_eq!(self.exit_code(), Some(42), "{}", self.log());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.exit_code();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn mistakes_in_the_configuration_are_named_and_leave_the_state_alone() {
    let mut site = Site::with_jobs();
    let file = site.path("conf/system.toml").display().to_string();
    site.configure("[policy]\nlimit.duration = \"1h\"\n");
    site.refuses("a wrong key", &[&format!("{file}:2"), "[policy]", "limit"]);
    site.configure("[kvs]\ncheckpoint-period = 30\n");
    site.refuses("a wrong type", &[&format!("{file}:2"), "checkpoint-period", "string"]);

    let network = |cert: &Path| {
        format!(
            "[bootstrap]\ncurve_cert = {cert:?}\ndefault_port = 8050\ndefault_bind = \"tcp://127.0.0.1:%p\"\n\
             default_connect = \"tcp://127.0.0.1:%p\"\nhosts = [{{ host = \"leader\" }}]\n"
        )
    };
    let cert = site.path("curve.cert");
    site.configure(&network(&cert));
    site.refuses("no certificate", &["curve.cert", "No such file"]);
    let made = site.command(env!("CARGO_BIN_EXE_flux")).arg("keygen").arg(&cert).status().unwrap();
    assert!(made.success());
    let mode = |mode| std::fs::set_permissions(&cert, PermissionsExt::from_mode(mode)).unwrap();
    if is_root() {
        mode(0o444);
        site.refuses("a certificate that all can read", &["curve.cert", "chmod"]);
    } else {
        mode(0);
        site.refuses("a certificate that can't be read", &["curve.cert", "Permission denied"]);
    }
    mode(0o400);
    std::fs::remove_file(&cert).unwrap();
    std::fs::write(&cert, "curve\n  public-key = 7\n").unwrap();
    mode(0o400);
    site.refuses("a certificate that is none", &["curve.cert"]);

    let r = site.path("R");
    let resource = format!("[resource]\npath = {r:?}\n");
    std::fs::write(&r, "{\"version\": 1").unwrap();
    site.configure(&resource);
    // By then the store is open, and has had a checkpoint.
    site.does_not_start("an R that is cut off", &[r.to_str().unwrap()]);
    let hosts = site
        .command(env!("CARGO_BIN_EXE_flux"))
        .args(["R", "encode", "--hosts=other[1-2]", "--cores=0"])
        .output()
        .unwrap();
    std::fs::write(&r, hosts.stdout).unwrap();
    std::fs::remove_file(&cert).unwrap();
    let made = site.command(env!("CARGO_BIN_EXE_flux")).arg("keygen").arg(&cert).status().unwrap();
    assert!(made.success());
    site.configure(&format!("{}{resource}", network(&cert)));
    site.does_not_start("an R of other hosts", &["error reranking R", "bootstrap.hosts"]);

    site.configure("");
    site.goes_on();
}

#[test]
fn a_damaged_database_is_left_as_it_is_and_named() {
    let mut site = Site::with_jobs();
    let file = site.path("state/content.sqlite");
    let name = file.display().to_string();
    let good = std::fs::read(&file).unwrap();
    assert!(good.len() > 5 * PAGE, "{} bytes", good.len());
    let garbage = |page: usize| {
        let mut bytes = good.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0x5a);
        bytes
    };
    let damaged = "is damaged: ";
    let none = "is not a content database: ";
    let cases = [
        ("cut in a page", good[..good.len() / 2 + 100].to_vec(), damaged),
        ("cut after a page", good[..PAGE].to_vec(), damaged),
        ("cut in its header", good[..50].to_vec(), damaged),
        ("a garbage page", garbage(2), damaged),
        ("a garbage page in the middle", garbage(good.len() / PAGE / 2), damaged),
        ("no database", b"Dear administrator,".to_vec(), none),
    ];
    for (about, bytes, words) in cases {
        std::fs::write(&file, bytes).unwrap();
        site.refuses(about, &[&name, words, "restore it from a dump"]);
    }
    std::fs::write(&file, b"").unwrap();
    let words = [&*name, "is empty, and", "plugin-cache shows", "restore it from a dump"];
    site.refuses("a file that was emptied", &words);
    let log = site.path("state/content.sqlite-wal");
    std::fs::write(&log, &good).unwrap();
    site.refuses("an empty file with a log", &[&name, "is empty, and", log.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    let words = [&name, "is missing, and", &format!("remove {}", log.display())];
    site.refuses("a log without its file", &words);
    std::fs::remove_file(&log).unwrap();
    std::fs::write(&file, b"").unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    site.refuses("a folder", &[&name, "Is a directory"]);
    std::fs::remove_dir(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    site.refuses("a FIFO", &[&name, "is no regular file"]);
    std::fs::remove_file(&file).unwrap();
    let elsewhere = site.path("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    site.refuses("a link to nothing", &[&name, "is a link to", "elsewhere, which is not there"]);
    std::fs::remove_file(&file).unwrap();

    std::fs::write(&file, &good).unwrap();
    site.goes_on();
}

/// A crash leaves a log that ends anywhere. Damage is something else, and takes what was accepted.
#[test]
fn a_damaged_log_of_the_database_is_left_as_it_is_and_named() {
    let mut site = Site::with_jobs();
    let broker = site.start();
    broker.succeeds("submit --urgency=0 true");
    broker.succeeds("submit --urgency=0 true");
    let accepted = broker.pending();
    broker.kill();
    let log = site.path("state/content.sqlite-wal");
    let good = std::fs::read(&log).unwrap();
    let name = log.display().to_string();
    for (at, words) in [
        (16, "its header is not valid"),
        (0, "its header is not valid"),
        (32 + 24 + 100, "at byte 32, and a checkpoint that was on the disk is behind it"),
    ] {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        std::fs::write(&log, bytes).unwrap();
        let about = format!("byte {at} of the log");
        site.refuses(&about, &[&format!("{name} is damaged"), words, "restore from a dump"]);
    }
    // What stands behind the last frame that is whole is as a crash leaves it.
    std::fs::write(&log, [&*good, b"the beginning of a frame"].concat()).unwrap();
    let broker = site.start();
    assert_eq!(broker.pending(), accepted, "{}", broker.log());
    broker.kill();
}

#[test]
fn a_second_broker_on_the_same_state_is_refused_and_the_first_goes_on() {
    let mut site = Site::new();
    let first = site.start();
    first.succeeds("run true");
    let mut second = site.launch();
    assert_eq!(second.exit_code(), Some(42), "{}", second.log());
    let complaints = second.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    let file = site.path("state/content.sqlite").display().to_string();
    assert!(complaints[0].contains(&format!("{file} is in use by another broker")));
    first.succeeds("submit --urgency=0 true");
    assert_eq!(first.complaints(), Vec::<String>::new());
    first.shutdown();
    site.goes_on();
}

/// A file that has no name any more takes all that is written to it.
#[test]
fn no_job_is_taken_when_the_state_directory_has_gone() {
    let mut site = Site::with_jobs();
    let broker = site.start();
    std::fs::rename(site.path("state"), site.path("gone")).unwrap();
    std::fs::create_dir(site.path("state")).unwrap();
    let said = broker.says("submit --urgency=0 true");
    let name = site.path("state/content.sqlite").display().to_string();
    for words in [&name, "is not the file any more that was opened: bring that back"] {
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    }
    broker.succeeds(&format!("dump --quiet {}", site.path("saved.tar").display()));
    std::fs::remove_dir(site.path("state")).unwrap();
    std::fs::rename(site.path("gone"), site.path("state")).unwrap();
    let id = broker.until("submit --urgency=0 true", |said| said.starts_with('ƒ'));
    broker.succeeds(&format!("cancel {id}"));
    broker.succeeds(&format!("job wait-event {id} clean"));
    broker.succeeds("job purge --force --num-limit=1");
    broker.succeeds(&format!("job purge --force {id}"));
    broker.shutdown();
}

#[test]
fn a_state_directory_that_can_t_be_written_to_is_named() {
    let mut site = Site::with_jobs();
    let state = site.path("state");
    let words = [state.to_str().unwrap(), "can't be written to"];
    if is_root() {
        // Modes are nothing to root.
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        let unshare = ["unshare", "--mount", "sh", "-c", script, words[0]];
        if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|s| s.success()) {
            return println!("skipped: needs to mount");
        }
        site.namespace = unshare.map(str::to_owned).to_vec();
        site.refuses("a read-only file system", &words);
        site.namespace.clear();
    } else {
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o500)).unwrap();
        site.refuses("a folder without write permission", &words);
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    }
    site.goes_on();
}

/// A process in whose mount namespace the site has a small file system for its state.
struct Small(Child);

impl Small {
    fn mount(site: &mut Site, options: &str) -> Option<Small> {
        if !is_root() {
            println!("skipped: needs root, to mount a small file system");
            return None;
        }
        let script = "mount -t tmpfs -o $1 none \"$0\" && echo && exec sleep 3600";
        let state = site.path("state");
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(&state)
            .arg(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        let read = std::io::Read::read(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let small = Small(child);
        if read == 0 {
            println!("skipped: needs to mount");
            return None;
        }
        let target = format!("--target={}", small.0.id());
        site.namespace = ["nsenter", &target, "--mount", "--"].map(str::to_owned).to_vec();
        Some(small)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_full_disk_takes_no_jobs_loses_none_and_is_left_behind_when_there_is_room() {
    let mut site = Site::new();
    let Some(_small) = Small::mount(&mut site, "size=4m,mode=0700") else { return };
    let mut broker = site.start();
    let mut accepted = vec![broker.succeeds("submit --urgency=0 true")];
    let filler = site.path("state/filler");

    fill(&site, &filler);
    refuses_jobs(&broker, &mut accepted);
    // Commands that only look go on.
    broker.succeeds("resource list");
    assert!(site.command("rm").arg(&filler).status().unwrap().success());
    accepted.push(broker.until("submit --urgency=0 true", |said| said.starts_with('ƒ')));
    assert_eq!(broker.succeeds("run echo goes-on"), "goes-on");
    broker.shutdown();
    broker = site.start();
    assert_eq!(broker.pending(), accepted, "{}", broker.log());

    fill(&site, &filler);
    refuses_jobs(&broker, &mut accepted);
    broker.kill();
    assert!(site.command("rm").arg(&filler).status().unwrap().success());
    broker = site.start();
    assert!(broker.log().contains("safe mode"), "{}", broker.log());
    broker.succeeds("queue enable");
    broker.succeeds("queue start");
    assert_eq!(broker.pending(), accepted, "{}", broker.log());
    assert_eq!(broker.succeeds("run echo goes-on"), "goes-on");
    broker.shutdown();
}

/// A file system is often mounted so that all may write to it, like /tmp: then the state is in a
/// new directory there, and goes with the instance.
#[test]
fn a_full_disk_takes_no_jobs_where_a_place_like_tmp_is_named_for_the_state() {
    let mut site = Site::new();
    let Some(_small) = Small::mount(&mut site, "size=4m,mode=1777") else { return };
    let broker = site.start();
    let filler = site.path("state/filler");
    fill(&site, &filler);
    refused_jobs(&broker, &mut Vec::new());
    broker.succeeds("resource list");
    assert!(site.command("rm").arg(&filler).status().unwrap().success());
    broker.until("submit --urgency=0 true", |said| said.starts_with('ƒ'));
    assert_eq!(broker.succeeds("run echo goes-on"), "goes-on");
    broker.shutdown();
}

/// What the broker has been given and can't write is kept, up to a limit; and what happens to jobs
/// that run is written as soon as there is room, also what came when the limit was reached.
#[test]
fn what_happens_to_jobs_on_a_full_disk_is_not_lost_when_memory_for_it_is_full_too() {
    let mut site = Site::new();
    let Some(_small) = Small::mount(&mut site, "size=160m,mode=0700") else { return };
    let broker = site.start();
    let go = site.path("go");
    let said = site.path("said");
    let wait = format!(
        "until test -e {}; do sleep 0.05; done; echo last words; touch {}",
        go.display(),
        said.display()
    );
    let started = broker.flux(&["submit", "sh", "-c", &wait]);
    let id = String::from_utf8(started.stdout).unwrap().trim().to_owned();
    broker.succeeds(&format!("job wait-event {id} start"));
    let held = broker.succeeds("submit --urgency=0 true");
    let filler = site.path("state/filler");
    fill(&site, &filler);

    // One after another, until no more is taken.
    let store = |number: usize| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_flux"))
            .args(["content", "store"])
            .env("FLUX_URI", format!("local://{}/local", broker.dir.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Nothing that could be compressed, and no two the same.
        let mut word = u64::try_from(number + 1).unwrap();
        let mut blob = Vec::new();
        while blob.len() < 1 << 20 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            blob.extend((word >> 24).to_le_bytes());
        }
        let mut stdin = child.stdin.take().unwrap();
        let _ = std::io::Write::write_all(&mut stdin, &blob);
        drop(stdin);
        child.wait().unwrap().success()
    };
    let taken = (0..200).take_while(|number| store(*number)).count();
    assert!((60..100).contains(&taken), "{taken} blobs of a megabyte");
    let before = broker.memory();
    assert!((200..220).all(|number| !store(number)), "more is taken");
    let grown = broker.memory().saturating_sub(before);
    assert!(grown < 12 << 10, "{grown} KiB more for what is refused");

    // One job is told to end, the other ends by itself, and a node is taken out.
    broker.says(&format!("cancel {held}"));
    std::fs::write(&go, "").unwrap();
    broker.until("uptime", |_| broker.log().contains("could not store events, no job is taken"));
    broker.until("uptime", |_| said.exists());
    let drained = broker.flux(&["resource", "drain", "leader", "smoke"]).status.success();
    assert!(site.command("rm").arg(&filler).status().unwrap().success());
    for job in [&id, &held] {
        broker.succeeds(&format!("job wait-event -t 120 {job} clean"));
    }
    assert!(!drained, "what can not be stored is not said to be done");
    assert_eq!(broker.succeeds("run echo goes-on"), "goes-on");
    broker.succeeds("resource drain leader fire");
    for line in ["could not store events", "events are stored again", "content.crit"] {
        assert_eq!(broker.log().matches(line).count(), 1, "{line}: {}", broker.log());
    }
    // All of it is on the disk when the next job has been taken.
    broker.kill();
    let broker = site.start();
    let log = broker.succeeds(&format!("job eventlog {id}"));
    for event in ["submit", "alloc", "start", "finish", "release", "free", "clean"] {
        assert_eq!(log.matches(&format!(" {event}")).count(), 1, "{event}: {log}");
    }
    let log = broker.succeeds(&format!("job eventlog {held}"));
    assert!(log.contains(" exception ") && log.contains(" clean"), "{log}");
    let log = broker.succeeds(&format!("job eventlog -p exec {id}"));
    assert!(log.contains(" complete ") && log.contains(" done"), "{log}");
    assert_eq!(broker.succeeds(&format!("job attach {id}")), "last words");
    let reason = broker.succeeds("resource drain -no {reason}");
    assert_eq!(reason, "fire");
    broker.shutdown();
}

fn fill(site: &Site, filler: &Path) {
    let mut fill = site.command("dd");
    fill.args(["if=/dev/zero", "bs=1k", &format!("of={}", filler.display())]);
    let filled = fill.stderr(Stdio::null()).status().unwrap();
    assert!(!filled.success(), "the disk is not full");
}

/// Jobs are refused, and the log says why.
fn refuses_jobs(broker: &Broker, accepted: &mut Vec<String>) {
    refused_jobs(broker, accepted);
    // The store, the KVS and the job manager say it once each, however many jobs there are.
    let complaints = broker.complaints();
    for name in ["content.crit", "kvs.err", "job-manager.err"] {
        let said = complaints.iter().filter(|line| line.contains("No space"));
        assert_eq!(said.filter(|line| line.starts_with(name)).count(), 1, "{name}: {complaints:?}");
    }
}

/// Submit until three are refused; those that the file itself still had room for are accepted.
fn refused_jobs(broker: &Broker, accepted: &mut Vec<String>) {
    let mut refused = Vec::new();
    while refused.len() < 3 {
        let output = broker.flux(&["submit", "--urgency=0", "true"]);
        match output.status.success() {
            true => accepted.push(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => refused.push(String::from_utf8(output.stderr).unwrap()),
        }
        assert!(accepted.len() < 1000, "all are accepted");
    }
    // Who was refused does not find the job afterwards.
    broker.until("jobs --filter=failed -no {id}", str::is_empty);
    assert_eq!(broker.pending(), *accepted, "{}", broker.log());
    for text in &refused {
        assert!(text.contains("content.sqlite: No space left on device"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
