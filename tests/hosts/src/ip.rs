//! The `ip` command, and what it keeps in files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where namespaces have their names.
const NAMES: &str = "/run/netns";

pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("needs the ip command of iproute2: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(format!("ip {}: {}", args.join(" "), text.trim()))
        }
    }
}

/// What `ip netns exec` shows as `/etc/hosts` in a namespace.
pub(crate) fn write_hosts(space: &str, text: &str) -> Result<(), String> {
    let dir = etc(space);
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(dir.join("hosts"), text))
        .map_err(|error| format!("{}: {error}", dir.display()))
}

pub(crate) fn remove(space: &str) {
    // It may have been made in part, or not at all.
    let _ = run(&["netns", "del", space]);
    let _ = fs::remove_dir_all(etc(space));
}

/// Remove what tests left behind that were killed.
pub(crate) fn sweep(prefix: &str) {
    let Ok(names) = fs::read_dir(NAMES) else { return };
    for name in names.flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(prefix).and_then(|rest| rest.split('-').nth(1));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

fn etc(space: &str) -> PathBuf {
    Path::new("/etc/netns").join(space)
}
