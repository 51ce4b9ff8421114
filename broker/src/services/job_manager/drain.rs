//! `drain` and `idle`: wait until the queue is empty, or nothing runs.

use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_manager as rpc;

use super::job::{State, states};
use super::{Context, JobManager};
use crate::call::{Call, Calls, Sender};

/// Numbers of jobs, and who waits for them.
#[derive(Debug, Default)]
pub struct Drain {
    pending: u64,
    running: u64,
    draining: Calls<Empty, ()>,
    idling: Calls<rpc::IdleResponse, ()>,
}

impl Drain {
    pub(super) fn disconnect(&mut self, sender: &Sender) {
        self.draining.disconnect(sender);
        self.idling.disconnect(sender);
    }

    pub(super) fn state_changed(&mut self, before: State, after: State) {
        if before == after {
            return;
        }
        for (mask, count) in
            [(states::PENDING, &mut self.pending), (states::RUNNING, &mut self.running)]
        {
            match (before.is_in(mask), after.is_in(mask)) {
                (false, true) => *count += 1,
                (true, false) => *count = count.saturating_sub(1),
                _ => {}
            }
        }
        if self.running == 0 {
            let response = rpc::IdleResponse { pending: self.pending };
            for (call, ()) in self.idling.take(|_, ()| true) {
                call.reply(&response);
            }
        }
        if self.running + self.pending == 0 {
            for (call, ()) in self.draining.take(|_, ()| true) {
                call.reply(&Empty);
            }
        }
    }
}

impl JobManager {
    pub(super) fn drain(&mut self, _: &Context, _: Empty, call: Call<Empty>) {
        match self.drain.pending + self.drain.running {
            0 => call.reply(&Empty),
            _ => self.drain.draining.insert(call, ()),
        }
    }

    pub(super) fn idle(&mut self, _: &Context, _: Empty, call: Call<rpc::IdleResponse>) {
        match self.drain.running {
            0 => call.reply(&rpc::IdleResponse { pending: self.drain.pending }),
            _ => self.drain.idling.insert(call, ()),
        }
    }
}
