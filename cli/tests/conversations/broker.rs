//! A broker that knows nothing but what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use flux_protocol::frame;
use flux_protocol::message::{Flags, Kind, Matchtag, Message, text_payload};
use flux_replay::{Direction, Row, What};
use serde_json::Value;

/// Keys of payloads that differ from run to run.
const FREE: [&str; 5] = ["time.tv_sec", "time.tv_nsec", "env", "timestamp", "matchtag"];
/// Requests whose whole payload differs from run to run.
const FREE_TOPICS: [&str; 1] = ["log.append"];
const POLL: Duration = Duration::from_millis(5);

pub(crate) struct FakeBroker {
    state: Arc<State>,
    acceptor: JoinHandle<()>,
}

struct State {
    stop: AtomicBool,
    /// Knows no script, and answers everything with success.
    grants: bool,
    /// Captured connections that no client has taken over yet.
    free: Mutex<Vec<Script>>,
    problems: Mutex<Vec<String>>,
    clients: Mutex<Vec<JoinHandle<()>>>,
}

/// What was said on one connection.
struct Script {
    lines: Vec<Line>,
}

struct Line {
    direction: Direction,
    message: Message,
    /// As it was then; that of the message becomes what the client chooses now.
    matchtag: Matchtag,
    done: bool,
}

impl FakeBroker {
    /// Without rows every request is granted.
    pub(crate) fn start(socket: &Path, rows: Option<&[Row]>) -> FakeBroker {
        let mut connections: BTreeMap<u64, Vec<Line>> = BTreeMap::new();
        for row in rows.unwrap_or_default() {
            // A client that only connects has a script, too.
            let lines = connections.entry(row.conn).or_default();
            if let What::Message(message) = &row.what {
                let message = (**message).clone();
                let matchtag = message.matchtag();
                let done = row.direction == Direction::ToBroker && is_courtesy(&message);
                lines.push(Line { direction: row.direction, message, matchtag, done });
            }
        }
        let free = connections.into_values().map(|lines| Script { lines }).collect();
        let state = Arc::new(State {
            stop: AtomicBool::new(false),
            grants: rows.is_none(),
            free: Mutex::new(free),
            problems: Mutex::new(Vec::new()),
            clients: Mutex::new(Vec::new()),
        });
        let listener = UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let acceptor = std::thread::spawn({
            let state = state.clone();
            move || state.accept(&listener)
        });
        FakeBroker { state, acceptor }
    }

    /// Returns what was said too much or too little.
    pub(crate) fn finish(self) -> Vec<String> {
        self.state.stop.store(true, Ordering::SeqCst);
        self.acceptor.join().unwrap();
        for client in std::mem::take(&mut *self.state.clients.lock().unwrap()) {
            client.join().unwrap();
        }
        let mut problems = std::mem::take(&mut *self.state.problems.lock().unwrap());
        for script in self.state.free.lock().unwrap().iter() {
            problems.extend(script.missing());
        }
        problems
    }
}

impl State {
    fn accept(self: &Arc<State>, listener: &UnixListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let state = self.clone();
                    let client = std::thread::spawn(move || state.serve(stream));
                    self.clients.lock().unwrap().push(client);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // Whoever has connected by now is still to be heard.
                    if self.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    std::thread::sleep(POLL);
                }
                Err(e) => panic!("accept: {e}"),
            }
        }
    }

    fn serve(&self, mut stream: UnixStream) {
        stream.set_nonblocking(false).unwrap();
        if stream.write_all(&[0]).is_err() {
            return;
        }
        let mut script: Option<Script> = None;
        let mut inbox = BytesMut::new();
        let mut chunk = [0; 65536];
        loop {
            while let Some(message) = frame::decode(&mut inbox, usize::MAX).unwrap() {
                if script.is_none() {
                    script = self.take_script(&message);
                }
                let answers = match &mut script {
                    _ if self.grants || is_courtesy(&message) => Some(grant(&message)),
                    script => script.as_mut().and_then(|script| script.hear(&message)),
                };
                let Some(answers) = answers else {
                    let problem = format!("  not said then: {}", show(&message));
                    self.problems.lock().unwrap().push(problem);
                    // Nobody is to wait for an answer that will not come.
                    return;
                };
                let mut out = BytesMut::new();
                answers.iter().for_each(|answer| frame::encode(answer, &mut out));
                if stream.write_all(&out).is_err() {
                    break;
                }
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(n) => inbox.extend_from_slice(&chunk[..n]),
            }
        }
        // A client that says nothing takes over a connection on which nothing was said.
        let script = script.or_else(|| {
            let mut free = self.free.lock().unwrap();
            let silent = free.iter().position(|script| script.missing().is_empty())?;
            Some(free.remove(silent))
        });
        if let Some(script) = script {
            self.problems.lock().unwrap().extend(script.missing());
        }
    }

    /// The first connection on which this was said.
    fn take_script(&self, message: &Message) -> Option<Script> {
        let mut free = self.free.lock().unwrap();
        let at = free
            .iter()
            .position(|script| script.requests().any(|line| same(&line.message, message)))?;
        Some(free.remove(at))
    }
}

impl Script {
    fn requests(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.direction == Direction::ToBroker)
    }

    fn missing(&self) -> Vec<String> {
        let missing = self.requests().filter(|line| !line.done);
        missing.map(|line| format!("  not said now: {}", show(&line.message))).collect()
    }

    /// The answers that are due after a message; nothing where it is not in the script.
    fn hear(&mut self, message: &Message) -> Option<Vec<Message>> {
        let heard = self
            .lines
            .iter_mut()
            .filter(|line| line.direction == Direction::ToBroker && !line.done)
            .find(|line| same(&line.message, message));
        let line = heard?;
        line.done = true;
        let (captured, now) = (line.message.matchtag(), message.matchtag());
        if captured != now {
            self.rename(captured, now);
        }
        // What came before all that was said since is due.
        let mut due = Vec::new();
        for line in &mut self.lines {
            match (line.direction, line.done) {
                (Direction::ToBroker, false) => break,
                (Direction::ToClient, false) => {
                    line.done = true;
                    due.push(line.message.clone());
                }
                _ => {}
            }
        }
        if due.is_empty() && FREE_TOPICS.contains(&message.topic.as_str()) {
            // The real command had left before its answer came.
            due.push(Message::response(message, 0, None));
        }
        Some(due)
    }

    /// The answers to a request carry its matchtag, which may be another one now.
    fn rename(&mut self, captured: Matchtag, now: Matchtag) {
        let mut seen = false;
        for line in &mut self.lines {
            if line.direction == Direction::ToBroker && line.matchtag == captured {
                // Of the request just heard, up to the next one that has this tag again.
                if seen && !line.done {
                    break;
                }
                seen |= line.done;
            }
            if let Kind::Response { matchtag, .. } = &mut line.message.kind
                && line.matchtag == captured
                && seen
                && !line.done
            {
                *matchtag = now;
            }
        }
    }
}

/// What may be said or not: the end of the connection says as much, or a process may have ended
/// before its input did.
fn is_courtesy(message: &Message) -> bool {
    let ends_input = || {
        let payload = json(message)?;
        payload.get("io")?.get("eof")?.as_bool()
    };
    match message.topic.as_str() {
        "event.unsubscribe" => true,
        "rexec.write" => ends_input() == Some(true),
        _ => false,
    }
}

/// Success, with what a commit tells of the new root.
fn grant(message: &Message) -> Vec<Message> {
    if !message.wants_response() {
        return Vec::new();
    }
    let root = r#"{"rootref":"sha1-da39a3ee5e6b4b0d3255bfef95601890afd80709","rootseq":1}"#;
    vec![Message::response(message, 0, Some(text_payload(root)))]
}

fn same(captured: &Message, message: &Message) -> bool {
    let kind = |message: &Message| match message.kind {
        Kind::Request { nodeid, .. } => Some(nodeid),
        _ => None,
    };
    let flags = |message: &Message| {
        let mut flags = message.flags;
        // A log line may ask for an answer, and gets none here that was not captured.
        if FREE_TOPICS.contains(&message.topic.as_str()) {
            flags.clear(Flags::NORESPONSE);
        }
        // Nothing and an empty object are the same to any service.
        if message.payload.as_deref() == Some(b"{}\0") {
            flags.clear(Flags::PAYLOAD);
        }
        flags
    };
    captured.typemask() == message.typemask()
        && kind(captured) == kind(message)
        && captured.topic == message.topic
        && flags(captured) == flags(message)
        && captured.cred == message.cred
        && same_payload(captured, message)
}

fn same_payload(captured: &Message, message: &Message) -> bool {
    if FREE_TOPICS.contains(&message.topic.as_str()) {
        return true;
    }
    let object = |message: &Message| match &message.payload {
        None => Some(Value::Object(serde_json::Map::new())),
        Some(_) => json(message),
    };
    match (object(captured), object(message)) {
        (Some(captured), Some(now)) => same_json(&captured, &now),
        _ => captured.payload == message.payload,
    }
}

fn json(message: &Message) -> Option<Value> {
    serde_json::from_slice(message.payload.as_ref()?.strip_suffix(b"\0")?).ok()
}

fn same_json(captured: &Value, now: &Value) -> bool {
    match (captured, now) {
        (Value::Object(captured), Value::Object(now)) => {
            captured.len() == now.len()
                && captured.iter().all(|(key, value)| {
                    now.get(key).is_some_and(|now| {
                        FREE.contains(&key.as_str())
                            || same_json(value, now)
                            || same_event(value, now)
                            || match key.as_str() {
                                "attrs" => same_names(value, now),
                                "J" => same_request(value, now),
                                // The time of day, less what the command says.
                                "since" => value.as_f64() > Some(0.0) && now.as_f64() > Some(0.0),
                                _ => false,
                            }
                    })
                })
        }
        (Value::Array(captured), Value::Array(now)) => {
            captured.len() == now.len()
                && captured.iter().zip(now).all(|(captured, now)| same_json(captured, now))
        }
        (Value::Number(captured), Value::Number(now)) => captured.as_f64() == now.as_f64(),
        (Value::String(captured), _) if captured.contains("<$TRIMMED") => now.is_string(),
        (captured, now) => captured == now,
    }
}

fn show(message: &Message) -> String {
    let payload = message.payload.as_deref().unwrap_or_default();
    let payload = String::from_utf8_lossy(payload);
    let mut payload: String = payload.chars().take(300).collect();
    if let Some(value) = json(message)
        && let Some(request) = value.get("J").and_then(Value::as_str)
        && let Some(part) = request.split('.').nth(1)
        && let Ok(jobspec) = STANDARD.decode(part)
    {
        payload = String::from_utf8_lossy(&jobspec).into_owned();
    }
    format!("{:?} {} {:?} {payload}", message.kind, message.topic, message.flags)
}

/// Values of eventlogs, but for the time.
fn same_event(captured: &Value, now: &Value) -> bool {
    let event = |value: &Value| {
        let line = STANDARD.decode(value.as_str()?).ok()?;
        let mut event: Value = serde_json::from_slice(&line).ok()?;
        event.as_object_mut()?.shift_remove("timestamp")?;
        Some(event)
    };
    event(captured).is_some_and(|captured| event(now) == Some(captured))
}

/// Names in any order. Who asks for everything may as well ask for what it prints.
fn same_names(captured: &Value, now: &Value) -> bool {
    let names = |value: &Value| -> Option<BTreeSet<String>> {
        value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    match (names(captured), names(now)) {
        (Some(captured), Some(now)) => captured == now || captured.contains("all"),
        _ => false,
    }
}

/// Signed requests of the same job, but for where and in which environment it was submitted.
fn same_request(captured: &Value, now: &Value) -> bool {
    let request = |value: &Value| {
        let mut parts = value.as_str()?.split('.');
        let header = STANDARD.decode(parts.next()?).ok()?;
        let mut jobspec: Value =
            serde_json::from_slice(&STANDARD.decode(parts.next()?).ok()?).ok()?;
        if let Some(system) = jobspec.pointer_mut("/attributes/system")
            && let Some(system) = system.as_object_mut()
        {
            system.shift_remove("environment");
            system.shift_remove("cwd");
        }
        // Limits are those of the machine.
        if let Some(limits) = jobspec.pointer_mut("/attributes/system/shell/options/rlimit")
            && let Some(limits) = limits.as_object_mut()
        {
            limits.values_mut().for_each(|limit| *limit = Value::Null);
        }
        Some((header, jobspec, parts.next()?.to_owned()))
    };
    match (request(captured), request(now)) {
        (Some(captured), Some(now)) => {
            captured.0 == now.0 && same_json(&captured.1, &now.1) && captured.2 == now.2
        }
        _ => false,
    }
}
