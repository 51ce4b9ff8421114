//! Which brokers are online, and which are torpid: the groups of those names.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{groups, resource as rpc};
use tokio::task::JoinHandle;

use super::state::Change;
use super::{Context, Resource};
use crate::call::{Call, Calls, Sender};
use crate::handle::Responses;
use crate::log::Severity;

const ONLINE: &str = "broker.online";
const TORPID: &str = "broker.torpid";

/// What was last heard of the groups.
#[derive(Debug, Default)]
pub struct Monitor {
    online: Idset,
    torpid: Idset,
    waitups: Calls<Empty, u32>,
    watches: Vec<JoinHandle<()>>,
}

impl Monitor {
    /// Ranks that are online all the time, as far as this service is concerned.
    pub(super) fn always(online: Idset) -> Monitor {
        Monitor { online, ..Monitor::default() }
    }

    pub(super) fn disconnect(&mut self, sender: &Sender) {
        self.waitups.disconnect(sender);
    }

    pub(super) fn stop(&mut self, context: &Context) {
        if !self.watches.is_empty() {
            self.watches.drain(..).for_each(|watch| watch.abort());
            // Watches can't be cancelled, only left.
            let _ = context.handle().notify::<groups::Disconnect>(
                Nodeid::ANY,
                Flags::default(),
                &Empty,
            );
        }
    }
}

impl Resource {
    /// Follow the groups.
    pub(super) fn watch_groups(&mut self, context: &Context) -> Result<(), Failure> {
        for name in [ONLINE, TORPID] {
            let request = groups::NameRequest { name: name.to_owned() };
            let responses = context.handle().stream::<groups::Get>(Nodeid::ANY, &request)?;
            let watch = watch(context.clone(), name, responses);
            self.monitor.watches.push(tokio::task::spawn_local(watch));
        }
        Ok(())
    }

    fn members_changed(&mut self, context: &Context, name: &str, members: Idset) {
        let known = match name {
            ONLINE => &mut self.monitor.online,
            _ => &mut self.monitor.torpid,
        };
        let (joined, left) = (members.difference(known), known.difference(&members));
        *known = members;
        let changes = match name {
            ONLINE => [Change::Online(joined), Change::Offline(left)],
            _ => [Change::Torpid(joined), Change::Lively(left)],
        };
        for change in changes {
            let (Change::Online(ranks)
            | Change::Offline(ranks)
            | Change::Torpid(ranks)
            | Change::Lively(ranks)) = &change
            else {
                continue;
            };
            if !ranks.is_empty() {
                self.post(context, change, None);
            }
        }
    }

    fn watch_failed(&mut self, context: &Context, name: &str, failure: &Failure) {
        if failure.errno == Errno::ENOSYS && name == ONLINE && context.broker().size() == 1 {
            // A broker without peers needs no groups.
            self.members_changed(context, ONLINE, Idset::first_n(1));
        } else if failure.errno != Errno::ENODATA {
            context.log(Severity::Err, format!("monitor: {name}: {failure}"));
        }
    }

    // --- methods ---

    pub(super) fn monitor_waitup(
        &mut self,
        context: &Context,
        request: rpc::WaitupRequest,
        call: Call<Empty>,
    ) {
        if context.rank() != 0 {
            return call.fail(Failure::new(Errno::EPROTO, "this RPC only works on rank 0"));
        }
        if request.up > self.state.size {
            return call.fail(Failure::new(Errno::EPROTO, "up value is out of range"));
        }
        self.monitor.waitups.insert(call, request.up);
        self.answer_waitup();
    }

    pub(super) fn answer_waitup(&mut self) {
        let up = self.state.up.count();
        let answered = self.monitor.waitups.take(|_, wanted| u64::from(*wanted) == up);
        answered.into_iter().for_each(|(call, _)| call.reply(&Empty));
    }

    /// For tests: let ranks appear offline until the group changes.
    pub(super) fn monitor_force_down(
        &mut self,
        context: &Context,
        request: rpc::ForceDownRequest,
        call: Call<Empty>,
    ) {
        let ranks = match request.ranks.parse::<Idset>() {
            Ok(ranks) => ranks,
            Err(error) => return call.fail(Failure::new(Errno::EINVAL, error.to_string())),
        };
        if let Err(failure) = self.only_on_leader(context, call.request()) {
            return call.fail(failure);
        }
        let online = self.monitor.online.difference(&ranks);
        self.members_changed(context, ONLINE, online);
        call.reply(&Empty);
    }
}

async fn watch(context: Context, name: &'static str, mut responses: Responses<groups::Get>) {
    loop {
        let response = responses.next().await;
        let is_end = response.is_err();
        let after = context.clone();
        context.later(move |resource: &mut Resource| {
            let members = response.and_then(|response| {
                let invalid = |_| Failure::new(Errno::EPROTO, "members are not an idset");
                response.members.parse().map_err(invalid)
            });
            match members {
                Ok(members) => resource.members_changed(&after, name, members),
                Err(failure) => resource.watch_failed(&after, name, &failure),
            }
        });
        if is_end {
            return;
        }
    }
}
