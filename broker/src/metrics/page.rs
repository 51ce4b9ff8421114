//! Prometheus' text format, version 0.0.4: all samples of a metric stand together.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// What may be deep in statistics is not; a module can't make the page endless.
const DEPTH_MAX: usize = 6;

#[derive(Debug, Default)]
pub(super) struct Page {
    metrics: BTreeMap<&'static str, Metric>,
}

#[derive(Debug)]
struct Metric {
    kind: &'static str,
    help: &'static str,
    samples: Vec<String>,
}

type Labels<'a> = [(&'a str, &'a str)];

impl Page {
    /// A value that goes up and down.
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &Labels<'_>,
        value: f64,
    ) {
        self.sample(name, "gauge", help, labels, value);
    }

    /// A value that grows from the start on.
    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &Labels<'_>,
        value: f64,
    ) {
        self.sample(name, "counter", help, labels, value);
    }

    /// How often a plugin was called, how long that took, and how it went.
    pub(super) fn callbacks(&mut self, plugin: &str, callbacks: &Value) {
        let Some(callbacks) = callbacks.as_object() else { return };
        for (callback, stats) in callbacks {
            let number = |key: &str| stats.get(key).and_then(Value::as_f64).unwrap_or(0.0);
            let labels = [("plugin", plugin), ("callback", callback)];
            let help = "Calls of a plugin";
            self.counter("flux_plugin_calls_total", help, &labels, number("calls"));
            let help = "Calls in which a plugin failed";
            self.counter("flux_plugin_faults_total", help, &labels, number("faults"));
            for (quantile, key) in [("0.5", "p50_us"), ("0.99", "p99_us"), ("1", "max_us")] {
                let [plugin, callback] = labels;
                let labels = [plugin, callback, ("quantile", quantile)];
                let help = "Time that calls of a plugin took";
                self.gauge("flux_plugin_call_seconds", help, &labels, number(key) / 1e6);
            }
        }
    }

    /// All numbers in the statistics of a module, by their path.
    pub(super) fn statistics(&mut self, module: &str, stats: &Map<String, Value>) {
        self.numbers(module, "", stats, DEPTH_MAX);
    }

    fn numbers(&mut self, module: &str, above: &str, stats: &Map<String, Value>, depth: usize) {
        for (name, value) in stats {
            let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            match value {
                Value::Object(below) if depth > 0 => self.numbers(module, &path, below, depth - 1),
                Value::Number(number) => {
                    let labels = [("module", module), ("name", path.as_str())];
                    let value = number.as_f64().unwrap_or(f64::NAN);
                    let help = "Statistics of a module, as flux module stats shows them";
                    self.sample("flux_module_stats", "untyped", help, &labels, value);
                }
                _ => {}
            }
        }
    }

    fn sample(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        labels: &Labels<'_>,
        value: f64,
    ) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let metric = self.metrics.entry(name).or_insert(Metric { kind, help, samples: Vec::new() });
        metric.samples.push(format!("{name}{labels} {value}"));
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, Metric { kind, help, samples }) in &self.metrics {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for sample in samples {
                let _ = writeln!(text, "{sample}");
            }
        }
        text
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn samples_of_a_metric_stand_together_and_labels_are_escaped() {
        let mut page = Page::default();
        page.gauge("flux_b", "B.", &[("x", "a\"b\\c\nd")], 1.5);
        page.counter("flux_a", "A.", &[], 7.0);
        page.gauge("flux_b", "B.", &[("x", "2")], 0.0);
        let text = "# HELP flux_a A.\n# TYPE flux_a counter\nflux_a 7\n\
                    # HELP flux_b B.\n# TYPE flux_b gauge\n\
                    flux_b{x=\"a\\\"b\\\\c\\nd\"} 1.5\nflux_b{x=\"2\"} 0\n";
        assert_eq!(page.render(), text);
    }

    #[test]
    fn numbers_of_statistics_have_paths_for_names() {
        let mut page = Page::default();
        let stats = json!({"a": {"b": 2, "c": "text"}, "d": [1], "e": 0.25});
        page.statistics("kvs", stats.as_object().unwrap());
        let text = page.render();
        assert!(text.contains("flux_module_stats{module=\"kvs\",name=\"a.b\"} 2\n"), "{text}");
        assert!(text.contains("flux_module_stats{module=\"kvs\",name=\"e\"} 0.25\n"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }
}
