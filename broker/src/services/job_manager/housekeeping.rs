//! Housekeeping: a command on the nodes of a job that is over, before they go back to the
//! scheduler. The job itself does not wait for it.
//!
//! Nodes go back when all are done; with `release-after`, those that are done go back after that
//! time, and later ones one by one. A node where it fails goes back all the same, and is logged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::idset::Idset;
use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::job_manager as rpc;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::bulk::{self, Bulk, Order, Outcome};
use super::{Context, JobManager};
use crate::call::Sender;
use crate::config::Config;
use crate::log::Severity;

/// From SIGTERM to SIGKILL when it is ended.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

/// Allocations that are being cleaned.
#[derive(Debug, Default)]
pub struct Housekeeping {
    settings: Settings,
    running: HashMap<JobId, Allocation>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Settings {
    /// Empty: none.
    command: Vec<String>,
    /// Seconds; nothing is never.
    release_after: Option<f64>,
    exit_on_first_error: bool,
}

#[derive(Debug)]
struct Allocation {
    bulk: Rc<Bulk>,
    userid: u32,
    priority: u32,
    t_submit: f64,
    t_start: f64,
    /// Not given back yet.
    held: ResourceSet,
    /// Ranks that are done, and held.
    done: Idset,
    /// Ranks that were given back.
    free: Idset,
    timer: Timer,
}

/// Of `release-after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    Idle,
    Running,
    Expired,
}

impl Housekeeping {
    pub(super) fn from_config(context: &Context, config: &Config) -> Result<Housekeeping, Failure> {
        let deprecated = "job-manager.housekeeping.use-systemd-unit";
        if config.get(deprecated).is_some() {
            let text = format!("{deprecated} is deprecated and has no effect");
            context.log(Severity::Warning, text);
        }
        let table = crate::config::job_manager::JobManager::parse(config)
            .map_err(|error| Failure::new(flux_protocol::errno::Errno::EINVAL, error.to_string()))?
            .housekeeping;
        let has_command = |table: &crate::config::job_manager::Housekeeping| {
            !table.command.is_empty() || config.get_str("exec.imp").is_some()
        };
        if table.as_ref().is_some_and(|table| !has_command(table)) {
            let text = "[job-manager.housekeeping]: command is not set, but exec.imp is undefined";
            return Err(Failure::new(flux_protocol::errno::Errno::EINVAL, text));
        }
        let settings = table.map_or_else(Settings::default, |table| Settings {
            command: match (table.command.is_empty(), config.get_str("exec.imp")) {
                (true, Some(imp)) => {
                    vec![imp.to_owned(), "run".to_owned(), "housekeeping".to_owned()]
                }
                _ => table.command,
            },
            release_after: table.release_after,
            exit_on_first_error: table.exit_on_first_error,
        });
        Ok(Housekeeping { settings, running: HashMap::new() })
    }

    /// What runs goes on as it began.
    pub(super) fn update(&mut self, new: Housekeeping) {
        self.settings = new.settings;
    }

    pub(super) fn stats(&self) -> Value {
        let running: serde_json::Map<String, Value> = self
            .running
            .iter()
            .map(|(id, allocation)| {
                let stats = json!({
                    "pending": allocation.bulk.active_ranks().to_string(),
                    "allocated": allocation.held.ranks().to_string(),
                    "t_start": allocation.t_start,
                });
                (id.f58(), stats)
            })
            .collect();
        json!({
            "running": running,
            "config": {
                "release-after": self.settings.release_after.unwrap_or(-1.0),
                "command": self.settings.command.join(" "),
            },
        })
    }

    /// Resources that are still held.
    pub(super) fn held(&self) -> impl Iterator<Item = &ResourceSet> {
        self.running.values().map(|allocation| &allocation.held)
    }

    /// For a scheduler that says hello. One that does not know of partial releases is told of
    /// those that are whole.
    pub(super) fn hello(
        &self,
        partial_ok: bool,
    ) -> impl Iterator<Item = rpc::SchedHelloResponse> + '_ {
        self.running
            .iter()
            .filter(move |(_, allocation)| partial_ok || allocation.free.is_empty())
            .map(|(id, allocation)| rpc::SchedHelloResponse {
                id: *id,
                priority: i64::from(allocation.priority),
                userid: allocation.userid,
                t_submit: allocation.t_submit,
                free: Some(allocation.free.to_string()).filter(|free| !free.is_empty()),
            })
    }

    pub(super) fn stop(&self, context: &Context) {
        for allocation in self.running.values() {
            allocation.bulk.signal(context, libc::SIGTERM);
        }
    }
}

impl JobManager {
    /// The job is over: give its resources to housekeeping. False when there is none.
    pub(super) fn housekeeping_start(&mut self, context: &Context, id: JobId) -> bool {
        let settings = &self.housekeeping.settings;
        let Some(job) = self.jobs.get(&id) else { return false };
        let r = job.r.as_ref().and_then(|r| ResourceSet::decode(r.get()).ok());
        let Some(held) = r.filter(|_| !settings.command.is_empty()) else { return false };
        let ranks = held.ranks();
        let env = [
            // A number, as in flux-core, whose prolog has it in F58.
            ("FLUX_JOB_ID", id.0.to_string()),
            ("FLUX_JOB_USERID", job.userid.to_string()),
            ("FLUX_JOB_RANKS", ranks.to_string()),
        ];
        let order = Order {
            command: bulk::command(context, settings.command.clone(), env),
            ranks,
            timeout: None,
            through_imp: bulk::is_through_imp(&context.config(), &settings.command),
            kill_timeout: KILL_TIMEOUT,
            exit_on_first_error: settings.exit_on_first_error,
            name: "housekeeping".to_owned(),
            job: id.f58(),
            label: format!("housekeeping: {}", id.f58()),
            names_ranks: true,
            drains_killed: false,
            ignore: super::commands::ignored(&context.config()),
        };
        let bulk = Bulk::new(context, order);
        let allocation = Allocation {
            bulk: bulk.clone(),
            userid: job.userid,
            priority: job.queue_priority(),
            t_submit: job.t_submit,
            t_start: crate::time::unix_seconds(SystemTime::now()),
            held,
            done: Idset::new(),
            free: Idset::new(),
            timer: Timer::Idle,
        };
        self.housekeeping.running.insert(id, allocation);
        context.log(Severity::Debug, format!("housekeeping: {} started", id.f58()));
        let (each, after) = (context.clone(), context.clone());
        let rank_done = move |rank| {
            let then = each.clone();
            each.later(move |manager: &mut JobManager| {
                manager.housekeeping_rank_done(&then, id, rank);
            });
        };
        context.spawn(
            bulk.run(context.clone(), rank_done),
            move |manager: &mut JobManager, outcome| {
                manager.housekeeping_done(&after, id, &outcome);
            },
        );
        true
    }

    fn housekeeping_rank_done(&mut self, context: &Context, id: JobId, rank: u32) {
        let release_after = self.housekeeping.settings.release_after;
        let Some(allocation) = self.housekeeping.running.get_mut(&id) else { return };
        allocation.done.insert(rank);
        match (release_after, allocation.timer) {
            (None, _) | (_, Timer::Running) => {}
            (Some(seconds), Timer::Idle) if seconds > 0.0 => {
                allocation.timer = Timer::Running;
                let after = context.clone();
                let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
                context.spawn(tokio::time::sleep(time), move |manager: &mut JobManager, ()| {
                    if let Some(allocation) = manager.housekeeping.running.get_mut(&id) {
                        allocation.timer = Timer::Expired;
                        manager.housekeeping_release(&after, id, false);
                    }
                });
            }
            // The last one goes back with the end of it all.
            (Some(_), _) => self.housekeeping_release(context, id, false),
        }
    }

    /// Give back what is done. The last part is marked as such.
    fn housekeeping_release(&mut self, context: &Context, id: JobId, all: bool) {
        let Some(allocation) = self.housekeeping.running.get_mut(&id) else { return };
        let ranks = match all {
            true => allocation.held.ranks(),
            false => std::mem::take(&mut allocation.done),
        };
        let rest = allocation.held.ranks().count() > ranks.count();
        if ranks.is_empty() || (!all && !rest) {
            // Nothing is left to come after it: wait for the end.
            return;
        }
        let part = allocation.held.copy_ranks(&ranks);
        allocation.held.remove_ranks(&ranks);
        ranks.iter().for_each(|rank| {
            allocation.free.insert(rank);
        });
        let encoded = part.encode().ok().and_then(|text| RawValue::from_string(text).ok());
        match encoded {
            Some(r) => self.alloc_free_part(context, id, r, !rest),
            None => context.log(Severity::Err, format!("housekeeping: {}: R", id.f58())),
        }
    }

    fn housekeeping_done(&mut self, context: &Context, id: JobId, outcome: &Outcome) {
        if let Some(allocation) = self.housekeeping.running.get(&id) {
            for (rank, text) in failures(outcome) {
                let host = allocation.bulk.host(rank);
                let text = format!("housekeeping: {host} (rank {rank}) {}: {text}", id.f58());
                context.log(Severity::Err, text);
            }
        }
        self.housekeeping_release(context, id, true);
        self.housekeeping.running.remove(&id);
        context.log(Severity::Debug, format!("housekeeping: {} complete", id.f58()));
    }

    /// Send a signal to housekeeping of a job, or of all, everywhere or on some ranks.
    pub(super) fn housekeeping_kill(
        &mut self,
        context: &Context,
        request: rpc::HousekeepingKillRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        use flux_protocol::errno::Errno;
        let signum = i32::try_from(request.signum).map_err(|_| Errno::EINVAL)?;
        let ranks: Option<Idset> = match &request.ranks {
            None => None,
            Some(ranks) => Some(ranks.parse().map_err(|_| Errno::EINVAL)?),
        };
        let ranks: Option<BTreeSet<u32>> = ranks.map(|ranks| ranks.iter().collect());
        for (id, allocation) in &self.housekeeping.running {
            if request.jobid.is_none_or(|wanted| wanted == *id) {
                match &ranks {
                    None => allocation.bulk.signal(context, signum),
                    Some(ranks) => allocation.bulk.signal_on(context, ranks, signum),
                }
            }
        }
        Ok(Empty)
    }
}

fn failures(outcome: &Outcome) -> BTreeMap<u32, String> {
    let text = |rank: u32| {
        let error = outcome.errors.get(&rank).cloned();
        let signal = outcome.status & 0x7f;
        error.unwrap_or_else(|| match signal {
            0 => "nonzero exit code".to_owned(),
            signal => flux_protocol::signal::describe(signal),
        })
    };
    outcome.failed.iter().map(|rank| (rank, text(rank))).collect()
}
