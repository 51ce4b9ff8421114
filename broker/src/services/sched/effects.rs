//! What a scheduler wants done beside its decisions: say why a job waits, be woken up, drain nodes.

use std::time::{Duration, SystemTime};

use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::{job_manager, resource, sched as rpc};
use serde_json::{Value, json};

use super::{Context, Sched, blank, parse};
use crate::log::Severity;
use crate::plugin::types::{Change, Depth, DrainNodes, Effect, JobException, Timer};

/// An effect without a type of its own: how many requests are taken at a time from now on.
const QUEUE_DEPTH: &str = "queue-depth";

/// A number that is not 0, or `"unlimited"`.
fn depth(json: &str) -> Option<Depth> {
    match serde_json::from_str(json).ok()? {
        Value::String(text) => (text == "unlimited").then_some(Depth::Unlimited),
        number => {
            let number = u32::try_from(number.as_u64()?).ok()?;
            (number > 0).then_some(Depth::Limited(number))
        }
    }
}

impl Sched {
    pub(super) fn effect(&mut self, context: &Context, effect: Effect) {
        match effect {
            Effect::Explain(note) => self.tell_reason(JobId(note.id), &note.text),
            Effect::Annotate(annotation) => {
                if let Some(annotations) = parse(annotation.json) {
                    self.annotate(JobId(annotation.id), annotations);
                }
            }
            Effect::SetTimer(timer) => self.set_timer(context, timer),
            Effect::CancelTimer(name) => self.cancel_timer(&name),
            Effect::Drain(drain) => drain_nodes(context, drain),
            Effect::Raise(exception) => raise(context, exception),
            Effect::Other((name, json)) if name == QUEUE_DEPTH => match depth(&json) {
                Some(depth) => super::tell_depth(context, depth),
                None => {
                    let plugin = self.scheduler.plugin().name();
                    context.log(Severity::Err, format!("{plugin}: {QUEUE_DEPTH}: {json}"));
                }
            },
            other => {
                let text = format!("{other:?}");
                let name = text.split('(').next().unwrap_or_default();
                let plugin = self.scheduler.plugin().name();
                let text = format!("{plugin}: {name} is not for schedulers");
                context.log(Severity::Debug, text);
            }
        }
    }

    /// To the job that waits, as the annotation of RFC 27.
    pub(super) fn tell_reason(&mut self, id: JobId, text: &str) {
        if self.pending.contains_key(&id) {
            self.explained.insert(id);
            self.annotate(id, json!({ "sched": { "reason_pending": text } }));
        }
    }

    pub(super) fn annotate(&self, id: JobId, annotations: Value) {
        if let Some(call) = self.pending.get(&id) {
            let mut response = blank(id, rpc::AllocType::Annotate);
            response.annotations = Some(annotations);
            call.send(&response);
        }
    }

    /// A timer with the same name is moved.
    fn set_timer(&mut self, context: &Context, timer: Timer) {
        self.cancel_timer(&timer.name);
        let now = crate::time::unix_seconds(SystemTime::now());
        let wait = Duration::try_from_secs_f64((timer.at - now).max(0.0)).unwrap_or(Duration::MAX);
        let (after, name) = (context.clone(), timer.name.clone());
        let task = context.spawn(tokio::time::sleep(wait), move |sched: &mut Sched, ()| {
            sched.timers.remove(&timer.name);
            if let Some(every) = timer.every.filter(|every| *every > 0.0) {
                let next = Timer { at: timer.at.max(now) + every, ..timer.clone() };
                sched.set_timer(&after, next);
            }
            sched.change(Change::Timer(timer.name));
        });
        self.timers.insert(name, task);
    }

    fn cancel_timer(&mut self, name: &str) {
        if let Some(timer) = self.timers.remove(name) {
            timer.abort();
        }
    }
}

/// The job waits no longer: null removes.
pub(super) fn withdraw_reason(annotations: &mut Option<Value>) {
    let annotations = annotations.get_or_insert_with(|| json!({}));
    if let Some(Value::Object(sched)) =
        annotations.as_object_mut().map(|all| all.entry("sched").or_insert_with(|| json!({})))
    {
        sched.insert("reason_pending".to_owned(), Value::Null);
    }
}

fn drain_nodes(context: &Context, drain: DrainNodes) {
    let handle = context.handle().clone();
    let after = context.clone();
    let request = resource::DrainRequest {
        targets: drain.ranks,
        reason: Some(drain.reason),
        mode: Some("update".to_owned()),
    };
    context.spawn(
        async move { handle.rpc_to::<resource::Drain>(Nodeid(0), &request).await },
        move |_: &mut Sched, result| {
            if let Err(failure) = result {
                after.log(Severity::Err, format!("drain: {failure}"));
            }
        },
    );
}

fn raise(context: &Context, exception: JobException) {
    let handle = context.handle().clone();
    let after = context.clone();
    let request = job_manager::RaiseRequest {
        id: JobId(exception.id),
        kind: exception.type_,
        severity: i64::from(exception.severity.min(7)),
        note: Some(exception.note),
        wait_status: None,
    };
    context.spawn(
        async move { handle.rpc::<job_manager::Raise>(&request).await },
        move |_: &mut Sched, result| {
            if let Err(failure) = result {
                after.log(Severity::Err, format!("raise: {failure}"));
            }
        },
    );
}
