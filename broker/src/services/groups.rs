//! `groups`: sets of brokers by name, such as `broker.online` and `broker.torpid`.
//!
//! Each broker knows the members in its own subtree, so rank 0 knows all. Changes are collected for
//! a moment at each broker on the way up, so that rank 0 hears of few messages however many brokers
//! there are. Members leave with the client that made them join, and with the link that they are
//! behind.

use std::collections::BTreeMap;
use std::time::Duration;

use flux_protocol::credential::Rolemask;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::Empty;
use flux_protocol::rpc::groups as rpc;
use flux_protocol::rpc::overlay::{self, MonitorResponse, RankRequest, TopologyResponse};
use serde_json::{Value, json};

use crate::call::{Call, Calls, Sender};
use crate::context::Context;
use crate::handle::Responses;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;

const TORPID: &str = "broker.torpid";
/// How long a broker with children collects changes.
const COLLECT: Duration = Duration::from_millis(10);

/// The service.
#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<String, Group>,
    /// Changes that are neither applied nor passed on yet.
    pending: BTreeMap<String, Vec<Change>>,
    flush_is_due: bool,
    /// Who asked to be told of a group's changes.
    watchers: Calls<rpc::GetResponse, String>,
    /// All ranks behind each child.
    subtrees: BTreeMap<u32, Idset>,
    torpid: Idset,
}

#[derive(Debug, Default)]
struct Group {
    /// In this broker's subtree.
    members: Idset,
    /// Who made this broker a member.
    joined_by: Option<Sender>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    ranks: Idset,
    join: bool,
}

impl Service for Groups {
    const NAME: &'static str = "groups";
    const SERVICES: &'static [&'static str] = &["groups"];

    async fn start(context: &Context<Self>, _: &[String]) -> Result<Self, Failure> {
        let rank = RankRequest { rank: context.rank() };
        let topology = context.handle().rpc::<overlay::Topology>(&rank).await?;
        let monitor = context.handle().stream::<overlay::Monitor>(Nodeid::ANY, &Empty)?;
        watch_children(context, monitor);
        let subtrees =
            topology.children.iter().map(|child| (child.rank, ranks_of(child))).collect();
        Ok(Groups { subtrees, ..Groups::default() })
    }

    fn methods() -> Methods<Self> {
        Methods::default()
            .reply::<rpc::Join>(Groups::join)
            .reply::<rpc::Leave>(Groups::leave)
            .serve::<rpc::Get>(Groups::get)
            .reply::<rpc::Update>(Groups::update)
    }

    fn disconnect(&mut self, context: &Context<Self>, sender: &Sender) {
        self.watchers.disconnect(sender);
        let own = self.own(context);
        let mut left = Vec::new();
        for (name, group) in &mut self.groups {
            if group.joined_by.as_ref().is_some_and(|joined_by| joined_by.ended_by(sender)) {
                group.joined_by = None;
                left.push(name.clone());
            }
        }
        for name in left {
            self.change(context, &name, own.clone(), false);
        }
    }

    fn stats(&self, _: &Context<Self>) -> Option<Value> {
        let members = self.groups.iter().map(|(name, g)| (name.clone(), json!(g.members.encode())));
        Some(json!({ "subtree": members.collect::<serde_json::Map<String, Value>>() }))
    }

    async fn stop(mut self, context: &Context<Self>) {
        self.flush(context);
    }
}

impl Groups {
    // --- methods ---

    fn join(
        &mut self,
        context: &Context<Self>,
        request: rpc::NameRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        check_local("groups.join", sender)?;
        let rpc::NameRequest { name } = request;
        let group = self.groups.entry(name.clone()).or_default();
        if group.joined_by.is_some() {
            let text = format!("rank {} is already a member of {name}", context.rank());
            return Err(Failure::new(Errno::EEXIST, text));
        }
        group.joined_by = Some(sender.clone());
        self.change(context, &name, self.own(context), true);
        Ok(Empty)
    }

    fn leave(
        &mut self,
        context: &Context<Self>,
        request: rpc::NameRequest,
        sender: &Sender,
    ) -> Result<Empty, Failure> {
        check_local("groups.leave", sender)?;
        let rpc::NameRequest { name } = request;
        let joined_by = self.groups.get_mut(&name).and_then(|group| group.joined_by.take());
        if joined_by.is_none() {
            let text = format!("rank {} is not a member of {name}", context.rank());
            return Err(Failure::new(Errno::ENOENT, text));
        }
        self.change(context, &name, self.own(context), false);
        Ok(Empty)
    }

    /// Elsewhere than at rank 0 a part of the members would look like all of them.
    fn get(
        &mut self,
        context: &Context<Self>,
        request: rpc::NameRequest,
        call: Call<rpc::GetResponse>,
    ) {
        if context.rank() != 0 {
            let text = "this RPC is only available on rank 0";
            return call.fail(Failure::new(Errno::EPROTO, text));
        }
        let group = self.groups.entry(request.name.clone()).or_default();
        let response = rpc::GetResponse { members: group.members.encode() };
        if call.is_streaming() {
            call.send(&response);
            self.watchers.insert(call, request.name);
        } else {
            call.reply(&response);
        }
    }

    fn update(
        &mut self,
        context: &Context<Self>,
        request: rpc::UpdateRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        for (name, changes) in request.update {
            for rpc::Change { ranks, set } in changes {
                match Idset::decode(&ranks) {
                    Ok(ranks) => self.change(context, &name, ranks, set),
                    Err(error) => {
                        context.log(Severity::Err, format!("update of {name}: {ranks}: {error}"));
                    }
                }
            }
        }
        Ok(Empty)
    }

    // --- changes ---

    fn own(&self, context: &Context<Self>) -> Idset {
        Idset::from_range(context.rank(), context.rank())
    }

    /// Note a change; it takes effect with all others of this moment.
    fn change(&mut self, context: &Context<Self>, name: &str, ranks: Idset, join: bool) {
        let changes = self.pending.entry(name.to_owned()).or_default();
        match changes.last_mut() {
            Some(last) if last.join == join => last.ranks.union_with(&ranks),
            _ => changes.push(Change { ranks, join }),
        }
        if std::mem::replace(&mut self.flush_is_due, true) {
            return;
        }
        let after = context.clone();
        if self.subtrees.is_empty() {
            // Nothing is to come from below.
            context.later(move |groups| groups.flush(&after));
        } else {
            context.spawn(tokio::time::sleep(COLLECT), move |groups: &mut Self, ()| {
                groups.flush(&after);
            });
        }
    }

    /// Apply what has been collected, and pass it on.
    fn flush(&mut self, context: &Context<Self>) {
        self.flush_is_due = false;
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        if context.rank() > 0 {
            self.pass_on(context, &pending);
        }
        for (name, changes) in pending {
            let group = self.groups.entry(name.clone()).or_default();
            let before = group.members.clone();
            for Change { ranks, join } in &changes {
                if *join {
                    group.members.union_with(ranks);
                } else {
                    group.members.subtract(ranks);
                }
            }
            if group.members != before {
                let response = rpc::GetResponse { members: group.members.encode() };
                for (call, watched) in self.watchers.iter() {
                    if *watched == name {
                        call.send(&response);
                    }
                }
            }
        }
    }

    fn pass_on(&self, context: &Context<Self>, pending: &BTreeMap<String, Vec<Change>>) {
        let encode =
            |change: &Change| rpc::Change { ranks: change.ranks.encode(), set: change.join };
        let update = pending
            .iter()
            .map(|(name, changes)| (name.clone(), changes.iter().map(encode).collect()))
            .collect();
        let upstream = Nodeid(context.rank());
        // Without its parent this broker ends, and with it what it knows of its subtree.
        let _ = context.handle().notify::<rpc::Update>(
            upstream,
            Flags::UPSTREAM,
            &rpc::UpdateRequest { update },
        );
    }

    // --- children ---

    /// Those behind a broken link are members no more; a child that is silent is torpid.
    fn child_changed(&mut self, context: &Context<Self>, child: &MonitorResponse) {
        // First what the child itself had to say.
        self.flush(context);
        match child.status.as_str() {
            "lost" | "offline" => {
                self.torpid.remove(child.rank);
                let Some(gone) = self.subtrees.get(&child.rank).cloned() else { return };
                let names: Vec<String> = self
                    .groups
                    .iter()
                    .filter(|(_, group)| group.members.intersects(&gone))
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in names {
                    let members = self.groups.get(&name).map(|group| group.members.clone());
                    let leaving = members.unwrap_or_default().intersect(&gone);
                    self.change(context, &name, leaving, false);
                }
            }
            _ => {
                let changed = match child.torpid {
                    true => self.torpid.insert(child.rank),
                    false => self.torpid.remove(child.rank),
                };
                if changed {
                    let ranks = Idset::from_range(child.rank, child.rank);
                    self.change(context, TORPID, ranks, child.torpid);
                }
            }
        }
    }
}

fn check_local(topic: &str, sender: &Sender) -> Result<(), Failure> {
    if sender.cred.rolemask.contains(Rolemask::LOCAL) {
        return Ok(());
    }
    let text = format!("{topic} is restricted to the local broker");
    Err(Failure::new(Errno::EPROTO, text))
}

fn ranks_of(subtree: &TopologyResponse) -> Idset {
    let mut ranks = Idset::new();
    let mut todo = vec![subtree];
    while let Some(node) = todo.pop() {
        ranks.insert(node.rank);
        todo.extend(&node.children);
    }
    ranks
}

/// Follow the overlay as long as it is there.
fn watch_children(context: &Context<Groups>, mut monitor: Responses<overlay::Monitor>) {
    let after = context.clone();
    let next = async move {
        let child = monitor.next().await;
        (monitor, child)
    };
    context.spawn(next, move |groups: &mut Groups, (monitor, child)| match child {
        Ok(child) => {
            groups.child_changed(&after, &child);
            watch_children(&after, monitor);
        }
        Err(failure) => after.log(Severity::Crit, format!("overlay.monitor: {failure}")),
    });
}
