//! What flux-accounting pushes: associations, queues, projects, banks, weights.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A number that limits nothing.
pub(crate) const UNLIMITED: i64 = i32::MAX as i64;

/// A user and a bank.
pub(crate) type Key = (u32, String);

/// What a user may do under a bank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Association {
    pub(crate) fairshare: f64,
    pub(crate) max_running_jobs: i64,
    pub(crate) max_active_jobs: i64,
    pub(crate) max_sched_jobs: i64,
    pub(crate) max_nodes: i64,
    pub(crate) max_cores: i64,
    pub(crate) queues: Vec<String>,
    pub(crate) projects: Vec<String>,
    pub(crate) def_project: String,
    pub(crate) active: bool,
}

/// Limits of a queue, most of them for each association in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Queue {
    pub(crate) min_nodes_per_job: i64,
    pub(crate) max_nodes_per_job: i64,
    pub(crate) max_time_per_job: i64,
    pub(crate) priority: i64,
    pub(crate) max_running_jobs: i64,
    pub(crate) max_nodes_per_assoc: i64,
    pub(crate) max_sched_jobs: i64,
    pub(crate) max_sched_nodes_per_assoc: i64,
    pub(crate) max_sched_cores_per_assoc: i64,
}

/// What each factor counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Weights {
    pub(crate) fairshare: i64,
    pub(crate) queue: i64,
    pub(crate) bank: i64,
    pub(crate) urgency: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Weights { fairshare: 100_000, queue: 10_000, bank: 0, urgency: 1000 }
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Data {
    pub(crate) users: BTreeMap<u32, BTreeMap<String, Association>>,
    pub(crate) default_banks: BTreeMap<u32, String>,
    pub(crate) queues: BTreeMap<String, Queue>,
    pub(crate) projects: BTreeSet<String>,
    pub(crate) banks: BTreeMap<String, f64>,
    pub(crate) weights: Weights,
    pub(crate) deny_unknown_queues: bool,
}

impl Data {
    /// All tables at once, as `conf = { config = { associations = [...], queues = [...], ... } }`.
    pub(crate) fn initialize(&mut self, config: &Value) -> Result<(), String> {
        type Load = fn(&mut Data, &Value) -> Result<(), String>;
        let tables: [(&str, Load); 6] = [
            ("associations", Data::load_associations),
            ("queues", Data::load_queues),
            ("projects", Data::load_projects),
            ("banks", Data::load_banks),
            ("priority_factors", Data::load_weights),
            ("config", Data::load_config),
        ];
        for (name, load) in tables {
            if let Some(table) = config.get(name) {
                load(self, table)?;
            }
        }
        Ok(())
    }

    /// Adds to and changes the associations that are known; none is forgotten.
    pub(crate) fn load_associations(&mut self, data: &Value) -> Result<(), String> {
        let mut read = Vec::new();
        for row in rows(data, "associations")? {
            let user = u32::try_from(row.integer("userid")?)
                .map_err(|_| "userid is not a user id".to_owned())?;
            let (bank, default) = (row.text("bank")?, row.text("def_bank")?);
            let association = Association {
                fairshare: row.real("fairshare")?,
                max_running_jobs: row.integer("max_running_jobs")?,
                max_active_jobs: row.integer("max_active_jobs")?,
                queues: split(row.text("queues")?),
                active: row.integer("active")? != 0,
                projects: split(row.text("projects")?),
                def_project: row.text("def_project")?.to_owned(),
                max_nodes: row.integer("max_nodes")?,
                max_cores: row.integer("max_cores")?,
                max_sched_jobs: row.integer("max_sched_jobs")?,
            };
            read.push((user, bank.to_owned(), default.to_owned(), association));
        }
        for (user, bank, default, association) in read {
            self.users.entry(user).or_default().insert(bank, association);
            self.default_banks.insert(user, default);
        }
        Ok(())
    }

    pub(crate) fn load_queues(&mut self, data: &Value) -> Result<(), String> {
        let read = |row: Row<'_>| {
            let queue = Queue {
                min_nodes_per_job: row.integer("min_nodes_per_job")?,
                max_nodes_per_job: row.integer("max_nodes_per_job")?,
                max_time_per_job: row.integer("max_time_per_job")?,
                priority: row.integer("priority")?,
                max_running_jobs: row.integer("max_running_jobs")?,
                max_nodes_per_assoc: row.integer("max_nodes_per_assoc")?,
                max_sched_jobs: row.integer("max_sched_jobs")?,
                max_sched_nodes_per_assoc: row.integer("max_sched_nodes_per_assoc")?,
                max_sched_cores_per_assoc: row.integer("max_sched_cores_per_assoc")?,
            };
            Ok((row.text("queue")?.to_owned(), queue))
        };
        self.queues = rows(data, "queues")?.map(read).collect::<Result<_, String>>()?;
        Ok(())
    }

    pub(crate) fn load_projects(&mut self, data: &Value) -> Result<(), String> {
        let read = |row: Row<'_>| row.text("project").map(str::to_owned);
        self.projects = rows(data, "projects")?.map(read).collect::<Result<_, String>>()?;
        Ok(())
    }

    pub(crate) fn load_banks(&mut self, data: &Value) -> Result<(), String> {
        let read = |row: Row<'_>| Ok((row.text("bank")?.to_owned(), row.real("priority")?));
        self.banks = rows(data, "banks")?.map(read).collect::<Result<_, String>>()?;
        Ok(())
    }

    pub(crate) fn load_weights(&mut self, data: &Value) -> Result<(), String> {
        let mut weights = self.weights.clone();
        for row in rows(data, "priority_factors")? {
            let weight = row.integer("weight")?;
            match row.text("factor")? {
                "fairshare" => weights.fairshare = weight,
                "queue" => weights.queue = weight,
                "bank" => weights.bank = weight,
                "urgency" => weights.urgency = weight,
                // A factor of a later flux-accounting.
                _ => {}
            }
        }
        self.weights = weights;
        Ok(())
    }

    pub(crate) fn load_config(&mut self, data: &Value) -> Result<(), String> {
        let table = data.as_object().ok_or("config is not an object")?;
        self.deny_unknown_queues = match table.get("deny_unknown_queues") {
            None => false,
            Some(Value::Bool(deny)) => *deny,
            Some(other) => return Err(expected("true or false", other)),
        };
        Ok(())
    }

    /// Nothing was pushed yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The user's association under a bank, by default their own default.
    pub(crate) fn association(&self, user: u32, bank: Option<&str>) -> Option<(Key, &Association)> {
        let bank = bank.or_else(|| self.default_banks.get(&user).map(String::as_str))?;
        let association = self.users.get(&user)?.get(bank)?;
        Some(((user, bank.to_owned()), association))
    }

    pub(crate) fn of(&self, key: &Key) -> Option<&Association> {
        self.users.get(&key.0)?.get(&key.1)
    }

    /// Nobody may use a queue that flux-accounting does not know, once it knows any.
    pub(crate) fn is_denied(&self, queue: &str) -> bool {
        !self.queues.contains_key(queue) && (self.deny_unknown_queues || !self.queues.is_empty())
    }

    /// The queue's part in a priority; none when the association may not use it. One that is not
    /// known has none.
    pub(crate) fn queue_priority(
        &self,
        association: &Association,
        queue: Option<&str>,
    ) -> Option<i64> {
        let Some((name, known)) = queue.and_then(|name| self.queues.get_key_value(name)) else {
            return Some(0);
        };
        association.queues.contains(name).then_some(known.priority)
    }

    /// Whether the association may charge a project.
    pub(crate) fn has_project(&self, association: &Association, project: &str) -> bool {
        self.projects.contains(project) && association.projects.iter().any(|known| known == project)
    }

    pub(crate) fn bank_priority(&self, bank: &str) -> f64 {
        self.banks.get(bank).copied().unwrap_or(0.0)
    }
}

/// A row of a pushed table. Its complaints are those of flux-core's JSON library.
struct Row<'a>(&'a Map<String, Value>);

fn rows<'a>(data: &'a Value, table: &str) -> Result<impl Iterator<Item = Row<'a>>, String> {
    let rows = data.as_array().ok_or_else(|| format!("{table} data is NULL or not an array"))?;
    if let Some(other) = rows.iter().find(|row| !row.is_object()) {
        return Err(expected("object", other));
    }
    Ok(rows.iter().filter_map(Value::as_object).map(Row))
}

impl<'a> Row<'a> {
    fn get(&self, key: &str) -> Result<&'a Value, String> {
        self.0.get(key).ok_or_else(|| format!("Object item not found: {key}"))
    }

    fn text(&self, key: &str) -> Result<&'a str, String> {
        let value = self.get(key)?;
        value.as_str().ok_or_else(|| expected("string", value))
    }

    fn integer(&self, key: &str) -> Result<i64, String> {
        let value = self.get(key)?;
        value.as_i64().ok_or_else(|| expected("integer", value))
    }

    fn real(&self, key: &str) -> Result<f64, String> {
        let value = self.get(key)?;
        value.as_f64().ok_or_else(|| expected("real or integer", value))
    }
}

fn expected(what: &str, got: &Value) -> String {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "real",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("Expected {what}, got {got}")
}

fn split(list: &str) -> Vec<String> {
    match list.trim() {
        "" => Vec::new(),
        list => list.split(',').map(|item| item.trim().to_owned()).collect(),
    }
}
