//! One instance that is looked at, and the queue that its screen is limited to.

use flux_client::Client;
use flux_protocol::constraint::Constraint;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{config, resource};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::screen::{Amount, Screen};
use crate::failure::Failure;
use crate::joblist::{Filter, JobStats, Query};

#[derive(Debug)]
pub(super) struct Level {
    flux: Client,
    /// The configuration's table of queues.
    queues: Object,
    queue: Option<String>,
}

impl Level {
    pub(super) async fn open(flux: Client, queue: Option<String>) -> Level {
        let config = flux.rpc::<config::Get>(Nodeid::ANY, &Empty).await;
        let queues = match config.ok().and_then(|mut config| config.shift_remove("queues")) {
            Some(Value::Object(queues)) => queues,
            _ => Object::new(),
        };
        Level { flux, queues, queue }
    }

    /// To the next queue or to the previous one; one of the places is that of all queues together.
    pub(super) fn change_queue(&mut self, forward: bool) -> bool {
        let changed = next_queue(&self.queues, self.queue.as_deref(), forward);
        let differs = changed != self.queue;
        self.queue = changed;
        differs
    }

    pub(super) async fn look(&self, depth: usize) -> Result<Screen, Failure> {
        let queues: Vec<String> = self.queue.iter().cloned().collect();
        let query = Query {
            filter: Filter::parse("running")?,
            userid: u32::MAX,
            queues: queues.clone(),
            ..Query::default()
        };
        let flux = &self.flux;
        let resources = flux.rpc::<resource::SchedStatus>(Nodeid::ANY, &Empty).await.ok();
        let constraint = self.queue.as_deref().and_then(|name| constraint(&self.queues, name));
        let amount = |pick: fn(&resource::SchedStatusResponse) -> &Value| {
            let r = resources.as_ref().map(pick);
            let set =
                r.and_then(|r| ResourceSet::deserialize(r).ok()).map(|set| match &constraint {
                    Some(constraint) => set.copy_constraint(constraint),
                    None => set,
                });
            set.map_or(Amount::default(), |set| Amount {
                nodes: set.nnodes() as u64,
                cores: set.ncores(),
                gpus: set.ngpus(),
            })
        };
        Ok(Screen {
            title: self.title(depth).await,
            all: amount(|status| &status.all),
            down: amount(|status| &status.down),
            used: amount(|status| &status.allocated),
            stats: JobStats::fetch(flux, &queues).await.unwrap_or_default(),
            jobs: query.list(flux).await?,
            notice: None,
            selected: None,
        })
    }

    async fn title(&self, depth: usize) -> String {
        let text = async |name: &str| self.flux.attr(name).await.unwrap_or_default();
        let id = match text("jobid").await {
            id if id.is_empty() => "flux".to_owned(),
            id => id,
        };
        let (size, version) = (text("size").await, text("version").await);
        let queue = self.queue.as_ref().map(|queue| format!("  queue {queue}")).unwrap_or_default();
        let inside = if depth > 0 { format!("  (inside, {depth} up)") } else { String::new() };
        format!("{id}  size {size}  flux-{version}{queue}{inside}")
    }
}

fn next_queue(queues: &Object, now: Option<&str>, forward: bool) -> Option<String> {
    let places: Vec<Option<&String>> =
        std::iter::once(None).chain(queues.keys().map(Some)).collect();
    let here = places.iter().position(|place| place.map(String::as_str) == now).unwrap_or(0);
    let step = if forward { 1 } else { places.len() - 1 };
    places.get((here + step) % places.len()).copied().flatten().cloned()
}

/// What the nodes of a queue have in common, which may be said for the queue above it.
fn constraint(queues: &Object, name: &str) -> Option<Constraint> {
    let own = queues.get(name)?;
    let above = || queues.get(own.get("parent")?.as_str()?)?.get("requires");
    let requires = own.get("requires").or_else(above)?;
    Constraint::decode(&json!({ "properties": requires })).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Object {
        let queues = json!({
            "batch": { "requires": ["batch"] }, "debug": { "requires": ["debug"] },
            "later": { "parent": "batch" }, "all": {},
        });
        serde_json::from_value(queues).unwrap()
    }

    #[test]
    fn queues_go_round_with_a_place_for_all_of_them() {
        let (queues, mut now, mut seen) = (queues(), None, Vec::new());
        for _ in 0..=queues.len() {
            now = next_queue(&queues, now.as_deref(), true);
            seen.push(now.clone());
        }
        assert_eq!(seen.pop(), Some(None));
        assert_eq!(seen.iter().flatten().count(), queues.len());
        assert_eq!(next_queue(&queues, None, false), seen.pop().flatten());
        assert_eq!(next_queue(&Object::new(), Some("gone"), true), None);
    }

    #[test]
    fn resources_are_those_of_the_queue_or_of_the_one_above_it() {
        let queues = queues();
        assert!(constraint(&queues, "debug").is_some());
        assert_eq!(constraint(&queues, "later"), constraint(&queues, "batch"));
        assert!(constraint(&queues, "all").is_none());
        assert!(constraint(&queues, "none").is_none());
    }
}
