//! `check`: everything that loading does, in front of the author.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::{Given, Outcome, host, inspect, spec_of};
use crate::plugin::types::Event;
use crate::plugin::{Kind, SharedJobs};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Module: a path, or a name in the plugin path
    file: String,
    #[command(flatten)]
    given: Given,
}

impl Check {
    pub(super) async fn run(self) -> Outcome {
        let (bytes, inspection) = inspect::read(&self.file)?;
        let manifest = &inspection.manifest;
        say!("{} {}, a {} plugin", manifest.name, manifest.version, manifest.kind);
        say!("  ABI {}, {} bytes, {} imports", manifest.abi, bytes.len(), inspection.imports.len());
        let (spec, kind) = spec_of(&self.file, self.given.conf()?)?;
        let start = Instant::now();
        let host = host(self.given.broker_config()?, SharedJobs::default(), None);
        if kind == Kind::Scheduler {
            let (events, _decisions) = tokio::sync::mpsc::unbounded_channel();
            let scheduler = host.load_scheduler(&spec, events, Default::default()).await;
            let scheduler = scheduler.map_err(|error| error.to_string())?;
            scheduler.ready().await.map_err(|error| error.to_string())?;
        } else {
            let plugin = host.load(&spec, kind, Default::default()).await;
            let plugin = plugin.map_err(|error| error.to_string())?;
            say!("  compiles, links and starts ({:.0?})", start.elapsed());
            let query = plugin.query().await.map_err(|error| error.to_string())?;
            serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&query)
                .map_err(|error| format!("query is not a JSON object: {error}"))?;
            if kind == Kind::Jobtap {
                // No event at all: the smallest call there is.
                plugin.handle(Vec::<Event>::new()).await;
            }
        }
        for topic in manifest.topics.iter().filter(|_| kind != Kind::Jobtap) {
            say!("  note: topic {topic} has no meaning for a {kind} plugin");
        }
        for topic in manifest.topics.iter().filter(|topic| kind == Kind::Jobtap && !known(topic)) {
            say!("  note: topic {topic} is called by other plugins alone");
        }
        for capability in &manifest.capabilities {
            say!("  needs caps = [\"{capability}\"]");
        }
        say!("ok");
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether the job manager has such a topic.
fn known(topic: &str) -> bool {
    const TOPICS: [&str; 8] = [
        "job.create",
        "job.validate",
        "job.new",
        "job.priority.get",
        "job.admit",
        "job.inactive-add",
        "job.inactive-remove",
        "job.destroy",
    ];
    const FAMILIES: [&str; 4] = ["job.dependency.", "job.state.", "job.event.", "job.update"];
    TOPICS.contains(&topic)
        || topic.ends_with('*')
        || FAMILIES.iter().any(|family| topic.starts_with(family))
}
