//! The PMI-1 server of this shell: a socket for each task, and the exchange with other shells
//! through `UID-shell-ID.pmi-exchange`.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use flux_client::Client;
use flux_pmi::{Action, Server};
use flux_protocol::message::{Message, Nodeid};
use flux_protocol::rpc::attr;
use flux_protocol::taskmap::Form;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::fatal::Fatal;
use crate::job::Job;
use crate::log::Log;

mod exchange;

use exchange::{Exchange, Step};

const COMPONENT: &str = "pmi-simple";
/// Values that are longer are not offered.
const VALUE_MAX: usize = 1024;
/// Where the dynamic linker looks first.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
/// Keys that stay on this node.
const LOCAL: &str = "local::";

#[derive(Debug)]
pub(crate) enum Event {
    Line {
        index: usize,
        line: String,
    },
    /// Attributes of the enclosing instance, by the keys that clients know them by.
    Instance(Vec<(&'static str, String)>),
    /// The parent shell has answered.
    Exchanged(Result<BTreeMap<String, String>, String>),
}

pub(crate) struct Pmi {
    flux: Client,
    log: Log,
    server: Server,
    exchange: Exchange,
    clients: Vec<Option<Arc<OwnedWriteHalf>>>,
    events: mpsc::UnboundedSender<Event>,
    instance: Instance,
    /// The program has given up: what its tasks say now is no error.
    aborted: bool,
}

/// What a task learns at start.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// To be open in the task; goes by the number in `PMI_FD`.
    pub(crate) fd: OwnedFd,
    env: [(&'static str, String); 3],
}

/// What the shell has to do after an event.
#[derive(Debug)]
pub(crate) enum Outcome {
    Nothing,
    /// Raise an exception; the job is at its end.
    Abort(String),
}

/// Keys about the enclosing instance are fetched when the first client appears: most programs
/// have none.
#[derive(Debug)]
enum Instance {
    Unknown,
    Fetching(Vec<(usize, String)>),
    Known,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    kvs: Option<String>,
    exchange: RawExchange,
    nomap: Option<Switch>,
}

/// `-o NAME`, or `-o NAME=1`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Switch {
    Bool(bool),
    Number(i64),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawExchange {
    k: Option<usize>,
}

// === impl Endpoint ===

impl Endpoint {
    /// MPIs that do not speak the wire protocol themselves load a library that does: by the path in
    /// `FLUX_PMI_LIBRARY_PATH`, or by its name, when ours has to be found before another launcher's
    /// that is among the libraries of the system.
    pub(crate) fn extend(&self, env: &mut BTreeMap<String, String>) {
        for (name, value) in &self.env {
            env.insert((*name).to_owned(), value.clone());
        }
        let program = std::env::current_exe().unwrap_or_default();
        let layout = flux_protocol::layout::Layout::from_program(&program);
        let library = layout.pmi_library();
        let mut path = library.parent().unwrap_or(&library).to_string_lossy().into_owned();
        if let Some(more) = env.get(LIBRARY_PATH) {
            path = format!("{path}:{more}");
        }
        env.insert(LIBRARY_PATH.to_owned(), path);
        let library = library.to_string_lossy().into_owned();
        env.insert("FLUX_PMI_LIBRARY_PATH".to_owned(), library);
    }
}

// === impl Pmi ===

impl Pmi {
    /// `None`: the `pmi` option names other kinds only.
    pub(crate) fn new(
        job: &Job,
        flux: &Client,
        log: &Log,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Option<Pmi>, Fatal> {
        let options = &job.jobspec.options;
        if let Some(kinds) = options.string("pmi")?
            && !kinds.split(',').any(|kind| matches!(kind, "simple" | "pmi1" | "pmi2"))
        {
            return Ok(None);
        }
        log.debug(COMPONENT, "simple wire protocol is enabled");
        let raw: Raw = options.parse_object(COMPONENT)?.unwrap_or_default();
        if let Some(kvs) = raw.kvs.filter(|kvs| kvs != "exchange") {
            return Err(Fatal::new(COMPONENT, format!("Unknown kvs implementation {kvs}")));
        }
        let ntasks = job.tasks().count();
        let mut server = Server::new(
            job.f58.clone(),
            job.layout.total_ntasks,
            u32::try_from(ntasks).unwrap_or(u32::MAX),
        );
        if !matches!(raw.nomap, Some(Switch::Bool(true) | Switch::Number(1..))) {
            preset_taskmap(&mut server, job, log);
        }
        Ok(Some(Pmi {
            flux: flux.clone(),
            log: log.clone(),
            server,
            exchange: Exchange::new(job, raw.exchange.k.unwrap_or(0), log),
            clients: (0..ntasks).map(|_| None).collect(),
            events,
            instance: Instance::Unknown,
            aborted: false,
        }))
    }

    /// Make the socket of a task, just before the task is started.
    pub(crate) fn connect(
        &mut self,
        job: &Job,
        index: usize,
        rank: u32,
    ) -> Result<Endpoint, Fatal> {
        let failed = |e: &dyn std::fmt::Display| Fatal::new(COMPONENT, format!("socket: {e}"));
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
            .map_err(|e| failed(&e.desc()))?;
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| failed(&e.desc()))?;
        let ours = std::os::unix::net::UnixStream::from(ours);
        ours.set_nonblocking(true).map_err(|e| failed(&e))?;
        let (read, write) = UnixStream::from_std(ours).map_err(|e| failed(&e))?.into_split();
        if let Some(client) = self.clients.get_mut(index) {
            *client = Some(Arc::new(write));
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if events.send(Event::Line { index, line }).is_err() {
                    return;
                }
            }
        });
        let number = std::os::fd::AsRawFd::as_raw_fd(&theirs).to_string();
        let size = job.layout.total_ntasks.to_string();
        let env = [("PMI_FD", number), ("PMI_RANK", rank.to_string()), ("PMI_SIZE", size)];
        Ok(Endpoint { fd: theirs, env })
    }

    pub(crate) fn event(&mut self, event: Event) -> Result<Outcome, Fatal> {
        match event {
            Event::Line { index, line } => self.line(index, line),
            Event::Instance(pairs) => {
                for (key, value) in pairs {
                    self.server.preset(key, value);
                }
                let queued = std::mem::replace(&mut self.instance, Instance::Known);
                if let Instance::Fetching(lines) = queued {
                    for (index, line) in lines {
                        if let outcome @ Outcome::Abort(_) = self.line(index, line)? {
                            return Ok(outcome);
                        }
                    }
                }
                Ok(Outcome::Nothing)
            }
            Event::Exchanged(result) => {
                let step = self.exchange.answered(result, &self.log);
                self.step(step);
                Ok(Outcome::Nothing)
            }
        }
    }

    /// A shell below this one sends what its tasks have put.
    pub(crate) fn request(&mut self, request: &Message) {
        match self.exchange.request(request) {
            Ok(step) => self.step(step),
            Err((errno, text)) => {
                // The sender is gone when this fails.
                let _ = self.flux.refuse(request, errno, text);
            }
        }
    }

    fn line(&mut self, index: usize, line: String) -> Result<Outcome, Fatal> {
        // The tasks are about to be ended; none gets past a barrier meanwhile.
        if self.aborted {
            return Ok(Outcome::Nothing);
        }
        match &mut self.instance {
            Instance::Known => {}
            Instance::Fetching(queued) => {
                queued.push((index, line));
                return Ok(Outcome::Nothing);
            }
            Instance::Unknown => {
                self.instance = Instance::Fetching(vec![(index, line)]);
                self.fetch_instance();
                return Ok(Outcome::Nothing);
            }
        }
        self.log.trace(COMPONENT, format_args!("{index}: C: {line}"));
        match self.server.request(&line) {
            Ok(Action::Reply(reply) | Action::Finalized(reply)) => self.reply(index, &reply),
            Ok(Action::Wait) => {}
            Ok(Action::Complete) => {
                let puts = self.server.take_puts();
                let puts = puts.into_iter().filter(|(key, _)| !key.starts_with(LOCAL)).collect();
                let step = self.exchange.enter(puts);
                self.step(step);
            }
            Ok(Action::Abort { text, .. }) => {
                self.aborted = true;
                let separator = if text.is_empty() { "" } else { ": " };
                return Ok(Outcome::Abort(format!("PMI_Abort{separator}{text}")));
            }
            Err(e) => {
                self.log.debug(COMPONENT, e);
                return Err(Fatal::new(COMPONENT, "PMI-1 wire protocol error"));
            }
        }
        Ok(Outcome::Nothing)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::Ask { parent, topic, payload } => {
                let flux = self.flux.clone();
                let events = self.events.clone();
                tokio::spawn(async move {
                    let result = exchange::ask(&flux, parent, &topic, payload).await;
                    let _ = events.send(Event::Exchanged(result));
                });
            }
            Step::Done { pairs, answers } => {
                for request in answers {
                    let payload = flux_protocol::payload::encode_json(&pairs).unwrap_or_default();
                    if let Err(e) = self.flux.respond(&request, payload) {
                        let text = format_args!("error responding to pmi-exchange request: {e}");
                        self.log.warn(COMPONENT, text);
                    }
                }
                let line = self.server.release(pairs);
                self.broadcast(&line);
            }
            Step::Failed { answers } => {
                for request in answers {
                    let errno = flux_protocol::errno::Errno::EIO;
                    let _ = self.flux.refuse(&request, errno, "exchange failed");
                }
                self.log.warn(COMPONENT, "exchange failed");
                let line = self.server.release_failed();
                self.broadcast(&line);
            }
        }
    }

    fn broadcast(&mut self, line: &str) {
        for index in 0..self.clients.len() {
            self.reply(index, line);
        }
    }

    fn reply(&mut self, index: usize, line: &str) {
        self.log.trace(COMPONENT, format_args!("{index}: S: {line}"));
        let Some(Some(client)) = self.clients.get(index) else { return };
        let mut data = Vec::with_capacity(line.len() + 1);
        data.extend_from_slice(line.as_bytes());
        data.push(b'\n');
        // A client asks one thing at a time, so there is always room, unless it does not read.
        match client.try_write(&data) {
            Ok(n) if n == data.len() => {}
            _ => {
                self.log.debug(COMPONENT, format_args!("task {index} does not read"));
                if let Some(client) = self.clients.get_mut(index) {
                    *client = None;
                }
            }
        }
    }

    fn fetch_instance(&self) {
        let flux = self.flux.clone();
        let events = self.events.clone();
        tokio::spawn(async move {
            let get = |name: &str| {
                let request = attr::GetRequest { name: name.to_owned() };
                let pending = flux.start::<attr::Get>(Nodeid::ANY, &request);
                async move { pending.ok()?.await.ok() }
            };
            let (level, hint) = tokio::join!(get("instance-level"), get("tbon.interface-hint"));
            let mut pairs = Vec::new();
            if let Some(level) = level.and_then(|level| level.value.parse::<u32>().ok()) {
                pairs.push(("flux.instance-level", (level + 1).to_string()));
            }
            if let Some(hint) = hint {
                pairs.push(("flux.tbon-interface-hint", hint.value));
            }
            let _ = events.send(Event::Instance(pairs));
        });
    }
}

/// Tell where tasks run, so that those of one node know each other.
fn preset_taskmap(server: &mut Server, job: &Job, log: &Log) {
    for (key, form) in [("PMI_process_mapping", Form::Pmi), ("flux.taskmap", Form::Wrapped)] {
        match job.layout.taskmap.encode(form) {
            Ok(value) if value.len() <= VALUE_MAX => server.preset(key, value),
            _ if job.is_leader() && form == Form::Pmi => {
                log.warn(COMPONENT, "PMI_process_mapping overflows PMI max value.");
            }
            _ => {}
        }
    }
}
