//! The control group of a job, where the instance has systemd start the IMP in one of its own.
//!
//! Whatever a job does, its processes stay in there: also those that have left their parents, and
//! their session, and the IMP that started them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Names of the units that jobs run in begin so.
const PREFIXES: [&str; 2] = ["imp-shell", "flux-"];

/// Where control groups with processes are, and how a process calls its own there: in the unified
/// hierarchy, or in systemd's of before.
const HIERARCHIES: [(&str, &str); 3] = [
    ("/sys/fs/cgroup", "0::"),
    ("/sys/fs/cgroup/unified", "0::"),
    ("/sys/fs/cgroup/systemd", "name=systemd:"),
];

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// That of this process, if it is a job's and the caller is not in it.
    pub(crate) fn own() -> Option<Cgroup> {
        let own = Cgroup::of("self")?;
        let caller = std::os::unix::process::parent_id().to_string();
        (Cgroup::of(&caller).as_ref() != Some(&own)).then_some(own)
    }

    /// Is this process in the control group of a job that `owner` has been given?
    pub(crate) fn is_of_a_job(pid: i32, owner: u32) -> bool {
        let cgroup = Cgroup::of(&pid.to_string());
        let meta = cgroup.and_then(|cgroup| fs::metadata(cgroup.folder).ok());
        meta.is_some_and(|meta| meta.is_dir() && meta.uid() == owner)
    }

    /// That of a process, if it is a job's.
    fn of(pid: &str) -> Option<Cgroup> {
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let there = |(root, _): &&(&str, &str)| Path::new(root).join("cgroup.procs").exists();
        let (root, own) = HIERARCHIES.iter().find(there)?;
        let below = lines.lines().find_map(|line| below(line, own))?;
        Some(Cgroup { folder: Path::new(root).join(below) })
    }

    /// Processes in it, at this moment.
    pub(crate) fn members(&self) -> Vec<i32> {
        let list = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).collect()
    }
}

/// The job's control group that this line of `/proc/PID/cgroup` names, relative to the hierarchy.
fn below<'a>(line: &'a str, hierarchy: &str) -> Option<&'a str> {
    // NUMBER:CONTROLLERS:PATH
    let (number, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    if hierarchy != format!("{number}:{controllers}:") && hierarchy != format!("{controllers}:") {
        return None;
    }
    let path = path.strip_prefix('/')?;
    // What is outside of what this process can see is called by its way there.
    let inside = path.split('/').all(|part| !part.is_empty() && part != "..");
    let name = path.rsplit('/').next()?;
    let jobs = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    (inside && jobs).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_of_jobs_are_known_by_their_names() {
        let job = "system.slice/imp-shell-0-f1.service";
        assert_eq!(below(&format!("0::/{job}"), "0::"), Some(job));
        assert_eq!(below("0::/flux-7", "0::"), Some("flux-7"));
        assert_eq!(below(&format!("9:name=systemd:/{job}"), "name=systemd:"), Some(job));
        for other in [
            "0::/",
            "0::/system.slice/flux.service",
            "0::/imp-shell-1/session",
            "0::/../imp-shell-1",
            "0::/a/../imp-shell-1",
            "1:name=systemd:/imp-shell-1",
            "",
        ] {
            assert_eq!(below(other, "0::"), None, "{other}");
        }
        assert_eq!(below("8:pids:/imp-shell-1", "name=systemd:"), None);
        assert_eq!(below("0::/imp-shell-1", "name=systemd:"), None);
    }
}
