//! Memory: how willingly the kernel ends tasks when there is none left (`oom.adjust`), and a word
//! to the user when it has.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::fatal::{Fatal, reason};
use crate::log::Log;
use crate::options::{Options, format_size};

const COMPONENT: &str = "oom";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    adjust: Option<i32>,
}

/// The `oom.adjust` option, -1000 to 1000.
pub(crate) fn adjustment(options: &Options) -> Result<Option<i32>, Fatal> {
    Ok(options.parse_object::<Raw>(COMPONENT)?.unwrap_or_default().adjust)
}

/// Apply the adjustment to a task. That it is not allowed is no reason not to run.
pub(crate) fn adjust(pid: i32, adjust: i32, log: &Log) {
    let result = fs::write(format!("/proc/{pid}/oom_score_adj"), adjust.to_string());
    let failed = result.err().map_or_else(String::new, |e| format!(": {}", reason(&e)));
    log.debug(COMPONENT, format_args!("pid {pid} score_adj {adjust}{failed}"));
}

/// A task was killed: say so if it was for want of memory.
///
/// Only a job in a control group of its own knows; one that shares the broker's would blame itself
/// for others.
pub(crate) fn explain(hostname: &str, log: &Log) {
    let Some(group) = own_group(Path::new("/proc"), std::os::unix::process::parent_id()) else {
        return;
    };
    let group = Path::new("/sys/fs/cgroup").join(group);
    let events = fs::read_to_string(group.join("memory.events")).unwrap_or_default();
    let killed = kills(&events);
    if killed == 0 {
        return;
    }
    let plural = if killed > 1 { "s" } else { "" };
    log.error(
        COMPONENT,
        format_args!("Memory cgroup out of memory: killed {killed} task{plural} on {hostname}."),
    );
    let peak = fs::read_to_string(group.join("memory.peak")).ok();
    if let Some(peak) = peak.and_then(|peak| peak.trim().parse().ok()) {
        log.error(COMPONENT, format_args!("memory.peak = {}", format_size(peak)));
    }
}

/// This process's control group (version 2), if its parent has another.
fn own_group(proc: &Path, parent: u32) -> Option<PathBuf> {
    let group = |process: &str| {
        let text = fs::read_to_string(proc.join(process).join("cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
        Some(path)
    };
    let own = group("self")?;
    (group(&parent.to_string()).as_ref() != Some(&own)).then(|| own.into())
}

fn kills(events: &str) -> u64 {
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kills_are_counted_in_memory_events() {
        assert_eq!(kills("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(kills(""), 0);
    }

    #[test]
    fn a_group_that_the_parent_shares_is_not_the_jobs() {
        let proc = tempfile::tempdir().unwrap();
        let process = |name: &str, group: &str| {
            fs::create_dir_all(proc.path().join(name)).unwrap();
            fs::write(proc.path().join(name).join("cgroup"), format!("0::/{group}\n")).unwrap();
        };
        process("self", "job.scope");
        process("7", "broker.service");
        process("8", "job.scope");
        assert_eq!(own_group(proc.path(), 7), Some("job.scope".into()));
        assert_eq!(own_group(proc.path(), 8), None);
    }

    #[test]
    fn the_adjustment_is_a_number() {
        let options = |value| Options::new([("oom".to_owned(), value)].into_iter().collect());
        assert_eq!(adjustment(&options(json!({"adjust": 500}))).unwrap(), Some(500));
        assert!(adjustment(&options(json!({"adjust": "x"}))).is_err());
        assert!(adjustment(&options(json!({"nonsense": 1}))).is_err());
    }
}
