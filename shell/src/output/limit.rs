//! How much output of a job is kept in the KVS.

use std::collections::BTreeMap;

use crate::fatal::Fatal;
use crate::job::Job;
use crate::log::Log;
use crate::options::{format_size, size};

const COMPONENT: &str = "output.kvs";
const SINGLE_USER: &str = "1G";
const MULTI_USER: &str = "10M";
const MOST: u64 = 1 << 30;
/// From this much on a file would be better.
const HIGH: u64 = 100 << 20;

#[derive(Debug)]
pub(super) struct Limit {
    bytes: u64,
    text: String,
    seen: BTreeMap<&'static str, u64>,
}

// === impl Limit ===

impl Limit {
    pub(super) fn new(job: &Job, log: &Log) -> Result<Limit, Fatal> {
        let default = if job.owner == job.userid { SINGLE_USER } else { MULTI_USER };
        let option = job.jobspec.options.get("output").and_then(|output| output.get("limit"));
        let option = option.filter(|limit| !limit.is_null());
        let value = option.cloned().unwrap_or_else(|| default.into());
        let text = match &value {
            serde_json::Value::String(text) => text.clone(),
            value => value.as_u64().map_or_else(|| value.to_string(), format_size),
        };
        match size(&value) {
            Some(bytes) if (1..=MOST).contains(&bytes) => {
                Ok(Limit { bytes, text, seen: BTreeMap::new() })
            }
            _ => {
                log.notice(COMPONENT, format_args!("Invalid KVS output.limit={text}"));
                Err(Fatal::new("output", "shell_init"))
            }
        }
    }

    /// Whether so much more of a stream still goes into the log.
    pub(super) fn admit(&mut self, stream: &str, len: usize, log: &Log) -> bool {
        let stream = if stream == "stdout" { "stdout" } else { "stderr" };
        let seen = self.seen.entry(stream).or_default();
        let before = *seen;
        *seen = seen.saturating_add(len as u64);
        if *seen <= self.bytes {
            return true;
        }
        if before <= self.bytes {
            let text = &self.text;
            log.warn(COMPONENT, format_args!("{stream} will be truncated, {text} limit exceeded"));
        }
        false
    }

    /// Tell how much was left out.
    pub(super) fn report(&self, log: &Log) {
        for (stream, &seen) in &self.seen {
            if seen > self.bytes {
                let lost = seen - self.bytes;
                log.warn(COMPONENT, format_args!("{stream}: {lost} of {seen} bytes truncated"));
            }
            if seen > HIGH && seen <= MOST {
                let size = format_size(seen);
                log.warn(
                    COMPONENT,
                    format_args!(
                        "high {stream} volume ({size}), consider redirecting to a file next time \
                         (e.g. use --output=FILE)"
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use serde_json::{Value, json};

    fn limit(limit: Value) -> Result<Limit, Fatal> {
        Limit::new(&job(0, json!({"output": {"limit": limit}})), &Log::new())
    }

    #[test]
    fn output_beyond_the_limit_is_reported_once_and_counted() {
        let log = Log::new();
        let mut limit = limit(json!("1K")).unwrap();
        assert!(limit.admit("stdout", 1000, &log));
        assert!(!limit.admit("stdout", 100, &log));
        assert!(!limit.admit("stdout", 100, &log));
        assert!(limit.admit("stderr", 1024, &log));
        limit.report(&log);
        let texts: Vec<_> = log.take().into_iter().map(|entry| entry.message).collect();
        assert_eq!(
            texts,
            ["stdout will be truncated, 1K limit exceeded", "stdout: 176 of 1200 bytes truncated"]
        );
    }

    #[test]
    fn a_limit_out_of_range_ends_the_job() {
        for bad in [json!(0), json!("2G"), json!("x"), json!(-5), json!({})] {
            assert!(limit(bad.clone()).is_err(), "{bad}");
        }
        assert_eq!(limit(Value::Null).unwrap().bytes, 1 << 30);
    }

    #[test]
    fn guests_get_less_by_default() {
        let mut job = job(0, json!({}));
        job.userid = 1000;
        assert_eq!(Limit::new(&job, &Log::new()).unwrap().bytes, 10 << 20);
    }
}
