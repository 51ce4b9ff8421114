//! `[queues]`: named queues (RFC 33).

use std::collections::BTreeMap;

use super::Config;
use super::policy::Policy;
use super::table::{Table, TableError};

/// The queues by name; none is the anonymous queue.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Queues {
    pub by_name: BTreeMap<String, Queue>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Queue {
    pub policy: Policy,
    /// Properties that its nodes must have.
    pub requires: Vec<String>,
    /// A virtual queue uses the resources of another one.
    pub parent: Option<String>,
}

/// Characters that a property may not have (RFC 20).
const NOT_IN_PROPERTIES: &str = " \t!&'\"`|()";

impl Queues {
    pub fn parse(config: &Config) -> Result<Queues, TableError> {
        let default = Policy::parse(config)?.defaults.queue;
        let table = Table::of(config, "queues")?;
        let mut by_name = BTreeMap::new();
        for (name, entry) in table.named_tables()? {
            by_name.insert(name.to_owned(), queue(entry)?);
        }
        let queues = Queues { by_name };
        queues.check_parents()?;
        if let Some(default) = default
            && !queues.by_name.contains_key(&default)
        {
            let text = format!("default queue '{default}' is not in [queues]");
            let table = "policy.jobspec";
            return Err(TableError::value(table, "defaults.system.queue", text));
        }
        Ok(queues)
    }

    fn check_parents(&self) -> Result<(), TableError> {
        for (name, queue) in &self.by_name {
            let Some(parent) = &queue.parent else { continue };
            let why = match self.by_name.get(parent) {
                _ if parent == name => "parent queue is itself".to_owned(),
                None => format!("parent queue '{parent}' is not configured"),
                Some(found) if found.parent.is_some() => {
                    format!("parent queue '{parent}' is itself a virtual queue")
                }
                Some(_) => continue,
            };
            return Err(TableError::value(&format!("queues.{name}"), "parent", why));
        }
        Ok(())
    }
}

fn queue(mut table: Table<'_>) -> Result<Queue, TableError> {
    let policy = Policy::read(table.table("policy")?)?;
    let parent =
        table.string("parent").map_err(|_| table.bad("parent", "'parent' must be a string"))?;
    let requires = table
        .strings("requires")
        .map_err(|_| table.bad("requires", "'requires' must be a string array"))?;
    if policy.defaults.queue.is_some() {
        return Err(table.bad("policy", "'policy' must not define a default queue!"));
    }
    if parent.is_some() && policy.scheduler.is_some() {
        return Err(table.bad("policy", "a virtual queue must not set 'policy.scheduler'"));
    }
    if parent.is_some() && requires.is_some() {
        return Err(table.bad("requires", "a virtual queue must not set 'requires'"));
    }
    let requires = requires.unwrap_or_default();
    if requires.iter().any(|property| property.contains(|c| NOT_IN_PROPERTIES.contains(c))) {
        return Err(table.bad("requires", "'requires' must be an array of property strings"));
    }
    let queue = Queue {
        policy,
        requires: requires.into_iter().map(str::to_owned).collect(),
        parent: parent.map(str::to_owned),
    };
    table.finish()?;
    Ok(queue)
}
