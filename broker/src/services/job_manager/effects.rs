//! What plugins want done, applied in order after their callback returned.
//!
//! An effect that can't be applied (a job that is gone, say) is skipped and logged at debug level.

use std::rc::Rc;

use flux_protocol::fluid::JobId;
use flux_protocol::fluid::with_local_f58;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::{Object, encode_json};
use flux_protocol::rpc::resource;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Context, JobManager};
use crate::log::Severity;
use crate::plugin::REFUSED;
use crate::plugin::types::Effect;

impl JobManager {
    /// Apply effects, each with the place of its plugin in the stack.
    pub(super) fn apply_effects(&mut self, context: &Context, effects: Vec<(usize, Effect)>) {
        for (place, effect) in effects {
            let plugin = self.plugin_name(place);
            if let Err(text) = self.apply_effect(context, &plugin, effect) {
                context.log(Severity::Debug, format!("{plugin}: {text}"));
            }
        }
    }

    fn apply_effect(
        &mut self,
        context: &Context,
        plugin: &str,
        effect: Effect,
    ) -> Result<(), String> {
        match effect {
            Effect::SetPriority(set) => {
                self.set_priority(context, JobId(set.id), set.priority);
            }
            Effect::PriorityUnavailable(_) | Effect::Count(_) | Effect::Gauge(_) => {}
            Effect::Reprioritize(ids) => {
                let ids: Vec<JobId> = ids.into_iter().map(JobId).collect();
                self.plugins_reprioritize(context, &ids);
            }
            Effect::ReprioritizeAll => {
                let ids = self.pending_jobs();
                self.plugins_reprioritize(context, &ids);
            }
            Effect::DependencyAdd(note) => {
                self.dependency_add(context, JobId(note.id), note.text)?
            }
            Effect::DependencyRemove(note) => {
                self.dependency_remove(context, JobId(note.id), note.text)?;
            }
            Effect::Raise(raise) => {
                let id = self.known(raise.id)?;
                let severity = u32::from(raise.severity.min(7));
                let owner = context.broker().owner().0;
                self.raise_exception(context, id, &raise.type_, severity, owner, &raise.note);
            }
            Effect::PostEvent(event) => {
                let id = self.known(event.id)?;
                let with = object(&event.context)?;
                self.post_with(context, id, &event.name, &with);
            }
            Effect::Annotate(annotation) => {
                let id = self.known(annotation.id)?;
                self.annotate(context, id, &Value::Object(object(&annotation.json)?));
            }
            Effect::UpdateJobspec(update) => {
                let id = self.known(update.id)?;
                let updates = object(&update.json)?;
                let updated = self.update_jobspec(context, id, &updates);
                updated.map_err(|failure| failure.to_string())?;
            }
            Effect::SetFlag(note) => {
                let id = self.known(note.id)?;
                self.post_with(context, id, "set-flags", &json!({ "flags": [note.text] }));
            }
            Effect::Subscribe(id) => self.subscribe_plugin(JobId(id), plugin),
            Effect::Unsubscribe(id) => self.unsubscribe_plugin(JobId(id), plugin),
            Effect::PrologStart(start) => {
                self.perilog_event(context, start.id, "prolog-start", &start.description, None)?;
            }
            Effect::EpilogStart(start) => {
                self.perilog_event(context, start.id, "epilog-start", &start.description, None)?;
            }
            Effect::PrologFinish(end) => {
                let status = Some(end.status);
                self.perilog_event(context, end.id, "prolog-finish", &end.description, status)?;
            }
            Effect::EpilogFinish(end) => {
                let status = Some(end.status);
                self.perilog_event(context, end.id, "epilog-finish", &end.description, status)?;
            }
            Effect::SetTimer(timer) => self.set_timer(context, plugin, timer),
            Effect::CancelTimer(name) => self.cancel_timer(plugin, &name),
            Effect::Respond(answer) => self.answer_request(answer),
            Effect::Explain(note) => self.explain(context, JobId(note.id), plugin, &note.text),
            Effect::Drain(drain) => drain_nodes(context, drain.ranks, drain.reason),
            Effect::Publish(publication) => publish(context, &publication)?,
            Effect::Put(change) => self.plugin_put(context, plugin, change),
            Effect::Rpc(call) => self.plugin_rpc(context, plugin, call)?,
            Effect::KvsRead(query) => self.plugin_kvs_read(context, plugin, query),
            Effect::Call(call) => self.plugin_call(context, call)?,
            Effect::Exec(start) => self.command_start(context, plugin, &start)?,
            Effect::ExecKill(kill) => {
                self.command_signal(context, plugin, &kill.tag, kill.signal);
            }
            Effect::Other((name, tag)) if name == REFUSED => {
                self.plugin_refused(context, plugin, &tag);
            }
            Effect::Other((name, _)) => return Err(format!("effect {name} is not known here")),
        }
        Ok(())
    }

    pub(super) fn known(&self, id: u64) -> Result<JobId, String> {
        let id = JobId(id);
        match self.jobs.contains_key(&id) {
            true => Ok(id),
            false => Err(format!("job {} is not known", id.f58())),
        }
    }

    fn perilog_event(
        &mut self,
        context: &Context,
        id: u64,
        name: &str,
        description: &str,
        status: Option<i32>,
    ) -> Result<(), String> {
        let id = self.known(id)?;
        let event = match status {
            None => json!({ "description": description }),
            Some(status) => json!({ "description": description, "status": status }),
        };
        self.post_with(context, id, name, &event);
        Ok(())
    }

    /// A plugin gave the job resources: the scheduler has no part in it.
    pub(super) fn allocate_bypass(&mut self, context: &Context, id: JobId, r: &str) {
        let Ok(raw) = RawValue::from_string(r.to_owned()) else {
            context.log(Severity::Err, format!("{}: R of a plugin is not JSON", id.f58()));
            return;
        };
        self.alloc_dequeue(context, id);
        self.store.put(context, id, "R", raw.get());
        if let Some(job) = self.jobs.get_mut(&id) {
            job.r = Some(Rc::from(raw));
            job.alloc_bypass = true;
        }
        self.post_with(context, id, "alloc", &json!({ "bypass": true }));
    }
}

pub(super) fn object(json: &str) -> Result<Object, String> {
    serde_json::from_str(json).map_err(|error| format!("not a JSON object: {error}"))
}

fn drain_nodes(context: &Context, ranks: String, reason: String) {
    let handle = context.handle().clone();
    let after = context.clone();
    let request = resource::DrainRequest {
        targets: ranks,
        reason: Some(with_local_f58(&reason).into_owned()),
        mode: Some("update".to_owned()),
    };
    context.spawn(
        async move { handle.rpc_to::<resource::Drain>(Nodeid(0), &request).await },
        move |_: &mut JobManager, result| {
            if let Err(failure) = result {
                after.log(Severity::Err, format!("drain: {failure}"));
            }
        },
    );
}

fn publish(
    context: &Context,
    publication: &crate::plugin::types::Publication,
) -> Result<(), String> {
    let payload = encode_json(&object(&publication.payload)?).map_err(|error| error.to_string())?;
    let flags = if publication.private { Flags::PRIVATE } else { Flags::default() };
    context
        .handle()
        .publish_flags(publication.topic.clone(), flags, payload)
        .map_err(|failure| failure.to_string())
}
