//! `resource.acquire`: what the scheduler is told (RFC 27 and 28).
//!
//! First all resources that it may use and which of them are up; then what changes. Ranks that are
//! excluded are not in the first response at all; when they are not excluded any more, our own
//! scheduler is sent all resources once more, and any other has to be loaded again.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;
use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::resource as rpc;

use super::state::{Change, State};
use super::{Context, Resource};
use crate::call::{Call, Sender};
use crate::log::Severity;

/// The one scheduler.
#[derive(Debug, Default)]
pub struct Acquire {
    request: Option<Request>,
    /// Nothing is told any more: the instance is shutting down.
    muted: bool,
}

#[derive(Debug)]
struct Request {
    call: Call<rpc::AcquireResponse>,
    /// The scheduler takes more resources later.
    grow: bool,
    /// Absent until there is an inventory.
    view: Option<View>,
}

/// What the scheduler knows. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Ranks that it may use one day.
    valid: Idset,
    up: Idset,
    /// Ranks that it was told are gone for good.
    removed: Idset,
}

/// What it is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub up: Idset,
    pub down: Idset,
    pub shrink: Idset,
}

// === impl View ===

impl View {
    /// The first view, with its resources. None: there is no inventory.
    pub fn new(state: &State) -> Option<(View, ResourceSet)> {
        let inventory = state.inventory.as_ref()?;
        let removed = state.gone();
        let hidden = state.exclude.union(&removed);
        let mut set = inventory.set.clone();
        if !hidden.is_empty() {
            set.remove_ranks(&hidden);
        }
        let valid = set.ranks();
        let up = state.available(&valid);
        Some((View { valid, up, removed }, set))
    }

    /// Follow the state; None: nothing is new.
    pub fn update(&mut self, state: &State) -> Option<News> {
        let up = state.available(&self.valid);
        let shrink = state.gone().difference(&self.removed).intersect(&self.valid);
        let news = News { up: up.difference(&self.up), down: self.up.difference(&up), shrink };
        self.valid.subtract(&news.shrink);
        self.removed.union_with(&news.shrink);
        self.up = up;
        (news != News::default()).then_some(news)
    }
}

impl From<News> for rpc::AcquireResponse {
    fn from(news: News) -> rpc::AcquireResponse {
        let text = |ranks: Idset| (!ranks.is_empty()).then(|| ranks.to_string());
        rpc::AcquireResponse {
            up: text(news.up),
            down: text(news.down),
            shrink: text(news.shrink),
            ..rpc::AcquireResponse::default()
        }
    }
}

// === impl Acquire ===

impl Acquire {
    pub(super) fn has_client(&self) -> bool {
        self.request.is_some()
    }

    /// Those of `ranks` that a scheduler will not use, as it has never heard of them.
    pub(super) fn unknown_to_scheduler(&self, ranks: &Idset) -> Idset {
        let request = self.request.as_ref().filter(|request| !request.grow);
        let view = request.and_then(|request| request.view.as_ref());
        view.map_or_else(Idset::new, |view| ranks.difference(&view.valid))
    }

    pub(super) fn disconnect(&mut self, context: &Context, sender: &Sender) {
        if let Some(request) = self.request.take_if(|r| r.call.sender().ended_by(sender)) {
            request.call.into_request();
            context.log(Severity::Debug, "aborted 1 resource.acquire(s)");
        }
    }

    /// There will be no inventory.
    pub(super) fn discovery_failed(&mut self) {
        if let Some(request) = self.request.take_if(|request| request.view.is_none()) {
            let text = "resource discovery failed or interrupted";
            request.call.fail(Failure::new(Errno::ENOENT, text));
        }
    }

    pub(super) fn stop(&mut self) {
        if let Some(request) = self.request.take() {
            let text = "the resource module was unloaded";
            request.call.fail(Failure::new(Errno::ECANCELED, text));
        }
    }
}

impl Request {
    /// All resources, if there is an inventory, and which of those that are new are up.
    fn answer(&mut self, state: &State) -> Result<(), Failure> {
        let Some((view, resources)) = View::new(state) else { return Ok(()) };
        let resources = serde_json::to_value(&resources)
            .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
        let known = self.view.take().map(|view| view.valid).unwrap_or_default();
        self.call.send(&rpc::AcquireResponse {
            resources: Some(resources),
            up: Some(view.up.difference(&known).to_string()),
            ..rpc::AcquireResponse::default()
        });
        self.view = Some(view);
        Ok(())
    }
}

// === impl Resource ===

impl Resource {
    pub(super) fn acquire(
        &mut self,
        context: &Context,
        asked: rpc::AcquireRequest,
        call: Call<rpc::AcquireResponse>,
    ) {
        if let Err(failure) = self.only_on_leader(context, call.request()) {
            return call.fail(failure);
        }
        if self.acquire.has_client() {
            return call.fail(Errno::EBUSY);
        }
        let mut request = Request { call, grow: asked.grow, view: None };
        self.acquire.muted = false;
        match request.answer(&self.state) {
            Ok(()) => self.acquire.request = Some(request),
            Err(failure) => request.call.fail(failure),
        }
    }

    /// A later response, after a change.
    pub(super) fn tell_scheduler(&mut self, context: &Context, change: &Change) {
        let Some(request) = &mut self.acquire.request else { return };
        if self.acquire.muted {
            return;
        }
        match (&mut request.view, change) {
            (Some(_), Change::Update { expiration }) => {
                request.call.send(&rpc::AcquireResponse {
                    expiration: Some(*expiration),
                    ..rpc::AcquireResponse::default()
                });
            }
            (Some(view), change) => {
                let more = matches!(change, Change::Unexclude(ranks)
                    if request.grow && !ranks.difference(&view.valid).is_empty());
                if let Some(news) = view.update(&self.state) {
                    request.call.send(&news.into());
                }
                if more && let Err(failure) = request.answer(&self.state) {
                    context.log(Severity::Err, format!("resources can't be told: {failure}"));
                }
            }
            (None, _) => self.answer_first(),
        }
    }

    /// The first response to a scheduler that came before the inventory.
    pub(super) fn answer_first(&mut self) {
        let Some(mut request) = self.acquire.request.take_if(|request| request.view.is_none())
        else {
            return;
        };
        match request.answer(&self.state) {
            Ok(()) => self.acquire.request = Some(request),
            Err(failure) => request.call.fail(failure),
        }
    }

    pub(super) fn acquire_cancel(
        &mut self,
        context: &Context,
        request: rpc::CancelRequest,
        call: Call<Empty>,
    ) {
        let sender = call.sender();
        let cancelled = self.acquire.request.take_if(|open| {
            open.call.matchtag().0 == request.matchtag && open.call.sender().ended_by(&sender)
        });
        if let Some(cancelled) = cancelled {
            cancelled.call.end();
            context.log(Severity::Debug, "canceled 1 resource.acquire");
        }
        // Nobody waits for an answer.
        call.into_request();
    }

    pub(super) fn acquire_mute(&mut self, context: &Context, _: Empty, call: Call<Empty>) {
        if let Err(failure) = self.only_on_leader(context, call.request()) {
            return call.fail(failure);
        }
        self.acquire.muted = true;
        call.reply(&Empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::resource::inventory::{Inventory, Method};
    use flux_protocol::r::Resources;

    fn ids(text: &str) -> Idset {
        text.parse().unwrap()
    }

    fn state(method: Method) -> State {
        let resources = Resources { cores: ids("0-1"), gpus: ids("") };
        let set = ResourceSet::uniform(&ids("0-3"), resources, &"a[0-3]".parse().unwrap());
        let inventory = Inventory { set: set.unwrap(), method };
        State { inventory: Some(inventory), size: 4, ..State::default() }
    }

    fn news(up: &str, down: &str, shrink: &str) -> Option<News> {
        Some(News { up: ids(up), down: ids(down), shrink: ids(shrink) })
    }

    #[test]
    fn excluded_ranks_are_not_offered() {
        let mut state = state(Method::CONFIGURATION);
        state.exclude = ids("0");
        state.up = ids("0-2");
        let (view, set) = View::new(&state).unwrap();
        assert_eq!(set.ranks(), ids("1-3"));
        assert_eq!(view.up, ids("1-2"));
    }

    #[test]
    fn only_changes_are_told() {
        let mut state = state(Method::CONFIGURATION);
        let (mut view, _) = View::new(&state).unwrap();
        assert_eq!(view.update(&state), None);
        state.apply(&Change::Online(ids("0-2")));
        assert_eq!(view.update(&state), news("0-2", "", ""));
        state.apply(&Change::Torpid(ids("1,3")));
        assert_eq!(view.update(&state), news("", "1", ""));
        state.apply(&Change::Offline(ids("1")));
        assert_eq!(view.update(&state), None);
    }

    #[test]
    fn lost_ranks_are_gone_unless_they_are_configured() {
        let lose = |method| {
            let mut state = state(method);
            state.apply(&Change::Online(ids("0-3")));
            let (mut view, _) = View::new(&state).unwrap();
            state.apply(&Change::Offline(ids("2")));
            let lost = view.update(&state);
            state.apply(&Change::Online(ids("2")));
            (lost, view.update(&state))
        };
        assert_eq!(lose(Method::CONFIGURATION), (news("", "2", ""), news("2", "", "")));
        assert_eq!(lose(Method::DYNAMIC_DISCOVERY), (news("", "2", "2"), None));
    }
}
