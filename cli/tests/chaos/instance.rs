//! An instance of several processes whose state lasts, under `flux start`'s test service.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use flux_client::{Client, Request};
use flux_protocol::payload::{decode_json, encode_json};
use serde_json::{Value, json};

/// Longer than anything takes on a machine that does much else.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
const FLUX: &str = env!("CARGO_BIN_EXE_flux");
const KILL: i32 = 9;
/// How many brokers have come up.
const ONLINE: &str = "resource status -s online -no {nnodes}";

pub(crate) struct Instance {
    size: u32,
    dir: tempfile::TempDir,
    start: Option<Child>,
    runtime: tokio::runtime::Runtime,
}

impl Instance {
    /// A configuration with hosts that are pretended, and all brokers in a tree of that fanout.
    pub(crate) fn start(size: u32, fanout: u32) -> Instance {
        let broker = Path::new(FLUX).with_file_name("flux-broker");
        assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut instance = Instance { size, dir, start: None, runtime };
        for name in ["conf", "run", "state"] {
            std::fs::create_dir(instance.path(name)).unwrap();
        }
        let (cert, r) = (instance.path("curve.cert"), instance.path("R"));
        assert!(instance.flux(&["keygen", &cert.display().to_string()]).status.success());
        let hosts = format!("--hosts=c[0-{}]", size - 1);
        let encoded = instance.flux(&["R", "encode", &hosts, "--cores=0-1"]);
        std::fs::write(&r, encoded.stdout).unwrap();
        let text = format!(
            "[bootstrap]\ncurve_cert = \"{cert}\"\ndefault_bind = \"ipc://{run}/%h\"\n\
             default_connect = \"ipc://{run}/%h\"\nhosts = [ {{ host = \"c[0-{last}]\" }} ]\n\
             [tbon]\ntopo = \"kary:{fanout}\"\n[resource]\npath = \"{r}\"\nnoverify = true\n",
            cert = cert.display(),
            run = instance.path("run").display(),
            last = size - 1,
            r = r.display(),
        );
        std::fs::write(instance.path("conf/system.toml"), text).unwrap();
        instance.start_all();
        instance
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start_all(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log"));
        let log = log.unwrap();
        let start = Command::new(FLUX)
            .arg("start")
            .arg(format!("-s{}", self.size))
            .arg(format!("--test-hosts=c[0-{}]", self.size - 1))
            .args(["--test-exit-timeout=none", "--test-exit-mode=leader"])
            .arg(format!("--test-rundir={}", self.path("run").display()))
            .arg(format!("--config-path={}", self.path("conf").display()))
            .arg(format!("-Sstatedir={}", self.path("state").display()))
            .args(["-Sbroker.rc2_none", "-Sbroker.quorum=1", "-Sbroker.quorum-warn=none"])
            // After a crash nobody is there who would say that jobs may start again.
            .arg("-Sbroker.safe-mode=0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .env_remove("FLUX_URI")
            .spawn()
            .unwrap();
        self.start = Some(start);
        let online = || self.says(ONLINE).parse::<u32>().is_ok_and(|count| count > 0);
        assert!(poll(online), "rank 0 does not come up:\n{}", self.log());
    }

    /// Rank 0 dies, and so, one after the other, do those who lose their parent.
    pub(crate) fn restart(&mut self) {
        self.kill(0);
        let mut start = self.start.take().unwrap();
        let ended = poll(|| start.try_wait().unwrap().is_some());
        if !ended {
            let _ = start.kill();
            panic!("the brokers below rank 0 outlive it:\n{}", self.log());
        }
        self.start_all();
    }

    pub(crate) fn kill(&self, rank: u32) {
        self.control("start.kill", &json!({ "rank": rank, "signum": KILL }));
    }

    /// Start whoever is dead, until the tree is whole and all brokers can do all they have to.
    pub(crate) fn revive(&self) {
        let mut said = String::new();
        let healed = poll(|| {
            for rank in self.dead() {
                self.control("start.run", &json!({ "rank": rank }));
            }
            said = self.says("overlay status --summary");
            said == "full" && self.says(ONLINE) == self.size.to_string()
        });
        let status = self.says("overlay status");
        assert!(healed, "the tree does not heal, {said}:\n{status}\n{}", self.log());
    }

    fn dead(&self) -> Vec<u32> {
        (0..).zip(self.pids()).filter(|(_, pid)| pid.is_none()).map(|(rank, _)| rank).collect()
    }

    /// The processes of the brokers, those that run.
    pub(crate) fn pids(&self) -> Vec<Option<u64>> {
        let status = self.control("start.status", &json!({}));
        let brokers = status["procs"].as_array().unwrap();
        brokers.iter().map(|broker| broker["pid"].as_u64()).collect()
    }

    fn control(&self, topic: &'static str, request: &Value) -> Value {
        let uri = format!("local://{}/start", self.path("run").display());
        let answer = self.runtime.block_on(async {
            let client = Client::open(Some(&uri)).await.unwrap();
            client.rpc_raw(Request::new(topic).payload(encode_json(request).unwrap())).await
        });
        let answer = answer.unwrap_or_else(|error| panic!("{topic} {request}: {error}"));
        let Some(payload) = &answer.payload else { return Value::Null };
        decode_json(Some(payload)).unwrap()
    }

    fn command(&self, rank: u32, args: &[&str]) -> Command {
        let uri = format!("local://{}/local-{rank}", self.path("run").display());
        let mut command = Command::new("timeout");
        command
            .args([&LIMIT.as_secs().to_string(), FLUX])
            .args(args)
            .env("FLUX_URI", uri)
            .stdin(Stdio::null());
        command
    }

    /// A command at rank 0.
    pub(crate) fn flux(&self, args: &[&str]) -> Output {
        self.command(0, args).output().unwrap()
    }

    /// A command at any rank that is not waited for; it may fail.
    pub(crate) fn spawn(&self, rank: u32, args: &[&str]) -> Child {
        let log = std::fs::OpenOptions::new().append(true).open(self.path("log")).unwrap();
        self.command(rank, args).stdout(Stdio::piped()).stderr(log).spawn().unwrap()
    }

    /// What a command at rank 0 prints on either stream.
    pub(crate) fn says(&self, command: &str) -> String {
        let output = self.flux(&command.split(' ').collect::<Vec<_>>());
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// Ask again until the answer is the wanted one.
    pub(crate) fn until_says(&self, command: &str, wanted: &str) {
        let mut said = String::new();
        let settled = poll(|| {
            said = self.says(command);
            said == wanted
        });
        assert!(settled, "flux {command} still says: {said}\n{}", self.log());
    }

    pub(crate) fn until_online(&self) {
        self.until_says(ONLINE, &self.size.to_string());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let Some(mut start) = self.start.take() else { return };
        // As a system does that goes down; the brokers end in good order.
        let _ = self.command(0, &["shutdown", "--quiet"]).stderr(Stdio::null()).status();
        if !poll(|| matches!(start.try_wait(), Ok(Some(_)))) {
            let _ = start.kill();
            let _ = start.wait();
        }
    }
}

fn poll(mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}
