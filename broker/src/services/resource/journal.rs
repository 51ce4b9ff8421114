//! `resource.journal`: the eventlog, for whoever follows it.

use std::collections::VecDeque;

use flux_protocol::errno::Errno;
use flux_protocol::eventlog::Event;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::resource as rpc;
use serde_json::Value;

use super::{Context, Resource};
use crate::call::{Call, Calls, Sender};

const DEFINE: &str = "resource-define";
const TRUNCATE: &str = "truncate";
/// Most events in one response.
const BATCH: usize = 100;

/// What has happened, and who wants to know.
#[derive(Debug)]
pub struct Journal {
    events: VecDeque<Event>,
    max: usize,
    consumers: Calls<rpc::JournalResponse, ()>,
}

impl Journal {
    /// With the events of former times. Those that define an inventory are of no use without it.
    pub(super) fn new(events: Vec<Event>, max: usize) -> Journal {
        let events = events.into_iter().filter(|event| event.name != DEFINE).collect();
        let mut journal = Journal { events, max, consumers: Calls::default() };
        journal.truncate();
        journal
    }

    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.truncate();
    }

    /// Add an event and tell of it. `r` is the inventory, for its definition.
    pub(super) fn push(&mut self, event: Event, r: Option<Value>) {
        if !self.consumers.is_empty() {
            let response = rpc::JournalResponse { events: vec![event.clone()], r };
            self.consumers.iter().for_each(|(call, ())| call.send(&response));
        }
        self.events.push_back(event);
        self.truncate();
    }

    pub(super) fn disconnect(&mut self, sender: &Sender) {
        self.consumers.disconnect(sender);
    }

    pub(super) fn stop(&mut self) {
        self.consumers.take(|_, ()| true).into_iter().for_each(|(call, ())| call.end());
    }

    /// An event of that name stands for those that were dropped.
    fn truncate(&mut self) {
        if self.events.len() <= self.max {
            return;
        }
        let excess = self.events.len() - self.max.saturating_sub(1);
        let dropped = self.events.drain(..excess).next_back();
        let timestamp = dropped.map_or(0.0, |event| event.timestamp);
        self.events.push_front(Event::new(timestamp, TRUNCATE));
    }

    fn send_backlog(&self, call: &Call<rpc::JournalResponse>, r: Option<&Value>) {
        let mut batch = Vec::new();
        let flush = |batch: &mut Vec<Event>| {
            if !batch.is_empty() {
                call.send(&rpc::JournalResponse { events: std::mem::take(batch), r: None });
            }
        };
        for event in &self.events {
            if event.name == DEFINE {
                flush(&mut batch);
                call.send(&rpc::JournalResponse { events: vec![event.clone()], r: r.cloned() });
                continue;
            }
            batch.push(event.clone());
            if batch.len() >= BATCH {
                flush(&mut batch);
            }
        }
        flush(&mut batch);
        call.send(&rpc::JournalResponse { events: Vec::new(), r: None });
    }
}

impl Resource {
    pub(super) fn journal(
        &mut self,
        context: &Context,
        _: Empty,
        call: Call<rpc::JournalResponse>,
    ) {
        if let Err(failure) = self.only_on_leader(context, call.request()) {
            return call.fail(failure);
        }
        if !call.is_streaming() {
            let text = "journal requires streaming RPC flag";
            return call.fail(Failure::new(Errno::EPROTO, text));
        }
        self.journal.send_backlog(&call, self.inventory_value().as_ref());
        self.journal.consumers.insert(call, ());
    }

    pub(super) fn journal_cancel(
        &mut self,
        _: &Context,
        request: rpc::CancelRequest,
        call: Call<Empty>,
    ) {
        if let Some((cancelled, ())) =
            self.journal.consumers.cancel(&call.sender(), request.matchtag)
        {
            cancelled.end();
        }
        // Nobody waits for an answer.
        call.into_request();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_events_are_stood_for_by_one() {
        let events = (0..5).map(|n| Event::new(f64::from(n), format!("e{n}"))).collect();
        let mut journal = Journal::new(events, 5);
        journal.push(Event::new(5.0, DEFINE), None);
        let shown = |journal: &Journal| {
            let events = journal.events.iter();
            events.map(|event| format!("{}@{}", event.name, event.timestamp)).collect::<Vec<_>>()
        };
        let expected = ["truncate@1", "e2@2", "e3@3", "e4@4", "resource-define@5"];
        assert_eq!(shown(&journal), expected);
        journal.set_max(2);
        assert_eq!(shown(&journal), ["truncate@4", "resource-define@5"]);
    }
}
