//! Processes and their parents, as /proc has them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::cgroup::Cgroup;
use crate::sys::{self, PidFd};

/// Longest way up from a process that is followed.
const MAX_DEPTH: usize = 4096;

/// What of a process tells it from all others, and leads to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    pid: i32,
    parent: i32,
    /// Clock ticks from the system's start to its own.
    started: u64,
}

/// Is it, without being root's, below an IMP that runs on behalf of `owner`, or in the control
/// group of a job of his?
pub(crate) fn is_of_a_job(pid: i32, owner: u32) -> bool {
    let Some(way) = way_up(pid) else { return false };
    let below = way.iter().skip(1).any(|entry| is_imp_of(entry.pid, owner));
    let of_a_job = below || Cgroup::is_of_a_job(pid, owner);
    let unprivileged = uids(pid).is_some_and(|uids| !uids.contains(&0));
    // A number on the way may have passed to another process meanwhile, but not twice the same.
    of_a_job && unprivileged && way_up(pid).is_some_and(|again| again == way)
}

/// Kill everything that this process has started, directly or not, and what else there is in a
/// control group of its own.
pub(crate) fn kill_all(cgroup: Option<&Cgroup>) {
    let own = sys::pid();
    // Whoever forks while the list is made is caught next time; nobody outruns this for long.
    for _ in 0..16 {
        let mut targets = descendants(own);
        let more = cgroup.map(Cgroup::members).unwrap_or_default().into_iter();
        targets.extend(more.filter(|pid| *pid != own).filter_map(entry));
        targets.retain(|target| !is_zombie(target.pid));
        if targets.is_empty() {
            return;
        }
        for target in targets {
            kill_this(target);
        }
    }
}

/// The process that was seen, and not who may have its number by now.
fn kill_this(target: Entry) {
    let Ok(process) = PidFd::open(target.pid) else { return };
    let same = entry(target.pid).is_some_and(|now| now.started == target.started);
    if same {
        // That it is gone is what is wanted.
        let _ = process.kill(libc::SIGKILL);
    }
}

fn descendants(own: i32) -> Vec<Entry> {
    let entries: Vec<Entry> = all();
    let mut found: Vec<Entry> = Vec::new();
    let (mut next, mut parent) = (0, own);
    loop {
        let known = |pid: i32| pid == own || found.iter().any(|entry| entry.pid == pid);
        let children = entries.iter().filter(|entry| entry.parent == parent && !known(entry.pid));
        let children: Vec<Entry> = children.copied().collect();
        found.extend(children);
        match found.get(next) {
            Some(entry) => (next, parent) = (next + 1, entry.pid),
            None => return found,
        }
    }
}

fn all() -> Vec<Entry> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    dir.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(entry)
        .collect()
}

/// The process and those above it.
fn way_up(pid: i32) -> Option<Vec<Entry>> {
    let mut way = vec![entry(pid)?];
    while let Some(last) = way.last().filter(|last| last.parent > 1) {
        if way.len() > MAX_DEPTH {
            return None;
        }
        way.push(entry(last.parent)?);
    }
    Some(way)
}

/// A process that executes this very program, with privilege, and was called by `owner`.
fn is_imp_of(pid: i32, owner: u32) -> bool {
    let executable = |pid: &str| {
        let meta = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let own = executable("self");
    own.is_some()
        && executable(&pid.to_string()) == own
        && uids(pid).is_some_and(|uids| uids.get(..2) == Some(&[owner, 0]))
}

fn entry(pid: i32) -> Option<Entry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may be anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(Entry {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with('Z'))
}

/// Real, effective, saved, and that of the file system.
fn uids(pid: i32) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uids: Vec<u32> = line.split_whitespace().filter_map(|uid| uid.parse().ok()).collect();
    (uids.len() == 4).then_some(uids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_up_begins_at_the_process() {
        let way = way_up(sys::pid()).unwrap();
        assert_eq!(way[0].pid, sys::pid());
        assert!(way[0].started > 0);
        assert_eq!(uids(sys::pid()).unwrap().len(), 4);
    }

    #[test]
    fn a_process_that_no_imp_started_is_of_no_job() {
        let owner = uids(sys::pid()).unwrap()[0];
        assert!(!is_of_a_job(sys::pid(), owner));
        assert!(!is_of_a_job(1, owner));
        assert!(!is_of_a_job(i32::MAX, owner));
    }
}
