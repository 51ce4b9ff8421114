//! What is known of a namespace.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use flux_protocol::blobref::Blobref;
use flux_protocol::credential::{Credential, Userid};
use flux_protocol::errno::Errno;
use flux_protocol::rpc::kvs as rpc;

use super::commit::{Batch, Transaction};
use super::dir::Dir;
use crate::call::{Call, Calls};

#[derive(Debug)]
pub(super) struct Root {
    /// Never used again, unlike the name.
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) owner: Userid,
    pub(super) flags: u32,
    pub(super) seq: i64,
    pub(super) rootref: Blobref,
    /// The root directory stays in memory.
    pub(super) pinned: Option<Rc<Dir>>,
    /// Rank 0: transactions that wait to be applied.
    pub(super) queue: VecDeque<Transaction>,
    /// Rank 0: those that are being applied.
    pub(super) batch: Option<Batch>,
    /// Rank 0: applying has been scheduled.
    pub(super) scheduled: bool,
    /// Rank 0: the transactions that nobody waits for have their time.
    pub(super) lingering: bool,
    /// Elsewhere: requests for transactions that rank 0 is to apply, by name.
    pub(super) relayed: HashMap<String, Call<rpc::Rootref>>,
    /// Requests that wait for a sequence number.
    pub(super) versions: Calls<rpc::Rootref, i64>,
    /// Test hook: what setroot events would do, held back.
    pub(super) paused: Option<Vec<Held>>,
    /// Blobs that a transaction made and that were there already.
    pub(super) noop_stores: u64,
}

/// Held back while setroot events are paused.
#[derive(Debug)]
pub(super) enum Held {
    Answer(Call<rpc::Rootref>, rpc::Rootref),
    Event(rpc::Setroot),
}

impl Root {
    pub(super) fn new(
        id: u64,
        name: &str,
        owner: Userid,
        flags: u32,
        seq: i64,
        rootref: Blobref,
    ) -> Root {
        Root {
            id,
            name: name.to_owned(),
            owner,
            flags,
            seq,
            rootref,
            pinned: None,
            queue: VecDeque::new(),
            batch: None,
            scheduled: false,
            lingering: false,
            relayed: HashMap::new(),
            versions: Calls::default(),
            paused: None,
            noop_stores: 0,
        }
    }

    /// Without text, as the real service answers.
    pub(super) fn check_user(&self, cred: Credential) -> Result<(), Errno> {
        if cred.authorizes(self.owner) { Ok(()) } else { Err(Errno::EPERM) }
    }

    pub(super) fn current(&self) -> rpc::Rootref {
        rpc::Rootref { rootref: self.rootref.to_string(), rootseq: self.seq }
    }

    /// Take over a new root, and answer those who waited for it.
    pub(super) fn set(&mut self, seq: i64, rootref: Blobref) {
        self.seq = seq;
        self.rootref = rootref;
        let current = self.current();
        for (call, _) in self.versions.take(|_, wanted| *wanted <= seq) {
            call.reply(&current);
        }
    }
}
