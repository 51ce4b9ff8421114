//! Two halves: the process splits, and the child gives up privilege for good before it reads
//! anything of the caller's. One message comes back through a pipe.

use std::io::{PipeReader, PipeWriter, Read, Write};

use flux_sign::secure::reason;

use crate::caller::Caller;
use crate::fatal::Fatal;
use crate::message::{MAX_LEN, Message};
use crate::sys::{self, Forked};

pub(crate) enum Half {
    Child(Parent),
    Parent(Child),
}

/// The privileged half, as its child sees it.
pub(crate) struct Parent {
    pipe: PipeWriter,
}

/// The half without privilege, as its parent sees it.
pub(crate) struct Child {
    pipe: Option<PipeReader>,
    pid: i32,
}

pub(crate) fn split(caller: &Caller) -> Result<Half, Fatal> {
    let failed =
        |error: std::io::Error| Fatal::new(format!("privilege separation: {}", reason(&error)));
    let own = sys::pid();
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    match sys::fork().map_err(failed)? {
        Forked::Child => {
            drop(reader);
            sys::become_user(caller.uid, caller.gid).map_err(failed)?;
            // Should the parent be killed, there is nobody to ask.
            sys::signal_at_end_of(own, libc::SIGKILL).map_err(failed)?;
            Ok(Half::Child(Parent { pipe: writer }))
        }
        Forked::Parent(pid) => Ok(Half::Parent(Child { pipe: Some(reader), pid })),
    }
}

impl Parent {
    /// Send the one message; nothing is left to do then.
    pub(crate) fn send(mut self, message: &Message) -> Result<i32, Fatal> {
        let bytes = message.encode();
        if bytes.len() as u64 > MAX_LEN {
            return Err(Fatal::new("request is too large"));
        }
        self.pipe.write_all(&bytes).map_err(|error| {
            let reason = reason(&error);
            Fatal::new(format!("failed to communicate with privsep parent: {reason}"))
        })?;
        Ok(0)
    }
}

impl Child {
    /// The message, or nothing when it has none.
    pub(crate) fn receive(&mut self) -> Result<Option<Message>, Fatal> {
        let Some(pipe) = self.pipe.take() else { return Ok(None) };
        let mut bytes = Vec::new();
        pipe.take(MAX_LEN + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Fatal::new(format!("read from privsep child: {}", reason(&error))))?;
        if bytes.len() as u64 > MAX_LEN {
            return Err(Fatal::new("request is too large"));
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        Message::decode(&bytes).map(Some)
    }

    /// Wait for its end; where it failed, it has said why.
    pub(crate) fn wait(self) -> Result<(), Fatal> {
        match sys::wait(self.pid) {
            Ok(status) if status.success() => Ok(()),
            _ => Err(Fatal::silent()),
        }
    }
}
