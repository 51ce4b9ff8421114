//! A running instance of flux's on a host of our own.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flux_client::{Client, Request, RpcError};
use flux_guests::{FLUX, Outcome, Sandbox, User, as_user, sandbox};
use flux_protocol::fluid::JobId;
use serde_json::{Value, json};

/// A payload, or errno and text.
pub(super) type Answer = Result<Value, (i32, String)>;

pub(super) async fn ask(client: &Client, topic: &str, payload: &Value) -> Answer {
    let payload = flux_protocol::payload::encode_json(payload).unwrap();
    let request = Request::new(topic.to_owned()).payload(payload);
    let waited = tokio::time::timeout(Duration::from_secs(60), client.rpc_raw(request)).await;
    match waited.unwrap_or_else(|_| panic!("{topic} is not answered")) {
        Ok(message) => {
            let payload = message.payload.as_ref();
            Ok(flux_protocol::payload::decode_json(payload).unwrap_or(Value::Null))
        }
        Err(RpcError::Refused { errno, text }) => {
            Err((errno.0.cast_signed(), text.unwrap_or_default()))
        }
        Err(error) => panic!("{topic}: {error}"),
    }
}

/// Stopped when dropped.
#[derive(Debug)]
pub(super) struct Instance {
    start: Child,
    pub(super) host: Sandbox,
}

/// Brokers of the instance.
pub(super) const SIZE: u32 = 2;

impl Instance {
    /// An instance with these lines in its configuration, beside the IMP's path, which is also put
    /// where they say `@IMP@`; nothing where the test is to be skipped.
    pub(super) fn start(config: &str) -> Option<Instance> {
        Instance::start_with_imp(config, "")
    }

    /// [`Instance::start`] with more lines in the configuration of the IMP.
    pub(super) fn start_with_imp(config: &str, config_of_imp: &str) -> Option<Instance> {
        let mut host = sandbox()?;
        if let Err(reason) = host.start_munged() {
            println!("skipped: {reason}");
            return None;
        }
        host.configure_imp(&format!("{}{config_of_imp}", exec_table(&host)));
        let imp = host.imp_path();
        host.write(
            "/etc/flux/system/conf.d/system.toml",
            &format!("[exec]\nimp = \"@IMP@\"\n{config}\n").replace("@IMP@", imp.to_str().unwrap()),
        );
        let rundir = host.path("run");
        std::fs::create_dir(&rundir).unwrap();
        host.chown(&rundir, FLUX);
        host.chmod(&rundir, 0o755);
        let mut command = host.command(FLUX, host.program("flux"));
        let program = ": > $HOME/ready; while [ ! -e $HOME/stop ]; do sleep 0.1; done";
        command
            .args(["start", &format!("--test-size={SIZE}")])
            .arg(format!("--test-rundir={}", rundir.display()))
            .arg("--config-path=/etc/flux/system/conf.d")
            .args(["sh", "-c", program])
            .env("TMPDIR", host.home(FLUX))
            .env("FLUX_PLUGIN_PATH", host.source("plugins-wasm/dist"))
            .stdin(Stdio::null());
        let log = std::fs::File::create(host.path("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let start = command.spawn().unwrap();
        let mut instance = Instance { start, host };
        instance.wait_until_it_runs();
        Some(instance)
    }

    /// The initial program is started when the instance runs.
    fn wait_until_it_runs(&mut self) {
        let limit = Instant::now() + Duration::from_secs(120);
        while !self.host.home(FLUX).join("ready").exists() {
            if let Ok(Some(status)) = self.start.try_wait() {
                panic!("flux start: {status}: {}", self.log());
            }
            assert!(Instant::now() < limit, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.host.path("log")).unwrap_or_default()
    }

    /// A command of this user's, with the instance as its.
    pub(super) fn flux(&self, user: User, args: &[&str]) -> Outcome {
        self.flux_with(user, args, "")
    }

    pub(super) fn flux_with(&self, user: User, args: &[&str], stdin: &str) -> Outcome {
        let mut command = self.host.command(user, self.host.program("flux"));
        command.args(args).env("FLUX_URI", self.uri());
        self.host.run(command, stdin)
    }

    pub(super) fn uri(&self) -> String {
        format!("local://{}", self.host.path("run/local-0").display())
    }

    /// Do something with a connection of this user's.
    pub(super) fn with_client<T: Send + 'static>(
        &self,
        user: User,
        work: impl AsyncFnOnce(Client) -> T + Send + 'static,
    ) -> T {
        let uri = self.uri();
        as_user(user, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let client = Client::open(Some(&uri)).await.unwrap();
                work(client).await
            })
        })
    }

    /// Send one request; the payload of the answer, or errno and text.
    pub(super) fn ask(&self, user: User, topic: &str, payload: Value) -> Answer {
        let topic = topic.to_owned();
        self.with_client(user, async move |client| ask(&client, &topic, &payload).await)
    }

    /// Publish an event, and wait until it has come back.
    pub(super) fn publish(&self, user: User, topic: &str, payload: Value) {
        let topic = topic.to_owned();
        let payload = flux_protocol::payload::encode_json(&payload).unwrap();
        self.with_client(user, async move |client| {
            let mut events = client.subscribe(&topic).await.unwrap();
            client.publish(&topic, payload, Default::default()).unwrap();
            let own = tokio::time::timeout(Duration::from_secs(60), events.next());
            own.await.unwrap().unwrap();
        });
    }

    /// The eventlog of a job that has ended, or ends.
    pub(super) fn eventlog_of_ended(&self, id: JobId) -> String {
        let limit = Instant::now() + Duration::from_secs(120);
        loop {
            let lookup = json!({ "id": id.0, "keys": ["eventlog"], "flags": 0 });
            let answer = self.ask(FLUX, "job-info.lookup", lookup).unwrap();
            let log = answer["eventlog"].as_str().unwrap();
            if log.contains("\"name\":\"clean\"") {
                return log.to_owned();
            }
            assert!(Instant::now() < limit, "{log} {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Submit; the id.
    pub(super) fn submit(&self, user: User, args: &[&str]) -> JobId {
        let mut all = vec!["submit"];
        all.extend(args);
        let outcome = self.flux(user, &all);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        JobId::parse(outcome.stdout.trim()).unwrap()
    }
}

/// What lets the owner run jobs of guests.
fn exec_table(host: &Sandbox) -> String {
    let shell = host.program("flux-shell");
    let shell = shell.display();
    format!("[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"{shell}\"]\n")
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = std::fs::write(self.host.home(FLUX).join("stop"), "");
        let limit = Instant::now() + Duration::from_secs(60);
        while Instant::now() < limit {
            if let Ok(Some(_)) = self.start.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.start.kill();
        let _ = self.start.wait();
    }
}
