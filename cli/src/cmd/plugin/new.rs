//! `flux plugin new`: a crate that builds to a plugin.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::outln;

const MANIFEST: &str = include_str!("../../../../abi/template/Cargo.toml.in");
const SOURCE: &str = include_str!("../../../../abi/template/src/lib.rs.in");
/// Where Rust knows the target by rustup, and how else.
const TARGET: &str = "wasm32-wasip1";

#[derive(Debug, Args)]
pub(super) struct New {
    /// One line for listings
    #[arg(long, value_name = "TEXT", default_value = "A policy of this site")]
    description: String,
    /// Folder of the SDK (default: FLUX_PLUGIN_SDK, else the one of this installation)
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
    /// Folder to make; its last part is the plugin's name
    path: PathBuf,
}

impl New {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(valid) {
            let text = "is no name for a plugin: use lower-case letters, digits, - and _";
            return Err(Failure::of(self.path.display(), text));
        }
        if self.path.exists() {
            return Err(Failure::of(self.path.display(), "File exists"));
        }
        let sdk = self.sdk.clone().unwrap_or_else(|| sdk(context));
        if !sdk.join("Cargo.toml").is_file() {
            let text = "no SDK there: name it with --sdk or FLUX_PLUGIN_SDK";
            return Err(Failure::of(sdk.display(), text));
        }
        let fill = |text: &str| {
            let dependency = format!("{{ path = {:?} }}", sdk.to_string_lossy());
            text.replace("\"@SDK_VERSION@\"", &dependency)
                .replace("@NAME@", name)
                .replace("@CRATE@", &name.replace('-', "_"))
                .replace("@DESCRIPTION@", &self.description.replace(['"', '\\', '\n'], " "))
        };
        write(&self.path.join("Cargo.toml"), &fill(MANIFEST))?;
        write(&self.path.join("src/lib.rs"), &fill(SOURCE))?;
        let module = format!("target/{TARGET}/release/{}.wasm", name.replace('-', "_"));
        outln!("{}: a plugin that refuses jobs with long names. Next:", self.path.display());
        outln!("  cd {}", self.path.display());
        outln!("  cargo test");
        outln!("  rustup target add {TARGET} && cargo build --release --target {TARGET}");
        outln!("  flux plugin check {module}");
        outln!("  flux jobtap load $PWD/{module}");
        Ok(0)
    }
}

/// Beside the data of an installation, or in the source tree.
fn sdk(context: &Context) -> PathBuf {
    if let Some(folder) = context.env.get("FLUX_PLUGIN_SDK") {
        return PathBuf::from(folder);
    }
    match context.layout.is_installed() {
        true => context.layout.datadir().join("plugin-sdk"),
        false => {
            let etc = context.layout.datadir();
            etc.parent().unwrap_or(Path::new("/")).join("abi")
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = made.and_then(|()| std::fs::write(path, text));
    written.map_err(|error| Failure::of(path.display(), strerror(&error)))
}
