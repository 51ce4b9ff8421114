//! What a module says about itself, read without running any of it.
//!
//! The custom section `flux:abi` (of a core module, or anywhere inside a component) is text, one
//! "keyword value" a line; its first line is `flux-plugin MAJOR.MINOR`. The rest of the module is
//! validated, and its imports compared with what the broker offers, so that a module that cannot
//! work is refused by name before anything is compiled.

use std::fmt;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

/// The contract that this broker speaks.
pub const HOST_ABI: Abi = Abi { major: 1, minor: 0 };

/// Name of the custom section.
const SECTION: &str = "flux:abi";
const SECTION_MAX: usize = 64 * 1024;
/// Pages of memory have 64 KiB where a module says nothing else.
const PAGE_SIZE_LOG2: u32 = 16;
/// Import modules of a core module. WASI is answered by a stand-in that grants nothing.
const CORE_IMPORTS: [&str; 3] =
    ["flux:plugin/host@1.0.0", "flux:plugin/jobs@1.0.0", "wasi_snapshot_preview1"];
/// Import prefixes of a component. Of `wasi:`, every function traps.
const COMPONENT_IMPORTS: [&str; 2] = ["flux:plugin/", "wasi:"];

/// Version of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abi {
    /// Another major version is another contract.
    pub major: u32,
    /// A later minor version has everything of the earlier ones.
    pub minor: u32,
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The kinds of plugin, one WIT world each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Job manager plugin.
    Jobtap,
    /// Scheduler.
    Scheduler,
    /// Judges jobs at ingest.
    Validator,
    /// Edits jobs at ingest.
    Frobnicator,
}

impl Kind {
    /// Name of the world.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Jobtap => "jobtap",
            Kind::Scheduler => "scheduler",
            Kind::Validator => "validator",
            Kind::Frobnicator => "frobnicator",
        }
    }

    fn from_name(name: &str) -> Option<Kind> {
        [Kind::Jobtap, Kind::Scheduler, Kind::Validator, Kind::Frobnicator]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who may call a plugin's RPC method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The instance owner.
    Owner,
    /// Anyone who may connect.
    User,
}

/// An RPC method, `job-manager.PLUGIN.METHOD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The last part of the topic.
    pub method: String,
    /// Who may call it.
    pub caller: Caller,
}

/// In which order jobs are announced to a plugin at load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadOrder {
    /// By id.
    #[default]
    None,
    /// By state, then id.
    State,
    /// By state downwards, then id.
    StateReversed,
}

/// The manifest of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Contract it was built for.
    pub abi: Abi,
    /// Its kind.
    pub kind: Kind,
    /// Name, also of its RPC service.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// One line for listings.
    pub description: String,
    /// Callback topics it wants; a trailing `*` matches any rest.
    pub topics: Vec<String>,
    /// Capabilities it asks for.
    pub capabilities: Vec<String>,
    /// RPC methods.
    pub services: Vec<Service>,
    /// Order of jobs at load.
    pub order: LoadOrder,
}

impl Manifest {
    /// Whether it wants to be called for a topic.
    pub fn wants(&self, topic: &str) -> bool {
        self.topics.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => topic.starts_with(prefix),
            None => pattern == topic,
        })
    }
}

/// A module that was inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What it says about itself.
    pub manifest: Manifest,
    /// A component, or a core module that is to become one.
    pub component: bool,
    /// "MODULE NAME" of each import.
    pub imports: Vec<String>,
    /// Exported functions.
    pub exports: Vec<String>,
    /// Bytes that its largest memory begins with.
    pub memory: u64,
}

/// Why a module is not a plugin. The caller adds the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Not even the magic.
    #[error("not a WebAssembly module: a plugin is what is built for wasm32")]
    NotWasm,
    /// A shared library of flux-core.
    #[error(
        "a native ELF object (shared library or program), and no WebAssembly module: plugins are \
         modules (.wasm), native ones cannot be loaded"
    )]
    Elf,
    /// It ends too early.
    #[error("truncated WebAssembly module ({0} bytes): copy it once more")]
    Truncated(usize),
    /// Well-formedness.
    #[error("invalid WebAssembly module: {0}")]
    Invalid(String),
    /// No `flux:abi`.
    #[error("a WebAssembly module, but not a Flux plugin: it has no {SECTION} section")]
    NoManifest,
    /// `flux:abi` is not readable.
    #[error("bad {SECTION} section: {0}")]
    BadManifest(String),
    /// Another major version.
    #[error("ABI {0} not supported (host {HOST_ABI})")]
    Abi(Abi),
    /// An import that nobody offers.
    #[error("imports {0}, which this broker does not offer")]
    UnknownImport(String),
}

/// Reads a module.
///
/// # Errors
///
/// [`InspectError`].
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    check_magic(bytes)?;
    let mut sections = Sections::default();
    sections.collect(bytes)?;
    Validator::new_with_features(WasmFeatures::default())
        .validate_all(bytes)
        .map_err(|error| InspectError::Invalid(error.to_string()))?;
    let manifest = match sections.manifests.as_slice() {
        [] => return Err(InspectError::NoManifest),
        [text] => parse_manifest(text)?,
        _ => return Err(InspectError::BadManifest("more than one".to_owned())),
    };
    let allowed: &[&str] = if sections.component { &COMPONENT_IMPORTS } else { &CORE_IMPORTS };
    for import in &sections.imports {
        if !allowed.iter().any(|prefix| import.starts_with(prefix)) {
            return Err(InspectError::UnknownImport(import.clone()));
        }
    }
    Ok(Inspection {
        manifest,
        component: sections.component,
        imports: sections.imports,
        exports: sections.exports,
        memory: sections.memory,
    })
}

fn check_magic(bytes: &[u8]) -> Result<(), InspectError> {
    if bytes.starts_with(b"\x7fELF") {
        return Err(InspectError::Elf);
    }
    if bytes.starts_with(b"\0asm") && bytes.len() >= 8 {
        return Ok(());
    }
    if b"\0asm".starts_with(bytes) || bytes.starts_with(b"\0asm") {
        return Err(InspectError::Truncated(bytes.len()));
    }
    Err(InspectError::NotWasm)
}

#[derive(Default)]
struct Sections {
    component: bool,
    manifests: Vec<String>,
    imports: Vec<String>,
    exports: Vec<String>,
    memory: u64,
}

impl Sections {
    fn collect(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        let broken = |error: wasmparser::BinaryReaderError| {
            if error.message().contains("unexpected end") {
                InspectError::Truncated(bytes.len())
            } else {
                InspectError::Invalid(error.to_string())
            }
        };
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(broken)? {
                Payload::Version { encoding, .. } => {
                    self.component |= encoding == Encoding::Component;
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CustomSection(section) if section.name() == SECTION => {
                    if section.data().len() > SECTION_MAX {
                        return Err(InspectError::BadManifest("too long".to_owned()));
                    }
                    let text = std::str::from_utf8(section.data());
                    let text = text.map_err(|_| InspectError::BadManifest("not UTF-8".into()))?;
                    self.manifests.push(text.to_owned());
                }
                Payload::ImportSection(reader) if !self.component => {
                    for import in reader.into_imports() {
                        let import = import.map_err(broken)?;
                        self.imports.push(format!("{} {}", import.module, import.name));
                    }
                }
                Payload::ComponentImportSection(reader) if depth == 1 => {
                    for import in reader {
                        self.imports.push(import.map_err(broken)?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(reader) => {
                    for memory in reader {
                        let memory = memory.map_err(broken)?;
                        let page = 1_u64 << memory.page_size_log2.unwrap_or(PAGE_SIZE_LOG2).min(16);
                        self.memory = self.memory.max(memory.initial.saturating_mul(page));
                    }
                }
                Payload::ExportSection(reader) if !self.component => {
                    for export in reader {
                        self.exports.push(export.map_err(broken)?.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(reader) if depth == 1 => {
                    for export in reader {
                        self.exports.push(export.map_err(broken)?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn parse_manifest(text: &str) -> Result<Manifest, InspectError> {
    let bad = |what: String| InspectError::BadManifest(what);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let abi = first
        .strip_prefix("flux-plugin ")
        .and_then(|version| version.trim().split_once('.'))
        .and_then(|(major, minor)| {
            Some(Abi { major: major.parse().ok()?, minor: minor.parse().ok()? })
        })
        .ok_or_else(|| bad("its first line is not `flux-plugin MAJOR.MINOR`".to_owned()))?;
    if abi.major != HOST_ABI.major || abi.minor > HOST_ABI.minor {
        return Err(InspectError::Abi(abi));
    }
    let mut kind = None;
    let mut manifest = Manifest {
        abi,
        kind: Kind::Jobtap,
        name: String::new(),
        version: String::new(),
        description: String::new(),
        topics: Vec::new(),
        capabilities: Vec::new(),
        services: Vec::new(),
        order: LoadOrder::None,
    };
    for line in lines {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim();
        match keyword {
            "kind" => {
                let named = Kind::from_name(value);
                kind = Some(named.ok_or_else(|| bad(format!("unknown kind '{value}'")))?);
            }
            "name" => manifest.name = value.to_owned(),
            "version" => manifest.version = value.to_owned(),
            "description" => manifest.description = value.to_owned(),
            "topic" => manifest.topics.push(value.to_owned()),
            "capability" => manifest.capabilities.push(value.to_owned()),
            "service" => manifest.services.push(parse_service(value)?),
            "order" => {
                manifest.order = match value {
                    "none" => LoadOrder::None,
                    "state" => LoadOrder::State,
                    "-state" => LoadOrder::StateReversed,
                    _ => return Err(bad(format!("unknown order '{value}'"))),
                }
            }
            _ => {}
        }
    }
    manifest.kind = kind.ok_or_else(|| bad("no kind".to_owned()))?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if manifest.name.is_empty() || !manifest.name.chars().all(valid) {
        return Err(bad(format!(
            "name '{}' is not made of letters, digits, - and _",
            manifest.name
        )));
    }
    Ok(manifest)
}

fn parse_service(value: &str) -> Result<Service, InspectError> {
    let bad = || InspectError::BadManifest(format!("service '{value}' is not `METHOD owner|user`"));
    let (method, caller) = value.split_once(' ').ok_or_else(bad)?;
    let caller = match caller {
        "owner" => Caller::Owner,
        "user" => Caller::User,
        _ => return Err(bad()),
    };
    Ok(Service { method: method.to_owned(), caller })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(section: &str) -> Vec<u8> {
        wat::parse_str(format!("(module (@custom \"flux:abi\" \"{section}\"))")).unwrap()
    }

    const GOOD: &str = "flux-plugin 1.0\\0akind jobtap\\0aname x\\0atopic job.state.*\\0a\
                        service go user\\0aorder -state\\0afuture thing\\0a";

    #[test]
    fn manifest_is_read_from_the_custom_section() {
        let manifest = inspect(&module(GOOD)).unwrap().manifest;
        assert_eq!((manifest.name.as_str(), manifest.kind), ("x", Kind::Jobtap));
        assert_eq!(manifest.services, [Service { method: "go".into(), caller: Caller::User }]);
        assert_eq!(manifest.order, LoadOrder::StateReversed);
        assert!(manifest.wants("job.state.run") && !manifest.wants("job.new"));
    }

    #[test]
    fn what_is_not_a_plugin_is_refused_by_name() {
        let good = module(GOOD);
        let cases: [(&[u8], &str); 6] = [
            (b"\x7fELF\x02\x01\x01\0", "a native ELF object"),
            (b"#!/bin/sh", "not a WebAssembly module"),
            (b"\0as", "truncated WebAssembly module (3 bytes)"),
            (&good[..good.len() - 5], "truncated WebAssembly module"),
            (b"\0asm\x01\0\0\0", "not a Flux plugin"),
            (b"\0asm\x01\0\0\0\x63\x01\0", "invalid WebAssembly module"),
        ];
        for (bytes, expected) in cases {
            let error = inspect(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn another_major_abi_is_refused_with_both_versions() {
        let error = inspect(&module("flux-plugin 2.7\\0akind jobtap\\0aname x\\0a")).unwrap_err();
        assert_eq!(error.to_string(), "ABI 2.7 not supported (host 1.0)");
    }

    #[test]
    fn an_import_that_is_not_offered_is_named() {
        let text =
            format!("(module (import \"env\" \"open\" (func)) (@custom \"flux:abi\" \"{GOOD}\"))");
        let error = inspect(&wat::parse_str(text).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "imports env open, which this broker does not offer");
    }
}
