//! An instance of one broker with all services that jobs need.

use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use flux_broker::attrs::{Access, Attrs};
use flux_broker::broker::Broker;
use flux_broker::config::Config;
use flux_broker::connector::Connector;
use flux_broker::handle::Handle;
use flux_broker::loaded::Loaded;
use flux_broker::log::Record;
use flux_broker::service::{Service, load};
use flux_broker::services::attr::Attr;
use flux_broker::services::config::ConfigService;
use flux_broker::services::content::Content;
use flux_broker::services::content_sqlite::ContentSqlite;
use flux_broker::services::event::Event;
use flux_broker::services::job_exec::JobExec;
use flux_broker::services::job_info::JobInfo;
use flux_broker::services::job_ingest::JobIngest;
use flux_broker::services::job_list::JobList;
use flux_broker::services::job_manager::JobManager;
use flux_broker::services::kvs::Kvs;
use flux_broker::services::kvs_watch::KvsWatch;
use flux_broker::services::resource::Resource;
use flux_broker::services::rexec::Rexec;
use flux_broker::services::sched::Sched;
use flux_protocol::credential::Userid;
use flux_protocol::eventlog::{self, Event as LogEvent};
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::{job_info, job_ingest, job_manager};
use serde_json::{Value, json};

use crate::execution::Execution;

/// How long anything may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Four nodes of two cores that exist in the books alone.
const RESOURCES: &str =
    r#"{"fake-resources": {"nnodes": 4, "cores-per-node": 2, "host-prefix": "vm"}}"#;

pub(crate) struct Instance {
    pub(crate) broker: Rc<Broker>,
    pub(crate) handle: Handle,
    log: RefCell<tokio::sync::mpsc::UnboundedReceiver<Record>>,
    loaded: Vec<Rc<Loaded>>,
    connector: Connector,
    dir: tempfile::TempDir,
}

/// What to start.
pub(crate) struct Options<'a> {
    pub(crate) config: Value,
    pub(crate) statedir: Option<&'a Path>,
    /// Run jobs with the double instead of `job-exec`.
    pub(crate) double: bool,
    /// Without it, jobs wait.
    pub(crate) scheduler: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { config: json!({}), statedir: None, double: false, scheduler: true }
    }
}

impl Instance {
    pub(crate) async fn start() -> Instance {
        Instance::with(Options::default()).await.unwrap()
    }

    pub(crate) async fn with(options: Options<'_>) -> Result<Instance, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let attrs = Attrs::default();
        let owner = nix::unistd::getuid().as_raw();
        let rundir = dir.path().display().to_string();
        for (name, value) in [
            ("rank", "0"),
            ("size", "1"),
            ("security.owner", &owner.to_string()),
            ("hostlist", "vm0"),
            ("hostname", "vm0"),
            ("rundir", &rundir),
            ("local-uri", &format!("local://{rundir}/local-0")),
        ] {
            attrs.put(name, value, Access::Immutable);
        }
        if let Some(statedir) = options.statedir {
            attrs.put("statedir", statedir.display().to_string(), Access::Immutable);
        }
        attrs.put("log-stderr-level", "-1", Access::Runtime);
        let mut config = Config::default();
        config.update(RESOURCES).unwrap();
        config.update(&options.config.to_string()).unwrap();
        let broker = Broker::new(0, 1, Userid(owner), attrs, config);
        let connector = Connector::listen(&broker, &dir.path().join("local-0")).unwrap();
        let handle = Handle::new(broker.router().clone());
        let log = RefCell::new(broker.log().subscribe());
        let mut instance = Instance { broker, handle, log, loaded: Vec::new(), connector, dir };
        instance.load::<Attr>().await?;
        instance.load::<Event>().await?;
        instance.load::<Rexec>().await?;
        instance.load::<ConfigService>().await?;
        instance.load::<Content>().await?;
        instance.load::<ContentSqlite>().await?;
        instance.load::<Kvs>().await?;
        instance.load::<KvsWatch>().await?;
        instance.load::<Resource>().await?;
        instance.load::<JobManager>().await?;
        instance.load::<JobInfo>().await?;
        instance.load::<JobList>().await?;
        instance.load::<JobIngest>().await?;
        match options.double {
            true => instance.load::<Execution>().await?,
            false => instance.load::<JobExec>().await?,
        }
        if options.scheduler {
            instance.load::<Sched>().await?;
        }
        Ok(instance)
    }

    pub(crate) async fn load<S: Service>(&mut self) -> Result<(), Failure> {
        self.loaded.push(Rc::new(load::<S>(&self.broker, None, &[]).await?));
        self.broker.modules().set_builtin(self.loaded.clone());
        Ok(())
    }

    /// Stop a service that was loaded.
    pub(crate) async fn unload(&mut self, name: &str) {
        let at = self.loaded.iter().position(|loaded| loaded.name == name).unwrap();
        let unloaded = self.loaded.remove(at);
        self.broker.modules().set_builtin(self.loaded.clone());
        unloaded.stop().await;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("local-0")
    }

    /// Unload everything in order, as rc3 does.
    pub(crate) async fn stop(self) {
        drop(self.connector);
        for loaded in self.loaded.into_iter().rev() {
            loaded.stop().await;
        }
        self.handle.close();
    }

    /// What was logged since the last call.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        let mut log = self.log.borrow_mut();
        std::iter::from_fn(|| log.try_recv().ok()).map(|record| record.line()).collect()
    }

    /// Wait until a line with this text is logged.
    pub(crate) async fn wait_log(&self, text: &str) {
        let logged = async {
            while !self.log_lines().iter().any(|line| line.contains(text)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, logged).await.unwrap();
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> f64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
    }

    // --- jobs ---

    pub(crate) async fn submit(&self, jobspec: &Value) -> Result<JobId, Failure> {
        self.submit_with(jobspec, 16, 0).await
    }

    pub(crate) async fn submit_with(
        &self,
        jobspec: &Value,
        urgency: i64,
        flags: i64,
    ) -> Result<JobId, Failure> {
        let owner = self.broker.owner().0;
        let j = flux_sign::wrap_none(owner, jobspec.to_string().as_bytes());
        let request = job_ingest::SubmitRequest { j, urgency, flags };
        Ok(self.handle.rpc::<job_ingest::Submit>(&request).await?.id)
    }

    /// Follow the job's eventlog up to an event with this name.
    /// What `flux module stats` shows of a service.
    pub(crate) async fn stats(&self, service: &str) -> Value {
        let topic = format!("{service}.stats-get");
        let mut answer = self.handle.send_raw::<()>(topic, Nodeid::ANY, Default::default(), None);
        let payload = answer.next_raw().await.unwrap();
        serde_json::from_str(flux_protocol::payload::text(payload.as_ref()).unwrap()).unwrap()
    }

    pub(crate) async fn wait_event(&self, id: JobId, name: &str) -> LogEvent {
        let request = job_info::EventlogWatchRequest { id, path: "eventlog".to_owned(), flags: 0 };
        let mut watch =
            self.handle.stream::<job_info::EventlogWatch>(Nodeid::ANY, &request).unwrap();
        let find = async {
            let mut seen = Vec::new();
            loop {
                match watch.next().await {
                    Ok(response) => {
                        let event = LogEvent::decode(&response.event).unwrap();
                        if event.name == name {
                            return event;
                        }
                        seen.push(event.name);
                    }
                    Err(failure) => panic!("{}: no {name} in {seen:?}: {failure}", id.f58()),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, find).await {
            Ok(event) => event,
            Err(_) => panic!("{}: no {name} in {:?}", id.f58(), self.event_names(id).await),
        }
    }

    pub(crate) async fn events(&self, id: JobId) -> Vec<LogEvent> {
        let request = job_info::LookupRequest { id, keys: vec!["eventlog".to_owned()], flags: 0 };
        let object = self.handle.rpc::<job_info::Lookup>(&request).await.unwrap();
        eventlog::decode(object["eventlog"].as_str().unwrap()).unwrap()
    }

    pub(crate) async fn event_names(&self, id: JobId) -> Vec<String> {
        self.events(id).await.into_iter().map(|event| event.name).collect()
    }

    pub(crate) async fn raise(&self, id: JobId, kind: &str, severity: i64) -> Result<(), Failure> {
        let kind = kind.to_owned();
        let request =
            job_manager::RaiseRequest { id, severity, kind, note: None, wait_status: None };
        self.handle.rpc::<job_manager::Raise>(&request).await.map(drop)
    }
}

/// A job of one core that runs a command, in name.
pub(crate) fn jobspec(command: &[&str]) -> Value {
    jobspec_of(command, 1, json!({}))
}

/// A job of so many one-core slots, with more attributes.
pub(crate) fn jobspec_of(command: &[&str], slots: u64, system: Value) -> Value {
    let mut attributes = json!({ "duration": 0, "cwd": "/tmp", "environment": {"A": "b"} });
    let more = system.as_object().unwrap().clone();
    attributes.as_object_mut().unwrap().extend(more);
    json!({
        "version": 1,
        "resources": [{
            "type": "slot", "count": slots, "label": "task",
            "with": [{"type": "core", "count": 1}],
        }],
        "tasks": [{"command": command, "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": attributes},
    })
}

/// A job whose execution is simulated and takes so long.
pub(crate) fn simulated(duration: &str) -> Value {
    let exec = json!({ "exec": { "test": { "run_duration": duration } } });
    jobspec_of(&["simulated"], 1, exec)
}

/// Run a test on the one thread that a broker runs on.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

pub(crate) async fn until(what: impl AsyncFn() -> bool) {
    let poll = async {
        while !what().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.unwrap();
}
