//! Turns a core module into a component of the world that its manifest names.
//!
//! Whatever the module says about its own world (a `component-type` section of some wit-bindgen)
//! is dropped: the contract is the broker's to state. So a module from any language needs nothing
//! but the exports of its world, by their canonical names, and its `flux:abi` section.

use super::manifest::Kind;
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

/// The frozen contract, by file.
const WIT: [(&str, &str); 7] = [
    ("types.wit", include_str!("../../../abi/wit/since_v1.0.0/types.wit")),
    ("effects.wit", include_str!("../../../abi/wit/since_v1.0.0/effects.wit")),
    ("host.wit", include_str!("../../../abi/wit/since_v1.0.0/host.wit")),
    ("lifecycle.wit", include_str!("../../../abi/wit/since_v1.0.0/lifecycle.wit")),
    ("jobtap.wit", include_str!("../../../abi/wit/since_v1.0.0/jobtap.wit")),
    ("scheduler.wit", include_str!("../../../abi/wit/since_v1.0.0/scheduler.wit")),
    ("ingest.wit", include_str!("../../../abi/wit/since_v1.0.0/ingest.wit")),
];

/// The world of the WASI stand-in.
const STAND_IN_WORLD: &str =
    "package flux:stand-in; world preview1 { import flux:plugin/host@1.0.0; }";

/// `preview1.wat`, assembled.
const STAND_IN: &[u8] = include_bytes!("preview1.wasm");

/// Makes the component.
///
/// # Errors
///
/// The text of what does not fit: an export that is missing or has the wrong type.
pub(super) fn componentize(module: &[u8], kind: Kind) -> Result<Vec<u8>, String> {
    let mut files = SourceMap::new();
    for (name, text) in WIT {
        files.push_str(name, text);
    }
    let mut resolve = Resolve::default();
    let group = files.parse().map_err(|(_, error)| text(error))?;
    let package = resolve.push_group(group).map_err(text)?;
    let stand_in = resolve.push_source("stand-in.wit", STAND_IN_WORLD).map_err(text)?;

    let mut module = without_component_types(module)?;
    let world = resolve.select_world(&[package], Some(kind.name())).map_err(text)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).map_err(text)?;

    let mut adapter = STAND_IN.to_vec();
    let world = resolve.select_world(&[stand_in], Some("preview1")).map_err(text)?;
    embed_component_metadata(&mut adapter, &resolve, world, StringEncoding::UTF8).map_err(text)?;

    let encoder = ComponentEncoder::default().module(&module).map_err(text)?;
    let encoder = encoder.adapter("wasi_snapshot_preview1", &adapter).map_err(text)?;
    encoder.validate(true).encode().map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}

/// Copies a module section by section, but for what a bindings generator left there.
fn without_component_types(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = module.get(..8).unwrap_or_default().to_vec();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(text)?;
        if let Payload::CustomSection(section) = &payload
            && section.name().starts_with("component-type")
        {
            continue;
        }
        if let Some((id, range)) = payload.as_section() {
            let body = module.get(range).unwrap_or_default();
            out.push(id);
            push_leb128(&mut out, body.len());
            out.extend_from_slice(body);
        }
    }
    Ok(out)
}

fn push_leb128(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_in_for_wasi_is_the_assembled_source() {
        let assembled = wat::parse_str(include_str!("preview1.wat")).unwrap();
        assert!(assembled == STAND_IN, "assemble preview1.wat anew");
    }
}
