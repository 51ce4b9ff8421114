//! Compiled plugins on disk, by digest of the module and version of the engine.
//!
//! Loading compiled code is as good as running it, so a file is only used from a folder and of a
//! file that nobody but the broker's user can write, and only when the digest in front of the
//! code is right. Whatever is wrong with it, the module is compiled anew.

use super::source::hex;
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wasmtime::Engine;
use wasmtime::component::Component;

const DIGEST: usize = 32;
/// What the store may need more than plugins need a fast start, in bytes.
const SPACE_LEFT: u64 = 64 << 20;

/// Loads a compiled component, if there is a good one.
pub(super) fn load(engine: &Engine, folder: &Path, module: &str) -> Option<Component> {
    check_folder(folder)?;
    let mut file = File::open(file_name(engine, folder, module)).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || !owned(metadata.uid(), metadata.mode()) {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let (digest, code) = bytes.split_at_checked(DIGEST)?;
    if Sha256::digest(code).as_slice() != digest {
        return None;
    }
    sys::deserialize(engine, code)
}

/// Stores a compiled component. It may fail: then the next load compiles again.
pub(super) fn store(engine: &Engine, folder: &Path, module: &str, component: &Component) {
    let _ = try_store(engine, folder, module, component);
}

fn try_store(
    engine: &Engine,
    folder: &Path,
    module: &str,
    component: &Component,
) -> Result<(), Box<dyn std::error::Error>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    check_folder(folder).ok_or("folder is not ours")?;
    let code = component.serialize()?;
    // A disk that is about to be full is not for what can be made anew.
    let space = nix::sys::statvfs::statvfs(folder)?;
    if space.blocks_available() * space.fragment_size() < SPACE_LEFT + code.len() as u64 {
        return Err("too little space is left".into());
    }
    let file = file_name(engine, folder, module);
    let temporary = file.with_extension(format!("tmp{}", std::process::id()));
    let mut out = OpenOptions::new();
    let mut out = out.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let written = out
        .write_all(&Sha256::digest(&code))
        .and_then(|()| out.write_all(&code))
        .and_then(|()| std::fs::rename(&temporary, &file));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    Ok(written?)
}

fn file_name(engine: &Engine, folder: &Path, module: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    folder.join(format!("{module}-{}.cwasm", hex(&hasher.finish().to_be_bytes())))
}

fn check_folder(folder: &Path) -> Option<()> {
    let metadata = std::fs::symlink_metadata(folder).ok()?;
    (metadata.is_dir() && owned(metadata.uid(), metadata.mode())).then_some(())
}

fn owned(uid: u32, mode: u32) -> bool {
    uid == nix::unistd::geteuid().as_raw() && mode & 0o022 == 0
}

mod sys {
    #![allow(unsafe_code)]

    use super::{Component, Engine};

    pub(super) fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
        // SAFETY: `code` must be what this engine's `serialize` made. The caller read it from a
        // file that only this user can write, below a matching digest; the engine itself checks
        // its version and settings.
        unsafe { Component::deserialize(engine, code) }.ok()
    }
}
