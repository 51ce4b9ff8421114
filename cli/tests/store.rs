//! What lasts: dumps, restores and garbage collection of the store, and commands that run by the
//! clock, on brokers started by hand. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(180);

/// A broker of size 1 whose state is in a folder.
struct Broker {
    dir: PathBuf,
    child: Option<Child>,
}

impl Broker {
    fn new(dir: &Path) -> Broker {
        for name in ["run", "state"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        Broker { dir: dir.to_owned(), child: None }
    }

    fn launch(&mut self, more: &[&str]) {
        let broker = Path::new(env!("CARGO_BIN_EXE_flux")).with_file_name("flux-broker");
        assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
        let dir = self.dir.display();
        let log = std::fs::File::create(self.dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_flux"))
            .arg("broker")
            .arg(format!("-Srundir={dir}/run"))
            .arg(format!("-Sstatedir={dir}/state"))
            .arg(format!("-Slocal-uri=local://{dir}/socket"))
            .args(["-Slog-stderr-level=6", "-Slog-stderr-mode=local", "-Sbroker.rc2_none"])
            .args(["-Sbroker.exit-norestart=42", "-Scontent.restore=auto"])
            .args(more)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn start(&mut self, more: &[&str]) {
        self.launch(more);
        self.until("uptime", |said| said.contains(" run "));
    }

    /// The exit code of a broker that is about to end.
    fn exit_code(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if begin.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("the broker does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn flux(&self, args: &[&str]) -> Output {
        Command::new("timeout")
            .arg(LIMIT.as_secs().to_string())
            .arg(env!("CARGO_BIN_EXE_flux"))
            .args(args)
            .env("FLUX_URI", format!("local://{}/socket", self.dir.display()))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command prints on either stream.
    fn says(&self, command: &str) -> String {
        let output = self.flux(&command.split(' ').collect::<Vec<_>>());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn succeeds(&self, command: &str) -> String {
        let output = self.flux(&command.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{command}: {output:?}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn until(&self, command: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let said = self.says(command);
            if wanted(&said) {
                return said;
            }
            assert!(begin.elapsed() < LIMIT, "flux {command} still says: {said}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Blobs in the database when it has them all.
    fn objects(&self) -> i64 {
        self.succeeds("content flush");
        let count = self.succeeds("module stats --parse=object_count content-sqlite");
        count.trim().parse().unwrap()
    }

    fn dumps(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir.join("state/dump")) else {
            return Vec::new();
        };
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(|entry| name(entry.unwrap())).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Some of everything that a tree can hold, and as much again that is removed.
fn fill(broker: &Broker) {
    let long = "n".repeat(150);
    let big = "x".repeat(5000);
    let puts = [
        "a.b=42".to_owned(),
        "a.c.d=text".to_owned(),
        "empty=".to_owned(),
        format!("{long}.x=1"),
        format!("big={big}"),
    ];
    let mut args = vec!["kvs", "put"];
    args.extend(puts.iter().map(String::as_str));
    assert!(broker.flux(&args).status.success());
    broker.succeeds("kvs put --append log=one");
    broker.succeeds("kvs put --append log=two");
    broker.succeeds("kvs link a.b link");
    broker.succeeds("kvs link --target-namespace=other x.y far");
    for round in 0..5 {
        let garbage: Vec<String> = (0..20)
            .map(|n| format!("garbage.{n}={}", format!("{round} {n} ").repeat(50)))
            .collect();
        let mut args = vec!["kvs", "put"];
        args.extend(garbage.iter().map(String::as_str));
        assert!(broker.flux(&args).status.success());
    }
    broker.succeeds("kvs unlink -R garbage");
}

/// All that `fill` left, and nothing that changes by itself.
fn contents(broker: &Broker, below: &str) -> String {
    let key = |name: &str| format!("{below}{name}");
    let mut text = String::new();
    text += &broker.succeeds(&format!("kvs dir -R {}", key("a"))).replace(below, "");
    let long = format!("{}.x", "n".repeat(150));
    for name in [&long, "empty", "big", "log"] {
        text += &broker.succeeds(&format!("kvs get --raw {}", key(name)));
    }
    for name in ["link", "far"] {
        text += &broker.succeeds(&format!("kvs readlink {}", key(name)));
    }
    text
}

#[test]
fn the_store_is_collected_dumped_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::new(dir.path());
    broker.start(&[]);
    fill(&broker);
    broker.succeeds("run echo from-a-job");
    let before = contents(&broker, "");
    collect_online(&broker);
    assert!(contents(&broker, "") == before);

    broker.succeeds("dump archive.tar.gz");
    let listed = Command::new("tar").arg("tf").arg(dir.path().join("archive.tar.gz")).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    for path in ["a/b", "a/c/d", "empty", "link", "job/"] {
        assert!(listed.contains(path), "{path} is not in {listed}");
    }
    assert!(broker.says("restore archive.tar.gz").contains("--checkpoint or --key"));
    assert!(broker.says("restore --checkpoint archive.tar.gz").contains("unload kvs module"));
    assert!(broker.says("restore --key=x log").contains("not a tar archive"));
    assert!(broker.says("dump archive.doc").contains("No such format"));

    collect_offline(&mut broker, &before);
    another_hash(dir.path(), &before);
}

#[test]
fn files_can_be_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::new(dir.path());
    let files = "-Scontent.backing-module=content-files";
    broker.start(&[files]);
    fill(&broker);
    broker.succeeds("run echo from-a-job");
    let before = contents(&broker, "");
    let jobs = broker.succeeds("jobs -a -no {id}_{status}_{t_inactive}");
    broker.succeeds("content flush");
    let count = broker.succeeds("module stats --parse=object_count content-files");
    assert!(count.trim().parse::<u32>().unwrap() > 50, "{count}");
    assert!(!dir.path().join("state/content.sqlite").exists());
    let said = broker.says("content gc");
    let wanted =
        "content-files collects no garbage while the instance runs: flux shutdown --gc does";
    assert!(said.trim().ends_with(wanted) && said.lines().count() == 1, "{said}");
    let mut second = Broker::new(&dir.path().join("second"));
    let statedir = format!("-Sstatedir={}/state", dir.path().display());
    second.launch(&[files, &statedir]);
    assert_eq!(second.exit_code(), Some(42));
    let folder = dir.path().join("state/content.files");
    let said = format!("{} is in use by another broker", folder.display());
    assert_eq!(second.log().matches(&said).count(), 1, "{}", second.log());
    broker.succeeds("shutdown --quiet --skip-gc");
    broker.exit_code();

    broker.start(&[files]);
    assert!(contents(&broker, "") == before);
    assert_eq!(broker.succeeds("jobs -a -no {id}_{status}_{t_inactive}"), jobs);
    assert_eq!(broker.succeeds("getattr content.backing-module").trim(), "content-files");
    // A dump goes from one kind of store to the other.
    broker.succeeds("dump all.tar");
    broker.succeeds("shutdown --quiet --skip-gc");
    broker.exit_code();
    let database = dir.path().join("state/content.sqlite");
    broker.launch(&[]);
    assert_eq!(broker.exit_code(), Some(42));
    let said = "kvs-primary holds the state of an instance, which content-sqlite can't read: \
        -Scontent.backing-module=content-files goes on with it";
    assert!(broker.log().contains(said), "{}", broker.log());
    assert!(!database.exists());
    let archive = format!("-Scontent.restore={}", dir.path().join("all.tar").display());
    broker.start(&["-Scontent.backing-module=content-sqlite", &archive]);
    assert!(contents(&broker, "") == before);
    broker.succeeds("shutdown --quiet --skip-gc");
    broker.exit_code();
    std::fs::rename(&folder, dir.path().join("old")).unwrap();
    broker.launch(&[files]);
    assert_eq!(broker.exit_code(), Some(42));
    let said = "content.sqlite holds the state of an instance, which content-files can't read";
    assert!(broker.log().contains(said), "{}", broker.log());
    assert!(!folder.exists());
    // The garbage goes with a dump.
    broker.start(&[]);
    broker.succeeds("shutdown --quiet --skip-gc");
    broker.exit_code();
    std::fs::remove_file(&database).unwrap();
    std::fs::rename(dir.path().join("old"), &folder).unwrap();
    broker.start(&[files]);
    let count = || std::fs::read_dir(&folder).unwrap().count();
    let before_gc = count();
    broker.succeeds("shutdown --quiet --gc");
    broker.exit_code();
    broker.start(&[files]);
    assert!(contents(&broker, "") == before);
    assert!(count() < before_gc, "{} of {before_gc} files are left", count());
    broker.succeeds("shutdown --quiet --skip-gc");
    broker.exit_code();
    broker.launch(&["-Scontent.backing-module=content-papers"]);
    assert_eq!(broker.exit_code(), Some(42));
    let said = "content.backing-module: must be content-sqlite or content-files";
    assert!(broker.log().contains(said), "{}", broker.log());
}

#[test]
fn a_dump_that_can_t_be_restored_leaves_the_store_as_it_was() {
    for module in ["content-sqlite", "content-files"] {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::new(dir.path());
        let module = format!("-Scontent.backing-module={module}");
        broker.start(&[&module]);
        fill(&broker);
        let before = contents(&broker, "");
        let dump = dir.path().join("all.tgz");
        broker.succeeds("dump --quiet all.tgz");
        let restore = format!("-Scontent.restore={}", dump.display());
        // Nobody takes it from whoever has it.
        let mut second = Broker::new(&dir.path().join("second"));
        let statedir = format!("-Sstatedir={}/state", dir.path().display());
        second.launch(&[&module, &restore, &statedir]);
        assert_eq!(second.exit_code(), Some(42));
        assert!(second.log().contains("is in use by another broker"), "{}", second.log());
        assert!(contents(&broker, "") == before);
        broker.succeeds("shutdown --quiet --skip-gc");
        broker.exit_code();

        let good = std::fs::read(&dump).unwrap();
        std::fs::write(&dump, &good[..good.len() * 9 / 10]).unwrap();
        for _ in 0..2 {
            broker.launch(&[&module, &restore]);
            assert_eq!(broker.exit_code(), Some(42));
            assert!(broker.log().contains("flux-restore: "), "{}", broker.log());
        }
        broker.start(&[&module]);
        let said = "restoring a dump did not come to its end; the store is as it was before";
        assert_eq!(broker.log().matches(said).count(), 1, "{}", broker.log());
        assert!(contents(&broker, "") == before);
        broker.succeeds("kvs put after=1");
        broker.succeeds("shutdown --quiet --skip-gc");
        broker.exit_code();

        std::fs::write(&dump, good).unwrap();
        broker.start(&[&module, &restore]);
        assert!(contents(&broker, "") == before);
        let names = std::fs::read_dir(dir.path().join("state")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        let aside = names.iter().find(|name| name.to_string_lossy().contains("before"));
        assert_eq!(aside, None);
        broker.succeeds("shutdown --quiet --skip-gc");
        broker.exit_code();
    }
}

/// While others write, and what they write is not touched.
fn collect_online(broker: &Broker) {
    let objects = broker.objects();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..30 {
                broker.succeeds(&format!("kvs put during.{number}={}", "y".repeat(400)));
            }
        });
        broker.succeeds("content gc");
        broker.succeeds("gc -v --no-cache --renew-checkpoints");
        writer.join().unwrap();
    });
    let said = broker.says("content gc --renew-checkpoints");
    assert!(said.contains("gc complete: marked "), "{said}");
    let left = broker.objects();
    // A hundred values, and the directories that they were in.
    assert!(left < objects - 100 + 31 + 10, "{left} of {objects} are left");
    broker.succeeds("content dropcache");
    for number in 0..30 {
        assert_eq!(broker.succeeds(&format!("kvs get during.{number}")).trim(), "y".repeat(400));
    }
    let output = broker.succeeds("job last");
    assert!(broker.says(&format!("job attach {}", output.trim())).contains("from-a-job"));
    broker.succeeds("kvs unlink -R during");
    broker.succeeds("kvs sync");
    keep_older_checkpoints(broker);
    survive_the_death_of_the_collector(broker);
}

/// They are for when the newest can't be read.
fn keep_older_checkpoints(broker: &Broker) {
    broker.succeeds("kvs put older=1");
    broker.succeeds("kvs sync");
    let older = broker.succeeds("kvs getroot -b").trim().to_owned();
    broker.succeeds("kvs unlink older");
    broker.succeeds("kvs sync");
    let newer = broker.succeeds("kvs getroot -b").trim().to_owned();
    broker.succeeds("gc");
    for root in [&older, &newer] {
        broker.succeeds(&format!("fsck --rootref={root}"));
    }
    broker.succeeds("gc --renew-checkpoints");
    assert!(!broker.flux(&["fsck", &format!("--rootref={older}")]).status.success());
    broker.succeeds("fsck");
}

/// Between mark and sweep, and anywhere.
fn survive_the_death_of_the_collector(broker: &Broker) {
    let said = broker.says("gc --test-mark-only");
    assert!(said.contains("stopping after mark"), "{said}");
    for delay in 0..8 {
        broker.succeeds(&format!("kvs put garbage={delay}"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_flux"))
            .args(["gc", "--renew-checkpoints"])
            .env("FLUX_URI", format!("local://{}/socket", broker.dir.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay * 20));
        let _ = child.kill();
        child.wait().unwrap();
    }
    broker.succeeds("kvs unlink garbage");
    broker.succeeds("gc");
    broker.succeeds("content dropcache");
    broker.succeeds("fsck");
}

/// `flux shutdown --gc`, and the start after it.
fn collect_offline(broker: &mut Broker, before: &str) {
    let objects = broker.objects();
    let jobs = broker.succeeds("jobs -a -no {id}_{status}_{t_inactive}");
    let said = broker.says("shutdown --gc");
    assert!(said.contains("shutdown will dump KVS to ") && said.contains("/state/dump/"), "{said}");
    assert!(said.contains("dumping content to "), "{said}");
    assert_eq!(broker.exit_code(), Some(42), "{}", broker.log());
    let dumps = broker.dumps();
    assert_eq!(dumps.len(), 2, "{dumps:?}");
    let link = std::fs::read_link(broker.dir.join("state/dump/RESTORE")).unwrap();
    assert!(dumps.contains(&link.to_string_lossy().into_owned()));
    let name = link.to_string_lossy();
    assert!(name.ends_with(".tgz") && name.len() == "YYYYMMDD_HHMMSS.tgz".len(), "{name}");

    broker.start(&[]);
    assert!(broker.log().contains("restoring content from "), "{}", broker.log());
    assert_eq!(broker.dumps(), [name.into_owned()]);
    assert!(broker.objects() < objects);
    assert!(contents(broker, "") == before);
    assert_eq!(broker.succeeds("jobs -a -no {id}_{status}_{t_inactive}"), jobs);
    // It is set anew each time, and can be taken back.
    assert!(broker.says("getattr content.dump").contains("No such file"));
    broker.succeeds("setattr content.dump auto");
    assert!(!broker.says("shutdown --skip-gc").contains("dump"));
    assert_eq!(broker.exit_code(), Some(42));
    assert_eq!(broker.dumps().len(), 1);

    // A link to nothing must not begin an empty store.
    std::os::unix::fs::symlink("gone.tgz", broker.dir.join("state/dump/RESTORE")).unwrap();
    broker.launch(&[]);
    assert_eq!(broker.exit_code(), Some(42));
    assert!(broker.log().contains("dump/RESTORE"), "{}", broker.log());
    std::fs::remove_file(broker.dir.join("state/dump/RESTORE")).unwrap();
    broker.launch(&["-Scontent.hash=sha256"]);
    assert_eq!(broker.exit_code(), Some(42));
    assert!(broker.log().contains("sha256"), "{}", broker.log());
}

/// A dump knows nothing of hashes.
fn another_hash(old: &Path, before: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::new(dir.path());
    broker.start(&["-Scontent.hash=sha256"]);
    let archive = old.join("archive.tar.gz");
    let said = broker.says(&format!("restore --key=old {}", archive.display()));
    assert!(said.contains("writing snapshot sha256-"), "{said}");
    assert!(contents(&broker, "old.") == before);
    assert!(broker.succeeds("kvs getroot -b").starts_with("sha256-"));
    let all = dir.path().join("all.tar");
    broker.succeeds(&format!("shutdown --quiet --dump={}", all.display()));
    broker.exit_code();
    assert!(std::fs::metadata(all).unwrap().len() > 10_000);
}

#[test]
fn commands_run_by_the_clock_and_on_events() {
    let dir = tempfile::tempdir().unwrap();
    let tabs = dir.path().join("cron.d");
    std::fs::create_dir(&tabs).unwrap();
    let accounting = "# comment\n30 * * * * bash -c \"flux account update-fshare\"\n";
    std::fs::write(tabs.join("accounting"), accounting).unwrap();
    let directory = format!("-Scron.directory={}", tabs.display());
    let mut broker = Broker::new(dir.path());
    let socket = dir.path().join("metrics");
    broker.start(&[&directory, &format!("-Smetrics-socket={}", socket.display())]);
    broker.succeeds("run true");
    metrics(&socket);
    let list = broker.succeeds("cron list");
    let mut lines = list.lines();
    let header = lines.next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(header, "ID CMD/NAME STATE #RUNS LASTRUN STATUS");
    let row = lines.next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(row, "1 bash Active 0 None None");
    let dumped = broker.succeeds("cron dump 1");
    for line in ["typedata.minute = \"30\"", "typedata.hour = \"0-23\"", "type = \"datetime\""] {
        assert!(dumped.contains(line), "{line} is not in {dumped}");
    }
    let next = broker.succeeds("cron dump --key=typedata.next_wakeup 1");
    assert_eq!(next.trim().parse::<f64>().unwrap() as u64 % 3600, 1800);

    // Without the heartbeat nobody waits for it.
    broker.succeeds("cron sync --disable");
    assert_eq!(broker.says("cron interval --name=t .2s true"), "interval: cron-2 created\n");
    broker.succeeds("cron interval -o stop-on-failure=1 -N fails .2s false");
    broker.succeeds("cron interval -o timeout=.3 -c 1 -N slow .1s sleep 100");
    broker.succeeds("cron event --nth=2 -N event my.topic printenv FLUX_URI");
    broker.succeeds("event pub my.topic");
    broker.succeeds("event pub my.topic");
    let row = |name: &str, list: &str| {
        let line = list.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    broker.until("cron list", |list| {
        let runs = row("t", list)[3].parse::<u64>().unwrap();
        runs >= 3
            && row("fails", list)[2] == "Stopped"
            && list.contains("Failed:rc=1")
            && row("slow", list)[2..4] == ["Stopped", "1/1"]
            && row("event", list)[3] == "1"
    });
    let log = broker.until("dmesg", |log| log.contains("cron-4: \"sleep 100\": Failed: "));
    assert!(log.contains("cron-3: exceeded failure limit of 1. stopping"), "{log}");
    let said = "cron-5[event]: rank=0: command=\"printenv FLUX_URI\": \"local://";
    broker.until("dmesg", |log| log.contains(said));
    assert_eq!(broker.says("cron stop 2"), "Stopped cron-2\n");
    assert_eq!(broker.says("cron stop 2"), "flux-cron stop: Invalid argument\n");
    assert_eq!(broker.says("cron start 2"), "Started cron-2\n");
    assert!(broker.says("cron delete 2").starts_with("Removed cron-2: t"));
    assert_eq!(broker.says("cron delete 2"), "flux-cron delete: No such file or directory\n");
    assert_eq!(broker.succeeds("cron dump --key=stats.failure 3").trim(), "1");

    modules(&broker);
    broker.succeeds("shutdown --quiet");
    assert_eq!(broker.exit_code(), Some(42));
    std::fs::write(tabs.join("bad"), "99 * * * * true\n").unwrap();
    broker.launch(&[&directory]);
    assert_eq!(broker.exit_code(), Some(42));
    assert!(broker.log().contains("could not load crontab"), "{}", broker.log());
}

/// Every line of the page is a comment, or a metric with labels and a number.
fn metrics(socket: &Path) {
    use std::io::{Read, Write};
    let ask = |line: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "{line}\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("GET /metrics HTTP/1.1");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
    let mut described = String::new();
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            described = kind.split(' ').next().unwrap().to_owned();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next(), Some(described.as_str()), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for sample in [
        "flux_broker_info{rank=\"0\",size=\"1\",",
        "flux_broker_state{state=\"run\"} ",
        "flux_jobs{state=\"run\"} 0\n",
        "flux_overlay_health{status=\"full\"} 1\n",
        "flux_plugin_calls_total{plugin=\".priority-default\",callback=\"job.state.priority\"} 1\n",
        "flux_plugin_call_seconds{plugin=\"sched-simple\",callback=\"schedule\",quantile=\"0.5\"} ",
        "flux_module_stats{module=\"content-sqlite\",name=\"object_count\"} ",
    ] {
        assert!(page.contains(sample), "{sample} is not in:\n{page}");
    }
    assert!(ask("GET /other HTTP/1.1").starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics HTTP/1.1").starts_with("HTTP/1.1 405 "));
}

/// Cron's module is taken out and put back; others are listed and asked.
fn modules(broker: &Broker) {
    let list = broker.succeeds("module list");
    let header = list.lines().next().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(header, ["Module", "Idle", "S", "Sendq", "Recvq", "Service"]);
    for name in ["kvs", "job-manager", "cron", "content-sqlite"] {
        assert!(list.lines().any(|line| line.split_whitespace().next() == Some(name)), "{list}");
    }
    broker.succeeds("module remove cron");
    assert!(broker.says("cron list").contains("Function not implemented"));
    broker.succeeds("module load cron");
    broker.succeeds("module reload cron");
    // It has read its tables again.
    assert!(broker.succeeds("cron list").contains("bash"));
    assert!(broker.succeeds("module stats kvs").starts_with("{\n"));
    assert!(broker.says("module load nope").contains("module not found in search path"));
    assert!(broker.says("setattr rank 5").contains("attribute may not be updated"));
    assert!(broker.succeeds("lsattr -v").lines().all(|line| line.split_whitespace().count() >= 2));
}
