//! What a broker does in each state; the result is the event that ends it.

use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use nix::unistd::Pid;

use super::recovery::{self, RECOVERY_MODE};
use super::{StateMachine, monitor_parent, quorum};
use crate::context::Context;
use crate::life::{Life, Running};
use crate::log::Severity;
use crate::rc::{self, Script, ScriptFailure};
use crate::state::{Event, State};
use crate::{modules, startlog};

type Ctx = Context<StateMachine>;

/// When to ask a parent again that is not ready to be asked.
const PARENT_RETRY: Duration = Duration::from_millis(50);

impl Life {
    /// Do what `state` is there for. No event when the state lasts until something else ends it.
    pub(super) async fn act(self: Rc<Self>, context: Ctx, state: State) -> Option<Event> {
        match state {
            State::None | State::Exit => None,
            State::Join => Some(self.join(&context).await),
            State::Init => Some(self.init(&context).await),
            State::Quorum => Some(quorum::reach(&context).await),
            State::Run => self.run(&context).await,
            State::Cleanup => {
                let event = cleanup(&context).await;
                if event == Event::CleanupFail {
                    self.fail();
                }
                Some(event)
            }
            State::Shutdown => Some(self.shutdown(&context).await),
            State::Finalize => {
                let event = finalize(&context).await;
                if event == Event::Rc3Fail {
                    self.fail();
                }
                Some(event)
            }
            State::Goodbye => {
                self.peers().goodbye().await;
                Some(Event::Goodbye)
            }
        }
    }

    async fn join(&self, context: &Ctx) -> Event {
        if context.rank() == 0 {
            return Event::ParentNone;
        }
        match self.peers().joined().await {
            Ok(()) => {
                let event = parent_up(context).await;
                // The modules that rc1 loads are to start with the configuration of rank 0.
                if event == Event::ParentReady {
                    context.broker().config_in_sync().await;
                }
                event
            }
            Err(reason) => {
                context.broker().log().append(Severity::Err, "broker", &reason);
                self.fail();
                Event::ParentFail
            }
        }
    }

    async fn init(&self, context: &Ctx) -> Event {
        let recovery = context.broker().attrs().get(RECOVERY_MODE).is_some();
        match self.rc1(context).await {
            Ok(()) if rc::is_none(context.broker(), rc::RC1) => Event::Rc1None,
            Ok(()) => Event::Rc1Success,
            Err(failed) => {
                if failed.code.is_none() {
                    let text = format!("rc1.0: {}", failed.failure);
                    context.broker().log().append(Severity::Err, "broker", &text);
                }
                if recovery {
                    return Event::Rc1IgnoreFail;
                }
                // Whoever started the broker is told what the script has told.
                self.set_exit_code(failed.code.unwrap_or(1));
                self.stay_down(context.broker().attrs());
                Event::Rc1Fail
            }
        }
    }

    async fn rc1(&self, context: &Ctx) -> Result<(), ScriptFailure> {
        let broker = context.broker();
        // An rc1 of one's own loads what it wants; an empty one is an instance without modules.
        if rc::is_builtin(broker, rc::RC1) {
            let started = Instant::now();
            modules::load_all(broker).await?;
            rc::log_step(broker, "rc1.0: flux modprobe rc1", started, &Ok(()));
            if broker.rank() == 0 {
                if startlog::has_crashed(context.handle()).await? {
                    let text = "rc1.0: Flux was not shut down properly: data may have been lost";
                    broker.log().append(Severity::Err, "broker", text);
                }
                startlog::append(context.handle(), startlog::Entry::Start).await?;
            }
        }
        rc::run_all(broker, rc::RC1).await
    }

    /// Rank 0 runs the initial program; the others follow their parent.
    async fn run(&self, context: &Ctx) -> Option<Event> {
        if context.rank() > 0 {
            return Some(follow_parent(context).await);
        }
        let program = self.initial_program().cloned()?;
        if program == Script::Shell && context.broker().attrs().get(RECOVERY_MODE).is_some() {
            recovery::tell(context.broker().attrs());
        }
        let started = Instant::now();
        let status = match self.spawn_initial_program(context, &program) {
            Ok(mut child) => child.wait().await,
            Err(error) => Err(error),
        };
        self.set_running(None);
        let (code, how) = match &status {
            Ok(status) => (rc::shell_exit_code(*status), rc::describe(*status)),
            // As in a shell: what is not there, and what is there but can't be run.
            Err(error) => {
                let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
                (code, format!("{error} (rc={code})"))
            }
        };
        self.set_exit_code(code);
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
        self.set_running(pid.map(|pid| Running { pid, own_group }));
        Ok(child)
    }

    async fn shutdown(&self, context: &Ctx) -> Event {
        self.peers().close();
        if self.peers().children().is_empty() {
            return Event::ChildrenNone;
        }
        let attrs = context.broker().attrs();
        let limit = attrs.duration("broker.shutdown-timeout").unwrap_or(quorum::NEVER);
        let gone = self.peers().children_gone();
        let warnings = self.warn_of_slow_children(context);
        tokio::select! {
            () = gone => {}
            () = tokio::time::sleep(limit) => {
                let hosts = context.broker().hosts_of(&self.peers().children());
                let text = format!("shutdown timeout: {hosts} not gone in broker.shutdown-timeout");
                context.broker().log().append(Severity::Err, "broker", &text);
                return Event::ChildrenTimeout;
            }
            () = warnings => {}
        }
        Event::ChildrenComplete
    }

    /// Each `broker.shutdown-warn`, for as long as it is polled.
    async fn warn_of_slow_children(&self, context: &Ctx) {
        let period =
            context.broker().attrs().duration("broker.shutdown-warn").unwrap_or(quorum::NEVER);
        loop {
            tokio::time::sleep(period).await;
            let late = self.peers().children();
            let hosts = context.broker().hosts_of(&late);
            let count = late.count();
            let text =
                format!("shutdown delayed: waiting for {count} peers: {hosts} (rank {late})");
            context.broker().log().append(Severity::Err, "broker", &text);
        }
    }
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
    if context.rank() > 0 {
        return Event::CleanupNone;
    }
    let limit = context.broker().attrs().duration("broker.cleanup-timeout");
    let cleanup = rc::cleanup(context.broker(), context.handle());
    let result = match limit {
        Some(limit) => tokio::time::timeout(limit, cleanup).await.unwrap_or_else(|_| {
            Err(Failure::new(Errno::ETIMEDOUT, "not done in broker.cleanup-timeout"))
        }),
        None => cleanup.await,
    };
    match result {
        Ok(true) => Event::CleanupSuccess,
        Ok(false) => Event::CleanupNone,
        Err(failure) => {
            let text = format!("cleanup: {failure}");
            context.broker().log().append(Severity::Err, "broker", &text);
            Event::CleanupFail
        }
    }
}

async fn finalize(context: &Ctx) -> Event {
    let broker = context.broker();
    let scripts = rc::run_all(broker, rc::RC3).await;
    let finished = match broker.modules().get("kvs") {
        Some(_) if broker.rank() == 0 && rc::is_builtin(broker, rc::RC3) => {
            startlog::append(context.handle(), startlog::Entry::Finish).await
        }
        _ => Ok(()),
    };
    broker.router().set_ending();
    let started = Instant::now();
    let removed = modules::remove_all(broker).await;
    if removed.is_ok() && rc::is_builtin(broker, rc::RC3) {
        rc::log_step(broker, "rc3.0: flux modprobe rc3", started, &removed);
    }
    // The log has the script that failed.
    let (scripts_failed, others) = (scripts.is_err(), finished.and(removed));
    if let Err(ScriptFailure { failure, code: None }) = scripts {
        broker.log().append(Severity::Err, "broker", &format!("rc3.0: {failure}"));
    }
    match others {
        Ok(()) if scripts_failed => Event::Rc3Fail,
        Ok(()) if rc::is_none(broker, rc::RC3) => Event::Rc3None,
        Ok(()) => Event::Rc3Success,
        Err(failure) => {
            broker.log().append(Severity::Err, "broker", &format!("rc3.0: {failure}"));
            Event::Rc3Fail
        }
    }
}
