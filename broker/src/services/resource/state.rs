//! What is known about the instance's resources, and how it changes. Pure.
//!
//! Drain state is the only part that outlives the instance: [`super::history`] makes it again from
//! the events that were kept.

use std::sync::Arc;

use flux_protocol::eventlog::{Event, EventlogError};
use flux_protocol::idset::Idset;
use serde::{Deserialize, Serialize};

use super::drain::{Drain, Overwrite};
use super::hosts::Hosts;
use super::inventory::Inventory;

/// The state of the resources.
#[derive(Debug, Default)]
pub struct State {
    pub inventory: Option<Inventory>,
    pub hosts: Hosts,
    /// One more than the highest rank that is known of.
    pub size: u32,
    /// Kept away from jobs by configuration.
    pub exclude: Idset,
    /// Ranks whose brokers are online.
    pub up: Idset,
    /// Online, but not heard of lately.
    pub torpid: Idset,
    /// Were online once.
    pub lost: Idset,
    pub drain: Drain,
}

/// One change, which is an event in `resource.eventlog`.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The service has started, with these ranks online.
    Restart(Idset),
    Online(Idset),
    Offline(Idset),
    Torpid(Idset),
    Lively(Idset),
    Exclude(Idset),
    Unexclude(Idset),
    Drain {
        ranks: Idset,
        timestamp: f64,
        reason: Option<Arc<str>>,
        overwrite: Overwrite,
    },
    Undrain {
        ranks: Idset,
        reason: Option<Arc<str>>,
        overwrite: Overwrite,
    },
    /// The inventory is known, and in the KVS.
    Define,
    /// The inventory expires at another time.
    Update {
        expiration: f64,
    },
}

/// `drain` and `undrain` in the eventlog; the order of keys is that in which Flux shows them.
#[derive(Debug, Serialize, Deserialize)]
pub struct DrainContext {
    pub idset: String,
    /// Absent in logs that Flux wrote before 0.62.
    #[serde(default)]
    pub nodelist: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default = "overwrite_by_default")]
    pub overwrite: i64,
}

#[derive(Debug, Serialize)]
struct UndrainContext<'a> {
    idset: String,
    nodelist: String,
    overwrite: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct IdsetContext {
    idset: String,
}

#[derive(Debug, Serialize)]
struct RestartContext {
    ranks: String,
    online: String,
    nodelist: String,
}

#[derive(Debug, Serialize)]
struct DefineContext<'a> {
    method: &'a str,
}

#[derive(Debug, Serialize)]
struct UpdateContext {
    expiration: f64,
}

fn overwrite_by_default() -> i64 {
    Overwrite::Reason as i64
}

// === impl Change ===

impl Change {
    /// Must it be in the KVS before it is true?
    pub fn is_kept(&self) -> bool {
        matches!(
            self,
            Change::Drain { .. } | Change::Undrain { .. } | Change::Define | Change::Update { .. }
        )
    }

    /// Must it survive a crash?
    pub fn is_synced(&self) -> bool {
        matches!(self, Change::Drain { .. } | Change::Undrain { .. })
    }

    /// The event, which happens `now` unless the change has a time of its own.
    pub fn event(&self, state: &State, now: f64) -> Result<Event, EventlogError> {
        let idset = |name, ranks: &Idset| {
            Event::new(now, name).with_context(&IdsetContext { idset: ranks.to_string() })
        };
        match self {
            Change::Restart(online) => Event::new(now, "restart").with_context(&RestartContext {
                ranks: Idset::first_n(state.size).to_string(),
                online: online.to_string(),
                nodelist: state.hosts.all(),
            }),
            Change::Online(ranks) => idset("online", ranks),
            Change::Offline(ranks) => idset("offline", ranks),
            Change::Torpid(ranks) => idset("torpid", ranks),
            Change::Lively(ranks) => idset("lively", ranks),
            Change::Exclude(ranks) => idset("exclude", ranks),
            Change::Unexclude(ranks) => idset("unexclude", ranks),
            Change::Drain { ranks, timestamp, reason, overwrite } => {
                Event::new(*timestamp, "drain").with_context(&DrainContext {
                    idset: ranks.to_string(),
                    nodelist: state.hosts.of(ranks),
                    reason: reason.as_deref().map(str::to_owned),
                    overwrite: *overwrite as i64,
                })
            }
            Change::Undrain { ranks, reason, overwrite } => Event::new(now, "undrain")
                .with_context(&UndrainContext {
                    idset: ranks.to_string(),
                    nodelist: state.hosts.of(ranks),
                    overwrite: *overwrite as i64,
                    reason: reason.as_deref(),
                }),
            Change::Define => Event::new(now, "resource-define").with_context(&DefineContext {
                method: state.inventory.as_ref().map_or("", |i| i.method.as_str()),
            }),
            Change::Update { expiration } => Event::new(now, "resource-update")
                .with_context(&UpdateContext { expiration: *expiration }),
        }
    }
}

// === impl Drain ===

impl Drain {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Drain { ranks, timestamp, reason, overwrite } => {
                self.drain(ranks, *timestamp, reason.as_deref(), *overwrite);
            }
            Change::Undrain { ranks, .. } => self.undrain(ranks),
            _ => {}
        }
    }
}

// === impl State ===

impl State {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Restart(online) => self.up.clone_from(online),
            Change::Online(ranks) => {
                self.up.union_with(ranks);
                self.lost.subtract(ranks);
            }
            Change::Offline(ranks) => {
                self.up.subtract(ranks);
                self.lost.union_with(ranks);
            }
            Change::Torpid(ranks) => self.torpid.union_with(ranks),
            Change::Lively(ranks) => self.torpid.subtract(ranks),
            Change::Exclude(ranks) => self.exclude.union_with(ranks),
            Change::Unexclude(ranks) => self.exclude.subtract(ranks),
            Change::Drain { .. } | Change::Undrain { .. } => self.drain.apply(change),
            Change::Define => {}
            Change::Update { expiration } => {
                if let Some(inventory) = &mut self.inventory {
                    inventory.set.expiration = *expiration;
                }
            }
        }
    }

    /// Ranks whose brokers are not online.
    pub fn offline(&self) -> Idset {
        Idset::first_n(self.size).difference(&self.up)
    }

    /// Of `ranks`, those that may be given jobs.
    pub fn available(&self, ranks: &Idset) -> Idset {
        let mut available = ranks.intersect(&self.up);
        available.subtract(&self.torpid);
        available.subtract(&self.exclude);
        available.subtract(&self.drain.ranks());
        available
    }

    /// Ranks that are gone for good.
    pub fn gone(&self) -> Idset {
        match &self.inventory {
            Some(inventory) if inventory.shrinks() => self.lost.clone(),
            _ => Idset::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Idset {
        text.parse().unwrap()
    }

    fn line(change: &Change) -> String {
        let hosts = Hosts::new(&"a[0-3]".parse().unwrap(), None, false);
        let state = State { hosts, size: 4, ..State::default() };
        change.event(&state, 1.5).unwrap().encode().unwrap()
    }

    #[test]
    fn events_have_the_shape_that_flux_shows() {
        let (reason, overwrite) = (Some("bad disk".into()), Overwrite::No);
        assert_eq!(
            line(&Change::Drain { ranks: ids("1-2"), timestamp: 2.5, reason, overwrite }),
            "{\"timestamp\":2.5,\"name\":\"drain\",\"context\":{\"idset\":\"1-2\",\
             \"nodelist\":\"a[1-2]\",\"reason\":\"bad disk\",\"overwrite\":0}}\n"
        );
        assert_eq!(
            line(&Change::Undrain { ranks: ids("1"), reason: None, overwrite }),
            "{\"timestamp\":1.5,\"name\":\"undrain\",\"context\":{\"idset\":\"1\",\
             \"nodelist\":\"a1\",\"overwrite\":0}}\n"
        );
        assert_eq!(
            line(&Change::Restart(ids("0"))),
            "{\"timestamp\":1.5,\"name\":\"restart\",\"context\":{\"ranks\":\"0-3\",\
             \"online\":\"0\",\"nodelist\":\"a[0-3]\"}}\n"
        );
    }

    #[test]
    fn rank_is_available_when_nothing_is_against_it() {
        let mut state = State { size: 4, exclude: ids("0"), ..State::default() };
        state.apply(&Change::Online(ids("0-2")));
        assert_eq!(state.available(&ids("0-3")), ids("1-2"));
        state.apply(&Change::Torpid(ids("1")));
        let (timestamp, overwrite) = (1.0, Overwrite::No);
        state.apply(&Change::Drain { ranks: ids("2"), timestamp, reason: None, overwrite });
        assert!(state.available(&ids("0-3")).is_empty());
        state.apply(&Change::Lively(ids("1")));
        state.apply(&Change::Undrain { ranks: ids("2"), reason: None, overwrite });
        assert_eq!(state.available(&ids("0-3")), ids("1-2"));
    }

    #[test]
    fn lost_ranks_are_those_that_were_online() {
        let mut state = State { size: 4, ..State::default() };
        state.apply(&Change::Online(ids("0-2")));
        state.apply(&Change::Offline(ids("1-2")));
        state.apply(&Change::Online(ids("2")));
        assert_eq!((state.lost.clone(), state.offline()), (ids("1"), ids("1,3")));
    }
}
