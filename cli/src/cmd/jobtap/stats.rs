//! `flux jobtap stats`: what the host counts of each plugin.

use clap::Args;
use flux_client::Client;
use serde_json::{Map, Value, json};

use super::{describe, names};
use crate::failure::Outcome;
use crate::outln;

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A line for each callback
    #[arg(short, long)]
    verbose: bool,
    /// Names as listed (default: all)
    plugin: Vec<String>,
}

impl Stats {
    pub(super) async fn run(self, flux: &Client) -> Outcome {
        let plugins = match self.plugin.is_empty() {
            true => names(flux).await?,
            false => self.plugin,
        };
        let mut all = Map::new();
        for plugin in plugins {
            let stats = describe(flux, &plugin).await?.shift_remove("stats");
            all.insert(plugin, stats.unwrap_or(json!({})));
        }
        if self.json {
            outln!("{}", Value::Object(all));
            return Ok(0);
        }
        outln!(
            "{:<26} {:<11} {:>9} {:>6} {:>7} {:>9} {:>9} {:>9} {:>8}",
            "PLUGIN",
            "STATE",
            "CALLS",
            "FAULTS",
            "REFUSED",
            "P50",
            "P99",
            "MAX",
            "MEMORY"
        );
        for (name, stats) in &all {
            row(name, stats, &total(stats));
            let callbacks = stats.get("callbacks").and_then(Value::as_object);
            for (callback, counts) in callbacks.into_iter().flatten().filter(|_| self.verbose) {
                row(&format!("  {callback}"), &json!({}), counts);
            }
        }
        Ok(0)
    }
}

/// The busiest callback stands for the plugin's times; counts are sums.
fn total(stats: &Value) -> Value {
    let callbacks = stats.get("callbacks").and_then(Value::as_object);
    let callbacks: Vec<&Value> =
        callbacks.into_iter().flatten().map(|(_, counts)| counts).collect();
    let sum = |key: &str| -> u64 { callbacks.iter().map(|counts| number(counts, key)).sum() };
    let busiest = callbacks.iter().max_by_key(|counts| number(counts, "calls"));
    let mut total = busiest.map_or(json!({}), |counts| (*counts).clone());
    if let Value::Object(total) = &mut total {
        for key in ["calls", "faults", "refusals"] {
            total.insert(key.to_owned(), json!(sum(key)));
        }
    }
    total
}

fn number(counts: &Value, key: &str) -> u64 {
    counts.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn row(name: &str, stats: &Value, counts: &Value) {
    let time = |key: &str| counts.get(key).and_then(Value::as_f64).map_or(String::new(), duration);
    let memory = stats.get("peak_memory").and_then(Value::as_u64);
    let memory = memory.map_or(String::new(), |bytes| format!("{:.1}M", bytes as f64 / 1048576.0));
    outln!(
        "{name:<26} {:<11} {:>9} {:>6} {:>7} {:>9} {:>9} {:>9} {memory:>8}",
        stats.get("status").and_then(Value::as_str).unwrap_or(""),
        number(counts, "calls"),
        number(counts, "faults"),
        number(counts, "refusals"),
        time("p50_us"),
        time("p99_us"),
        time("max_us"),
    );
}

fn duration(micros: f64) -> String {
    match micros {
        micros if micros >= 1e6 => format!("{:.2}s", micros / 1e6),
        micros if micros >= 1e3 => format!("{:.2}ms", micros / 1e3),
        micros => format!("{micros:.1}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_over_callbacks_and_times_are_the_busiest_ones() {
        let stats = json!({"callbacks": {
            "job.new": {"calls": 10, "faults": 1, "refusals": 0, "p50_us": 3.0},
            "job.validate": {"calls": 20, "faults": 0, "refusals": 2, "p50_us": 4.0},
        }});
        let total = total(&stats);
        assert_eq!(total, json!({"calls": 30, "faults": 1, "refusals": 2, "p50_us": 4.0}));
        assert_eq!((duration(0.5), duration(2500.0)), ("0.5us".into(), "2.50ms".into()));
    }
}
