//! `kill -9` of a broker at any time: every job id that was handed out is there afterwards, in a
//! state that its eventlog allows, and ends.
//!
//! Every instant is drawn from a seed, which is printed. `FLUX_TEST_CRASH_CYCLES` and
//! `FLUX_TEST_CRASH_SEED` ask for more, or for the same again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use flux_broker::services::job_manager::job::{Job, State};
use flux_protocol::errno::Errno;
use flux_protocol::eventlog;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::{Matchtag, Message, Nodeid};
use flux_protocol::payload::{Empty, Payload, text};
use flux_protocol::rpc::{Method, job_info, job_ingest, job_list, job_manager, state_machine};
use flux_replay::Connection;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::instance::{PATIENCE, run, simulated};

const CYCLES: &str = "FLUX_TEST_CRASH_CYCLES";
const SEED: &str = "FLUX_TEST_CRASH_SEED";
const DEFAULT_CYCLES: u64 = 5;
/// Of the random delay before the death, in milliseconds.
const DURING_START: u64 = 800;
const UNDER_LOAD: u64 = 1000;

/// A broker process whose state lasts.
struct Broker {
    child: Child,
    dir: PathBuf,
}

impl Broker {
    fn start(dir: &Path, safe_mode: bool) -> Broker {
        for name in ["state", "run"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_flux-broker"))
            .arg(format!("-Sstatedir={}", dir.join("state").display()))
            .arg(format!("-Srundir={}", dir.join("run").display()))
            .arg("-Sbroker.rc2_none=1")
            .arg(format!("-Sbroker.safe-mode={}", u8::from(safe_mode)))
            .arg(format!("--conf={}", config()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Broker { child, dir: dir.to_owned() }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Connect when it runs.
    async fn connect(&mut self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(Ok(connection)) = Connection::open(&self.dir.join("run/local-0")).await {
                let mut client = Client { connection, tag: 0 };
                let state = client.rpc::<state_machine::Get>(&Empty).await;
                if state.is_ok_and(|state| state.state == "run") {
                    return client;
                }
            }
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(self.child.try_wait().unwrap().is_none(), "the broker has ended: {}", log());
            assert!(Instant::now() < deadline, "the broker does not run: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    connection: Connection,
    tag: u32,
}

impl Client {
    async fn send<M: Method>(&mut self, request: &M::Request) -> Result<u32, Failure> {
        self.tag += 1;
        let message = Message::request(M::TOPIC, Nodeid::ANY, Matchtag(self.tag))
            .with_payload(request.encode().unwrap());
        let sent = self.connection.send(&message).await;
        sent.map_err(|_| Failure::from(Errno::ECONNRESET))?;
        Ok(self.tag)
    }

    async fn answer<M: Method>(&mut self, tag: u32) -> Result<M::Response, Failure> {
        let wanted = |message: &Message| message.matchtag() == Matchtag(tag);
        let received = self.connection.next(PATIENCE, wanted).await;
        let message = received.ok().flatten().ok_or(Errno::ECONNRESET)?;
        match message.errnum() {
            0 => Ok(M::Response::decode(message.payload.as_ref()).unwrap()),
            errnum => {
                let text = text(message.payload.as_ref()).unwrap_or_default().to_owned();
                Err(Failure::new(Errno(errnum), text))
            }
        }
    }

    async fn rpc<M: Method>(&mut self, request: &M::Request) -> Result<M::Response, Failure> {
        let tag = self.send::<M>(request).await?;
        self.answer::<M>(tag).await
    }
}

fn config() -> Value {
    json!({
        "fake-resources": { "nnodes": 4, "cores-per-node": 4 },
    })
}

fn submission(duration: &str) -> job_ingest::SubmitRequest {
    let owner = nix::unistd::getuid().as_raw();
    let j = flux_sign::wrap_none(owner, simulated(duration).to_string().as_bytes());
    job_ingest::SubmitRequest { j, urgency: 16, flags: 0 }
}

/// Submit several jobs at a time until the broker is gone; the ids that it gave.
async fn submit_until_it_is_gone(mut client: Client) -> Vec<JobId> {
    let mut ids = Vec::new();
    loop {
        let mut tags = Vec::new();
        for duration in ["0.001s", "0.02s", "0.2s", "1h"] {
            match client.send::<job_ingest::Submit>(&submission(duration)).await {
                Ok(tag) => tags.push(tag),
                Err(_) => return ids,
            }
        }
        for tag in tags {
            match client.answer::<job_ingest::Submit>(tag).await {
                Ok(response) => ids.push(response.id),
                Err(_) => return ids,
            }
        }
    }
}

#[test]
fn no_job_id_that_was_handed_out_is_lost_when_the_broker_is_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cycles = number(CYCLES).unwrap_or(DEFAULT_CYCLES);
    let seed = number(SEED).unwrap_or(7);
    eprintln!("{SEED}={seed} {CYCLES}={cycles}");
    let mut random = Random(seed);
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut ids = Vec::new();
        let mut in_the_start = 0;
        for _ in 0..cycles {
            let mut broker = Broker::start(dir.path(), false);
            if random.below(5) == 0 {
                tokio::time::sleep(Duration::from_millis(random.below(DURING_START))).await;
                broker.kill();
                in_the_start += 1;
                continue;
            }
            let mut client = broker.connect().await;
            // Death may come while the jobs of the life before end.
            client.send::<job_manager::RaiseAll>(&cancel_all()).await.unwrap();
            let delay = Duration::from_millis(random.below(UNDER_LOAD));
            let kill = async {
                tokio::time::sleep(delay).await;
                broker.kill();
            };
            let (given, ()) = tokio::join!(submit_until_it_is_gone(client), kill);
            ids.extend(given);
        }
        eprintln!("{cycles} deaths, {in_the_start} of them in the start; {} ids", ids.len());
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "an id was given twice");
        assert!(!ids.is_empty());
        let mut broker = Broker::start(dir.path(), false);
        let mut client = broker.connect().await;
        // Those that last for ever are still to be ended.
        client.rpc::<job_manager::RaiseAll>(&cancel_all()).await.unwrap();
        client.rpc::<job_manager::Drain>(&Empty).await.unwrap();
        for id in ids {
            assert_ended(&mut client, id).await;
        }
    });
}

fn cancel_all() -> job_manager::RaiseAllRequest {
    job_manager::RaiseAllRequest {
        dry_run: false,
        userid: job_manager::ANY_USER,
        // All that have not begun to end.
        states: 2 | 4 | 8 | 16,
        severity: 0,
        kind: "cancel".to_owned(),
        note: None,
    }
}

/// A queue is drained when the last job has ended, which is a moment before that is stored.
async fn ended_eventlog(client: &mut Client, id: JobId) -> String {
    let keys = vec!["eventlog".to_owned()];
    let lookup = job_info::LookupRequest { id, keys, flags: 0 };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let object = client.rpc::<job_info::Lookup>(&lookup).await;
        let object = object.unwrap_or_else(|failure| panic!("{} is lost: {failure}", id.f58()));
        let log = object["eventlog"].as_str().unwrap();
        if log.contains(r#""name":"clean""#) || Instant::now() > deadline {
            return log.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The eventlog, applied from its beginning, leads to INACTIVE; job-list says so as well.
async fn assert_ended(client: &mut Client, id: JobId) {
    let log = ended_eventlog(client, id).await;
    let mut job = Job::new(id, Rc::from(RawValue::from_string("{}".to_owned()).unwrap()));
    for event in eventlog::decode(&log).unwrap() {
        job.apply(&event).unwrap_or_else(|error| panic!("{}: {error}\n{log}", id.f58()));
    }
    assert_eq!(job.state, State::Inactive, "{}\n{log}", id.f58());
    assert!(!job.has_resources, "{}\n{log}", id.f58());
    let attrs = vec!["state".to_owned()];
    let list = job_list::ListIdRequest { id, attrs, state: Some(64) };
    let listed = client.rpc::<job_list::ListId>(&list).await.unwrap();
    assert_eq!(listed.job["state"], json!(64));
}

#[test]
fn after_a_crash_nothing_is_taken_or_scheduled_until_an_administrator_says_so() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(dir.path(), true);
        let mut client = broker.connect().await;
        let status = job_manager::QueueStatusRequest::default();
        let before = client.rpc::<job_manager::QueueStatus>(&status).await.unwrap();
        assert!(before.enable && before.start);
        let held = client.rpc::<job_ingest::Submit>(&submission("0.001s")).await.unwrap().id;
        broker.kill();

        let mut broker = Broker::start(dir.path(), true);
        let mut client = broker.connect().await;
        let text = "Flux is in safe mode due to an incomplete shutdown.";
        let after = client.rpc::<job_manager::QueueStatus>(&status).await.unwrap();
        assert_eq!((after.enable, after.disable_reason.as_deref()), (false, Some(text)));
        assert_eq!((after.start, after.stop_reason.as_deref()), (false, Some(text)));
        let refused = client.rpc::<job_ingest::Submit>(&submission("0.001s")).await.unwrap_err();
        assert_eq!(refused.text.unwrap(), format!("job submission is disabled: {text}"));

        let enable =
            job_manager::QueueEnableRequest { enable: true, all: false, name: None, reason: None };
        client.rpc::<job_manager::QueueEnable>(&enable).await.unwrap();
        let start = job_manager::QueueStartRequest {
            start: true,
            all: false,
            nocheckpoint: false,
            name: None,
            reason: None,
        };
        client.rpc::<job_manager::QueueStart>(&start).await.unwrap();
        client.rpc::<job_ingest::Submit>(&submission("0.001s")).await.unwrap();
        client.rpc::<job_manager::Drain>(&Empty).await.unwrap();
        assert_ended(&mut client, held).await;
    });
}

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}
