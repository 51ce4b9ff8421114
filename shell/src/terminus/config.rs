//! The `pty` option.

use flux_protocol::idset::Idset;
use serde::Deserialize;
use serde_json::Value;

use crate::fatal::Fatal;
use crate::job::Job;
use crate::log::Log;
use crate::options::is_on;

/// Which tasks of this shell run in a terminal, and who reads it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) ranks: Idset,
    /// What terminals show is the tasks' output.
    pub(crate) capture: bool,
    /// Somebody will attach to the first task.
    pub(crate) interactive: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    ranks: Option<Value>,
    capture: Option<Value>,
    interactive: Option<Value>,
}

impl Config {
    pub(crate) fn new(job: &Job, log: &Log) -> Result<Config, Fatal> {
        let Some(value) = job.jobspec.options.get("pty") else { return Ok(Config::default()) };
        let raw = match value {
            Value::Object(_) => Raw::deserialize(value)
                .map_err(|e| Fatal::new("pty", format!("invalid shell pty option: {e}")))?,
            value if is_on(value) => Raw::default(),
            _ => return Ok(Config::default()),
        };
        let interactive = raw.interactive.as_ref().is_some_and(is_on);
        let capture = raw.capture.as_ref().map_or(!interactive, is_on);
        let local = job.layout.taskids(job.shell_rank);
        let mut ranks = match &raw.ranks {
            None if interactive => local.intersect(&Idset::from_range(0, 0)),
            None => local,
            Some(Value::String(all)) if all == "all" => local,
            Some(value) => local.intersect(&parse_ranks(value)?),
        };
        if interactive && job.is_leader() && !ranks.contains(0) {
            log.warn("pty", "pty: adding pty to rank 0 for interactive support");
            ranks.insert(0);
        }
        Ok(Config { ranks, capture, interactive })
    }

    /// Whether what the task's terminal shows is its output. Nobody can attach to another task
    /// than the first.
    pub(crate) fn captures(&self, rank: u32) -> bool {
        self.capture || rank != 0
    }
}

fn parse_ranks(value: &Value) -> Result<Idset, Fatal> {
    let ranks = match value {
        Value::String(text) => Idset::decode(text).ok(),
        Value::Number(number) => number
            .as_u64()
            .and_then(|rank| u32::try_from(rank).ok())
            .map(|rank| Idset::from_range(rank, rank)),
        _ => None,
    };
    ranks.ok_or_else(|| {
        Fatal::new("pty", format!("Unable to parse pty shell option: ranks={value}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use serde_json::json;

    fn config(shell_rank: usize, pty: Value) -> (String, bool, bool) {
        let job = job(shell_rank, json!({"pty": pty}));
        let config = Config::new(&job, &Log::new()).unwrap();
        (config.ranks.encode(), config.capture, config.interactive)
    }

    #[test]
    fn a_bare_option_captures_the_terminals_of_all_tasks() {
        assert_eq!(config(0, json!(1)), ("0-1".to_owned(), true, false));
        assert_eq!(config(1, json!(true)), ("2-3".to_owned(), true, false));
        assert_eq!(config(0, json!(0)), (String::new(), false, false));
    }

    #[test]
    fn an_interactive_terminal_is_the_first_tasks_and_not_captured() {
        assert_eq!(config(0, json!({"interactive": 1})), ("0".to_owned(), false, true));
        assert_eq!(config(1, json!({"interactive": 1})), (String::new(), false, true));
        let both = json!({"interactive": 1, "capture": 1, "ranks": "all"});
        assert_eq!(config(0, both), ("0-1".to_owned(), true, true));
        let other = json!({"interactive": 1, "ranks": 1});
        assert_eq!(config(0, other), ("0-1".to_owned(), false, true));
    }

    #[test]
    fn ranks_are_a_set_or_a_number() {
        assert_eq!(config(1, json!({"ranks": "1-2"})).0, "2");
        assert_eq!(config(1, json!({"ranks": 3})).0, "3");
        for bad in [json!({"ranks": "x"}), json!({"ranks": []}), json!({"nonsense": 1})] {
            let job = job(0, json!({"pty": bad}));
            assert!(Config::new(&job, &Log::new()).is_err(), "{bad}");
        }
    }
}
