//! A broker in this process with a socket of its own.

use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;

use flux_broker::attrs::{Access, Attrs};
use flux_broker::broker::Broker;
use flux_broker::config::Config;
use flux_broker::connector::Connector;
use flux_broker::loaded::Loaded;
use flux_broker::service::{Service, load};
use flux_protocol::credential::Userid;
use flux_replay::{Connection, sweep};

/// Rank 0 of an instance of four whose other brokers are not online.
pub(crate) struct Instance {
    pub(crate) broker: Rc<Broker>,
    loaded: Vec<Loaded>,
    builtin: Vec<Rc<Loaded>>,
    connector: Connector,
    dir: tempfile::TempDir,
}

impl Instance {
    pub(crate) fn start() -> Instance {
        let dir = tempfile::tempdir().unwrap();
        let attrs = Attrs::default();
        let owner = nix::unistd::getuid().as_raw();
        for (name, value) in [
            ("rank", "0".to_owned()),
            ("size", "4".to_owned()),
            ("security.owner", owner.to_string()),
            ("rundir", dir.path().display().to_string()),
        ] {
            attrs.put(name, value, Access::Immutable);
        }
        attrs.put("log-stderr-level", "-1", Access::Runtime);
        let broker = Broker::new(0, 4, Userid(owner), attrs, Config::default());
        let connector = Connector::listen(&broker, &dir.path().join("local-0")).unwrap();
        Instance { broker, loaded: Vec::new(), builtin: Vec::new(), connector, dir }
    }

    pub(crate) async fn with<S: Service>(self) -> Instance {
        self.with_args::<S>(&[]).await
    }

    pub(crate) async fn with_args<S: Service>(mut self, args: &[&str]) -> Instance {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.loaded.push(load::<S>(&self.broker, None, &args).await.unwrap());
        self
    }

    /// Load a service that `module.list` shows, and that hears of the configuration.
    pub(crate) async fn with_module<S: Service>(mut self) -> Instance {
        let loaded = Rc::new(load::<S>(&self.broker, None, &[]).await.unwrap());
        self.builtin.push(loaded);
        self.broker.modules().set_builtin(self.builtin.clone());
        self
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("local-0")
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.socket()).await.unwrap().unwrap()
    }

    /// Send all captured probes to the topics that `wanted` names, and fail on the first that
    /// is answered in another way.
    pub(crate) async fn sweep(&self, wanted: impl Fn(&str) -> bool) {
        let probes = sweep::probes(wanted).unwrap();
        assert!(!probes.is_empty());
        let mut differences = Vec::new();
        for probe in &probes {
            let mut connection = self.connect().await;
            differences.extend(probe.differs(&mut connection).await.unwrap());
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    pub(crate) async fn stop(self) {
        drop(self.connector);
        for loaded in self.builtin.into_iter().rev() {
            loaded.stop().await;
        }
        for loaded in self.loaded.into_iter().rev() {
            loaded.stop().await;
        }
    }
}

/// Run a test on the one thread that a broker runs on.
pub(crate) fn run(test: impl Future<Output = ()>) {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        // As a broker does, whose children then die of it, whoever started this one.
        let _interrupt = signal(SignalKind::interrupt()).unwrap();
        test.await;
    });
}
