//! `overlay`: tells the state of the tree of brokers, and lets the owner break links.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::module::TraceResponse;
use flux_protocol::rpc::overlay as rpc;

use std::rc::Rc;

use crate::call::{Call, Calls, Sender};
use crate::config::Config;
use crate::context::Context;
use crate::methods::Methods;
use crate::overlay::{News, Overlay as Tree};
use crate::service::Service;
use crate::trace::{Filter, Traced};

/// The service; the tree itself is [`Tree`].
pub struct Overlay {
    tree: Rc<Tree>,
    health: Calls<rpc::HealthResponse, ()>,
    monitors: Calls<rpc::MonitorResponse, ()>,
    traces: Calls<TraceResponse, Trace>,
}

/// What somebody wants to see on the links.
struct Trace {
    filter: Filter,
    /// None: all links.
    peer: Option<u32>,
}

impl Trace {
    fn apply(&self, traced: &Traced) -> Option<TraceResponse> {
        // An event to all children went to the one that is asked for, too.
        let wanted = self.peer.is_none() || traced.peer.is_none() || self.peer == traced.peer;
        if wanted { self.filter.apply(traced) } else { None }
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl Service for Overlay {
    const NAME: &'static str = "overlay";
    const SERVICES: &'static [&'static str] = &["overlay"];

    async fn start(context: &Context<Self>, _: &[String]) -> Result<Self, Failure> {
        let tree = context.broker().overlay().cloned().ok_or(Errno::ENOSYS)?;
        let news = context.clone();
        tree.observe(move |what| {
            let what = what.clone();
            news.later(move |service| service.told(&what));
        });
        Ok(Overlay {
            tree,
            health: Calls::default(),
            monitors: Calls::default(),
            traces: Calls::default(),
        })
    }

    fn methods() -> Methods<Self> {
        Methods::default()
            .serve::<rpc::Health>(Overlay::health)
            .reply::<rpc::Topology>(Overlay::topology)
            .serve::<rpc::Monitor>(Overlay::monitor)
            .serve::<rpc::Trace>(Overlay::trace)
            .reply::<rpc::Stats>(Overlay::stats_get)
            .reply::<rpc::DisconnectSubtree>(Overlay::disconnect_subtree)
            .reply::<rpc::DisconnectParent>(Overlay::disconnect_parent)
    }

    fn disconnect(&mut self, _: &Context<Self>, sender: &Sender) {
        self.health.disconnect(sender);
        self.monitors.disconnect(sender);
        self.traces.disconnect(sender);
        self.tree.set_tracing(!self.traces.is_empty());
    }

    fn configure(&mut self, context: &Context<Self>, config: &Config) -> Result<(), Failure> {
        let torpid = self
            .tree
            .torpid()
            .reloaded(context.broker().attrs(), config)
            .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
        self.tree.set_torpid(torpid);
        Ok(())
    }
}

impl Overlay {
    fn told(&mut self, news: &News) {
        match news {
            News::Child(child) => {
                for (call, ()) in self.monitors.iter() {
                    call.send(child);
                }
                self.tell_health();
            }
            News::Status => self.tell_health(),
            News::Message(traced) => {
                for (call, trace) in self.traces.iter() {
                    if let Some(response) = trace.apply(traced) {
                        call.send(&response);
                    }
                }
            }
        }
    }

    fn tell_health(&self) {
        if self.health.is_empty() {
            return;
        }
        let health = self.tree.health();
        for (call, ()) in self.health.iter() {
            call.send(&health);
        }
    }

    // --- methods ---

    fn health(&mut self, _: &Context<Self>, _: Empty, call: Call<rpc::HealthResponse>) {
        let health = self.tree.health();
        if call.is_streaming() {
            call.send(&health);
            self.health.insert(call, ());
        } else {
            call.reply(&health);
        }
    }

    fn topology(
        &mut self,
        _: &Context<Self>,
        request: rpc::RankRequest,
        _: &Sender,
    ) -> Result<rpc::TopologyResponse, Failure> {
        let (topology, own) = (self.tree.topology(), self.tree.rank());
        if request.rank != own && topology.parent(request.rank) != Some(own) {
            let text = "requested rank is not this broker or its direct child";
            return Err(Failure::new(Errno::ENOENT, text));
        }
        Ok(topology.describe(request.rank))
    }

    fn monitor(&mut self, _: &Context<Self>, _: Empty, call: Call<rpc::MonitorResponse>) {
        for child in self.tree.notable_children() {
            call.send(&child);
        }
        self.monitors.insert(call, ());
    }

    fn trace(&mut self, _: &Context<Self>, request: rpc::TraceRequest, call: Call<TraceResponse>) {
        let rpc::TraceRequest { typemask, topic_glob, nodeid, full } = request;
        let filter = Filter { typemask, topic_glob, full };
        let peer = u32::try_from(nodeid).ok();
        self.traces.insert(call, Trace { filter, peer });
        self.tree.set_tracing(true);
    }

    fn stats_get(
        &mut self,
        _: &Context<Self>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::StatsResponse, Failure> {
        Ok(self.tree.stats())
    }

    fn disconnect_subtree(
        &mut self,
        _: &Context<Self>,
        request: rpc::RankRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        self.tree.disconnect_subtree(request.rank).map(|()| Empty)
    }

    fn disconnect_parent(
        &mut self,
        _: &Context<Self>,
        request: rpc::DisconnectParentRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        self.tree.disconnect_parent(&request.reason);
        Ok(Empty)
    }
}
