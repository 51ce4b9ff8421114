//! `state-machine`: drives the broker from join to exit, and tells who asks.
//!
//! What a state does stands in [`actions`]: one future per state whose result is the next event.

mod actions;
mod quorum;
mod recovery;

use std::rc::Rc;
use std::time::Instant;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::Empty;
use flux_protocol::rpc::state_machine as rpc;
use tokio::sync::watch;

use crate::call::{Call, Calls, Sender};
use crate::context::Context;
use crate::life::Life;
use crate::log::Severity;
use crate::methods::Methods;
use crate::service::Service;
use crate::state::{Event, State};
use crate::systemd::Member;

/// The service. [`Life`] is what it needs beside the services below it.
pub struct StateMachine {
    life: Rc<Life>,
    state: watch::Sender<State>,
    since: Instant,
    monitors: Calls<rpc::MonitorResponse, u32>,
    waiters: Calls<Empty, ()>,
    action: Option<tokio::task::JoinHandle<()>>,
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Service for StateMachine {
    const NAME: &'static str = "state-machine";
    const SERVICES: &'static [&'static str] = &["state-machine"];
    const IS_MODULE: bool = false;

    async fn start(context: &Context<Self>, _: &[String]) -> Result<Self, Failure> {
        let life = context.broker().life().cloned().ok_or(Errno::ENOSYS)?;
        if context.rank() == 0 {
            quorum::Needed::of(context.broker())?.warn_of_older_form(context.broker());
        }
        let mut machine = StateMachine {
            state: life.state_sender(),
            life,
            since: context.broker().started(),
            monitors: Calls::default(),
            waiters: Calls::default(),
            action: None,
        };
        machine.watch_signals(context);
        machine.watch_parent(context);
        machine.post(context, Event::Start);
        Ok(machine)
    }

    fn methods() -> Methods<Self> {
        Methods::default()
            .reply::<rpc::Get>(StateMachine::get)
            .serve::<rpc::Wait>(StateMachine::wait)
            .serve::<rpc::Monitor>(StateMachine::monitor)
            .reply::<rpc::Post>(StateMachine::post_request)
            .reply::<rpc::SdNotify>(StateMachine::sd_notify)
    }

    fn disconnect(&mut self, _: &Context<Self>, sender: &Sender) {
        self.monitors.disconnect(sender);
        self.waiters.disconnect(sender);
    }
}

impl StateMachine {
    fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Take an event: change the state, and do what the new state is there for.
    fn post(&mut self, context: &Context<Self>, event: Event) {
        let state = self.state();
        let Some(next) = state.next(event) else {
            let text = format!("{}: ignored in {}", event.name(), state.name());
            context.broker().log().append(Severity::Debug, "broker", &text);
            return;
        };
        let took = std::mem::replace(&mut self.since, Instant::now()).elapsed();
        let text = format!("{}: {}->{} {}", event.name(), state.name(), next.name(), seconds(took));
        context.broker().log().append(Severity::Info, "broker", &text);
        if next == state {
            return;
        }
        self.enter(context, next);
    }

    fn enter(&mut self, context: &Context<Self>, state: State) {
        self.state.send_replace(state);
        self.notify_systemd(context, state);
        self.tell_monitors(state);
        self.tell_waiters(state);
        if let Some(action) = self.action.take() {
            action.abort();
        }
        let action = self.life.clone().act(context.clone(), state);
        let after = context.clone();
        self.action = Some(context.spawn(action, move |machine: &mut Self, event| {
            if let Some(event) = event {
                machine.action = None;
                machine.post(&after, event);
            }
        }));
    }

    fn notify_systemd(&self, context: &Context<Self>, state: State) {
        let (rank, size) = (context.rank(), context.broker().size());
        let member = Member { rank, size, attrs: context.broker().attrs() };
        self.life.systemd().inspect(|systemd| systemd.entered(member, state));
    }

    fn tell_monitors(&mut self, state: State) {
        for (call, _) in self.monitors.iter() {
            call.send(&rpc::MonitorResponse { state: state.number() });
        }
        for (call, _) in self.monitors.take(|_, last| state.number() >= *last) {
            call.end();
        }
    }

    fn tell_waiters(&mut self, state: State) {
        if state < State::Run {
            return;
        }
        for (call, ()) in self.waiters.take(|_, ()| true) {
            call.finish(surpassed(state));
        }
    }

    // --- where events come from ---

    fn watch_signals(&mut self, context: &Context<Self>) {
        let (life, after) = (self.life.clone(), context.clone());
        context.spawn(async move { life.signal().await }, move |machine: &mut Self, name| {
            let text = format!("signal: {name}");
            after.broker().log().append(Severity::Info, "broker", &text);
            machine.signaled(&after, name);
            machine.watch_signals(&after);
        });
    }

    /// What runs in this state is not waited for any longer.
    fn signaled(&mut self, context: &Context<Self>, name: &str) {
        match self.state() {
            // The state ends as it does when the script fails.
            State::Init | State::Finalize if self.life.hang_up_script() => {}
            State::Cleanup => {
                let text = format!("cleanup: ended by {name}");
                context.broker().log().append(Severity::Err, "broker", &text);
                self.life.fail();
                self.post(context, Event::CleanupFail);
            }
            state => {
                // There was something to be run, and it never was.
                if state < State::Run && self.life.initial_program().is_some() {
                    self.life.fail();
                }
                self.stop_orderly(context);
            }
        }
    }

    fn watch_parent(&mut self, context: &Context<Self>) {
        let (lost, after) = (self.life.peers().parent_lost(), context.clone());
        context.spawn(lost, move |machine: &mut Self, reason| {
            let text = format!("parent lost: {reason}");
            after.broker().log().append(Severity::Err, "broker", &text);
            machine.life.fail();
            machine.post(&after, Event::ParentFail);
        });
    }

    /// End what runs in this state, so that the next states come as they do after a normal end.
    fn stop_orderly(&mut self, context: &Context<Self>) {
        if self.state() == State::Run && self.life.hang_up_script() {
            return;
        }
        self.post(context, Event::Shutdown);
    }

    // --- methods ---

    fn get(
        &mut self,
        _: &Context<Self>,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::GetResponse, Failure> {
        Ok(rpc::GetResponse {
            state: self.state().name().to_owned(),
            duration: self.since.elapsed().as_secs_f64(),
        })
    }

    fn wait(&mut self, _: &Context<Self>, _: Empty, call: Call<Empty>) {
        match self.state() {
            state if state < State::Run => self.waiters.insert(call, ()),
            state => call.finish(surpassed(state)),
        }
    }

    fn monitor(
        &mut self,
        _: &Context<Self>,
        request: rpc::MonitorRequest,
        call: Call<rpc::MonitorResponse>,
    ) {
        let state = self.state().number();
        let response = rpc::MonitorResponse { state };
        if !call.is_streaming() {
            call.reply(&response);
        } else if state >= request.last {
            call.send(&response);
            call.end();
        } else {
            call.send(&response);
            self.monitors.insert(call, request.last);
        }
    }

    fn post_request(
        &mut self,
        context: &Context<Self>,
        request: rpc::PostRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        let event = Event::from_name(&request.event).ok_or_else(|| {
            let text = format!("state-machine.post: unknown event {}", request.event);
            context.log(Severity::Err, &text);
            Failure::new(Errno::EPROTO, text)
        })?;
        if request.error {
            self.life.fail();
        }
        match event {
            Event::Shutdown => self.stop_orderly(context),
            event => self.post(context, event),
        }
        Ok(Empty)
    }

    fn sd_notify(
        &mut self,
        _: &Context<Self>,
        request: rpc::SdNotifyRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        if let Some(status) = request.status {
            self.life.systemd().inspect(|systemd| systemd.status(&status));
        }
        Ok(Empty)
    }
}

fn surpassed(state: State) -> Result<Empty, Failure> {
    match state {
        State::Run => Ok(Empty),
        _ => Err(Failure::new(Errno::ENOENT, "broker has surpassed RUN state")),
    }
}

/// A duration as log lines show it.
pub(crate) fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", significant(duration.as_secs_f64()))
}

/// Six significant digits, as C's `%g` prints them.
fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor();
    if exponent < -4.0 {
        let text = format!("{:.5e}", value);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
        let exponent: i32 = exponent.parse().unwrap_or(0);
        return format!("{mantissa}e-{:02}", exponent.abs());
    }
    #[expect(clippy::cast_possible_truncation, reason = "an f64's exponent is small")]
    let decimals = (5 - exponent as i32).max(0);
    let text = format!("{value:.*}", usize::try_from(decimals).unwrap_or(0));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Follow the parent's state over the overlay, from this broker's own rank upwards.
pub(crate) fn monitor_parent(
    context: &Context<StateMachine>,
) -> Result<crate::handle::Responses<rpc::Monitor>, Failure> {
    let request = rpc::MonitorRequest { last: State::Shutdown.number() };
    let flags = Flags::UPSTREAM | Flags::STREAMING;
    context.handle().send::<rpc::Monitor>(Nodeid(context.rank()), flags, &request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_six_significant_digits() {
        assert_eq!(significant(0.016_295_8), "0.0162958");
        assert_eq!(significant(41.860_3), "41.8603");
        assert_eq!(significant(0.000_093_847), "9.3847e-05");
        assert_eq!(significant(0.414_207), "0.414207");
        assert_eq!(significant(2.0), "2");
    }
}
