//! What a broker does in each state; the result is the event that ends it.

use std::cell::Cell;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::systemd::Systemd;
use super::{StateMachine, monitor_parent, quorum};
use crate::attrs::Attrs;
use crate::broker::Broker;
use crate::context::Context;
use crate::log::Severity;
use crate::peers::Peers;
use crate::rc::{self, Script};
use crate::startlog;
use crate::state::{Event, State};

type Ctx = Context<StateMachine>;

/// When to ask a parent again that is not ready to be asked.
const PARENT_RETRY: Duration = Duration::from_millis(50);

/// What lasts from the broker's start to its end beside the state itself.
pub struct Life {
    peers: Rc<dyn Peers>,
    state: watch::Sender<State>,
    /// The command line of the initial program; none at other ranks than 0.
    initial_program: Option<Script>,
    /// The initial program while it runs.
    running: Cell<Option<Running>>,
    exit_code: Cell<u8>,
    /// Tells systemd not to start the broker again; stands above the exit code.
    norestart_code: Cell<Option<u8>>,
    signals: tokio::sync::Mutex<Signals>,
    systemd: Option<Systemd>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    pid: Pid,
    own_group: bool,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").field("exit_code", &self.exit_code).finish_non_exhaustive()
    }
}

impl Life {
    pub fn new(
        broker: &Rc<Broker>,
        peers: Rc<dyn Peers>,
        initial_program: Option<Script>,
    ) -> std::io::Result<Rc<Life>> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Rc::new(Life {
            peers,
            state: watch::Sender::new(State::None),
            initial_program,
            running: Cell::new(None),
            exit_code: Cell::new(0),
            norestart_code: Cell::new(None),
            signals: tokio::sync::Mutex::new(Signals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: signal(SignalKind::hangup())?,
                quit: signal(SignalKind::quit())?,
            }),
            systemd: Systemd::new(broker.attrs()),
        }))
    }

    pub fn peers(&self) -> &Rc<dyn Peers> {
        &self.peers
    }

    pub(super) fn state_sender(&self) -> watch::Sender<State> {
        self.state.clone()
    }

    /// To wait for a state from outside of the service.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What the broker process exits with.
    pub fn exit_code(&self) -> u8 {
        self.norestart_code.get().unwrap_or(self.exit_code.get())
    }

    /// The instance is shut down and is to stay so (`broker.exit-norestart`).
    pub fn set_norestart_code(&self, code: u8) {
        self.norestart_code.set(Some(code));
    }

    /// The broker has failed, whatever else happens.
    pub fn fail(&self) {
        if self.exit_code.get() == 0 {
            self.exit_code.set(1);
        }
    }

    /// The next signal that asks for an end.
    pub(super) async fn signal(&self) -> &'static str {
        let mut signals = self.signals.lock().await;
        let Signals { terminate, interrupt, hangup, quit } = &mut *signals;
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup.recv() => "SIGHUP",
            _ = quit.recv() => "SIGQUIT",
        }
    }

    /// False when no initial program runs.
    pub(super) fn hang_up_initial_program(&self) -> bool {
        let Some(running) = self.running.get() else { return false };
        let sent = if running.own_group {
            killpg(running.pid, Signal::SIGHUP)
        } else {
            kill(running.pid, Signal::SIGHUP)
        };
        sent.is_ok()
    }

    /// Do what `state` is there for. No event when the state lasts until something else ends it.
    pub(super) async fn act(self: Rc<Self>, context: Ctx, state: State) -> Option<Event> {
        match state {
            State::None | State::Exit => None,
            State::Join => Some(self.join(&context).await),
            State::Init => Some(self.init(&context).await),
            State::Quorum => Some(quorum::reach(&context).await),
            State::Run => self.run(&context).await,
            State::Cleanup => Some(cleanup(&context).await),
            State::Shutdown => Some(self.shutdown(&context).await),
            State::Finalize => Some(finalize(&context).await),
            State::Goodbye => {
                self.peers.goodbye().await;
                Some(Event::Goodbye)
            }
        }
    }

    async fn join(&self, context: &Ctx) -> Event {
        if context.rank() == 0 {
            return Event::ParentNone;
        }
        match self.peers.joined().await {
            Ok(()) => parent_up(context).await,
            Err(reason) => {
                context.broker().log().append(Severity::Err, "broker", &reason);
                self.fail();
                Event::ParentFail
            }
        }
    }

    async fn init(&self, context: &Ctx) -> Event {
        let recovery = context.broker().attrs().get("broker.recovery-mode").is_some();
        match self.rc1(context).await {
            Ok(()) => Event::Rc1Success,
            Err(failure) => {
                let text = format!("rc1.0: {failure}");
                context.broker().log().append(Severity::Err, "broker", &text);
                if recovery {
                    return Event::Rc1IgnoreFail;
                }
                self.fail();
                Event::Rc1Fail
            }
        }
    }

    async fn rc1(&self, context: &Ctx) -> Result<(), Failure> {
        let broker = context.broker();
        broker.modules().load_all(broker).await?;
        if broker.rank() == 0 && broker.modules().get("kvs").is_some() {
            startlog::append(context.handle(), startlog::Entry::Start).await?;
        }
        rc::run_all(broker, "rc1", "broker.rc1_path").await
    }

    /// Rank 0 runs the initial program; the others follow their parent.
    async fn run(&self, context: &Ctx) -> Option<Event> {
        if context.rank() > 0 {
            return Some(follow_parent(context).await);
        }
        let program = self.initial_program.clone()?;
        let started = std::time::Instant::now();
        let status = match self.spawn_initial_program(context, &program) {
            Ok(mut child) => child.wait().await,
            Err(error) => Err(error),
        };
        self.running.set(None);
        let (code, how) = match &status {
            Ok(status) => (rc::shell_exit_code(*status), rc::describe(*status)),
            Err(error) => (127, format!("{error} (rc=127)")),
        };
        self.exit_code.set(code);
        let severity = if code == 0 { Severity::Info } else { Severity::Err };
        let took = started.elapsed().as_secs_f64();
        let text = format!("rc2.0: {} {how} {took:.1}s", program.command_line());
        context.broker().log().append(severity, "broker", &text);
        if status.is_ok_and(|status: ExitStatus| status.success()) {
            Some(Event::Rc2Success)
        } else {
            Some(Event::Rc2Fail)
        }
    }

    /// With a terminal the program stays in the broker's process group, so that the terminal's
    /// signals reach both; else it has its own, so that all of it can be signalled.
    fn spawn_initial_program(
        &self,
        context: &Ctx,
        program: &Script,
    ) -> std::io::Result<tokio::process::Child> {
        let forced = context.broker().attrs().get("broker.rc2_pgrp").is_some();
        let own_group = forced || !std::io::IsTerminal::is_terminal(&std::io::stdin());
        let mut command = program.command(context.broker());
        if own_group {
            command.process_group(0);
        }
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        self.running.set(pid.map(|pid| Running { pid, own_group }));
        Ok(child)
    }

    async fn shutdown(&self, context: &Ctx) -> Event {
        self.peers.close();
        if !self.peers.has_children() {
            return Event::ChildrenNone;
        }
        let limit = duration_attr(context.broker().attrs(), "broker.shutdown-timeout");
        let gone = self.peers.children_gone();
        match limit {
            None => gone.await,
            Some(limit) => {
                if tokio::time::timeout(limit, gone).await.is_err() {
                    let text = "shutdown: some children have not left in time";
                    context.broker().log().append(Severity::Err, "broker", text);
                    return Event::ChildrenTimeout;
                }
            }
        }
        Event::ChildrenComplete
    }

    // --- systemd ---

    pub(super) fn systemd_status(&self, status: &str) {
        if let Some(systemd) = &self.systemd {
            systemd.status(status);
        }
    }

    pub(super) fn notify_systemd(&self, context: &Ctx, state: State) {
        if let Some(systemd) = &self.systemd {
            systemd.entered(context.broker(), state);
        }
    }
}

/// An attribute that is a duration. None: it is not set, or unlimited.
pub(super) fn duration_attr(attrs: &Attrs, name: &str) -> Option<Duration> {
    let seconds = flux_protocol::fsd::parse(&attrs.get(name)?).ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Services of this broker use those of the parent: wait until rc1 is through there.
async fn parent_up(context: &Ctx) -> Event {
    watch_parent(context, |state| match state {
        state if state > State::Run.number() => Some(Event::ParentFail),
        state if state >= State::Quorum.number() => Some(Event::ParentReady),
        _ => None,
    })
    .await
}

/// Run until the parent waits for its children to leave. While rank 0 cleans up, jobs still run here
/// and are ended from there.
async fn follow_parent(context: &Ctx) -> Event {
    let over = State::Shutdown.number();
    watch_parent(context, |state| (state >= over).then_some(Event::Shutdown)).await
}

/// Follow the parent's states until one of them makes an event.
async fn watch_parent(context: &Ctx, event: impl Fn(u32) -> Option<Event>) -> Event {
    loop {
        let Ok(mut states) = monitor_parent(context) else { return Event::ParentFail };
        let failure = loop {
            match states.next().await {
                Ok(response) => {
                    if let Some(event) = event(response.state) {
                        return event;
                    }
                }
                Err(failure) => break failure,
            }
        };
        // The parent takes part in the overlay before it has this service.
        if failure.errno == Errno::ENOSYS {
            tokio::time::sleep(PARENT_RETRY).await;
            continue;
        }
        // The overlay reports a lost parent itself.
        return std::future::pending().await;
    }
}

/// Rank 0 ends what runs, so that a restart finds nothing that looks as if it ran.
async fn cleanup(context: &Ctx) -> Event {
    if context.rank() > 0 || context.broker().modules().get("job-manager").is_none() {
        return Event::CleanupNone;
    }
    let limit = duration_attr(context.broker().attrs(), "broker.cleanup-timeout");
    let cleanup = rc::cleanup(context.broker(), context.handle());
    let result = match limit {
        Some(limit) => tokio::time::timeout(limit, cleanup).await.unwrap_or_else(|_| {
            Err(Failure::new(Errno::ETIMEDOUT, "not done in broker.cleanup-timeout"))
        }),
        None => cleanup.await,
    };
    match result {
        Ok(()) => Event::CleanupSuccess,
        Err(failure) => {
            let text = format!("cleanup: {failure}");
            context.broker().log().append(Severity::Err, "broker", &text);
            Event::CleanupFail
        }
    }
}

async fn finalize(context: &Ctx) -> Event {
    let broker = context.broker();
    let scripts = rc::run_all(broker, "rc3", "broker.rc3_path").await;
    let finished = match broker.modules().get("kvs") {
        Some(_) if broker.rank() == 0 => {
            startlog::append(context.handle(), startlog::Entry::Finish).await
        }
        _ => Ok(()),
    };
    let removed = broker.modules().remove_all(broker).await;
    match scripts.and(finished).and(removed) {
        Ok(()) => Event::Rc3Success,
        Err(failure) => {
            broker.log().append(Severity::Err, "broker", &format!("rc3.0: {failure}"));
            Event::Rc3Fail
        }
    }
}
