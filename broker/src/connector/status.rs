//! Who may connect to the local socket, and who is connected.

use std::cell::{Cell, RefCell};

use crate::config::access::Access;

/// Who may connect, and who is connected.
#[derive(Debug, Default)]
pub struct Status {
    access: RefCell<Access>,
    pub(super) connects: Cell<u64>,
    pub(super) clients: RefCell<Vec<String>>,
}

impl Status {
    /// Change who may connect; connections that are there stay.
    pub fn set_access(&self, access: Access) {
        *self.access.borrow_mut() = access;
    }

    pub fn access(&self) -> Access {
        self.access.borrow().clone()
    }

    /// Number of connections so far.
    pub fn connects(&self) -> u64 {
        self.connects.get()
    }

    /// Uuids of the clients that are connected now.
    pub fn clients(&self) -> Vec<String> {
        self.clients.borrow().clone()
    }
}
