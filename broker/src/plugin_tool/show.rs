//! Calls and answers as text, the same for the same input.

use crate::plugin::types::{Answer, Effect, Level, Reply};

pub(super) fn level(level: Level) -> &'static str {
    match level {
        Level::Emerg => "emerg",
        Level::Alert => "alert",
        Level::Crit => "crit",
        Level::Err => "err",
        Level::Warning => "warning",
        Level::Notice => "notice",
        Level::Info => "info",
        Level::Debug => "debug",
    }
}

/// The reply, and a line for each effect; nothing for an answer that says nothing.
pub(super) fn answer(answer: &Answer) -> Vec<String> {
    let reply = match &answer.reply {
        Reply::Pass => None,
        reply => Some(self::reply(reply)),
    };
    reply.into_iter().chain(answer.effects.iter().map(effect)).collect()
}

fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Pass => "pass".to_owned(),
        Reply::Accept => "accept".to_owned(),
        Reply::Refuse(refusal) => format!("refuse {} {}", refusal.errnum, refusal.text),
        Reply::Priority(priority) => format!("priority {priority}"),
        Reply::PriorityUnavailable => "priority unavailable".to_owned(),
        Reply::Allocate(r) => format!("allocate {r}"),
        Reply::Hold(reason) => format!("hold {reason}"),
        Reply::Respond(json) => format!("respond {json}"),
        Reply::Later => "later".to_owned(),
        other => debug(other),
    }
}

pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::SetPriority(set) => format!("set-priority {}", set.priority),
        Effect::DependencyAdd(note) => format!("dependency-add {}", note.text),
        Effect::DependencyRemove(note) => format!("dependency-remove {}", note.text),
        Effect::Raise(raise) => {
            format!("raise {} severity={} {}", raise.type_, raise.severity, raise.note)
        }
        Effect::PostEvent(event) => format!("post-event {} {}", event.name, event.context),
        Effect::Annotate(annotation) => format!("annotate {}", annotation.json),
        Effect::UpdateJobspec(update) => format!("jobspec-update {}", update.json),
        Effect::PrologStart(start) => format!("prolog-start {}", start.description),
        Effect::EpilogStart(start) => format!("epilog-start {}", start.description),
        Effect::PrologFinish(end) => format!("prolog-finish {} {}", end.description, end.status),
        Effect::EpilogFinish(end) => format!("epilog-finish {} {}", end.description, end.status),
        Effect::SetTimer(timer) => format!("set-timer {} {}", timer.name, timer.at),
        Effect::CancelTimer(name) => format!("cancel-timer {name}"),
        Effect::Explain(note) => format!("explain {}", note.text),
        Effect::Exec(exec) => format!("exec {} {}", exec.command, exec.options),
        Effect::Drain(drain) => format!("drain {} {}", drain.ranks, drain.reason),
        Effect::Rpc(call) => format!("rpc {} {}", call.topic, call.payload),
        Effect::Put(put) => {
            format!("put {} {} bytes", put.key, put.value.as_ref().map_or(0, Vec::len))
        }
        other => debug(other),
    }
}

fn debug(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.split_once("::").map_or(text.clone(), |(_, rest)| rest.to_owned())
}
