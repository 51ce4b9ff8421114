//! Services that are loaded, from outside, and the list of the modules among them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use crate::mailbox::Gate;

/// Where a module is in its life; the numbers of `module.list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    Init = 0,
    Running = 1,
    Finalizing = 2,
    Exited = 3,
}

/// A loaded service, from outside.
pub struct Loaded {
    pub name: String,
    /// What was loaded under that name.
    pub module: &'static str,
    pub uuid: Bytes,
    pub services: Vec<String>,
    pub gate: Rc<Gate>,
    pub(crate) shared: Rc<Shared>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) stop: Box<dyn Fn()>,
}

/// Counts of messages, by type: request, response, event, control.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: [Cell<u64>; 4],
    /// Set by `debug`; none of our services looks at them.
    pub(crate) debug_flags: Cell<i64>,
}

/// What the task and the rest of the broker both see.
pub(crate) struct Shared {
    pub(crate) counts: Counts,
    pub(crate) last_request: Cell<Instant>,
}

// === impl Counts ===

impl Counts {
    pub(crate) fn clear(&self) {
        self.received.iter().for_each(|count| count.set(0));
    }
}

// === impl Loaded ===

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Loaded {
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Seconds since the last request.
    pub fn idle(&self) -> u64 {
        self.shared.last_request.get().elapsed().as_secs()
    }

    /// Leave what comes in its queue, or take it out again; for tests of what waits.
    pub fn defer(&self, deferred: bool) {
        self.gate.defer(deferred);
    }

    /// Stop the service and wait until it has ended.
    pub fn stop(&self) -> impl Future<Output = ()> + 'static {
        self.gate.defer(false);
        (self.stop)();
        let mut status = self.status.clone();
        async move {
            // The sender is dropped with the task, which is an end as well.
            let _ = status.wait_for(|status| *status == Status::Exited).await;
        }
    }
}

/// The modules that are loaded now, in the order of loading.
#[derive(Debug, Default)]
pub struct Modules {
    loaded: RefCell<Vec<Rc<Loaded>>>,
    /// Always there; listed, but not unloaded by name.
    builtin: RefCell<Vec<Rc<Loaded>>>,
}

impl Modules {
    pub(crate) fn add(&self, loaded: Rc<Loaded>) {
        self.loaded.borrow_mut().push(loaded);
    }

    pub(crate) fn forget(&self, loaded: &Rc<Loaded>) {
        self.loaded.borrow_mut().retain(|other| !Rc::ptr_eq(other, loaded));
    }

    /// It is always there.
    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        self.builtin.borrow().iter().any(|loaded| loaded.name == name)
    }

    /// Make the modules known that are there from the first state to the last.
    pub fn set_builtin(&self, builtin: Vec<Rc<Loaded>>) {
        *self.builtin.borrow_mut() = builtin;
    }

    pub fn get(&self, name: &str) -> Option<Rc<Loaded>> {
        self.list_all().into_iter().find(|loaded| loaded.name == name)
    }

    /// Those that are always there, then the others in the order of loading.
    pub fn list_all(&self) -> Vec<Rc<Loaded>> {
        self.builtin.borrow().iter().chain(self.loaded.borrow().iter()).cloned().collect()
    }

    /// In the order of loading.
    pub fn list(&self) -> Vec<Rc<Loaded>> {
        self.loaded.borrow().clone()
    }
}
