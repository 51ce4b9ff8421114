//! What the events in the KVS say about a time before this one. Pure.

use std::collections::BTreeMap;

use flux_protocol::eventlog::Event;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use serde::Deserialize;

use super::drain::{Drain, Overwrite};
use super::hosts::Hosts;
use super::state::DrainContext;

/// An event of the log that can't be understood.
#[derive(Debug, thiserror::Error)]
#[error("resource.eventlog: line {line}: {name}: {text}")]
pub struct HistoryError {
    line: usize,
    name: String,
    text: String,
}

/// `resource-init` of a Flux before 0.62 tells the whole drain state.
#[derive(Debug, Deserialize)]
struct InitContext {
    #[serde(default)]
    drain: BTreeMap<String, InitDrain>,
}

#[derive(Debug, Deserialize)]
struct InitDrain {
    timestamp: f64,
    reason: Option<String>,
}

/// The drain state after all of the events.
pub fn restore(events: &[Event], hosts: &Hosts) -> Result<Drain, HistoryError> {
    let mut drain = Drain::default();
    for (at, event) in events.iter().enumerate() {
        replay(&mut drain, event, hosts).map_err(|text| HistoryError {
            line: at + 1,
            name: event.name.clone(),
            text,
        })?;
    }
    Ok(drain)
}

fn replay(drain: &mut Drain, event: &Event, hosts: &Hosts) -> Result<(), String> {
    let context = || event.context_as::<DrainContext>().map_err(|error| error.to_string());
    match event.name.as_str() {
        "drain" => {
            let context = context()?;
            let ranks = relocate(&context.idset, &context.nodelist, hosts)?;
            let overwrite = Overwrite::from_number(context.overwrite)
                .ok_or_else(|| format!("overwrite is {}", context.overwrite))?;
            drain.drain(&ranks, event.timestamp, context.reason.as_deref(), overwrite);
        }
        "undrain" => {
            let context = context()?;
            drain.undrain(&relocate(&context.idset, &context.nodelist, hosts)?);
        }
        "resource-init" => {
            let context: InitContext = event.context_as().map_err(|error| error.to_string())?;
            *drain = Drain::default();
            for (idset, InitDrain { timestamp, reason }) in context.drain {
                let ranks = relocate(&idset, "", hosts)?;
                drain.drain(&ranks, timestamp, reason.as_deref(), Overwrite::No);
            }
        }
        _ => {}
    }
    Ok(())
}

fn relocate(idset: &str, nodelist: &str, hosts: &Hosts) -> Result<Idset, String> {
    let ranks: Idset = idset.parse().map_err(|_| format!("'{idset}' is not an idset"))?;
    let nodes: Hostlist =
        nodelist.parse().map_err(|_| format!("'{nodelist}' is not a hostlist"))?;
    Ok(hosts.relocate(&ranks, &nodes))
}

/// The log without what happened before `since`, yet with the same drain state: what was drained
/// then is drained by new events with the old times. None: there is nothing to leave out.
pub fn truncate(
    events: &[Event],
    since: f64,
    hosts: &Hosts,
) -> Result<Option<Vec<Event>>, HistoryError> {
    let old = events.iter().take_while(|event| event.timestamp < since).count();
    let (before, after) = events.split_at_checked(old).unwrap_or_default();
    let drain = restore(before, hosts)?;
    let mut kept = Vec::new();
    for (ranks, timestamp, reason) in drain.exact_groups() {
        let context = DrainContext {
            idset: ranks.to_string(),
            nodelist: hosts.of(&ranks),
            reason: reason.map(|reason| reason.to_string()),
            overwrite: Overwrite::No as i64,
        };
        kept.extend(Event::new(timestamp, "drain").with_context(&context));
    }
    if kept.len() >= before.len() {
        return Ok(None);
    }
    kept.extend_from_slice(after);
    Ok(Some(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::resource::state::{Change, State};
    use flux_protocol::eventlog;
    use proptest::prelude::*;

    fn hosts() -> Hosts {
        Hosts::new(&"a[0-7]".parse().unwrap(), None, false)
    }

    fn shown(drain: &Drain) -> Vec<(String, f64, String)> {
        let groups = drain.groups().into_iter();
        groups.map(|group| (group.ranks.to_string(), group.timestamp, group.reason)).collect()
    }

    #[test]
    fn drain_state_is_restored_with_times_and_reasons() {
        let log = concat!(
            r#"{"timestamp":1.0,"name":"resource-define","context":{"method":"kvs"}}"#,
            "\n",
            r#"{"timestamp":2.0,"name":"drain","context":{"idset":"1-2","nodelist":"a[1-2]","reason":"x","overwrite":0}}"#,
            "\n",
            r#"{"timestamp":3.0,"name":"drain","context":{"idset":"5","nodelist":"a5"}}"#,
            "\n",
            r#"{"timestamp":4.0,"name":"undrain","context":{"idset":"2","nodelist":"a2","overwrite":0}}"#,
            "\n",
        );
        let drain = restore(&eventlog::decode(log).unwrap(), &hosts()).unwrap();
        let group = |ranks: &str, time, reason: &str| (ranks.to_owned(), time, reason.to_owned());
        assert_eq!(shown(&drain), [group("1", 2.0, "x"), group("5", 3.0, "")]);
    }

    #[test]
    fn log_of_an_old_flux_is_understood() {
        let log = concat!(
            r#"{"timestamp":1.0,"name":"drain","context":{"idset":"7"}}"#,
            "\n",
            r#"{"timestamp":2.0,"name":"resource-init","context":{"restart":false,"drain":{"1":{"timestamp":0.5,"reason":"x"}},"online":"","exclude":""}}"#,
            "\n",
        );
        let drain = restore(&eventlog::decode(log).unwrap(), &hosts()).unwrap();
        assert_eq!(drain.ranks().to_string(), "1");
    }

    #[test]
    fn broken_event_is_named() {
        let log = "{\"timestamp\":1.0,\"name\":\"drain\",\"context\":{\"idset\":\"x\"}}\n";
        let error = restore(&eventlog::decode(log).unwrap(), &hosts()).unwrap_err();
        assert_eq!(error.to_string(), "resource.eventlog: line 1: drain: 'x' is not an idset");
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let ranks = || proptest::collection::vec(0..8u32, 1..4).prop_map(Idset::from_iter);
        let overwrite = || {
            prop_oneof![
                Just(Overwrite::No),
                Just(Overwrite::Reason),
                Just(Overwrite::ReasonAndTime)
            ]
        };
        let reason = || proptest::option::of("[ab]").prop_map(|reason| reason.map(|r| r.into()));
        let drain = (ranks(), reason(), overwrite());
        let drain = drain.prop_map(|(ranks, reason, overwrite)| Change::Drain {
            ranks,
            timestamp: 0.0,
            reason,
            overwrite,
        });
        let undrain = (ranks(), overwrite()).prop_map(|(ranks, overwrite)| Change::Undrain {
            ranks,
            reason: None,
            overwrite,
        });
        proptest::collection::vec(prop_oneof![drain, undrain], 0..20)
    }

    proptest! {
        /// Replaying any prefix of the log gives the state that was live at its end, also when
        /// the log was shortened.
        #[test]
        fn replayed_log_gives_the_live_state(changes in changes(), since in 0..21u32) {
            let mut state = State { hosts: hosts(), size: 8, ..State::default() };
            let mut log = Vec::new();
            for (at, mut change) in changes.into_iter().enumerate() {
                let now = at as f64;
                if let Change::Drain { timestamp, .. } = &mut change {
                    *timestamp = now;
                }
                log.push(change.event(&state, now).unwrap());
                state.apply(&change);
                prop_assert_eq!(&restore(&log, &hosts()).unwrap(), &state.drain);
            }
            if let Some(short) = truncate(&log, f64::from(since), &hosts()).unwrap() {
                prop_assert!(short.len() < log.len());
                prop_assert_eq!(restore(&short, &hosts()).unwrap(), state.drain);
            }
        }
    }
}
