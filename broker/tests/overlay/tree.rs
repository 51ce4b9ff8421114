//! Brokers in this process, one per rank, as a `[bootstrap]` table describes them.

use std::cell::RefCell;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use flux_broker::attrs::{Access, Attrs};
use flux_broker::boot;
use flux_broker::broker::Broker;
use flux_broker::config::Config;
use flux_broker::connector::Connector;
use flux_broker::handle::Handle;
use flux_broker::loaded::Loaded;
use flux_broker::log::Record;
use flux_broker::overlay::{Overlay, Uplink};
use flux_broker::peers::Peers;
use flux_broker::router::Sink;
use flux_broker::service::{Service, load};
use flux_broker::services;
use flux_cert::Certificate;
use flux_protocol::credential::{Credential, Userid};
use flux_protocol::message::Message;
use flux_protocol::rpc::overlay::HealthResponse;
use tokio::sync::mpsc;

/// Long enough for a machine that does many other things.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the brokers of one instance meet.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    size: u32,
    topo: String,
    attrs: Vec<(String, String)>,
}

/// One broker.
pub(crate) struct Node {
    pub(crate) broker: Rc<Broker>,
    pub(crate) overlay: Rc<Overlay>,
    pub(crate) handle: Handle,
    loaded: Vec<Loaded>,
    records: RefCell<mpsc::UnboundedReceiver<Record>>,
    lines: RefCell<Vec<String>>,
    _connector: Connector,
}

/// Keeps what is delivered.
#[derive(Default)]
pub(crate) struct Inbox(pub(crate) RefCell<Vec<Message>>);

impl Sink for Inbox {
    fn deliver(&self, message: Message) {
        self.0.borrow_mut().push(message);
    }
    fn cred(&self) -> Credential {
        Credential::UNSET
    }
}

impl Site {
    /// Of `size` brokers on hosts `h0`, `h1` and so on, in the shape `topo`.
    pub(crate) fn new(size: u32, topo: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        Certificate::generate().unwrap().save(&dir.path().join("curve.cert")).unwrap();
        Site { dir, size, topo: topo.to_owned(), attrs: Vec::new() }
    }

    /// All brokers that are started from now on have this attribute.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.attrs.retain(|(there, _)| there != name);
        self.attrs.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn socket(&self, rank: u32) -> PathBuf {
        self.dir.path().join(format!("local-{rank}"))
    }

    pub(crate) fn config(&self) -> String {
        format!(
            "[bootstrap]\ncurve_cert = '{at}/curve.cert'\ndefault_bind = 'ipc://{at}/%h'\n\
             default_connect = 'ipc://{at}/%h'\nhosts = [{{ host = 'h[0-{last}]' }}]",
            at = self.dir.path().display(),
            last = self.size - 1
        )
    }

    /// Start the process of one rank, without waiting for it to be let in.
    pub(crate) async fn start(&self, rank: u32) -> Node {
        let attrs = Attrs::default();
        attrs.put("log-stderr-level", "-1", Access::Runtime);
        attrs.put("tbon.topo", &self.topo, Access::ReadOnly);
        for (name, value) in &self.attrs {
            attrs.put(name, value, Access::ReadOnly);
        }
        attrs.put("rank", rank.to_string(), Access::Immutable);
        attrs.put("size", self.size.to_string(), Access::Immutable);
        let config = Config::from_object(toml::from_str(&self.config()).unwrap());
        let booting = boot::begin(&attrs, &config, &format!("h{rank}")).await.unwrap();
        assert_eq!((booting.rank(), booting.size()), (rank, self.size));
        let boot = booting.wire_up(&attrs).await.unwrap();
        let owner = Userid(nix::unistd::getuid().as_raw());
        let broker = Broker::new(rank, self.size, owner, attrs, config);
        let records = RefCell::new(broker.log().subscribe());
        let overlay = Overlay::start(&broker, boot).unwrap();
        let loaded = vec![
            load::<services::attr::Attr>(&broker, None, &[]).await.unwrap(),
            load::<services::overlay::Overlay>(&broker, None, &[]).await.unwrap(),
            load::<services::groups::Groups>(&broker, None, &[]).await.unwrap(),
        ];
        let socket = self.socket(rank);
        let _ = std::fs::remove_file(&socket);
        let connector = Connector::listen(&broker, &socket).unwrap();
        let handle = Handle::new(broker.router().clone());
        let lines = RefCell::default();
        Node { broker, overlay, handle, loaded, records, lines, _connector: connector }
    }

    /// Start all and wait until the tree is complete, for parents and for children.
    ///
    /// A parent counts a child as online a moment before the child hears of it, and one that
    /// stops in between has no goodbye to say.
    pub(crate) async fn start_all(&self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for rank in 0..self.size {
            nodes.push(self.start(rank).await);
        }
        for node in nodes.iter().skip(1) {
            node.until_joined().await;
        }
        for node in &nodes {
            node.until_status("full").await;
        }
        nodes
    }
}

impl Node {
    /// What else is to run here.
    pub(crate) async fn load<S: Service>(&mut self, args: &[&str]) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.loaded.push(load::<S>(&self.broker, None, &args).await.unwrap());
    }

    pub(crate) fn health(&self) -> HealthResponse {
        self.overlay.health()
    }

    /// The status of a child, and why, as its parent sees it.
    pub(crate) fn child(&self, rank: u32) -> (String, Option<String>) {
        let health = self.health();
        let child = health.children.into_iter().find(|child| child.rank == rank).unwrap();
        (child.status, child.error)
    }

    pub(crate) async fn until_status(&self, status: &str) {
        let rank = self.broker.rank();
        until(&format!("rank {rank} {status}"), || self.overlay.status().name() == status).await;
    }

    pub(crate) async fn until_joined(&self) {
        until("joined", || *self.overlay.uplink().borrow() == Uplink::Joined).await;
    }

    /// The reason for the loss of the parent.
    pub(crate) async fn lost_parent(&self) -> String {
        tokio::time::timeout(LIMIT, self.overlay.parent_lost()).await.unwrap()
    }

    /// End the process without a word.
    pub(crate) fn kill(self) {
        self.overlay.stop();
    }

    /// Leave as a broker does that is told to stop.
    pub(crate) async fn leave(self) {
        self.overlay.close();
        self.overlay.goodbye().await;
        for loaded in self.loaded.iter().rev() {
            loaded.stop().await;
        }
        self.overlay.stop();
    }

    pub(crate) fn has_logged(&self, part: &str) -> bool {
        self.log().iter().any(|line| line.contains(part))
    }

    /// Lines of the log.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut lines = self.lines.borrow_mut();
        while let Ok(record) = self.records.borrow_mut().try_recv() {
            lines.push(record.line());
        }
        lines.clone()
    }

    pub(crate) async fn until_logged(&self, part: &str) {
        until(part, || self.has_logged(part)).await;
    }
}

/// Wait for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "never: {what}");
}

/// Run a test on the one thread that all its brokers run on.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}
