//! A system instance with a broker on each host of a network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Network, signal, user_timeouts};

/// Longer than anything takes on a machine that does much else.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Its brokers end when it is dropped.
#[derive(Debug)]
pub struct Instance {
    pub net: Network,
    dir: tempfile::TempDir,
    brokers: Vec<Option<Child>>,
    /// Put after the `[bootstrap]` table.
    pub config: String,
    /// For brokers that are started from now on.
    pub attrs: Vec<String>,
}

impl Instance {
    /// A certificate and a configuration as the guide has it, and no broker yet.
    pub fn new(net: Network) -> Instance {
        let brokers = (0..net.size()).map(|_| None).collect();
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance { net, dir, brokers, config: String::new(), attrs: Vec::new() };
        instance.keygen("curve.cert");
        let hosts = format!("--hosts=n[1-{}]", instance.net.size());
        let r = Command::new(program("flux")).args(["R", "encode", &hosts, "--cores=0-1"]).output();
        std::fs::write(instance.path("R"), r.unwrap().stdout).unwrap();
        instance
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn keygen(&self, name: &str) {
        let status = Command::new(program("flux")).arg("keygen").arg(self.path(name)).status();
        assert!(status.unwrap().success());
    }

    /// Start the broker of a host, with the instance's own certificate.
    pub fn start(&mut self, host: usize) {
        self.start_with(host, host, "curve.cert");
    }

    /// Start a broker on a host that takes itself for the one of `rank`.
    pub fn start_with(&mut self, host: usize, rank: usize, cert: &str) {
        assert!(self.brokers[host].is_none(), "host {host} has a broker already");
        let conf = self.path(&format!("conf-{host}"));
        let rundir = self.path(&format!("run-{host}"));
        for dir in [&conf, &rundir] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let text = format!(
            "[bootstrap]\ncurve_cert = \"{}\"\ndefault_port = 8050\n\
             default_bind = \"tcp://eth0:%p\"\ndefault_connect = \"tcp://%h:%p\"\n\
             hosts = [ {{ host = \"n[1-{}]\" }} ]\n\
             [resource]\npath = \"{}\"\nnoverify = true\n{}\n",
            self.path(cert).display(),
            self.net.size(),
            self.path("R").display(),
            self.config
        );
        std::fs::write(conf.join("system.toml"), text).unwrap();
        let log = std::fs::File::create(self.path(&format!("{host}.log"))).unwrap();
        let mut command = self.net.command(host, program("flux"));
        command
            .arg("broker")
            .arg(format!("-c{}", conf.display()))
            .arg(format!("-Srundir={}", rundir.display()))
            .arg(format!("-Slocal-uri={}", self.uri(host)))
            .args(["-Slog-stderr-level=7", "-Slog-stderr-mode=local", "-Sbroker.rc2_none"])
            .args(["-Sbroker.quorum=1", "-Sbroker.quorum-warn=none"])
            .args(self.attrs.iter().map(|attr| format!("-S{attr}")))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("FLUX_URI")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if host != rank {
            command.env("FLUX_FAKE_HOSTNAME", self.net.host(rank));
        }
        self.brokers[host] = Some(command.spawn().unwrap());
    }

    /// Start all brokers, and wait until jobs can run on all hosts.
    pub fn start_all(&mut self) {
        for host in 0..self.net.size() {
            self.start(host);
        }
        self.until("overlay status --summary", "full");
        self.until("resource list -s free -no {nnodes}", &self.net.size().to_string());
    }

    fn uri(&self, host: usize) -> String {
        format!("local://{}/local", self.path(&format!("run-{host}")).display())
    }

    pub fn pid(&self, host: usize) -> u32 {
        self.brokers[host].as_ref().unwrap().id()
    }

    pub fn signal(&self, host: usize, number: i32) {
        signal(self.pid(host), number);
    }

    /// `TCP_USER_TIMEOUT` of the links of a host's broker.
    pub fn user_timeouts(&self, host: usize) -> Vec<u32> {
        user_timeouts(self.pid(host))
    }

    /// End the broker of a host without giving it time for anything.
    pub fn kill(&mut self, host: usize) {
        let mut child = self.brokers[host].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The exit code of a broker that is about to end.
    pub fn exit_code(&mut self, host: usize) -> Option<i32> {
        let mut code = None;
        let mut child = self.brokers[host].take().unwrap();
        let ended = poll(|| match child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        if !ended {
            child.kill().unwrap();
            panic!("the broker of host {host} does not end:\n{}", self.log(host));
        }
        code
    }

    /// What a host's broker, and nobody else, has logged.
    pub fn log(&self, host: usize) -> String {
        std::fs::read_to_string(self.path(&format!("{host}.log"))).unwrap_or_default()
    }

    pub fn until_logged(&self, host: usize, part: &str) {
        let logged = poll(|| self.log(host).contains(part));
        assert!(logged, "host {host} never says: {part}\n{}", self.log(host));
    }

    /// A command on the first host: what it says on either stream.
    pub fn flux(&self, command: &str) -> String {
        self.flux_at(0, command)
    }

    pub fn flux_at(&self, host: usize, command: &str) -> String {
        self.ask(host, LIMIT, command)
    }

    /// A command that is given up after a while: what it has said until then.
    pub fn flux_within(&self, limit: Duration, command: &str) -> String {
        self.ask(0, limit, command)
    }

    fn ask(&self, host: usize, limit: Duration, command: &str) -> String {
        let output = Command::new("timeout")
            .arg(limit.as_secs().to_string())
            .arg(program("flux"))
            .args(command.split(' '))
            .env("FLUX_URI", self.uri(host))
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// Ask again until the answer is the wanted one.
    pub fn until(&self, command: &str, wanted: &str) {
        let mut said = String::new();
        let settled = poll(|| {
            said = self.flux(command);
            said == wanted
        });
        let logs: Vec<String> = (0..self.net.size()).map(|host| self.log(host)).collect();
        assert!(settled, "flux {command} still says: {said}\n{}", logs.join("---\n"));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        for mut child in self.brokers.iter_mut().filter_map(Option::take) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Wait for something that has to come.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(poll(condition), "never: {what}");
}

fn poll(mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

/// A program of this build.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap_or(Path::new("."));
    let program = built.join(name);
    assert!(program.is_file(), "{} is missing: build the workspace", program.display());
    program
}
