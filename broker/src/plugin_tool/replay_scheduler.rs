//! `test` of a scheduler: what one was told and asked is told and asked again, and what it decides
//! is compared with what was decided then.

use std::collections::BTreeMap;
use std::process::ExitCode;

use flux_protocol::fluid::JobId;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{Outcome, show};
use crate::plugin::types::{Allocation, Decision};
use crate::plugin::{
    CallError, PluginHost, PluginSpec, RecordedStep, ReplayClock, Scheduler, Step,
};

/// Reads what the entry `record` of a scheduler has made its broker write.
pub(super) fn read(path: &str) -> Result<Vec<RecordedStep>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let mut lines = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let step = serde_json::from_str(text)
            .map_err(|error| format!("{path}:{}: not a call of a scheduler: {error}", line + 1))?;
        lines.push(step);
    }
    Ok(lines)
}

/// Replays a recording. Fails when anything is decided otherwise.
pub(super) async fn replay(
    host: &PluginHost,
    spec: &PluginSpec,
    clock: &ReplayClock,
    lines: Vec<RecordedStep>,
) -> Outcome {
    let mut scheduler: Option<Scheduler> = None;
    let (mut calls, mut decided, mut different) = (0_u64, 0, 0_u64);
    for line in lines {
        clock.set(line.now);
        if let Step::Start(recorded) = line.step {
            let started = start(host, spec, recorded).await?;
            scheduler = Some(started);
            continue;
        }
        let scheduler =
            scheduler.as_ref().ok_or("the recording does not begin with a scheduler's start")?;
        calls += 1;
        let outcome = scheduler.replay(line.step).await;
        let (decisions, fault) = match outcome {
            Ok(decisions) => (decisions, None),
            Err(error @ (CallError::Fault(_) | CallError::Down { .. })) => {
                (Vec::new(), Some(error.to_string()))
            }
            Err(error) => return Err(error.to_string()),
        };
        decided += decisions.len();
        decisions.iter().for_each(|decision| say!("{:.6} {}", line.now, text(decision)));
        if let Some(fault) = &fault {
            say!("{:.6} FAULT {fault}", line.now);
        }
        if decisions != line.decisions || fault.is_some() != line.fault.is_some() {
            different += 1;
            let recorded = line.decisions.iter().map(text);
            recorded.for_each(|text| say!("{:.6} recorded: {text}", line.now));
        }
    }
    say!("{calls} calls, {decided} decisions, {different} calls decided otherwise");
    Ok(if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// With the configuration that was recorded, and what the command line changes of it.
async fn start(
    host: &PluginHost,
    spec: &PluginSpec,
    recorded: Map<String, Value>,
) -> Result<Scheduler, String> {
    let mut spec = spec.clone();
    let given = std::mem::replace(&mut spec.conf, recorded);
    spec.conf.extend(given);
    // The books are of no use here, nor is what they let pass.
    let (events, _) = mpsc::unbounded_channel();
    let loaded = host.load_scheduler(&spec, events, BTreeMap::new()).await;
    loaded.map_err(|error| error.to_string())
}

fn text(decision: &Decision) -> String {
    let of = |id: u64| JobId(id).f58();
    match decision {
        Decision::Allocate(allocation) => {
            let until = match allocation.expiration {
                0.0 => String::new(),
                expiration => format!(" until {expiration:.6}"),
            };
            format!("{} allocate {}{until}", of(allocation.id), resources(allocation))
        }
        Decision::Deny(denial) => format!("{} deny {}", of(denial.id), denial.note),
        Decision::Annotate(note) => format!("{} annotate {}", of(note.id), note.annotations),
        Decision::Canceled(id) => format!("{} canceled", of(*id)),
        Decision::Accept(token) => format!("request {token} accept"),
        Decision::Refuse(refused) => {
            format!("request {} refuse {}", refused.token, refused.refusal.text)
        }
        Decision::Effect(effect) => show::effect(effect),
        Decision::Other((name, json)) => format!("{name} {json}"),
    }
}

/// As `flux R decode --short` has it.
fn resources(allocation: &Allocation) -> String {
    let groups = allocation.resources.iter().map(|targets| {
        let children = targets.children.iter().map(|(kind, ids)| match ids.parse::<u32>() {
            Ok(id) => format!("{kind}{id}"),
            Err(_) => format!("{kind}[{ids}]"),
        });
        let ranks = match targets.ranks.parse::<u32>() {
            Ok(rank) => rank.to_string(),
            Err(_) => format!("[{}]", targets.ranks),
        };
        format!("rank{ranks}/{}", children.collect::<Vec<_>>().join(","))
    });
    groups.collect::<Vec<_>>().join(" ")
}
