//! Lines of figures.

use std::time::Duration;

use crate::outln;

/// `NAME  VALUE UNIT`.
pub(super) fn figure(name: &str, value: f64, unit: &str) {
    outln!("{name:<30} {value:>12.1} {unit}");
}

/// Median, 99th percentile and maximum, in milliseconds.
pub(super) fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| {
        let place = (times.len().saturating_sub(1) as f64 * part).round() as usize;
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    outln!("{name:<30} {:>12.3} / {:.3} / {:.3} ms (p50 / p99 / max)", at(0.5), at(0.99), at(1.0));
}
