//! `cargo xtask`: what has to be done with a build.
//!
//! ```text
//! cargo xtask dist DESTDIR [--bin DIR]     an installable tree, with /usr and /etc below DESTDIR
//! cargo xtask deb OUTDIR [--bin DIR]       flux-core, flux-security, flux-sched, flux-accounting
//! cargo xtask seal MODULE...               plugins without WASI imports, in the place of those with
//! ```
//!
//! `--bin` is where the built programs are, by default `target/release`. Nothing is built here, so
//! that packaging tools can run cargo in their own way first.

mod deb;
mod help_page;
mod layout;
mod seal;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why there is no tree or package.
#[derive(Debug)]
pub(crate) struct Error(pub(crate) String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> Result<(), Error> {
    let source = source();
    let usage = || {
        Error("usage: cargo xtask dist DESTDIR|deb OUTDIR [--bin DIR]|seal MODULE...".to_owned())
    };
    let (mut words, mut programs) = (Vec::new(), source.join("target/release"));
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bin" => programs = args.next().map(PathBuf::from).ok_or_else(usage)?,
            _ => words.push(arg),
        }
    }
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["dist", dir] => {
            for package in layout::PACKAGES {
                layout::install(package, &source, &programs, Path::new(dir))?;
            }
            Ok(())
        }
        ["deb", dir] => layout::PACKAGES
            .iter()
            .try_for_each(|package| deb::build(package, &source, &programs, Path::new(dir))),
        ["seal", modules @ ..] if !modules.is_empty() => modules.iter().try_for_each(|path| {
            let failed = |error: &dyn std::fmt::Display| Error(format!("{path}: {error}"));
            let module = std::fs::read(path).map_err(|error| failed(&error))?;
            let sealed = seal::seal(&module).map_err(|error| failed(&error))?;
            std::fs::write(path, sealed).map_err(|error| failed(&error))
        }),
        _ => Err(usage()),
    }
}

/// The source tree that this program was built from.
fn source() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
