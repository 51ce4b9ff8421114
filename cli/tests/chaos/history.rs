//! What the eventlogs say of the jobs when all is over.

use flux_protocol::r::ResourceSet;
use serde_json::Value;

use crate::instance::Instance;

/// A job that is over.
pub(crate) struct History {
    pub(crate) id: String,
    events: Vec<Value>,
    r: Option<ResourceSet>,
}

impl History {
    pub(crate) fn read(instance: &Instance, id: &str) -> History {
        let log = instance.flux(&["job", "eventlog", "--format=json", id]);
        assert!(log.status.success(), "job {id} is lost: {log:?}\n{}", instance.log());
        let text = String::from_utf8(log.stdout).unwrap();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut history = History { id: id.to_owned(), events, r: None };
        if history.time_of("alloc").is_some() {
            let r = instance.flux(&["job", "info", id, "R"]);
            let text = String::from_utf8(r.stdout).unwrap();
            history.r = Some(ResourceSet::decode(&text).unwrap());
        }
        history
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| event["name"].as_str())
    }

    fn time_of(&self, name: &str) -> Option<f64> {
        let event = self.events.iter().find(|event| event["name"] == name)?;
        event["timestamp"].as_f64()
    }

    /// It was submitted once, it ended once, and nothing of its life happened twice.
    pub(crate) fn assert_complete(&self) {
        let all: Vec<&str> = self.names().collect();
        assert_eq!(all.first(), Some(&"submit"), "{}: {all:?}", self.id);
        assert_eq!(all.last(), Some(&"clean"), "{}: {all:?}", self.id);
        for once in ["submit", "alloc", "start", "finish", "free", "clean"] {
            let times = all.iter().filter(|name| **name == once).count();
            assert!(times <= 1, "{}: {times} {once} events: {all:?}", self.id);
        }
        let taken = all.contains(&"alloc");
        assert_eq!(taken, all.contains(&"free"), "{}: {all:?}", self.id);
    }

    pub(crate) fn succeeded(&self) -> bool {
        let finish = self.events.iter().find(|event| event["name"] == "finish");
        finish.is_some_and(|event| event["context"]["status"] == 0)
    }

    pub(crate) fn was_canceled(&self) -> bool {
        let mut exceptions = self.events.iter().filter(|event| event["name"] == "exception");
        exceptions.any(|event| event["context"]["type"] == "cancel")
    }

    /// From when to when it had which cores.
    fn held(&self) -> Option<(f64, f64, &ResourceSet)> {
        Some((self.time_of("alloc")?, self.time_of("free")?, self.r.as_ref()?))
    }
}

/// At no time have two jobs had the same core.
pub(crate) fn assert_no_double_allocation(jobs: &[History]) {
    for (index, job) in jobs.iter().enumerate() {
        let Some((begin, end, r)) = job.held() else { continue };
        for other in jobs.iter().skip(index + 1) {
            let Some((other_begin, other_end, other_r)) = other.held() else { continue };
            if begin < other_end && other_begin < end {
                let shared = shared_core(r, other_r);
                assert_eq!(shared, None, "both {} and {} had it", job.id, other.id);
            }
        }
    }
}

/// Rank and core that are in both.
fn shared_core(one: &ResourceSet, other: &ResourceSet) -> Option<(u32, u32)> {
    one.nodes().find_map(|(rank, node)| {
        let (_, there) = other.nodes().find(|(there, _)| *there == rank)?;
        let core =
            node.resources.cores.iter().find(|core| there.resources.cores.contains(*core))?;
        Some((rank, core))
    })
}
