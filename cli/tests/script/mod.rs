//! Scripts as the initial program of an instance of two brokers. The programs are those of the same
//! build: run `cargo build --workspace` first.

use std::path::Path;
use std::process::{Command, Stdio};

const FLUX: &str = env!("CARGO_BIN_EXE_flux");

/// What a script that succeeds prints on either stream. It begins in a folder of its own, with this
/// build's `flux` and without an instance around it.
pub(crate) fn run(script: &str) -> String {
    let broker = Path::new(FLUX).with_file_name("flux-broker");
    assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script.sh");
    std::fs::write(&path, format!("exec 2>&1\n{script}")).unwrap();
    let programs = Path::new(FLUX).parent().unwrap().display().to_string();
    let search = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout")
        .args(["120", FLUX, "start", "-s2", "sh"])
        .arg(&path)
        .current_dir(dir.path())
        .env("PATH", search)
        .env("SHELL", "/bin/sh")
        .env_remove("FLUX_URI")
        .env_remove("FLUX_KVS_NAMESPACE")
        .env_remove("FLUX_TERMINUS_SESSION")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
