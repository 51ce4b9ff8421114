//! A scheduler: takes note of changes, starts what its policy lets start, and tells the others
//! why and for how long they wait.

use crate::forecast::{Forecast, Reservation};
use crate::pool::{Grant, NoGrant, Pool, PoolError};
use crate::queue::{Pending, Queue};
use crate::request::Want;
use crate::text::{summary, targets};
use flux_plugin::prelude::*;
use flux_plugin::types::{
    Allocation, Annotation, Denial, ExpirationRequest, FeasibilityRequest, JobNote, ResourceSet,
    TokenRefusal,
};
use serde_json::Value;
use std::rc::Rc;

/// How many jobs of the queue get an estimate of their start.
const FORECAST: usize = 8;
/// Seconds between two forecasts: each copies the pool.
const FORECAST_PAUSE: f64 = 1.0;
/// Decisions between two looks at the clock.
const STRIDE: usize = 32;

/// Most jobs behind a head that waits that are looked at for nodes that nobody before them wants.
const BESIDE: usize = 1000;
/// The effect that tells how many jobs are taken from now on, while some of them are set aside.
const QUEUE_DEPTH: &str = "queue-depth";

const FORECAST_TIMER: &str = "forecast";

/// Which jobs may start while the first of the queue waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Those that nodes will do for which no job before them waits.
    Fcfs,
    /// Those among the first of the queue that do not delay its head (EASY).
    Backfill {
        /// How many jobs behind the head are looked at.
        depth: usize,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    depth: Depth,
    pool: Pool,
    queue: Queue,
    /// State of the nodes for which jobs were set aside.
    aside_for: u64,
    /// How many jobs were set aside when that was last told.
    aside_told: usize,
    forecast_at: f64,
    forecast_due: bool,
    /// Something changed since the last look for jobs to start early.
    changed: bool,
    /// The head's reservation and the jobs behind it that are still to be looked at.
    looking: Option<(Reservation, Vec<JobId>)>,
    starts: u64,
    backfilled: u64,
    denials: u64,
}

impl Engine {
    /// A scheduler without resources and jobs.
    pub fn new(policy: Policy, depth: Depth) -> Self {
        Engine {
            policy,
            depth,
            pool: Pool::default(),
            queue: Queue::default(),
            aside_for: 0,
            aside_told: 0,
            forecast_at: 0.0,
            forecast_due: false,
            changed: true,
            looking: None,
            starts: 0,
            backfilled: 0,
            denials: 0,
        }
    }

    /// As [`Plugin::query`].
    pub fn query(&self) -> String {
        serde_json::json!({
            "pending_jobs": self.queue.len(),
            "allocations": self.starts,
            "backfilled": self.backfilled,
            "denials": self.denials,
        })
        .to_string()
    }

    /// As [`Scheduler::ready`].
    pub fn ready(&mut self) -> Depth {
        self.aside_told = self.queue.aside();
        self.depth_now()
    }

    /// As [`Scheduler::update`].
    pub fn update(&mut self, change: Change, decisions: &mut Vec<Decision>) {
        if !matches!(change, Change::Timer(_)) {
            self.changed = true;
            self.looking = None;
        }
        if let Err(PoolError(text)) = self.take_note(change, decisions) {
            host::error(format!("change ignored: {text}"));
        }
    }

    /// As [`Scheduler::schedule`].
    pub fn schedule(&mut self, seconds: f64) -> Pass {
        let mut decisions = Vec::new();
        let end = host::remaining() - seconds;
        if self.aside_for != self.pool.nodes_generation() {
            self.aside_for = self.pool.nodes_generation();
            self.queue.recall();
        }
        let mut steps = 0;
        while self.step(&mut decisions) {
            steps += 1;
            if steps % STRIDE == 0 && host::remaining() < end {
                return Pass { decisions, more: true };
            }
        }
        match self.policy {
            Policy::Fcfs => self.beside_head(&mut decisions),
            Policy::Backfill { depth } => {
                if !self.backfill(depth, end, &mut decisions) {
                    return Pass { decisions, more: true };
                }
            }
        }
        decisions.extend(self.depth_moved());
        self.forecast(&mut decisions);
        Pass { decisions, more: false }
    }

    fn take_note(
        &mut self,
        change: Change,
        decisions: &mut Vec<Decision>,
    ) -> Result<(), PoolError> {
        match change {
            Change::Resources(set) => self.resources(&set)?,
            Change::Up(ranks) => self.pool.set_up(&ranks, true)?,
            Change::Down(ranks) => self.pool.set_up(&ranks, false)?,
            Change::Shrink(ranks) => self.pool.shrink(&ranks)?,
            Change::PropertyAdd(list) => self.pool.add_properties(&list)?,
            Change::PropertyRemove(list) => self.pool.remove_properties(&list)?,
            Change::Expiration(time) => self.pool.expiration = time,
            Change::Hello(jobs) => {
                for job in jobs {
                    self.pool.hold(job.id, &job.allocation, job.expiration)?;
                }
            }
            Change::Alloc(jobs) => jobs.iter().for_each(|job| self.alloc(job, decisions)),
            Change::Free(list) => {
                for freed in list {
                    self.pool.free(freed.id, &freed.resources, freed.final_)?;
                }
            }
            Change::Cancel(ids) => {
                let ended = ids.into_iter().filter(|id| self.queue.remove(*id).is_some());
                decisions.extend(ended.map(Decision::Canceled));
            }
            Change::Prioritize(list) => {
                list.into_iter().for_each(|(id, priority)| self.queue.prioritize(id, priority));
            }
            Change::JobExpiration(request) => decisions.push(self.expiration(&request)),
            Change::Feasibility(request) => decisions.push(self.feasibility(&request)),
            Change::Timer(_) => self.forecast_due = false,
            Change::Rpc(_) | Change::RpcResponse(_) | Change::Other(_) => {}
        }
        Ok(())
    }

    fn resources(&mut self, set: &ResourceSet) -> Result<(), PoolError> {
        // Nothing is known of the new one: not even that it has the nodes of the old one.
        let generations = self.pool.nodes_generation() + 1;
        self.pool = Pool::new(set)?.after(generations);
        Ok(())
    }

    fn alloc(&mut self, job: &Job, decisions: &mut Vec<Decision>) {
        match Want::of(job) {
            Some(want) => self.queue.push(job, want),
            None => decisions.push(Decision::Deny(Denial { id: job.id, note: UNREADABLE.into() })),
        }
    }

    fn expiration(&mut self, request: &ExpirationRequest) -> Decision {
        if self.pool.set_end(request.id, request.expiration) {
            return Decision::Accept(request.token);
        }
        let refusal = refuse_with(errno::ENOENT, "job has no allocation");
        Decision::Refuse(TokenRefusal { token: request.token, refusal })
    }

    fn feasibility(&mut self, request: &FeasibilityRequest) -> Decision {
        let refusal = match Want::of(&request.job) {
            None => refuse_with(errno::EINVAL, UNREADABLE),
            Some(want) => match self.pool.feasible(&want) {
                Err(NoGrant::Infeasible(text)) => refuse_with(errno::EOVERFLOW, text),
                Ok(()) | Err(NoGrant::Insufficient) => return Decision::Accept(request.token),
            },
        };
        Decision::Refuse(TokenRefusal { token: request.token, refusal })
    }

    /// Deals with the first job. False when it has to wait for its turn, or there is none.
    fn step(&mut self, decisions: &mut Vec<Decision>) -> bool {
        let Some(id) = self.queue.head().map(|head| head.id) else { return false };
        self.settle(id, decisions)
    }

    /// Starts a job, denies it or sets it aside. False when it has to wait for its turn.
    fn settle(&mut self, id: JobId, decisions: &mut Vec<Decision>) -> bool {
        let Some(head) = self.queue.get_mut(id) else { return false };
        let end = match head.want.duration {
            duration if duration > 0.0 => host::now() + duration,
            _ => self.pool.expiration,
        };
        let outcome = self.pool.allocate(id, &head.want, end);
        match outcome {
            Ok(grant) => decisions.push(self.start(id, &grant, end)),
            Err(NoGrant::Infeasible(note)) => decisions.push(self.deny(id, note)),
            Err(NoGrant::Insufficient) => {
                if head.feasible != Some(self.pool.generation()) {
                    if let Err(NoGrant::Infeasible(note)) = self.pool.feasible(&head.want) {
                        decisions.push(self.deny(id, note));
                        return true;
                    }
                    head.feasible = Some(self.pool.generation());
                }
                if head.has_nodes != Some(self.pool.nodes_generation()) {
                    if !self.pool.has_nodes(&head.want) {
                        self.set_aside(id, decisions);
                        return true;
                    }
                    head.has_nodes = Some(self.pool.nodes_generation());
                }
                return false;
            }
        }
        true
    }

    /// A job waits for nodes that are down or drained, perhaps for days: the others do not wait for
    /// it.
    fn set_aside(&mut self, id: JobId, decisions: &mut Vec<Decision>) {
        let Some(pending) = self.queue.set_aside(id) else { return };
        decisions.extend(announce(pending, None));
        decisions.extend(explain(pending, 0, &mut self.pool));
    }

    /// Jobs that are set aside do not use up what is taken at a time: enough of them would keep
    /// those from being seen that could start.
    fn depth_moved(&mut self) -> Option<Decision> {
        let aside = self.queue.aside();
        if std::mem::replace(&mut self.aside_told, aside) == aside {
            return None;
        }
        let Depth::Limited(depth) = self.depth_now() else { return None };
        Some(Decision::Effect(Effect::Other((QUEUE_DEPTH.into(), depth.to_string()))))
    }

    fn depth_now(&self) -> Depth {
        let aside = u32::try_from(self.queue.aside()).unwrap_or(u32::MAX);
        match self.depth {
            Depth::Limited(depth) => Depth::Limited(depth.saturating_add(aside)),
            Depth::Unlimited => Depth::Unlimited,
        }
    }

    /// The first job waits. Those behind it do not delay it, nor one another, on nodes that none
    /// before them can use: those of another queue, say.
    fn beside_head(&mut self, decisions: &mut Vec<Decision>) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let Some(head) = self.queue.head() else { return };
        let (id, want) = (head.id, head.want.clone());
        let Ok(Some(ranks)) = self.pool.eligible(&want) else { return };
        let mut awaited = (*ranks).clone();
        let mut waiting = vec![ranks];
        for id in self.queue.after(id, BESIDE) {
            if awaited.count() >= self.pool.len() as u64 {
                return;
            }
            let Some(want) = self.queue.get(id).map(|pending| pending.want.clone()) else {
                continue;
            };
            let ranks = match self.pool.eligible(&want) {
                Ok(Some(ranks)) => ranks,
                Ok(None) => return,
                // It is denied when it is its turn.
                Err(_) => continue,
            };
            // Many jobs have the same constraint.
            if waiting.iter().any(|other| Rc::ptr_eq(other, &ranks)) {
                continue;
            }
            if awaited.intersects(&ranks) || !self.settle(id, decisions) {
                awaited.union_with(&ranks);
                waiting.push(ranks);
            }
        }
    }

    /// The job leaves the queue with what it was granted.
    fn start(&mut self, id: JobId, grant: &Grant, end: f64) -> Decision {
        let annotated = self.queue.remove(id).is_some_and(|pending| pending.annotated);
        self.starts += 1;
        let withdrawn = if annotated { r#","t_estimate":null"# } else { "" };
        let text = summary(&grant.shares);
        Decision::Allocate(Allocation {
            id,
            resources: targets(&grant.shares),
            nslots: grant.nslots,
            starttime: host::now(),
            expiration: end,
            scheduling: None,
            annotations: Some(format!(r#"{{"resource_summary":"{text}"{withdrawn}}}"#)),
        })
    }

    /// Starts jobs behind the head that end before it starts, or take nothing that it needs then.
    /// False when time is up and there are more to look at.
    fn backfill(&mut self, depth: usize, end: f64, decisions: &mut Vec<Decision>) -> bool {
        if std::mem::take(&mut self.changed) {
            self.looking = self.look_behind_head(depth);
        }
        let now = host::now();
        let Some((mut reservation, candidates)) = self.looking.take() else { return true };
        let mut candidates = candidates.into_iter();
        let mut looked = 0;
        while let Some(id) = candidates.next() {
            if let Some(decision) = self.backfill_one(id, now, &mut reservation) {
                self.backfilled += 1;
                decisions.push(decision);
            }
            looked += 1;
            if looked % STRIDE == 0 && candidates.len() > 0 && host::remaining() < end {
                self.looking = Some((reservation, candidates.collect()));
                return false;
            }
        }
        true
    }

    fn look_behind_head(&mut self, depth: usize) -> Option<(Reservation, Vec<JobId>)> {
        let id = self.queue.head()?.id;
        let mut candidates = self.queue.after(id, depth);
        candidates
            .retain(|id| self.queue.get(*id).is_some_and(|pending| self.pool.fits(&pending.want)));
        if candidates.is_empty() {
            // A reservation takes a copy of the pool: on a machine that is full, one for each end
            // of a job.
            return None;
        }
        let head = self.queue.head()?;
        let reservation = Reservation::of(&self.pool, host::now(), id, &head.want)?;
        Some((reservation, candidates))
    }

    fn backfill_one(
        &mut self,
        id: JobId,
        now: f64,
        reservation: &mut Reservation,
    ) -> Option<Decision> {
        let want = self.queue.get(id)?.want.clone();
        let end = self.end(&want, now);
        let grant = self.pool.allocate(id, &want, end).ok()?;
        if reservation.admits(id, &grant, end) {
            return Some(self.start(id, &grant, end));
        }
        self.pool.release(id);
        None
    }

    /// When a job that starts now has to end; 0 for never.
    fn end(&self, want: &Want, now: f64) -> f64 {
        if want.duration > 0.0 { now + want.duration } else { self.pool.expiration }
    }

    fn deny(&mut self, id: JobId, note: String) -> Decision {
        self.queue.remove(id);
        self.denials += 1;
        Decision::Deny(Denial { id, note })
    }

    /// Says why the first jobs wait and estimates when they start, not more often than it is worth.
    fn forecast(&mut self, decisions: &mut Vec<Decision>) {
        if self.queue.is_empty() || self.forecast_due {
            return;
        }
        let now = host::now();
        if now < self.forecast_at + FORECAST_PAUSE {
            let at = self.forecast_at + FORECAST_PAUSE;
            let timer = flux_plugin::types::Timer { name: FORECAST_TIMER.into(), at, every: None };
            decisions.push(Decision::Effect(Effect::SetTimer(timer)));
            self.forecast_due = true;
            return;
        }
        self.forecast_at = now;
        let mut forecast = Forecast::new(&self.pool, now);
        for (ahead, pending) in self.queue.iter_mut().take(FORECAST).enumerate() {
            let estimate = forecast.place(pending.id, &pending.want);
            decisions.extend(announce(pending, estimate));
            decisions.extend(explain(pending, ahead, &mut self.pool));
        }
    }
}

/// The annotation, if it says something new.
fn announce(pending: &mut Pending, estimate: Option<f64>) -> Option<Decision> {
    if pending.estimate == estimate {
        return None;
    }
    pending.estimate = estimate;
    pending.annotated = true;
    let value = estimate.map_or(Value::Null, Value::from);
    let annotations = format!(r#"{{"t_estimate":{value}}}"#);
    Some(Decision::Annotate(Annotation { id: pending.id, annotations }))
}

/// Why a job waits that has `ahead` jobs before it, if that is something new.
fn explain(pending: &mut Pending, ahead: usize, pool: &mut Pool) -> Option<Decision> {
    let mut text = pool.shortage(&pending.want)?;
    if ahead > 0 {
        text.push_str(&format!("; {ahead} job(s) ahead in the queue"));
    }
    if pending.reason.as_ref() == Some(&text) {
        return None;
    }
    pending.reason = Some(text.clone());
    Some(Decision::Effect(Effect::Explain(JobNote { id: pending.id, text })))
}

const UNREADABLE: &str =
    "cannot parse jobspec: resources must be slots of cores and GPUs, on nodes or not";

/// `queue-depth = N | "unlimited"`, also as `mode = "limited=N" | "unlimited"`.
///
/// # Errors
///
/// Neither.
pub fn parse_depth(config: &Value, default: Depth) -> Result<Depth, String> {
    let depth = match (config.get("queue-depth"), config.get("mode")) {
        (Some(Value::Number(depth)), _) => depth.to_string(),
        (Some(Value::String(depth)), _) => depth.clone(),
        (_, Some(Value::String(mode))) => mode.strip_prefix("limited=").unwrap_or(mode).to_owned(),
        _ => return Ok(default),
    };
    if depth == "unlimited" {
        return Ok(Depth::Unlimited);
    }
    let bad = || format!("queue-depth must be a positive integer or 'unlimited', got '{depth}'");
    depth.parse().ok().filter(|&depth| depth > 0).map(Depth::Limited).ok_or_else(bad)
}
