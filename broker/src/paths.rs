//! Where installed files are, by where this program is.
//!
//! Installed: `PREFIX/bin/flux`, `PREFIX/libexec/flux/flux-broker`. In a build tree all programs
//! stand in one folder.

use std::path::PathBuf;

/// The directory of the running program.
fn exe_dir() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.to_owned())
}

/// The directory with the `flux` command.
pub fn bin_dir() -> Option<PathBuf> {
    let dir = exe_dir()?;
    if dir.join("flux").is_file() {
        return Some(dir);
    }
    // PREFIX/libexec/flux -> PREFIX/bin
    let bin = dir.parent()?.parent()?.join("bin");
    bin.join("flux").is_file().then_some(bin)
}

/// The directory with `flux-broker`, `flux-shell` and `flux-imp`.
pub fn libexec_dir() -> Option<PathBuf> {
    exe_dir()
}
