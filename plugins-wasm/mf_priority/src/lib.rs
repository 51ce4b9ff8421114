//! Priority of several factors, and limits by user, bank and queue, from what flux-accounting
//! pushes (`job-manager.mf_priority.rec_update` and so on).
//!
//! ```text
//! priority = round(Wf * fairshare + Wq * queue + Wb * bank + Wu * (urgency - 16)), at least 0
//! ```
//!
//! Until anything was pushed, jobs wait in PRIORITY, and so do later those of users that are not
//! known, until they are. What was pushed is kept as the plugin's own state, so that a broker that starts again
//! has it at once. `conf = { config = { associations = [...], ... } }` brings it along at load.
//!
//! A job counts against the limits of what runs from the moment that nothing of ours holds it,
//! and not only when it runs: else a burst of jobs would pass before the first of them starts.

mod data;
mod ledger;
mod limits;
mod query;
mod updates;

use data::{Association, Data, Key};
use flux_plugin::prelude::*;
use flux_plugin::types::{JobNew, Origin, RpcRequest, StateChange};
use ledger::{Ledger, Record, Stage, amount};
use serde_json::{Value, json};

const STATE: &str = "data";
/// Type of the exceptions.
const NAME: &str = "mf_priority";

#[derive(Default)]
struct MfPriority {
    data: Data,
    ledger: Ledger,
}

impl Plugin for MfPriority {
    fn init(context: &Context) -> Result<Self, String> {
        let kept = context.saved.clone().or_else(|| host::get(STATE));
        let kept = kept.map(|bytes| serde_json::from_slice(&bytes));
        let mut data: Data = match kept {
            Some(Ok(data)) => data,
            Some(Err(error)) => {
                host::error(format!("kept data are not readable: {error}"));
                Data::default()
            }
            None => Data::default(),
        };
        let config: Value = serde_json::from_str(&context.config).map_err(|e| e.to_string())?;
        if let Some(tables) = config.get("config") {
            let failed = |text| format!("error initializing plugin with JSON object: {text}");
            data.initialize(tables).map_err(failed)?;
        }
        Ok(MfPriority { data, ledger: Ledger::default() })
    }

    fn query(&self) -> String {
        query::report(&self.data, &self.ledger)
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(&self.data).unwrap_or_default()
    }
}

impl Jobtap for MfPriority {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::Validate(job) => self.validate(&job),
            Event::New(news) => self.announced(&news, effects),
            Event::State(change) => self.moved(&change, effects),
            Event::PriorityGet(job) => self.priority(&job, effects),
            Event::Update(request) => self.allow_update(&request),
            Event::Updated(update) => {
                self.updated(&update, effects);
                Reply::Pass
            }
            Event::Destroy(id) => {
                self.ledger.remove(id);
                Reply::Pass
            }
            Event::Rpc(request) => self.serve(&request, effects),
            _ => Reply::Pass,
        }
    }
}

impl MfPriority {
    fn validate(&self, job: &Job) -> Reply {
        let Some((key, association)) = self.data.association(job.userid, job.bank.as_deref())
        else {
            // Who is not known at all may be so later: the job waits for that.
            return match self.data.users.contains_key(&job.userid) {
                true => reject(unknown(job)),
                false => Reply::Pass,
            };
        };
        match self.check(job, &key, association) {
            Ok(()) => Reply::Pass,
            Err(text) => reject(text),
        }
    }

    fn check(&self, job: &Job, key: &Key, association: &Association) -> Result<(), String> {
        if !association.active {
            return Err("user/bank entry has been disabled from flux-accounting DB".to_owned());
        }
        if let Some(queue) = &job.queue {
            self.check_queue(association, queue)?;
        }
        if let Some(project) = &job.project
            && !self.data.has_project(association, project)
        {
            return Err(format!(
                "project \"{project}\" not valid for user; valid projects for user: {}",
                association.projects.join(",")
            ));
        }
        if job.state == JobState::New && self.is_full(key, association) {
            return Err(FULL.to_owned());
        }
        self.check_size(job, association)
    }

    fn check_queue(&self, association: &Association, queue: &str) -> Result<(), String> {
        if self.data.is_denied(queue) {
            return Err(format!("Queue does not exist: {queue}"));
        }
        match self.data.queue_priority(association, Some(queue)) {
            Some(_) => Ok(()),
            None => Err(format!("Queue not valid for user: {queue}")),
        }
    }

    fn check_size(&self, job: &Job, association: &Association) -> Result<(), String> {
        let amount = amount(job).ok_or("unable to count resources for job")?;
        let queue = job.queue.as_ref().and_then(|queue| self.data.queues.get(queue));
        if let Some(limit) = queue.map(|queue| queue.max_nodes_per_assoc)
            && amount.nodes > limit
        {
            return Err(format!(
                "job size ({} node(s)) is greater than max resources limit configured for queue \
                 ({limit} node(s))",
                amount.nodes
            ));
        }
        let Association { max_nodes, max_cores, .. } = association;
        if amount.nodes > *max_nodes || amount.cores > *max_cores {
            return Err(format!(
                "job size ({} node(s), {} core(s)) is greater than max resources limits \
                 configured for association ({max_nodes} node(s), {max_cores} core(s))",
                amount.nodes, amount.cores
            ));
        }
        Ok(())
    }

    fn is_full(&self, key: &Key, association: &Association) -> bool {
        let limit = association.max_active_jobs;
        limit > 0 && self.ledger.total(key).active.jobs >= limit
    }

    /// A job is valid, or was there before.
    fn announced(&mut self, news: &JobNew, effects: &mut Effects) -> Reply {
        let job = &news.job;
        let Some((key, association)) = self.data.association(job.userid, job.bank.as_deref())
        else {
            return Reply::Pass;
        };
        if news.origin == Origin::Submitted && self.is_full(&key, association) {
            return reject(FULL.to_owned());
        }
        self.attach(job, effects);
        Reply::Pass
    }

    /// Counts the job for its association, and writes defaults into its jobspec. False where the
    /// association is not known.
    fn attach(&mut self, job: &Job, effects: &mut Effects) -> bool {
        if self.ledger.get(job.id).is_some() {
            return true;
        }
        let Some((key, association)) = self.data.association(job.userid, job.bank.as_deref())
        else {
            return false;
        };
        let mut defaults = serde_json::Map::new();
        if job.bank.is_none() {
            defaults.insert("attributes.system.bank".to_owned(), json!(key.1));
        }
        if job.project.is_none() && !association.def_project.is_empty() {
            let project = json!(association.def_project);
            defaults.insert("attributes.system.project".to_owned(), project);
        }
        if !defaults.is_empty() {
            effects.update_jobspec(job.id, Value::Object(defaults).to_string());
        }
        let stage = match job.state {
            JobState::New | JobState::Depend => Stage::Held,
            JobState::Priority => Stage::Admitted,
            JobState::Sched => Stage::Sched,
            JobState::Run | JobState::Cleanup => Stage::Run,
            JobState::Inactive => return true,
        };
        let record = Record {
            key,
            queue: job.queue.clone().unwrap_or_default(),
            amount: amount(job).unwrap_or_default(),
            stage,
            held_by: Vec::new(),
            has_others: false,
            fairshare: None,
        };
        self.ledger.add(job.id, record);
        true
    }

    fn moved(&mut self, change: &StateChange, effects: &mut Effects) -> Reply {
        let job = &change.job;
        match job.state {
            JobState::Depend => self.depend(job, effects),
            JobState::Priority => {
                self.ledger.advance(job.id, Stage::Admitted);
                return self.priority(job, effects);
            }
            JobState::Sched => self.enter(job, Stage::Sched, effects),
            JobState::Run => {
                self.enter(job, Stage::Run, effects);
                self.release_behind(job.id, effects);
            }
            JobState::Inactive => {
                if let Some(record) = self.ledger.remove(job.id) {
                    self.release(&record.key, effects);
                }
            }
            JobState::New | JobState::Cleanup => {}
        }
        Reply::Pass
    }

    /// Held and expedited jobs come by here without being asked for a priority.
    fn enter(&mut self, job: &Job, stage: Stage, effects: &mut Effects) {
        if self.attach(job, effects) {
            self.ledger.advance(job.id, stage);
        }
    }

    /// Holds a job that would exceed a limit.
    fn depend(&mut self, job: &Job, effects: &mut Effects) {
        let Some(record) = self.ledger.get(job.id) else { return };
        let over = limits::exceeded(&self.data, &self.ledger, record);
        for limit in &over {
            effects.add_dependency(job.id, *limit);
            effects.explain(job.id, limits::explain(&self.data, record, limit));
        }
        let has_others = host::event_posted(job.id, "dependency-add") == Some(true);
        self.ledger.change(job.id, |record| {
            record.has_others = has_others;
            if over.is_empty() && !has_others {
                record.stage = Stage::Admitted;
            }
            record.held_by = over;
        });
    }

    fn release_behind(&mut self, id: JobId, effects: &mut Effects) {
        let key = self.ledger.get(id).map(|record| record.key.clone());
        if let Some(key) = key {
            self.release(&key, effects);
        }
    }

    /// Lets go those that fit now, the oldest first. One goes when it is within all limits, which
    /// it then counts against.
    fn release(&mut self, key: &Key, effects: &mut Effects) {
        for id in self.ledger.held(key) {
            let Some(record) = self.ledger.get(id) else { continue };
            let over = limits::exceeded(&self.data, &self.ledger, record);
            if over.iter().any(|limit| [limits::RUNNING, limits::SCHED_JOBS].contains(limit)) {
                // So would all others.
                return;
            }
            if !over.is_empty() {
                continue;
            }
            record.held_by.iter().for_each(|limit| effects.remove_dependency(id, *limit));
            self.ledger.change(id, |record| {
                record.held_by.clear();
                if !record.has_others {
                    record.stage = Stage::Admitted;
                }
            });
        }
    }

    fn priority(&mut self, job: &Job, effects: &mut Effects) -> Reply {
        if !self.attach(job, effects) {
            let known = self.data.users.contains_key(&job.userid);
            match (known, self.data.is_empty()) {
                (true, _) => {
                    effects.raise(job.id, NAME, 0, unknown(job));
                    return Reply::Pass;
                }
                (false, true) => effects.explain(job.id, "waits for data of flux-accounting"),
                (false, false) => {
                    let user = job.userid;
                    effects.explain(job.id, format!("waits until user {user} has a bank"));
                }
            }
            return Reply::PriorityUnavailable;
        }
        let Some(record) = self.ledger.get(job.id) else { return Reply::PriorityUnavailable };
        let Some(association) = self.data.of(&record.key) else {
            return Reply::PriorityUnavailable;
        };
        let queue = job.queue.as_deref();
        let Some(queue) = self.data.queue_priority(association, queue) else {
            effects.explain(job.id, "the user may not use the job's queue any more");
            return Reply::PriorityUnavailable;
        };
        let (weights, bank) = (&self.data.weights, self.data.bank_priority(&record.key.1));
        let (fairshare, known) = (association.fairshare, record.fairshare);
        let sum = weights.fairshare as f64 * fairshare
            + weights.queue as f64 * queue as f64
            + weights.bank as f64 * bank
            + weights.urgency as f64 * (f64::from(job.urgency) - 16.0);
        if known.is_none_or(|known| (known - fairshare).abs() > 1e-9) {
            effects.post_event(job.id, "memo", json!({ "fairshare": fairshare }).to_string());
            self.ledger.change(job.id, |record| record.fairshare = Some(fairshare));
        }
        // Saturates at both ends.
        Reply::Priority(sum.round() as u32)
    }

    fn serve(&mut self, request: &RpcRequest, effects: &mut Effects) -> Reply {
        if request.method == "reprioritize" {
            effects.reprioritize_all();
            for key in self.ledger.waiting() {
                self.release(&key, effects);
            }
            return Reply::Respond("{}".to_owned());
        }
        let payload: Value = serde_json::from_str(&request.payload).unwrap_or_default();
        let Some(data) = payload.get("data") else {
            host::error(format!("failed to unpack {NAME}.{} request", request.method));
            return Reply::Refuse(refuse_with(errno::EPROTO, "Protocol error"));
        };
        let outcome = match request.method.as_str() {
            "rec_update" => self.data.load_associations(data),
            "rec_q_update" => self.data.load_queues(data),
            "rec_proj_update" => self.data.load_projects(data),
            "rec_bank_update" => self.data.load_banks(data),
            "rec_fac_update" => self.data.load_weights(data),
            "rec_config_update" => self.data.load_config(data),
            _ => return Reply::Refuse(refuse_with(errno::ENOSYS, "Function not implemented")),
        };
        if let Err(text) = outcome {
            host::error(format!("{NAME} unpack: {text}"));
            return Reply::Refuse(refuse_with(errno::EINVAL, text));
        }
        effects.put(STATE, self.save());
        Reply::Respond("{}".to_owned())
    }
}

const FULL: &str = "user has max active jobs";

fn reject(text: String) -> Reply {
    Reply::Refuse(refuse_with(errno::EINVAL, text))
}

/// Of a job whose user is known, or is asked for.
fn unknown(job: &Job) -> String {
    match &job.bank {
        Some(_) => "user does not belong to specified bank".to_owned(),
        None => "user/default bank entry does not exist".to_owned(),
    }
}

flux_plugin::jobtap! {
    MfPriority,
    name: "mf_priority",
    description: "Multi-factor priority and limits by user, bank and queue",
    topics: [
        "job.validate",
        "job.new",
        "job.state.depend",
        "job.state.priority",
        "job.state.sched",
        "job.state.run",
        "job.state.inactive",
        "job.priority.get",
        "job.update",
        "job.update.attributes.system.queue",
        "job.update.attributes.system.bank",
        "job.destroy",
    ],
    services: [
        "rec_update": "owner",
        "rec_q_update": "owner",
        "rec_proj_update": "owner",
        "rec_bank_update": "owner",
        "rec_fac_update": "owner",
        "rec_config_update": "owner",
        "reprioritize": "owner",
    ],
    order: "-state",
}

#[cfg(test)]
mod tests;
