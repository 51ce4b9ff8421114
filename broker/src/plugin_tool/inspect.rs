//! `inspect`: the manifest, imports and exports of a module.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Outcome;
use crate::plugin::{Caller, HOST_ABI, Inspection, LoadOrder, default_path, hex, inspect};

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Module: a path, or a name in the plugin path
    file: String,
}

impl Inspect {
    pub(super) fn run(self) -> Outcome {
        let (bytes, inspection) = read(&self.file)?;
        let report = report(&bytes, &inspection);
        if self.json {
            say!("{report}");
        } else if let Value::Object(report) = report {
            for (key, value) in report {
                print_line(&key, &value);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A name without a folder is looked up in the plugin path.
pub(super) fn path(file: &str) -> String {
    let name = format!("{}.wasm", file.strip_suffix(".wasm").unwrap_or(file));
    if file.contains('/') || std::path::Path::new(file).is_file() {
        return std::path::absolute(file)
            .map_or_else(|_| file.to_owned(), |path| path.to_string_lossy().into_owned());
    }
    let found = default_path().into_iter().map(|folder| folder.join(&name));
    let mut found = found.filter(|path| path.is_file());
    found.next().map_or_else(|| file.to_owned(), |path| path.to_string_lossy().into_owned())
}

pub(super) fn read(file: &str) -> Result<(Vec<u8>, Inspection), String> {
    let path = path(file);
    let bytes = std::fs::read(&path).map_err(|error| format!("{file}: {error}"))?;
    let inspection = inspect(&bytes).map_err(|error| format!("{file}: {error}"))?;
    Ok((bytes, inspection))
}

fn report(bytes: &[u8], inspection: &Inspection) -> Value {
    let manifest = &inspection.manifest;
    let caller = |caller| match caller {
        Caller::Owner => "owner",
        Caller::User => "user",
    };
    let services: Vec<String> = manifest
        .services
        .iter()
        .map(|service| format!("{} {}", service.method, caller(service.caller)))
        .collect();
    let order = match manifest.order {
        LoadOrder::None => "none",
        LoadOrder::State => "state",
        LoadOrder::StateReversed => "-state",
    };
    json!({
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "kind": manifest.kind.name(),
        "abi": manifest.abi.to_string(),
        "host_abi": HOST_ABI.to_string(),
        "format": if inspection.component { "component" } else { "core module" },
        "size": bytes.len(),
        "sha256": hex(&Sha256::digest(bytes)),
        "topics": manifest.topics,
        "capabilities": manifest.capabilities,
        "services": services,
        "order": order,
        "imports": inspection.imports,
        "exports": inspection.exports,
    })
}

fn print_line(key: &str, value: &Value) {
    match value {
        Value::String(text) => say!("{key:<14}{text}"),
        Value::Array(list) if list.is_empty() => say!("{key:<14}-"),
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                let key = if index == 0 { key } else { "" };
                say!("{key:<14}{}", item.as_str().unwrap_or_default());
            }
        }
        other => say!("{key:<14}{other}"),
    }
}
