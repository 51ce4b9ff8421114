//! Numbers about this broker for Prometheus, in its text format, at a socket of the file system.
//!
//! Off unless the attribute `metrics-socket` names a path. Only the instance's owner can connect.
//! What is told is what the services answer when they are asked for their statistics; one request
//! is served at a time, so that asking often costs no more than that.

mod page;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{Empty, Object, text};
use flux_protocol::rpc::job_manager::{self, JobtapRequest, NameRequest};
use flux_protocol::rpc::{job_list, overlay};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use self::page::Page;
use crate::broker::Broker;
use crate::handle::Handle;
use crate::log::Severity;

/// Path of the socket.
const ATTR: &str = "metrics-socket";
/// A request has to come, and a service to answer, within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a request; nobody needs more than its first line.
const REQUEST_MAX: usize = 8192;

/// The socket while it is served.
#[derive(Debug)]
pub struct Endpoint {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    /// Listen, if that is wanted.
    pub fn start(broker: &Rc<Broker>) -> std::io::Result<Option<Endpoint>> {
        let Some(path) = broker.attrs().get(ATTR).map(PathBuf::from) else { return Ok(None) };
        let listener = listen(&path)?;
        let broker = broker.clone();
        let task = tokio::task::spawn_local(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => serve(&broker, stream).await,
                    Err(error) => {
                        let text = format!("{ATTR}: {error}");
                        broker.log().append(Severity::Err, "broker", &text);
                        tokio::time::sleep(PATIENCE).await;
                    }
                }
            }
        });
        Ok(Some(Endpoint { path, task }))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    // Of a broker that has died. Anything else in that place is somebody's.
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn serve(broker: &Rc<Broker>, mut stream: UnixStream) {
    let Ok(Some(line)) = tokio::time::timeout(PATIENCE, request_line(&mut stream)).await else {
        return;
    };
    let mut words = line.split_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/" | "/metrics")) => ("200 OK", collect(broker).await),
        (Some("GET"), Some(_)) => ("404 Not Found", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let answer = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    };
    // Who asked may be gone.
    let _ = tokio::time::timeout(PATIENCE, answer).await;
}

/// The first line of a request that is complete.
async fn request_line(stream: &mut UnixStream) -> Option<String> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let count = stream.read(&mut piece).await.ok()?;
        request.extend_from_slice(piece.get(..count)?);
        let ended = request.windows(4).any(|end| end == b"\r\n\r\n")
            || request.windows(2).any(|end| end == b"\n\n");
        if ended {
            let text = String::from_utf8_lossy(&request);
            return text.lines().next().map(str::to_owned);
        }
        if count == 0 || request.len() > REQUEST_MAX {
            return None;
        }
    }
}

async fn collect(broker: &Rc<Broker>) -> String {
    let handle = Handle::new(broker.router().clone());
    let mut page = Page::default();
    about_broker(broker, &mut page);
    if let Some(health) = within(handle.rpc::<overlay::Health>(&Empty)).await {
        about_overlay(&health, &mut page);
    }
    if broker.rank() == 0 {
        if let Some(stats) = within(handle.rpc::<job_list::JobStats>(&Empty)).await {
            about_jobs(&stats, &mut page);
        }
        about_plugins(&handle, &mut page).await;
    }
    for module in broker.modules().list_all() {
        let labels = [("module", module.name.as_str())];
        let help = "Requests that wait for a module";
        page.gauge("flux_module_queue", help, &labels, module.gate.len() as f64);
        let Some(stats) = within(statistics(&handle, &module.name)).await else { continue };
        if let Some(calls) = stats.get("calls").and_then(|calls| calls.get("callbacks")) {
            page.callbacks(&module.name, calls);
        }
        page.statistics(&module.name, &stats);
    }
    handle.close();
    page.render()
}

fn about_broker(broker: &Broker, page: &mut Page) {
    let (rank, size) = (broker.rank().to_string(), broker.size().to_string());
    let labels = [("rank", &*rank), ("size", &*size), ("version", crate::VERSION)];
    page.gauge("flux_broker_info", "This broker", &labels, 1.0);
    let uptime = broker.started().elapsed().as_secs_f64();
    page.gauge("flux_broker_uptime_seconds", "Since the broker was started", &[], uptime);
    if let Some(life) = broker.life() {
        let state = *life.state().borrow();
        let labels = [("state", state.name())];
        page.gauge("flux_broker_state", "State of the broker", &labels, f64::from(state.number()));
    }
}

fn about_overlay(health: &overlay::HealthResponse, page: &mut Page) {
    let labels = [("status", health.status.as_str())];
    let help = "Health of this broker and all below it; the value is 1 when it is full";
    let full = f64::from(u8::from(health.status == "full"));
    page.gauge("flux_overlay_health", help, &labels, full);
    for status in ["full", "partial", "degraded", "lost", "offline"] {
        let count = health.children.iter().filter(|child| child.status == status).count();
        let help = "Brokers right below this one";
        page.gauge("flux_overlay_children", help, &[("status", status)], count as f64);
    }
}

fn about_jobs(stats: &job_list::Stats, page: &mut Page) {
    for (state, count) in by_state(&stats.job_states) {
        page.gauge("flux_jobs", "Jobs that are there, by state", &[("state", state)], count as f64);
    }
    for (result, count) in [
        ("successful", stats.successful),
        ("failed", stats.failed),
        ("canceled", stats.canceled),
        ("timeout", stats.timeout),
        ("purged", stats.inactive_purged),
    ] {
        let labels = [("result", result)];
        page.counter("flux_jobs_finished_total", "Jobs that ended", &labels, count as f64);
    }
    for queue in stats.queues.iter().flatten() {
        for (state, count) in by_state(&queue.stats.job_states) {
            let labels = [("queue", queue.name.as_str()), ("state", state)];
            page.gauge("flux_queue_jobs", "Jobs of a queue, by state", &labels, count as f64);
        }
    }
}

fn by_state(states: &job_list::StateCounts) -> [(&'static str, u64); 6] {
    [
        ("depend", states.depend),
        ("priority", states.priority),
        ("sched", states.sched),
        ("run", states.run),
        ("cleanup", states.cleanup),
        ("inactive", states.inactive),
    ]
}

/// The jobtap plugins; the scheduler is among the modules.
async fn about_plugins(handle: &Handle, page: &mut Page) {
    let request = JobtapRequest { query_only: Some(true), ..JobtapRequest::default() };
    let Some(list) = within(handle.rpc::<job_manager::Jobtap>(&request)).await else { return };
    for name in list.plugins.iter().filter_map(Value::as_str) {
        let request = NameRequest { name: name.to_owned() };
        let Some(about) = within(handle.rpc::<job_manager::JobtapQuery>(&request)).await else {
            continue;
        };
        let Some(stats) = about.get("stats") else { continue };
        let number = |key: &str| stats.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        let labels = [("plugin", name)];
        let running = stats.get("status").and_then(Value::as_str) == Some("running");
        let help = "Whether a plugin runs: it does not after too many faults";
        page.gauge("flux_plugin_up", help, &labels, f64::from(u8::from(running)));
        let help = "Memory that an instance of a plugin had at most";
        page.gauge("flux_plugin_peak_memory_bytes", help, &labels, number("peak_memory"));
        let help = "Starts of a plugin, after faults among them";
        page.counter("flux_plugin_starts_total", help, &labels, number("starts"));
        if let Some(callbacks) = stats.get("callbacks") {
            page.callbacks(name, callbacks);
        }
    }
}

async fn statistics(handle: &Handle, module: &str) -> Result<Object, Failure> {
    let topic = format!("{module}.stats-get");
    let mut responses = handle.send_raw::<()>(topic, Nodeid::ANY, Flags::default(), None);
    let payload = responses.next_raw().await?;
    // What is no object has no numbers by name.
    Ok(text(payload.as_ref())
        .ok()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default())
}

/// Nothing when a service isn't there, or does not answer in time.
async fn within<T>(answer: impl Future<Output = Result<T, Failure>>) -> Option<T> {
    tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
}
