//! Debian packages, by dpkg-deb(1).

use std::path::Path;
use std::process::Command;

use crate::Error;
use crate::layout::{PACKAGES, Package, failed, install, write};

/// Scripts of flux-core: what to do on the machine once the files are there, before they go, and
/// once they are gone. An upgrade leaves a broker that runs alone, since its jobs run with it; the
/// administrator shuts the instance down when he likes. State and configuration stay.
const CORE_SCRIPTS: [(&str, &str); 3] = [
    (
        "postinst",
        "#!/bin/sh
set -e
if command -v systemd-sysusers >/dev/null; then systemd-sysusers flux.conf || true; fi
if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles --create flux.conf || true; fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
",
    ),
    (
        "prerm",
        "#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
  systemctl --no-reload disable --now flux.service || true
fi
",
    ),
    (
        "postrm",
        "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
",
    ),
];

/// Build `OUT/NAME_VERSION_ARCH.deb`.
pub(crate) fn build(
    package: &Package,
    tree: &Path,
    programs: &Path,
    out: &Path,
) -> Result<(), Error> {
    let stage = out.join(format!(".{}", package.name));
    if stage.exists() {
        std::fs::remove_dir_all(&stage).map_err(|e| failed(&stage, &e))?;
    }
    install(package, tree, programs, &stage)?;
    let arch = architecture()?;
    let version = env!("CARGO_PKG_VERSION");
    // An IMP that was built with the feature `pam` does not start without it.
    let imp = stage.join("usr/libexec/flux/flux-imp");
    let libraries: &[&str] = if links(&imp, b"libpam.so.0") { &["libpam0g"] } else { &[] };
    let control = control(package, version, &arch, libraries);
    write(&stage.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    if package.name == "flux-core" {
        for (name, script) in CORE_SCRIPTS {
            write(&stage.join("DEBIAN").join(name), script.as_bytes(), 0o755)?;
        }
    }
    let file = out.join(format!("{}_{version}_{arch}.deb", package.name));
    let status = Command::new("dpkg-deb")
        .args(["--build", "--root-owner-group", "-Zxz", "-z1"])
        .arg(&stage)
        .arg(&file)
        .status()
        .map_err(|e| Error(format!("dpkg-deb: {e}")))?;
    std::fs::remove_dir_all(&stage).map_err(|e| failed(&stage, &e))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error(format!("dpkg-deb failed for {}", package.name))),
    }
}

/// Does this program, if it is there, name that library?
fn links(program: &Path, library: &[u8]) -> bool {
    let bytes = std::fs::read(program).unwrap_or_default();
    bytes.windows(library.len()).any(|window| window == library)
}

fn control(package: &Package, version: &str, arch: &str, libraries: &[&str]) -> String {
    let of_ours = |name: &str| PACKAGES.iter().any(|package| package.name == name);
    let with_version = |name: &&str| match of_ours(name) {
        true => format!("{name} (= {version})"),
        false => (*name).to_owned(),
    };
    let mut needs: Vec<String> = package.needs.iter().map(with_version).collect();
    needs.push("libc6".to_owned());
    needs.extend(libraries.iter().map(|library| (*library).to_owned()));
    let recommends = match package.recommends {
        [] => String::new(),
        names => format!("Recommends: {}\n", names.join(", ")),
    };
    format!(
        "Package: {}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: flux-wasm developers \
         <maintainers@localhost>\nSection: admin\nPriority: optional\nDepends: {}\n{recommends}\
         Description: {}\n",
        package.name,
        needs.join(", "),
        package.summary
    )
}

fn architecture() -> Result<String, Error> {
    let output = Command::new("dpkg").arg("--print-architecture").output();
    let output = output.map_err(|e| Error(format!("dpkg: {e}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_packages_depend_on_the_core_of_the_same_version() {
        let sched = PACKAGES.iter().find(|package| package.name == "flux-sched").unwrap();
        let control = control(sched, "1.2.3", "amd64", &[]);
        assert!(control.contains("\nDepends: flux-core (= 1.2.3), libc6\n"), "{control}");
        assert!(control.ends_with('\n') && !control.contains("\n\n"), "{control}");
    }

    /// Stand-ins for programs: what is asked of `flux` is to print completions and manual pages.
    fn stubs(programs: &Path) {
        let flux =
            "#!/bin/sh\n[ \"$1\" = help ] || exit 0\nmkdir -p \"$3\" && echo . >\"$3/flux.1\"\n";
        write(&programs.join("flux"), flux.as_bytes(), 0o755).unwrap();
        for name in ["flux-broker", "flux-shell", "flux-imp", "flux-account"] {
            write(&programs.join(name), b"#!/bin/sh\necho stub\n", 0o755).unwrap();
        }
        for name in ["libpmi.so", "libpmi2.so"] {
            write(&programs.join(name), b"library", 0o644).unwrap();
        }
    }

    #[test]
    fn packages_are_what_dpkg_can_read_and_only_the_imp_has_roots_rights() {
        if Command::new("dpkg-deb").arg("--version").output().is_err() {
            eprintln!("dpkg-deb is not installed: skipped");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let programs = dir.path().join("bin");
        stubs(&programs);
        let (mut files, mut privileged) = (Vec::new(), Vec::new());
        for package in PACKAGES {
            build(package, &crate::source(), &programs, dir.path()).unwrap();
            let file = format!("{}_{}_", package.name, env!("CARGO_PKG_VERSION"));
            let file = format!("{file}{}.deb", architecture().unwrap());
            let mut list = Command::new("dpkg-deb");
            let listed = list.arg("--contents").arg(dir.path().join(file)).output().unwrap();
            for line in String::from_utf8_lossy(&listed.stdout).lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (mode, owner, path) = (words[0], words[1], words[5]);
                assert_eq!(owner, "root/root", "{line}");
                if mode.starts_with('l') {
                    files.push(path.to_owned());
                    continue;
                }
                assert_eq!((&mode[5..6], &mode[8..9]), ("-", "-"), "others can write: {line}");
                if mode.starts_with('d') {
                    continue;
                }
                if mode.contains(['s', 'S', 't', 'T']) {
                    privileged.push(format!("{mode} {path}"));
                }
                // What is there is the administrator's: an upgrade has nothing to ask about.
                assert!(path.starts_with("./usr/"), "{line}");
                files.push(path.to_owned());
            }
        }
        assert_eq!(privileged, ["-rwsr-xr-x ./usr/libexec/flux/flux-imp"]);
        let count = files.len();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), count, "two packages have the same file");
    }

    #[test]
    fn scripts_are_ones_that_the_shell_takes() {
        let dir = tempfile::tempdir().unwrap();
        for (name, script) in CORE_SCRIPTS {
            let path = dir.path().join(name);
            write(&path, script.as_bytes(), 0o755).unwrap();
            let output = Command::new("sh").arg("-n").arg(&path).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        }
    }
}
