//! Queues: which take jobs (`enable`), and whose jobs are scheduled (`start`).
//!
//! Without a `[queues]` table there is one queue without a name. State that an administrator set
//! lasts over restarts, in the KVS key `checkpoint.job-manager`.

use std::collections::BTreeMap;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_manager as rpc;
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::job::Job;
use super::queue_access::Admission;
use super::waiting::QueueName;
use super::{Context, JobManager};
use crate::call::{Call, Sender};
use crate::config::Config;

/// Where state is kept.
pub(super) const KEY: &str = "checkpoint.job-manager";

/// Why queues are closed after a crash.
pub(super) const SAFE_MODE: &str = "Flux is in safe mode due to an incomplete shutdown.";

/// The queues of the configuration, with their state.
#[derive(Debug)]
pub struct Queues {
    /// The queue without a name, or the named ones.
    queues: BTreeMap<Option<String>, Queue>,
    admission: Admission,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Queue {
    enable: bool,
    start: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disable_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_reason: Option<String>,
    /// As the last start or stop that is to be remembered left it.
    #[serde(skip)]
    kept: Option<(bool, Option<String>)>,
    /// The queue that a virtual one is scheduled as a part of; from the configuration.
    #[serde(skip)]
    parent: QueueName,
}

/// A queue in the KVS.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    queue: Queue,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            enable: true,
            start: true,
            disable_reason: None,
            stop_reason: None,
            kept: None,
            parent: None,
        }
    }
}

/// A parent is another queue, and no virtual one (RFC 33).
fn check_parents(queues: &BTreeMap<QueueName, Queue>) -> Result<(), Failure> {
    for (name, queue) in queues {
        let (Some(name), Some(parent)) = (name, &queue.parent) else { continue };
        let wrong = match queues.get(&queue.parent) {
            None => format!("parent queue '{parent}' is not configured"),
            Some(_) if parent == name => "parent queue is itself".to_owned(),
            Some(above) if above.parent.is_some() => {
                format!("parent queue '{parent}' is itself a virtual queue")
            }
            Some(_) => continue,
        };
        return Err(Failure::new(Errno::EINVAL, format!("queues.{name}: {wrong}")));
    }
    Ok(())
}

impl Queues {
    /// Named queues begin stopped, until they are started once; the one without a name runs.
    pub(super) fn from_config(config: &Config, owner: u32) -> Result<Queues, Failure> {
        let admission = Admission::from_config(config, owner)?;
        let tables = match config.get("queues") {
            None => return Ok(Queues { queues: [(None, Queue::default())].into(), admission }),
            Some(Value::Object(tables)) => tables,
            Some(_) => {
                return Err(Failure::new(Errno::EINVAL, "queues configuration must be a table"));
            }
        };
        let queue = |table: &Value| {
            let parent = table.get("parent").and_then(Value::as_str).map(str::to_owned);
            Queue { start: false, parent, ..Queue::default() }
        };
        let queues: BTreeMap<_, _> =
            tables.iter().map(|(name, table)| (Some(name.clone()), queue(table))).collect();
        check_parents(&queues)?;
        Ok(Queues { queues, admission })
    }

    /// Take over a new configuration; queues that stay keep their state.
    pub(super) fn update(&mut self, mut new: Queues) {
        for (name, queue) in &mut new.queues {
            if let Some(old) = self.queues.get(name) {
                *queue = Queue { parent: queue.parent.take(), ..old.clone() };
            }
        }
        *self = new;
    }

    /// Take over what a former instance saved.
    pub(super) fn restore(&mut self, saved: Vec<Saved>) {
        for Saved { name, queue } in saved {
            if let Some(slot) = self.queues.get_mut(&name) {
                *slot = Queue { parent: slot.parent.take(), ..queue };
            }
        }
    }

    pub(super) fn save(&self) -> Vec<Saved> {
        self.queues
            .iter()
            .map(|(name, queue)| {
                let mut queue = queue.clone();
                if queue.disable_reason.as_deref() == Some(SAFE_MODE) {
                    // That the instance was not shut down is not what an administrator set.
                    queue.enable = true;
                    queue.disable_reason = None;
                }
                if let Some((start, reason)) = queue.kept.take() {
                    queue.start = start;
                    queue.stop_reason = reason;
                }
                Saved { name: name.clone(), queue }
            })
            .collect()
    }

    /// A virtual queue is when its parent is as well.
    pub(super) fn is_started(&self, name: &QueueName) -> bool {
        self.queues.get(name).is_none_or(|queue| queue.start && self.stopped_above(queue).is_none())
    }

    /// The name of the parent, where that is stopped.
    fn stopped_above<'a>(&self, queue: &'a Queue) -> Option<&'a str> {
        let is_stopped = self.queues.get(&queue.parent).is_some_and(|parent| !parent.start);
        queue.parent.as_deref().filter(|_| is_stopped)
    }

    /// What is told of a queue (RFC 33).
    fn status(&self, queue: &Queue, scheduler_lost: bool) -> rpc::QueueStatusResponse {
        let (blocked, reason) = match self.stopped_above(queue) {
            _ if scheduler_lost => (Some("scheduler"), "Scheduler is offline".to_owned()),
            Some(parent) => (Some("parent"), format!("parent queue '{parent}' is stopped")),
            None => (None, String::new()),
        };
        let blocked = blocked.filter(|_| queue.start);
        let start = queue.start && blocked.is_none();
        rpc::QueueStatusResponse {
            enable: queue.enable,
            start,
            disable_reason: queue.disable_reason.clone().filter(|_| !queue.enable),
            stop_reason: match blocked {
                Some(_) => Some(reason),
                None => queue.stop_reason.clone().filter(|_| !start),
            },
            blocked: blocked.map(str::to_owned),
            parent: queue.parent.clone(),
        }
    }

    pub(super) fn is_started_for(&self, job: &Job) -> bool {
        self.is_started(&queue_of(job))
    }

    /// May this user submit a job to this queue? The text says why not.
    pub(super) fn check_submit(&self, userid: u32, name: Option<&str>) -> Result<(), String> {
        self.check_user(userid, name)?;
        self.check_enabled(name.map(str::to_owned))
    }

    pub(super) fn check_user(&self, userid: u32, name: Option<&str>) -> Result<(), String> {
        self.admission.check(userid, name)
    }

    fn check_enabled(&self, name: QueueName) -> Result<(), String> {
        match self.queues.get(&name) {
            Some(Queue { enable: true, .. }) => Ok(()),
            Some(queue) => {
                let reason = queue.disable_reason.as_deref().unwrap_or("no reason given");
                Err(match name {
                    None => format!("job submission is disabled: {reason}"),
                    Some(name) => format!("job submission to {name} is disabled: {reason}"),
                })
            }
            None => Err(match name {
                None => "no queue specified".to_owned(),
                Some(name) => format!("'{name}' is not a valid queue"),
            }),
        }
    }

    /// The queues that a request with `all` or `name` means.
    fn select(&mut self, all: bool, name: Option<&str>) -> Result<Vec<&mut Queue>, Failure> {
        let invalid = |text: String| Failure::new(Errno::EINVAL, text);
        match name {
            Some(name) => match self.queues.get_mut(&Some(name.to_owned())) {
                Some(queue) => Ok(vec![queue]),
                None => Err(invalid(format!("'{name}' is not a valid queue"))),
            },
            None if all || self.queues.contains_key(&None) => {
                Ok(self.queues.values_mut().collect())
            }
            None => Err(invalid("Use --all to apply this command to all queues".to_owned())),
        }
    }

    /// Stop the queues that run; it is not kept over the next restart.
    fn stop_all(&mut self, reason: &str) {
        for queue in self.queues.values_mut().filter(|queue| queue.start) {
            queue.kept = Some((queue.start, queue.stop_reason.take()));
            queue.start = false;
            queue.stop_reason = Some(reason.to_owned());
        }
    }

    /// Neither take jobs nor schedule them, until an administrator has looked.
    pub(super) fn enter_safe_mode(&mut self) {
        self.stop_all(SAFE_MODE);
        for queue in self.queues.values_mut().filter(|queue| queue.enable) {
            queue.enable = false;
            queue.disable_reason = Some(SAFE_MODE.to_owned());
        }
    }

    /// What is written down of the queues, and the id of the last job, of which nothing else may be
    /// left one day.
    fn checkpoint(&self, max_jobid: JobId) -> kvs::Op {
        let value = json!({ "version": 1, "max_jobid": max_jobid, "queue": self.save() });
        let dirent = Some(Treeobj::val(value.to_string().as_bytes()));
        kvs::Op { key: KEY.to_owned(), flags: 0, dirent }
    }
}

/// The queue that the jobspec names.
pub(super) fn queue_of(job: &Job) -> QueueName {
    #[derive(Deserialize, Default)]
    struct Spec {
        #[serde(default)]
        attributes: Attributes,
    }
    #[derive(Deserialize, Default)]
    struct Attributes {
        #[serde(default)]
        system: System,
    }
    #[derive(Deserialize, Default)]
    struct System {
        queue: Option<String>,
    }
    let spec: Spec = serde_json::from_str(job.jobspec.get()).unwrap_or_default();
    spec.attributes.system.queue
}

impl JobManager {
    pub(super) fn queue_list(
        &mut self,
        _: &Context,
        _: Empty,
        _: &Sender,
    ) -> Result<rpc::QueueListResponse, Failure> {
        let queues = self.queues.queues.keys().flatten().cloned().collect();
        Ok(rpc::QueueListResponse { queues })
    }

    pub(super) fn queue_status(
        &mut self,
        _: &Context,
        request: rpc::QueueStatusRequest,
        _: &Sender,
    ) -> Result<rpc::QueueStatusResponse, Failure> {
        let queue = self.queues.queues.get(&request.name).ok_or_else(|| {
            let text = match &request.name {
                Some(name) => format!("'{name}' is not a valid queue"),
                None => "a named queue is required".to_owned(),
            };
            Failure::new(Errno::EINVAL, text)
        })?;
        Ok(self.queues.status(queue, self.alloc.has_lost_scheduler()))
    }

    /// Take over what the former instance wrote down.
    pub(super) fn queues_begin(&mut self, context: &Context, checkpoint: Option<&str>) {
        let Some(text) = checkpoint else { return };
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        if let Some(Ok(id)) = value.get("max_jobid").cloned().map(serde_json::from_value) {
            self.max_jobid = self.max_jobid.max(id);
        }
        if let Some(Ok(saved)) = value.get("queue").cloned().map(serde_json::from_value) {
            self.queues.restore(saved);
        }
        if context.config().get_bool("job-manager.stop-queues-on-restart") == Some(true) {
            self.queues.stop_all("Automatically stopped due to restart");
        }
    }

    pub(super) fn queue_enable(
        &mut self,
        context: &Context,
        request: rpc::QueueEnableRequest,
        call: Call<Empty>,
    ) {
        if !request.enable && request.reason.is_none() {
            let text = "reason is required for disable";
            return call.fail(Failure::new(Errno::EINVAL, text));
        }
        let reason = request.reason.filter(|_| !request.enable);
        match self.queues.select(request.all, request.name.as_deref()) {
            Err(failure) => return call.fail(failure),
            Ok(queues) => {
                for queue in queues {
                    queue.enable = request.enable;
                    queue.disable_reason.clone_from(&reason);
                }
            }
        }
        self.queues_changed(context, true, call);
    }

    pub(super) fn queue_start(
        &mut self,
        context: &Context,
        request: rpc::QueueStartRequest,
        call: Call<Empty>,
    ) {
        let reason = request.reason.filter(|reason| !reason.is_empty() && !request.start);
        match self.queues.select(request.all, request.name.as_deref()) {
            Err(failure) => return call.fail(failure),
            Ok(queues) => {
                for queue in queues {
                    if request.nocheckpoint && queue.kept.is_none() {
                        queue.kept = Some((queue.start, queue.stop_reason.clone()));
                    } else if !request.nocheckpoint {
                        queue.kept = None;
                    }
                    queue.start = request.start;
                    queue.stop_reason.clone_from(&reason);
                }
            }
        }
        if request.start {
            self.alloc_all(context);
        } else {
            self.alloc_recall(context);
        }
        self.queues_changed(context, !request.nocheckpoint, call);
    }

    pub(super) fn checkpoint(&mut self, context: &Context) {
        self.store.push(context, self.queues.checkpoint(self.max_jobid));
    }

    /// Answer when the state is stored.
    fn queues_changed(&mut self, context: &Context, keep: bool, call: Call<Empty>) {
        if !keep {
            return call.reply(&Empty);
        }
        self.checkpoint(context);
        self.store.then(context, move |_, _, result| {
            call.finish(result.clone().map(|()| Empty));
        });
    }
}
