//! Which files of a build and of the source tree go where, package by package.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Error, help_page};

/// A part of an installation that can be left out, but for the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    /// Packages that it is nothing without.
    pub(crate) needs: &'static [&'static str],
    /// Packages of the system that it makes use of.
    pub(crate) recommends: &'static [&'static str],
    files: &'static [File],
}

/// A file, or all files of a folder.
#[derive(Debug, Clone, Copy)]
struct File {
    from: From,
    to: &'static str,
    mode: u32,
}

#[derive(Debug, Clone, Copy)]
enum From {
    /// A built program. Those that a build need not have are left out with a notice.
    Program(&'static str),
    /// A library of the build, for C. The file has the number of its interface at its end; without
    /// the number, and with the first part of it, are links.
    Library(&'static str),
    /// Of the source tree.
    Source(&'static str),
    /// Files below a folder of the source tree.
    Folder(&'static str),
    /// Bundled plugins, by name; nothing is all that no other package has.
    Plugins(&'static [&'static str]),
    /// What `flux completion SHELL` prints.
    Completion(&'static str),
    /// What `flux help` writes.
    ManPages,
    /// Pages made from what `--help` of these programs, and of their commands, prints.
    HelpPages(&'static [&'static str]),
    /// An empty folder.
    Empty,
}

const SCHED_PLUGINS: &[&str] = &["sched-graph", "sched-backfill", "sched-pool"];
const ACCOUNTING_PROGRAMS: &[&str] = &[
    "flux-account",
    "flux-account-update-fshare",
    "flux-account-priority-update",
    "flux-account-shares",
    "flux-account-pop-db",
    "flux-account-export-db",
    "flux-account-update-db",
];
const ACCOUNTING_PLUGINS: &[&str] = &["mf_priority"];

pub(crate) const PACKAGES: &[Package] = &[
    Package {
        name: "flux-core",
        summary: "Flux resource manager: broker, job shell, commands and a FIFO scheduler",
        needs: &["systemd | systemd-standalone-sysusers"],
        recommends: &["libhwloc15", "munge"],
        files: &[
            File { from: From::Program("flux"), to: "usr/bin/flux", mode: 0o755 },
            program("flux-broker", "usr/libexec/flux/flux-broker"),
            program("flux-shell", "usr/libexec/flux/flux-shell"),
            library("libpmi.so", "usr/lib/flux/libpmi.so"),
            library("libpmi2.so", "usr/lib/flux/libpmi2.so"),
            File { from: From::Plugins(&[]), to: "usr/lib/flux/plugins", mode: 0o644 },
            source("etc/flux.service", "usr/lib/systemd/system/flux.service"),
            source("etc/sysusers.d/flux.conf", "usr/lib/sysusers.d/flux.conf"),
            source("etc/tmpfiles.d/flux.conf", "usr/lib/tmpfiles.d/flux.conf"),
            completion("bash", "usr/share/bash-completion/completions/flux"),
            completion("zsh", "usr/share/zsh/site-functions/_flux"),
            completion("fish", "usr/share/fish/vendor_completions.d/flux.fish"),
            folder("docs", "usr/share/doc/flux-core"),
            File { from: From::ManPages, to: "usr/share/man/man1", mode: 0o644 },
            folder("etc/examples/system", "usr/share/doc/flux-core/examples/system"),
            folder("etc/examples/rc1.d", "usr/share/doc/flux-core/examples/rc1.d"),
            folder("etc/examples/rc3.d", "usr/share/doc/flux-core/examples/rc3.d"),
            File { from: From::Empty, to: "etc/flux/system/conf.d", mode: 0o755 },
            File { from: From::Empty, to: "etc/flux/system/cron.d", mode: 0o755 },
            File { from: From::Empty, to: "etc/flux/rc1.d", mode: 0o755 },
            File { from: From::Empty, to: "etc/flux/rc3.d", mode: 0o755 },
        ],
    },
    Package {
        name: "flux-security",
        summary: "Flux resource manager: the program that starts processes as other users",
        needs: &[],
        recommends: &["munge"],
        files: &[
            File { from: From::Program("flux-imp"), to: "usr/libexec/flux/flux-imp", mode: 0o4755 },
            folder("etc/examples/security", "usr/share/doc/flux-security/examples/security"),
            folder("etc/examples/imp", "usr/share/doc/flux-security/examples/imp"),
            File { from: From::Empty, to: "etc/flux/security/conf.d", mode: 0o755 },
            File { from: From::Empty, to: "etc/flux/imp/conf.d", mode: 0o755 },
        ],
    },
    Package {
        name: "flux-sched",
        summary: "Flux resource manager: schedulers beyond the FIFO one",
        needs: &["flux-core"],
        recommends: &[],
        files: &[
            File { from: From::Plugins(SCHED_PLUGINS), to: "usr/lib/flux/plugins", mode: 0o644 },
            source("README.md", "usr/share/doc/flux-sched/README.md"),
        ],
    },
    Package {
        name: "flux-accounting",
        summary: "Flux resource manager: accounting of users and banks, multi-factor priority",
        needs: &["flux-core"],
        recommends: &[],
        files: &[
            File {
                from: From::Plugins(ACCOUNTING_PLUGINS),
                to: "usr/lib/flux/plugins",
                mode: 0o644,
            },
            program("flux-account", "usr/libexec/flux/cmd/flux-account"),
            program(
                "flux-account-update-fshare",
                "usr/libexec/flux/cmd/flux-account-update-fshare",
            ),
            program(
                "flux-account-priority-update",
                "usr/libexec/flux/cmd/flux-account-priority-update",
            ),
            program("flux-account-shares", "usr/libexec/flux/cmd/flux-account-shares"),
            program("flux-account-pop-db", "usr/libexec/flux/cmd/flux-account-pop-db"),
            program("flux-account-export-db", "usr/libexec/flux/cmd/flux-account-export-db"),
            program("flux-account-update-db", "usr/libexec/flux/cmd/flux-account-update-db"),
            File {
                from: From::HelpPages(ACCOUNTING_PROGRAMS),
                to: "usr/share/man/man1",
                mode: 0o644,
            },
            source(
                "etc/examples/system/cron.d/accounting",
                "usr/share/doc/flux-accounting/examples/cron.d/accounting",
            ),
            File {
                from: From::Source("etc/examples/rc1.d/02-account-priority-update"),
                to: "usr/share/doc/flux-accounting/examples/rc1.d/02-account-priority-update",
                mode: 0o755,
            },
        ],
    },
];

const fn program(name: &'static str, to: &'static str) -> File {
    File { from: From::Program(name), to, mode: 0o755 }
}

const fn library(name: &'static str, to: &'static str) -> File {
    File { from: From::Library(name), to, mode: 0o644 }
}

const fn source(from: &'static str, to: &'static str) -> File {
    File { from: From::Source(from), to, mode: 0o644 }
}

const fn folder(from: &'static str, to: &'static str) -> File {
    File { from: From::Folder(from), to, mode: 0o644 }
}

const fn completion(shell: &'static str, to: &'static str) -> File {
    File { from: From::Completion(shell), to, mode: 0o644 }
}

/// Put a package's files below `dest`.
pub(crate) fn install(
    package: &Package,
    tree: &Path,
    programs: &Path,
    dest: &Path,
) -> Result<(), Error> {
    for file in package.files {
        let to = dest.join(file.to);
        match file.from {
            From::Program(name) => {
                let from = programs.join(name);
                if from.is_file() {
                    copy(&from, &to, file.mode)?;
                } else if REQUIRED.contains(&name) {
                    return Err(Error(format!("{} is missing: build it first", from.display())));
                } else {
                    eprintln!("xtask: {} has no {name}, as it was not built", package.name);
                }
            }
            From::Library(name) => copy_library(name, programs, &to, file.mode)?,
            From::Source(from) => copy(&tree.join(from), &to, file.mode)?,
            From::Folder(from) => copy_folder(&tree.join(from), &to)?,
            From::Plugins(names) => copy_plugins(tree, names, &to)?,
            From::Completion(shell) => {
                let script = std::process::Command::new(programs.join("flux"))
                    .args(["completion", shell])
                    .output()
                    .map_err(|e| Error(format!("flux completion: {e}")))?;
                write(&to, &script.stdout, file.mode)?;
            }
            From::ManPages => {
                let status = std::process::Command::new(programs.join("flux"))
                    .args(["help", "--write-man-pages"])
                    .arg(&to)
                    .status()
                    .map_err(|e| Error(format!("flux help: {e}")))?;
                if !status.success() {
                    return Err(Error(format!("flux help could not write to {}", to.display())));
                }
            }
            From::HelpPages(names) => {
                for name in names {
                    let program = programs.join(name);
                    if program.is_file() {
                        let page = help_page::of(&program, name)?;
                        write(&to.join(format!("{name}.1")), page.as_bytes(), file.mode)?;
                    }
                }
            }
            From::Empty => std::fs::create_dir_all(&to).map_err(|e| failed(&to, &e))?,
        }
    }
    Ok(())
}

/// Programs without which there is nothing to install.
const REQUIRED: [&str; 3] = ["flux", "flux-broker", "flux-shell"];

/// A library with its links. Cargo puts it below `deps` whatever it is told to build, and beside the
/// programs only when it builds all.
fn copy_library(name: &str, programs: &Path, to: &Path, mode: u32) -> Result<(), Error> {
    let places = [programs.join("deps").join(name), programs.join(name)];
    let Some(from) = places.iter().find(|path| path.is_file()) else {
        let [_, from] = &places;
        return Err(Error(format!("{} is missing: build it first", from.display())));
    };
    let numbered = |number: &str| PathBuf::from(format!("{}{number}", to.display()));
    copy(from, &numbered(".0.0.0"), mode)?;
    for link in [numbered(".0"), to.to_owned()] {
        // Of an earlier installation in the same place.
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("{name}.0.0.0"), &link)
            .map_err(|e| failed(&link, &e))?;
    }
    Ok(())
}

/// The bundled plugins with these names, or those that no other package has.
fn copy_plugins(tree: &Path, names: &[&str], to: &Path) -> Result<(), Error> {
    let dist = tree.join("plugins-wasm/dist");
    std::fs::create_dir_all(to).map_err(|e| failed(to, &e))?;
    for path in files(&dist)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(stem) = name.strip_suffix(".wasm") else { continue };
        let elsewhere = SCHED_PLUGINS.contains(&stem) || ACCOUNTING_PLUGINS.contains(&stem);
        let wanted = if names.is_empty() { !elsewhere } else { names.contains(&stem) };
        if wanted {
            copy(&path, &to.join(name), 0o644)?;
        }
    }
    Ok(())
}

/// All files below a folder; what may be executed there may be executed here.
fn copy_folder(from: &Path, to: &Path) -> Result<(), Error> {
    if !from.is_dir() {
        return Ok(());
    }
    for path in files(from)? {
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy_folder(&path, &to.join(name))?;
        } else {
            let executable = path.metadata().is_ok_and(|m| m.permissions().mode() & 0o100 != 0);
            copy(&path, &to.join(name), if executable { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(dir).map_err(|e| failed(dir, &e))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), Error> {
    let bytes = std::fs::read(from).map_err(|e| failed(from, &e))?;
    write(to, &bytes, mode)
}

pub(crate) fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    if let Some(dir) = to.parent() {
        std::fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
    }
    std::fs::write(to, bytes).map_err(|e| failed(to, &e))?;
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(to, mode).map_err(|e| failed(to, &e))
}

pub(crate) fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(programs: &Path) {
        for name in ["flux", "flux-broker", "flux-shell", "flux-imp"] {
            write(&programs.join(name), b"#!/bin/sh\necho script\n", 0o755).unwrap();
        }
        for name in ["deps/libpmi.so", "libpmi2.so"] {
            write(&programs.join(name), b"library", 0o755).unwrap();
        }
    }

    fn installed(only: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let (programs, dest) = (dir.path().join("bin"), dir.path().join("dest"));
        built(&programs);
        for package in PACKAGES.iter().filter(|package| only.contains(&package.name)) {
            install(package, &crate::source(), &programs, &dest).unwrap();
        }
        dir
    }

    #[test]
    fn core_is_an_installation_by_itself() {
        let dir = installed(&["flux-core"]);
        let dest = dir.path().join("dest");
        for file in [
            "usr/bin/flux",
            "usr/libexec/flux/flux-broker",
            "usr/libexec/flux/flux-shell",
            "usr/lib/flux/libpmi.so",
            "usr/lib/flux/libpmi.so.0",
            "usr/lib/flux/libpmi2.so.0.0.0",
            "usr/lib/flux/plugins/sched-fifo.wasm",
            "usr/lib/systemd/system/flux.service",
            "usr/share/bash-completion/completions/flux",
            "usr/share/doc/flux-core/examples/system/conf.d/system.toml",
        ] {
            assert!(dest.join(file).is_file(), "{file}");
        }
        assert!(dest.join("etc/flux/system/conf.d").is_dir());
        assert!(!dest.join("usr/libexec/flux/flux-imp").exists());
    }

    #[test]
    fn the_imp_gets_roots_rights() {
        let dir = installed(&["flux-security"]);
        let imp = dir.path().join("dest/usr/libexec/flux/flux-imp");
        assert_eq!(imp.metadata().unwrap().permissions().mode() & 0o7777, 0o4755);
    }

    #[test]
    fn accounting_has_its_commands_where_flux_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let (programs, dest) = (dir.path().join("bin"), dir.path().join("dest"));
        let commands = crate::source().join("accounting/src/bin");
        let mut names: Vec<String> = files(&commands)
            .unwrap()
            .iter()
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.push("flux-account".to_owned());
        for name in &names {
            let script = b"#!/bin/sh\necho \"What $1 $2 does\"\n";
            write(&programs.join(name), script, 0o755).unwrap();
        }
        let package = PACKAGES.iter().find(|package| package.name == "flux-accounting").unwrap();
        install(package, &crate::source(), &programs, &dest).unwrap();
        for name in names {
            assert!(dest.join("usr/libexec/flux/cmd").join(&name).is_file(), "{name}");
            let page = dest.join("usr/share/man/man1").join(format!("{name}.1"));
            let page = std::fs::read_to_string(page).unwrap();
            assert!(page.contains(&format!("{} \\- What", name.replace('-', "\\-"))), "{page}");
        }
        let script = "usr/share/doc/flux-accounting/examples/rc1.d/02-account-priority-update";
        let mode = dest.join(script).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "rc1 runs what can be executed");
        assert!(dest.join("usr/lib/flux/plugins/mf_priority.wasm").is_file());
    }

    #[test]
    fn no_two_packages_have_the_same_file() {
        let mut seen = std::collections::BTreeSet::new();
        for package in PACKAGES {
            for file in package.files {
                let several = matches!(file.from, From::Plugins(_) | From::HelpPages(_));
                assert!(several || seen.insert(file.to), "{} of {}", file.to, package.name);
            }
        }
    }

    #[test]
    fn a_build_without_a_broker_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let core = PACKAGES.first().unwrap();
        let error = install(core, &crate::source(), dir.path(), dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("is missing: build it first"), "{error}");
    }

    #[test]
    fn the_unit_is_one_that_systemd_takes() {
        let unit = crate::source().join("etc/flux.service");
        let text = std::fs::read_to_string(&unit).unwrap();
        for line in [
            "--config-path=/etc/flux/system/conf.d",
            "-Stbon.fanout=256",
            "flux config reload",
            "RestartPreventExitStatus=42",
            "SyslogIdentifier=flux",
            "WantedBy=multi-user.target",
        ] {
            assert!(text.contains(line), "{line}");
        }
        let verify =
            std::process::Command::new("systemd-analyze").arg("verify").arg(&unit).output();
        let Ok(verify) = verify else {
            eprintln!("systemd-analyze is not installed: skipped");
            return;
        };
        let said = String::from_utf8_lossy(&verify.stderr);
        // Without a running systemd it can complain of others' units, but not of ours.
        assert!(!said.contains("flux.service:"), "{said}");
    }
}
