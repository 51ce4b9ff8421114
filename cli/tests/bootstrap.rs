//! Brokers that find each other by a `[bootstrap]` table, on the loopback interface, and what those
//! say that can not. The programs are those of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);

/// A configuration, and the brokers that were started with it.
struct Site {
    dir: tempfile::TempDir,
    brokers: Vec<Child>,
}

impl Site {
    /// `table` is what follows `[bootstrap]`; CERT and PORT in it are a certificate of its own and
    /// a port that was free a moment ago.
    fn new(table: &str) -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap(), brokers: Vec::new() };
        std::fs::create_dir(site.path("conf")).unwrap();
        site.keygen("curve.cert");
        let cert = site.path("curve.cert").display().to_string();
        let table = table.replace("CERT", &cert).replace("PORT", &free_port().to_string());
        std::fs::write(site.path("conf/system.toml"), format!("[bootstrap]\n{table}\n")).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, text: &str) {
        let path = self.path("conf/system.toml");
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, before + text).unwrap();
    }

    fn keygen(&self, name: &str) {
        let made = flux().arg("keygen").arg(self.path(name)).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }

    /// `flux broker` on the host of that name, with what an instance needs to start without the
    /// others.
    fn broker(&self, host: &str) -> Command {
        let rundir = self.path(host);
        std::fs::create_dir_all(&rundir).unwrap();
        let mut command = clean(env!("CARGO_BIN_EXE_flux"));
        command
            .arg("broker")
            .arg(format!("-c{}", self.path("conf").display()))
            .arg(format!("-Srundir={}", rundir.display()))
            .arg(format!("-Slocal-uri=local://{}/local", rundir.display()))
            .args(["-Sbroker.quorum=1", "-Sbroker.quorum-warn=none"])
            .args(["-Slog-stderr-level=7", "-Slog-stderr-mode=local"])
            .env("FLUX_FAKE_HOSTNAME", host);
        command
    }

    /// Leave a broker running.
    fn start(&mut self, host: &str) {
        let log = std::fs::File::create(self.path(&format!("{host}.log"))).unwrap();
        let broker =
            self.broker(host).arg("-Sbroker.rc2_none").stdout(Stdio::null()).stderr(log).spawn();
        self.brokers.push(broker.unwrap());
    }

    /// What a broker says that has nothing to do but to end, or can not even start.
    fn boots(&self, host: &str) -> Output {
        self.broker(host).arg("true").output().unwrap()
    }

    /// The line of a broker that can not start.
    fn refuses(&self, host: &str) -> String {
        let output = self.boots(host);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        text(&output.stderr)
    }

    /// A command at a running broker: what it says on either stream.
    fn says(&self, host: &str, command: &str) -> String {
        let output = flux()
            .args(command.split(' '))
            .env("FLUX_URI", format!("local://{}/local", self.path(host).display()))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        text(&said).trim().to_owned()
    }

    /// Ask again until the answer is the wanted one.
    fn until(&self, host: &str, command: &str, wanted: &str) {
        let begin = Instant::now();
        loop {
            let said = self.says(host, command);
            if said == wanted {
                return;
            }
            assert!(begin.elapsed() < LIMIT, "flux {command} still says: {said}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until_logged(&self, host: &str, part: &str) {
        let begin = Instant::now();
        while !self.log(host).contains(part) {
            assert!(begin.elapsed() < LIMIT, "{host} never says {part}:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self, host: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{host}.log"))).unwrap_or_default()
    }

    fn logs(&self) -> String {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap()).collect::<Vec<_>>().join("---\n")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for broker in &mut self.brokers {
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}

/// This build's command, which is given up after a while.
fn flux() -> Command {
    let mut command = clean("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg(env!("CARGO_BIN_EXE_flux"));
    command
}

/// A program outside any instance.
fn clean(program: &str) -> Command {
    let flux = env!("CARGO_BIN_EXE_flux");
    let broker = Path::new(flux).with_file_name("flux-broker");
    assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env("LANG", "C.UTF-8");
    for name in ["FLUX_URI", "PMI_FD", "PMI_RANK", "PMI_SIZE", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The addresses that listen at a port.
fn listeners(port: &str) -> Vec<String> {
    let sockets = text(&Command::new("ss").arg("-ltnH").output().unwrap().stdout);
    let local = sockets.lines().filter_map(|line| line.split_whitespace().nth(3));
    let there = local.filter_map(|local| local.strip_suffix(&format!(":{port}")));
    there.map(str::to_owned).collect()
}

const LOOPBACK: &str = "curve_cert = 'CERT'\ndefault_port = PORT\n\
                        default_bind = 'tcp://127.0.0.1:%p'\n\
                        default_connect = 'tcp://127.0.0.1:%p'\n";

#[test]
fn hosts_are_ranks_in_the_order_of_the_table() {
    let mut site = Site::new(&format!("{LOOPBACK}hosts = [{{ host = 'fluke[3,108,6-8]' }}]"));
    // All listen at one address here, so only rank 0 may have children.
    site.append("[tbon]\nfanout = 16\n");
    site.start("fluke3");
    site.until("fluke3", "getattr hostlist", "fluke[3,108,6-8]");
    assert_eq!(site.says("fluke3", "getattr broker.boot-method"), "config");
    assert_eq!(site.says("fluke3", "overlay lookup 1"), "fluke108");
    assert_eq!(site.says("fluke3", "overlay lookup fluke[6-7]"), "2-3");
    assert!(site.says("fluke3", "overlay lookup fluke9").contains("fluke9 not found in host map"));
    // What the others have is not known yet.
    site.until_logged("fluke3", "quorum->run");
    let uptime = site.says("fluke3", "uptime");
    assert!(uptime.ends_with("depth 0,  size 5,  4 offline"), "{uptime}");
    site.start("fluke108");
    site.start("fluke7");
    site.until("fluke3", "exec -r 3 flux getattr hostname", "fluke7");
    site.until("fluke108", "getattr rank", "1");
}

#[test]
fn brokers_listen_where_default_bind_says() {
    for (bind, address) in
        [("lo", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("*", "0.0.0.0"), ("[::1]", "[::1]")]
    {
        if bind == "[::1]" && TcpListener::bind("[::1]:0").is_err() {
            println!("skipped: {bind}, since this machine has no IPv6");
            continue;
        }
        let port = free_port().to_string();
        let mut site = Site::new(&format!(
            "curve_cert = 'CERT'\ndefault_port = {port}\nenable_ipv6 = {}\n\
             default_bind = 'tcp://{bind}:%p'\ndefault_connect = 'tcp://{}:%p'\n\
             hosts = [{{ host = 'test[1-2]' }}]",
            bind == "[::1]",
            if bind == "[::1]" { "[::1]" } else { "localhost" },
        ));
        site.start("test1");
        site.start("test2");
        site.until("test1", "overlay status --summary", "full");
        assert_eq!(listeners(&port), [address], "{bind}");
        let parent = site.says("test2", "getattr tbon.parent-endpoint");
        let host = if bind == "[::1]" { "[::1]" } else { "localhost" };
        assert_eq!(parent, format!("tcp://{host}:{port}"));
    }
}

#[test]
fn a_host_may_have_endpoints_of_its_own() {
    let port = free_port();
    let endpoint = format!("tcp://127.0.0.1:{port}");
    let hosts = format!(
        "curve_cert = 'CERT'\nhosts = [{{ host = 'a', bind = '{endpoint}', connect = \
         '{endpoint}' }}, {{ host = 'b' }}]"
    );
    let mut site = Site::new(&hosts);
    site.start("a");
    site.start("b");
    site.until("a", "overlay status", "0 a: full\n└─ 1 b: full");
    assert_eq!(site.says("b", "getattr tbon.parent-endpoint"), endpoint);
}

#[test]
fn the_tree_has_the_shape_that_is_configured() {
    let shape = |attr: &str, hosts: &str| {
        let mut site = Site::new(&format!("{LOOPBACK}hosts = [{hosts}]"));
        site.append(&format!("[tbon]\n{attr}\n"));
        site.start("t1");
        site.until("t1", "getattr rank", "0");
        (site.says("t1", "getattr tbon.maxlevel"), site.says("t1", "overlay parentof 2"))
    };
    assert_eq!(shape("fanout = 256", "{ host = 't[1-16]' }"), ("1".into(), "0".into()));
    assert_eq!(shape("topo = 'kary:1'", "{ host = 't[1-4]' }"), ("3".into(), "1".into()));
    let parents = "{ host = 't[1-2]' }, { host = 't3', parent = 't2' }";
    assert_eq!(shape("", parents), ("2".into(), "1".into()));
}

/// A host keeps its cores when it gets another rank.
#[test]
fn ranks_of_a_configured_r_follow_the_hosts_of_the_table() {
    let mut site = Site::new(&format!("{LOOPBACK}hosts = [{{ host = 'test[1-4]' }}]"));
    let one = |rank: u32, cores: &str| {
        let (rank, host) = (format!("--ranks={rank}"), format!("--hosts=test{}", 4 - rank));
        text(&flux().args(["R", "encode", &rank, &host, cores]).output().unwrap().stdout)
    };
    // test4 is rank 0 of this R, and has one core; test1 is rank 3, and has four.
    let parts = [(0, "--cores=0"), (1, "--cores=0-1"), (2, "--cores=0-2"), (3, "--cores=0-3")]
        .map(|(rank, cores)| one(rank, cores));
    let mut append = flux();
    append.args(["R", "append"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = append.spawn().unwrap();
    child.stdin.take().unwrap().write_all(parts.concat().as_bytes()).unwrap();
    std::fs::write(site.path("R"), child.wait_with_output().unwrap().stdout).unwrap();
    let path = site.path("R");
    site.append(&format!("[resource]\npath = '{}'\nnoverify = true\n", path.display()));
    site.start("test1");
    for (rank, host, cores) in [(0, 1, 4), (1, 2, 3), (2, 3, 2), (3, 4, 1)] {
        let command = format!("resource list -s all -i test{host} -no {{ranks}}:{{ncores}}");
        site.until("test1", &command, &format!("{rank}:{cores}"));
    }
}

#[test]
fn a_table_that_can_not_work_is_refused_with_a_hint() {
    let refused = |hosts: &str| Site::new(&format!("{LOOPBACK}hosts = [{hosts}]")).refuses("a");
    let said = refused("{}");
    assert!(said.contains("missing host field"), "{said}");
    assert!(said.contains("Hint: an entry of hosts is a table with a host key"), "{said}");
    let said = refused("{ host = 'x[' }");
    assert!(said.contains("host \"x[\" is not a valid hostlist"), "{said}");
    let said = refused("{ host = 'b' }");
    assert!(said.contains("Config file error [bootstrap]: a not found in hosts"), "{said}");
    let nosuch = "curve_cert = 'CERT'\ndefault_port = PORT\ndefault_bind = 'tcp://nosuch0:%p'\n\
                  hosts = [{ host = 'a,b' }]";
    let said = Site::new(nosuch).refuses("a");
    assert!(said.contains("nosuch0 is neither an address nor an interface"), "{said}");
    let v6 = "curve_cert = 'CERT'\ndefault_port = PORT\ndefault_bind = 'tcp://[::1]:%p'\n\
              hosts = [{ host = 'a,b' }]";
    let said = Site::new(v6).refuses("a");
    assert!(said.contains("enable_ipv6"), "{said}");
}

#[test]
fn a_certificate_must_be_there_and_be_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let site = Site::new(&format!("{LOOPBACK}hosts = [{{ host = 'a,b' }}]"));
    assert!(site.boots("a").status.success());
    let cert = site.path("curve.cert");
    std::fs::set_permissions(&cert, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = site.refuses("a");
    let expected =
        format!("Error loading certificate: {}: readable by group/other", cert.display());
    assert!(said.contains(&expected), "{said}");
    std::fs::remove_file(&cert).unwrap();
    let said = site.refuses("a");
    assert!(said.contains(&format!("{}: No such file", cert.display())), "{said}");
    let none = Site::new("hosts = [{ host = 'a,b' }]").refuses("a");
    assert!(none.contains("set bootstrap.curve_cert"), "{none}");
    assert!(Site::new("hosts = [{ host = 'a' }]").boots("a").status.success());
}

#[test]
fn a_broker_with_another_certificate_stays_out() {
    let mut site = Site::new(&format!("{LOOPBACK}hosts = [{{ host = 'a,b' }}]"));
    site.start("a");
    site.until("a", "overlay status", "0 a: partial\n└─ 1 b: offline");
    // The broker of a has its own in memory by now.
    site.keygen("curve.cert");
    site.start("b");
    site.until_logged("a", "authentication of tcp://127.0.0.1");
    site.until_logged("b", "authentication with parent");
    assert_eq!(site.says("a", "overlay status"), "0 a: partial\n└─ 1 b: offline");
    assert!(site.says("a", "dmesg").contains("is the certificate the same?"));
}

/// As `flux start` has it, where no certificate is configured.
#[test]
fn brokers_without_a_certificate_make_one_each_and_exchange_the_public_keys() {
    let keys = || {
        let output = flux()
            .args(["start", "-vv", "-s", "3", "-o,-Stbon.prefertcp=1,-Slog-stderr-level=7"])
            .args([env!("CARGO_BIN_EXE_flux"), "overlay", "status", "--summary"])
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(text(&output.stdout), "full\n", "{said}");
        let all = |mark: &str| {
            let after = said.lines().filter_map(|line| line.split_once(mark));
            let mut keys: Vec<String> =
                after.filter_map(|(_, rest)| Some(rest.get(..40)?.to_owned())).collect();
            keys.sort();
            keys.dedup();
            keys
        };
        let exchanged = all("\"pubkey\":\"");
        assert_eq!(exchanged, all("public key is "), "{said}");
        exchanged
    };
    let (first, second) = (keys(), keys());
    assert_eq!((first.len(), second.len()), (3, 3), "{first:?}");
    assert!(!first.iter().any(|key| second.contains(key)), "{first:?} {second:?}");
}
