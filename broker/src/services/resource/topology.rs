//! This host's hardware, and the sum of all hosts' on the way to rank 0.
//!
//! A broker waits until all brokers below it have told what they have, adds its own, and tells its
//! parent; so rank 0 hears of as few messages as it has children.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{Empty, Text};
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::resource as rpc;

use super::hardware::{Hardware, HardwareError};
use super::inventory::{Inventory, Method};
use super::{Context, Resource};
use crate::call::{Call, Calls, Sender};
use crate::log::Severity;

/// What is known of hardware.
#[derive(Debug, Default)]
pub struct Topology {
    xml: Option<Result<String, String>>,
    /// They wait for it.
    waiting: Calls<Text, ()>,
    /// Brokers that are in `sum`.
    count: u32,
    sum: ResourceSet,
}

impl Topology {
    pub(super) fn disconnect(&mut self, sender: &Sender) {
        self.waiting.disconnect(sender);
    }

    fn answer(&self, call: Call<Text>) {
        match &self.xml {
            Some(Ok(xml)) => call.reply(&Text(xml.clone())),
            Some(Err(text)) => call.fail(Failure::new(Errno::ENOENT, text)),
            None => call.fail(Errno::ENOENT),
        }
    }
}

/// Look at the hardware, on a thread of its own.
pub(super) async fn probe(norestrict: bool) -> Result<Hardware, String> {
    let probe = tokio::task::spawn_blocking(move || Hardware::probe(norestrict));
    match probe.await {
        Ok(result) => result.map_err(|error: HardwareError| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

impl Resource {
    /// The hardware is known: tell who waits for it, and the parent.
    pub(super) fn hardware_found(&mut self, context: &Context, found: Result<Hardware, String>) {
        let resources = match found {
            Ok(hardware) => {
                self.topology.xml = Some(Ok(hardware.xml));
                Some(hardware.resources)
            }
            Err(text) => {
                let text = format!("error loading hwloc topology: {text}");
                context.log(Severity::Err, &text);
                self.topology.xml = Some(Err(text));
                self.acquire.discovery_failed();
                None
            }
        };
        for (call, ()) in self.topology.waiting.take(|_, ()| true) {
            self.topology.answer(call);
        }
        let Some(resources) = resources else { return };
        let rank = Idset::from_range(context.rank(), context.rank());
        let hosts: Hostlist = [host_name(context)].iter().collect();
        match ResourceSet::uniform(&rank, resources, &hosts) {
            Ok(own) => self.add_to_sum(context, 1, &own),
            Err(error) => context.log(Severity::Err, format!("local resources: {error}")),
        }
    }

    fn add_to_sum(&mut self, context: &Context, count: u32, set: &ResourceSet) {
        if !self.topology.sum.ranks().intersect(&set.ranks()).is_empty() {
            // A broker below has loaded this service again: nothing new.
            return;
        }
        self.topology.sum.append(set);
        self.topology.count = self.topology.count.saturating_add(count);
        if self.topology.count == descendants(context) + 1 {
            self.sum_is_complete(context);
        }
    }

    fn sum_is_complete(&mut self, context: &Context) {
        let mut set = std::mem::take(&mut self.topology.sum);
        if context.rank() == 0 {
            set.expiration = self.granted_until;
            if self.state.inventory.is_none() {
                self.define(context, Inventory { set, method: Method::DYNAMIC_DISCOVERY });
            }
            return;
        }
        let sent = serde_json::to_value(&set).map_err(|error| error.to_string()).and_then(|r| {
            let request = rpc::TopoReduceRequest { count: self.topology.count, resource: r };
            context
                .handle()
                .notify::<rpc::TopoReduce>(Nodeid(context.rank()), Flags::UPSTREAM, &request)
                .map_err(|failure| failure.to_string())
        });
        if let Err(text) = sent {
            context.log(Severity::Err, format!("resource.topo-reduce: {text}"));
        }
    }

    // --- methods ---

    pub(super) fn topo_reduce(
        &mut self,
        context: &Context,
        request: rpc::TopoReduceRequest,
        call: Call<Empty>,
    ) {
        // Nobody waits for an answer.
        call.into_request();
        match ResourceSet::decode(&request.resource.to_string()) {
            Ok(set) => self.add_to_sum(context, request.count, &set),
            Err(error) => {
                let text = format!("error decoding topo-reduce request: {error}");
                context.log(Severity::Err, text);
            }
        }
    }

    pub(super) fn topo_get(&mut self, _: &Context, _: Empty, call: Call<Text>) {
        match &self.topology.xml {
            Some(_) => self.topology.answer(call),
            None => self.topology.waiting.insert(call, ()),
        }
    }
}

/// The name by which this broker's host is known to the others.
pub(super) fn host_name(context: &Context) -> String {
    context.broker().attrs().hostname()
}

/// Brokers below this one.
fn descendants(context: &Context) -> u32 {
    let known = context.broker().attrs().parse("tbon.descendants");
    let all = context.broker().size().saturating_sub(1);
    known.unwrap_or(if context.rank() == 0 { all } else { 0 })
}
