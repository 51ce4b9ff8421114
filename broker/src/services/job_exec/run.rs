//! One job that is executed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::idset::Idset;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::job_exec::{StartEvent, StartRequest, StartResponse};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::barrier::Barrier;
use super::guest::Guest;
use super::shells::Shells;
use super::{Context, Settings, simulate};
use crate::call::Call;
use crate::config::execution::METHOD;
use crate::log::Severity;

/// wait(2) status of a task that exited with 1.
pub(super) const EXIT_1: i32 = 0x100;

/// Severity of an exception that does not end the job.
pub(super) const MILD: u32 = 2;

/// What is known of the job, and what happens to it.
#[derive(Debug)]
pub(super) struct Run {
    id: JobId,
    userid: u32,
    jobspec: Value,
    r: ResourceSet,
    reattach: bool,
    settings: Rc<Settings>,
    call: RefCell<Option<Call<StartResponse>>>,
    shells: Shells,
    pub(super) barrier: Barrier,
    expiration: Cell<f64>,
    /// Seconds by which the start was late, once it is known.
    delay: Cell<Option<f64>>,
    expiration_moved: Notify,
    critical: RefCell<Option<Idset>>,
    /// A fatal exception came; nothing new is started.
    ended: Cell<bool>,
    canceled: Cell<bool>,
    /// What the fatal exception says that the job ends with.
    exception_status: Cell<Option<i32>>,
    pub(super) ending: Notify,
    /// What can't be killed is not waited for any longer.
    given_up: Notify,
    pub(super) hand: simulate::Hand,
}

impl Run {
    /// Read the request. One that can't be read is answered as a job that failed at once.
    pub(super) fn new(
        request: StartRequest,
        call: Call<StartResponse>,
        settings: Rc<Settings>,
    ) -> Result<Run, ()> {
        let parsed = serde_json::from_str(request.jobspec.get())
            .map_err(|error| error.to_string())
            .and_then(|jobspec| {
                let r = ResourceSet::decode(request.r.get()).map_err(|error| error.to_string())?;
                Ok((jobspec, r))
            });
        let id = request.id;
        let (jobspec, r) = match parsed {
            Ok(parsed) => parsed,
            Err(text) => {
                send(&call, id, exception("exec", &format!("malformed start request: {text}")));
                send(&call, id, released());
                call.into_request();
                return Err(());
            }
        };
        Ok(Run {
            id,
            userid: request.userid,
            jobspec,
            expiration: Cell::new(r.expiration),
            delay: Cell::new(None),
            shells: Shells::new(&r),
            barrier: Barrier::new(r.ranks()),
            r,
            reattach: request.reattach,
            settings,
            call: RefCell::new(Some(call)),
            expiration_moved: Notify::new(),
            critical: RefCell::default(),
            ended: Cell::new(false),
            canceled: Cell::new(false),
            exception_status: Cell::new(None),
            ending: Notify::new(),
            given_up: Notify::new(),
            hand: simulate::Hand::default(),
        })
    }

    pub(super) fn id(&self) -> JobId {
        self.id
    }

    pub(super) fn userid(&self) -> u32 {
        self.userid
    }

    pub(super) fn jobspec(&self) -> &Value {
        &self.jobspec
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn shells(&self) -> &Shells {
        &self.shells
    }

    /// Of the job, or of all jobs; 0 is none.
    pub(super) fn barrier_timeout(&self) -> f64 {
        let own = self.jobspec.pointer("/attributes/system/exec/bulkexec/barrier-timeout");
        own.and_then(Value::as_f64).unwrap_or(self.settings.barrier_timeout)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    pub(super) fn set_expiration(&self, expiration: f64) {
        self.expiration.set(expiration);
        self.expiration_moved.notify_waiters();
    }

    pub(super) fn set_critical_ranks(&self, ranks: Idset) {
        *self.critical.borrow_mut() = Some(ranks);
    }

    /// A node whose loss ends the job; all are, unless the job has said otherwise.
    pub(super) fn is_critical(&self, shell_rank: usize) -> bool {
        let rank = u32::try_from(shell_rank).unwrap_or(u32::MAX);
        self.critical.borrow().as_ref().is_none_or(|ranks| ranks.contains(rank))
    }

    pub(super) fn stats(&self) -> Value {
        json!({
            "implementation": if simulate::test(&self.jobspec).is_some() { "testexec" } else { METHOD },
            "ranks": self.r.ranks().to_string(),
            "active_shells": self.shells.active().0.count(),
            "expiration": self.settings.end(
                self.r.starttime,
                self.r.starttime + self.delay.get().unwrap_or(0.0),
                self.expiration.get(),
            ),
        })
    }

    /// Somebody starts or ends the job, whose execution is simulated.
    pub(super) fn by_hand(&self, event: &str, status: i32) -> Result<(), Failure> {
        let test = simulate::test(&self.jobspec).and_then(Result::ok);
        match test.is_some_and(|test| test.is_by_hand()) {
            true => self.hand.tell(event, status),
            false => Err(Failure::new(Errno::EINVAL, "Job not in exec override mode")),
        }
    }

    /// Tell the job manager.
    pub(super) fn tell(&self, event: StartEvent) {
        if let Some(call) = self.call.borrow().as_ref() {
            send(call, self.id, event);
        }
    }

    pub(super) fn tell_exception(&self, kind: &str, note: &str) {
        self.tell(exception(kind, note));
    }

    /// An exception that the job survives.
    pub(super) fn tell_mild_exception(&self, kind: &str, note: &str) {
        let (kind, note) = (kind.to_owned(), note.to_owned());
        self.tell(StartEvent::Exception { severity: MILD, kind, note });
    }

    /// A fatal exception was raised on the job, here or elsewhere.
    pub(super) fn exception(
        self: &Rc<Self>,
        context: &Context,
        kind: &str,
        task_status: Option<i32>,
    ) {
        let is_first = !self.ended.replace(true);
        if is_first && let Some(status) = task_status.filter(|status| *status >= 0) {
            // As a shell exits whose task has ended so.
            let code = match libc::WIFSIGNALED(status) {
                true => 128 + libc::WTERMSIG(status),
                false => libc::WEXITSTATUS(status),
            };
            self.exception_status.set(Some(code << 8));
        }
        // Who cancels a job whose time is up wants it to end by the usual signal.
        let is_cancel = kind == "cancel" && !self.canceled.replace(true);
        if !is_first && !is_cancel {
            return;
        }
        self.barrier.fail(context);
        self.ending.notify_waiters();
        if kind != "timeout" {
            self.kill(context, self.settings.term_signal);
        }
    }

    /// Wait no longer for shells that are not over: their nodes are drained.
    pub(super) fn give_up(&self) {
        self.given_up.notify_waiters();
    }

    pub(super) fn given_up(&self) -> impl Future<Output = ()> {
        self.given_up.notified()
    }

    /// From the namespace to the last release.
    pub(super) async fn execute(self: Rc<Self>, context: Context) {
        match simulate::test(&self.jobspec) {
            Some(test) if self.reattach => simulate::reattach(&self, &context, test).await,
            _ if self.reattach => self.end_lost(&context).await,
            Some(test) => simulate::run(&self, &context, test).await,
            None => self.execute_shells(&context).await,
        }
    }

    async fn execute_shells(self: &Rc<Self>, context: &Context) {
        let guest = match Guest::create(context, self.id, self.userid).await {
            Ok(guest) => guest,
            Err(failure) => {
                self.tell_exception("exec", &format!("failed to create namespace: {failure}"));
                self.finish(EXIT_1);
                return;
            }
        };
        let timer = self.clone().watch_expiration(context.clone());
        // Whoever sees the start event may look for the logs in the guest directory.
        let run = async {
            let (opened, status) =
                tokio::join!(biased; guest.open(context), self.run_shells(context));
            self.log_failure(context, opened);
            self.final_status(status)
        };
        let status = tokio::select! {
            status = run => status,
            never = timer => match never {},
        };
        guest.close(context, self.shells.leader_status(), Some(status)).await;
        let linked = guest.link(context, || self.finish(status)).await;
        self.log_failure(context, linked);
        guest.remove(context).await;
    }

    fn log_failure(&self, context: &Context, result: Result<(), Failure>) {
        if let Err(failure) = result {
            context.log(Severity::Err, format!("{}: guest namespace: {failure}", self.id.f58()));
        }
    }

    /// The shells were children of a broker that is gone, and are gone with it. So is the job's
    /// namespace: an empty one takes its place, that readers find an end.
    async fn end_lost(&self, context: &Context) {
        let note = "reattach to running job is not implemented: it ended with its broker";
        self.tell_exception("exec", note);
        match Guest::create(context, self.id, self.userid).await {
            Ok(guest) => {
                guest.close(context, None, None).await;
                let linked = guest.link(context, || self.release()).await;
                self.log_failure(context, linked);
                guest.remove(context).await;
            }
            Err(failure) => {
                self.log_failure(context, Err(failure));
                self.release();
            }
        }
    }

    /// The status with which the job ends: one that was raised has not succeeded, whatever its
    /// shells say, and may say itself what has failed.
    pub(super) fn final_status(&self, status: i32) -> i32 {
        match (self.ended.get(), self.exception_status.get()) {
            (true, Some(raised)) => raised,
            (true, None) if status == 0 => EXIT_1,
            _ => status,
        }
    }

    /// Nothing of the job was started.
    pub(super) fn fail_before_start(&self, note: &str) {
        self.tell_exception("exec", note);
        self.release();
    }

    fn finish(&self, status: i32) {
        self.tell(StartEvent::Finish { status });
        self.release();
    }

    fn release(&self) {
        self.shells.are_over();
        self.tell(released());
        if let Some(call) = self.call.borrow_mut().take() {
            // The last response was sent; there is no end mark.
            call.into_request();
        }
    }

    pub(super) fn finish_simulated(&self, status: i32) {
        self.finish(status);
    }

    /// The job started before this service did.
    pub(super) fn started_at(&self, time: f64) {
        self.delay.set(Some(time - self.r.starttime));
    }

    /// When the job that starts now is to end. A prolog that took a good part of a short job's time
    /// is made up for.
    fn end(&self, context: &Context) -> f64 {
        let now = crate::time::unix_seconds(SystemTime::now());
        let expiration = self.expiration.get();
        let started = match self.delay.get() {
            Some(delay) => self.r.starttime + delay,
            None => {
                self.delay.set(Some(now - self.r.starttime));
                now
            }
        };
        let end = self.settings.end(self.r.starttime, started, expiration);
        if end > expiration {
            let text = format!("{}: expires {:.1}s later", self.id.f58(), end - expiration);
            context.log(Severity::Debug, text);
        }
        end
    }

    /// Raise a timeout when the allocation expires; whenever it is moved, count anew.
    pub(super) async fn watch_expiration(
        self: Rc<Self>,
        context: Context,
    ) -> std::convert::Infallible {
        loop {
            let moved = self.expiration_moved.notified();
            if self.expiration.get() <= 0.0 {
                moved.await;
                continue;
            }
            let left = self.end(&context) - crate::time::unix_seconds(SystemTime::now());
            let left = Duration::try_from_secs_f64(left.max(0.0)).unwrap_or(Duration::MAX);
            tokio::select! {
                () = moved => continue,
                () = tokio::time::sleep(left) => {}
            }
            self.tell_exception("timeout", "resource allocation expired");
            self.kill(&context, libc::SIGALRM);
            return std::future::pending().await;
        }
    }
}

fn send(call: &Call<StartResponse>, id: JobId, event: StartEvent) {
    call.send(&StartResponse { id, event });
}

fn exception(kind: &str, note: &str) -> StartEvent {
    StartEvent::Exception { severity: 0, kind: kind.to_owned(), note: note.to_owned() }
}

fn released() -> StartEvent {
    StartEvent::Release { ranks: "all".to_owned(), is_final: true }
}
