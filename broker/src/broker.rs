//! What all services of one broker share: identity, attributes, configuration, log, router.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use flux_protocol::credential::Userid;

use crate::attrs::Attrs;
use crate::config::Config;
use crate::log::Logger;
use crate::router::Router;

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
    log: Logger,
}

impl Broker {
    pub fn new(rank: u32, size: u32, owner: Userid, attrs: Attrs, config: Config) -> Rc<Broker> {
        Rc::new(Broker {
            rank,
            size,
            owner,
            started: Instant::now(),
            router: Router::new(rank, owner),
            log: Logger::new(rank, &attrs),
            attrs,
            config: RefCell::new(Rc::new(config)),
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

    pub fn config(&self) -> Rc<Config> {
        self.config.borrow().clone()
    }

    /// Put a configuration in place that all services have accepted.
    pub fn set_config(&self, config: Rc<Config>) {
        *self.config.borrow_mut() = config;
    }
}
