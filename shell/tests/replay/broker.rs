//! A test double of the brokers of a job: answers what a shell asks, passes requests between
//! shells, and keeps what they commit.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use flux_protocol::credential::{Credential, Rolemask, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::frame;
use flux_protocol::message::{Kind, Matchtag, Message, Nodeid};
use flux_protocol::payload::{Payload, decode_json, encode_json};
use flux_protocol::rpc::kvs::CommitRequest;
use flux_protocol::treeobj::Treeobj;
use serde_json::{Value, json};

/// Long enough for any machine; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What brokers know of a job.
#[derive(Clone)]
pub(crate) struct JobInfo {
    pub(crate) id: u64,
    pub(crate) signed: String,
    pub(crate) r: String,
}

#[derive(Default)]
pub(crate) struct State {
    connections: BTreeMap<u32, Connection>,
    next_uuid: u64,
    /// Committed text by key.
    pub(crate) kvs: BTreeMap<String, String>,
    /// Payloads of requests that are not answered by what the job is, by topic.
    pub(crate) requests: Vec<(String, Value)>,
    /// Responses to requests of [`Broker::call`].
    responses: Vec<(u32, u32, Option<String>)>,
    in_barrier: Vec<(u32, Message)>,
    watchers: Vec<(u32, Message)>,
    streamed: usize,
}

struct Connection {
    stream: UnixStream,
    uuid: String,
}

#[derive(Clone)]
pub(crate) struct Broker {
    job: JobInfo,
    size: u32,
    directory: PathBuf,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Broker {
    /// Brokers of ranks 0 to `size` - 1 with their sockets in `directory`.
    pub(crate) fn start(job: JobInfo, size: u32, directory: &Path) -> Broker {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let broker = Broker { job, size, directory: directory.to_owned(), shared };
        for rank in 0..size {
            let listener = UnixListener::bind(broker.socket(rank)).unwrap();
            let broker = broker.clone();
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    broker.serve(rank, stream);
                }
            });
        }
        broker
    }

    pub(crate) fn uri(&self, rank: u32) -> String {
        format!("local://{}", self.socket(rank).display())
    }

    fn socket(&self, rank: u32) -> PathBuf {
        self.directory.join(format!("local-{rank}"))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    /// Wait until `condition` says something.
    pub(crate) fn wait_for<T>(&self, what: &str, condition: impl Fn(&State) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(result) = condition(&state) {
                return result;
            }
            assert!(Instant::now() < end, "no {what}; kvs: {:?}", state.kvs);
            state = self.shared.1.wait_timeout(state, Duration::from_secs(1)).unwrap().0;
        }
    }

    pub(crate) fn wait_for_event(&self, key: &str, name: &str) {
        let mark = format!("\"name\":\"{name}\"");
        self.wait_for(name, |state| {
            state.kvs.get(key).is_some_and(|log| log.contains(&mark)).then_some(())
        });
    }

    /// Call a method of the shell on rank 0. Returns errnum and text of the response.
    pub(crate) fn call(&self, method: &str, tag: u32, payload: &Value) -> (u32, Option<String>) {
        let mut request = Message::request(method, Nodeid(0), Matchtag(tag));
        request = request.with_payload(payload.encode().unwrap()).with_cred(self.owner());
        request.routes = vec![Bytes::from_static(b"attach")];
        self.send(&mut self.state(), 0, &request);
        self.wait_for(method, |state| {
            let response = state.responses.iter().find(|(got, ..)| *got == tag);
            response.map(|(_, errnum, text)| (*errnum, text.clone()))
        })
    }

    pub(crate) fn publish(&self, topic: &str, payload: &Value) {
        let event = Message::event(topic).with_payload(payload.encode().unwrap());
        let mut state = self.state();
        for rank in 0..self.size {
            self.send(&mut state, rank, &event.clone().with_cred(self.owner()));
        }
    }

    fn owner(&self) -> Credential {
        let userid = Userid(nix::unistd::getuid().as_raw());
        Credential { userid, rolemask: Rolemask::OWNER.union(Rolemask::LOCAL) }
    }

    fn serve(&self, rank: u32, mut stream: UnixStream) {
        stream.write_all(&[0]).unwrap();
        {
            let mut state = self.state();
            state.next_uuid += 1;
            let uuid = format!("uuid-{}", state.next_uuid);
            let connection = Connection { stream: stream.try_clone().unwrap(), uuid };
            state.connections.insert(rank, connection);
        }
        let broker = self.clone();
        std::thread::spawn(move || {
            let mut inbox = BytesMut::new();
            let mut chunk = [0; 65536];
            while let Ok(n @ 1..) = stream.read(&mut chunk) {
                inbox.extend_from_slice(&chunk[..n]);
                while let Some(message) = frame::decode(&mut inbox, usize::MAX).unwrap() {
                    broker.received(rank, message);
                }
            }
        });
    }

    fn received(&self, rank: u32, message: Message) {
        let mut state = self.state();
        match message.kind {
            Kind::Request { .. } => self.requested(&mut state, rank, message),
            Kind::Response { .. } => self.responded(&mut state, message),
            _ => {}
        }
        self.shared.1.notify_all();
    }

    fn responded(&self, state: &mut State, mut response: Message) {
        let route = response.routes.pop().unwrap();
        if route == "attach" {
            let text = flux_protocol::payload::text(response.payload.as_ref()).ok();
            let text = text.map(str::to_owned);
            state.responses.push((response.matchtag().0, response.errnum(), text));
            return;
        }
        let to = state.connections.iter().find(|(_, c)| c.uuid.as_bytes() == route);
        let to = to.map(|(rank, _)| *rank);
        self.send(state, to.unwrap(), &response.with_cred(self.owner()));
    }

    fn requested(&self, state: &mut State, rank: u32, mut request: Message) {
        let topic = request.topic.as_str().to_owned();
        let payload: Value = decode_json(request.payload.as_ref()).unwrap_or(Value::Null);
        if topic.contains("-shell-") {
            let uuid = state.connections[&rank].uuid.clone();
            request.routes.push(Bytes::from(uuid));
            let to = request.nodeid().0;
            self.send(state, to, &request.with_cred(self.owner()));
            return;
        }
        match topic.as_str() {
            "attr.get" => self.attr(state, rank, &request, &payload),
            "job-info.lookup" => {
                let JobInfo { id, signed, r } = &self.job;
                let answer = json!({"id": id, "J": signed, "R": r});
                self.answer(state, rank, &request, Some(&answer));
            }
            "job-info.eventlog-watch" => {
                state.watchers.push((rank, request));
                self.stream_input(state, true);
            }
            "kvs.commit" => {
                let commit = decode_json::<CommitRequest>(request.payload.as_ref()).unwrap();
                commit_ops(&mut state.kvs, commit);
                let answer = json!({"rootref": "sha1-0", "rootseq": 1});
                self.answer(state, rank, &request, Some(&answer));
                self.stream_input(state, false);
            }
            "job-exec.shell-barrier" => {
                state.in_barrier.push((rank, request));
                if state.in_barrier.len() == self.size as usize {
                    for (rank, request) in std::mem::take(&mut state.in_barrier) {
                        self.answer(state, rank, &request, None);
                    }
                }
            }
            _ => {
                state.requests.push((topic, payload));
                self.answer(state, rank, &request, None);
            }
        }
    }

    fn attr(&self, state: &mut State, rank: u32, request: &Message, payload: &Value) {
        let value = match payload["name"].as_str().unwrap() {
            "rank" => rank.to_string(),
            "rundir" => self.directory.to_str().unwrap().to_owned(),
            "jobid-path" => "/".to_owned(),
            "instance-level" => "0".to_owned(),
            _ => {
                let refusal = Message::response(request, Errno::ENOENT.0, None);
                self.send(state, rank, &refusal);
                return;
            }
        };
        self.answer(state, rank, request, Some(&json!({"value": value, "flags": 1})));
    }

    /// Send committed input to those that watch it: to the last one all, else what is new.
    fn stream_input(&self, state: &mut State, to_last: bool) {
        let log = state.kvs.get("input").cloned().unwrap_or_default();
        let (watchers, from) = match to_last {
            true => (state.watchers.last().cloned().into_iter().collect::<Vec<_>>(), 0),
            false => (state.watchers.clone(), state.streamed),
        };
        for line in log.get(from..).unwrap_or_default().split_inclusive('\n') {
            for (rank, request) in &watchers {
                self.answer(state, *rank, request, Some(&json!({"event": line})));
            }
        }
        state.streamed = log.len();
    }

    fn answer(&self, state: &mut State, rank: u32, request: &Message, payload: Option<&Value>) {
        let payload = payload.and_then(|payload| encode_json(payload).unwrap());
        let response = Message::response(request, 0, payload).with_cred(self.owner());
        self.send(state, rank, &response);
    }

    fn send(&self, state: &mut State, rank: u32, message: &Message) {
        let mut bytes = BytesMut::new();
        frame::encode(message, &mut bytes);
        if let Some(connection) = state.connections.get_mut(&rank) {
            // A shell that has ended is not there to hear.
            let _ = connection.stream.write_all(&bytes);
        }
    }
}

/// Append what a commit appends.
pub(crate) fn commit_ops(kvs: &mut BTreeMap<String, String>, commit: CommitRequest) {
    for op in commit.ops {
        if let Some(Treeobj::Val(value)) = op.dirent {
            let text = String::from_utf8(value.decode().unwrap()).unwrap();
            kvs.entry(op.key).or_default().push_str(&text);
        }
    }
}
