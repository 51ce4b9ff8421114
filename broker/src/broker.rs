//! What all services of one broker share: identity, attributes, configuration, log, router.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use flux_protocol::credential::Userid;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use tokio::sync::watch;

use crate::attrs::{Access, Attrs};
use crate::config::Config;
use crate::connector::status::Status;
use crate::environment::Environment;
use crate::life::Life;
use crate::loaded::Modules;
use crate::log::Logger;
use crate::overlay::Overlay;
use crate::rc::script::Pushed;
use crate::router::{Router, new_uuid};
use crate::spans::Spans;

/// One broker of an instance.
#[derive(Debug)]
pub struct Broker {
    rank: u32,
    size: u32,
    owner: Userid,
    started: Instant,
    router: Router,
    attrs: Attrs,
    config: RefCell<Rc<Config>>,
    /// Whether rank 0's configuration is known here.
    in_sync: watch::Sender<bool>,
    log: Logger,
    spans: Rc<Spans>,
    environment: Environment,
    connector: Rc<Status>,
    pushed: Pushed,
    modules: Modules,
    life: OnceCell<Rc<Life>>,
    overlay: OnceCell<Rc<Overlay>>,
}

impl Broker {
    pub fn new(rank: u32, size: u32, owner: Userid, attrs: Attrs, config: Config) -> Rc<Broker> {
        Rc::new(Broker {
            rank,
            size,
            owner,
            started: Instant::now(),
            router: Router::new(rank, owner, broker_uuid(&attrs)),
            log: Logger::new(rank, &attrs),
            spans: Rc::new(Spans::from_environment(rank)),
            attrs,
            config: RefCell::new(Rc::new(config)),
            in_sync: watch::Sender::new(rank == 0),
            environment: Environment::default(),
            connector: Rc::default(),
            pushed: Pushed::default(),
            modules: Modules::default(),
            life: OnceCell::new(),
            overlay: OnceCell::new(),
        })
    }

    pub fn rank(&self) -> u32 {
        self.rank
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    pub fn owner(&self) -> Userid {
        self.owner
    }

    /// When the broker process began; durations of its states count from here.
    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    pub fn attrs(&self) -> &Attrs {
        &self.attrs
    }

    pub fn log(&self) -> &Logger {
        &self.log
    }

    /// What became of jobs, for those who trace them.
    pub fn spans(&self) -> &Rc<Spans> {
        &self.spans
    }

    /// What commands of this broker start with.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Who may connect to the local socket, and who is connected.
    pub fn connector_status(&self) -> &Rc<Status> {
        &self.connector
    }

    /// Commands that clients gave to run at the end.
    pub fn pushed(&self) -> &Pushed {
        &self.pushed
    }

    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// Give the broker its life, once, before the state machine starts.
    pub fn set_life(&self, life: Rc<Life>) {
        let _ = self.life.set(life);
    }

    /// Present from before the state machine starts; a broker in a test may have none.
    pub fn life(&self) -> Option<&Rc<Life>> {
        self.life.get()
    }

    /// Give the broker its overlay, once.
    pub(crate) fn set_overlay(&self, overlay: Rc<Overlay>) {
        let _ = self.overlay.set(overlay);
    }

    /// Present once it is started; a broker in a test may have none.
    pub fn overlay(&self) -> Option<&Rc<Overlay>> {
        self.overlay.get()
    }

    /// The hosts of ranks, by the `hostlist` attribute.
    pub fn hosts_of(&self, ranks: &Idset) -> String {
        let all: Hostlist =
            self.attrs.get("hostlist").and_then(|text| text.parse().ok()).unwrap_or_default();
        let mut hosts = Hostlist::new();
        for rank in ranks.iter() {
            match all.nth(u64::from(rank)) {
                Some(host) => hosts.push_host(&host),
                None => hosts.push_host("?"),
            }
        }
        hosts.to_string()
    }

    pub fn config(&self) -> Rc<Config> {
        self.config.borrow().clone()
    }

    /// Put a configuration in place that all services have accepted.
    pub fn set_config(&self, config: Rc<Config>) {
        *self.config.borrow_mut() = config;
    }

    /// What the parent's configuration is has been heard for the first time.
    pub fn set_config_in_sync(&self) {
        self.in_sync.send_replace(true);
    }

    /// Resolves when this broker's configuration is that of rank 0.
    pub async fn config_in_sync(&self) {
        let mut in_sync = self.in_sync.subscribe();
        // The sender is our own, so there is nothing that could fail.
        let _ = in_sync.wait_for(|known| *known).await;
    }
}

/// The uuid under which the overlay was set up, else a new one, which the attribute then has.
fn broker_uuid(attrs: &Attrs) -> Bytes {
    let new = || String::from_utf8_lossy(&new_uuid()).into_owned();
    attrs.put_default("broker.uuid", new(), Access::Immutable);
    Bytes::from(attrs.get("broker.uuid").unwrap_or_default())
}
