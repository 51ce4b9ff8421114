//! Debian packages, by dpkg-deb(1).

use std::path::Path;
use std::process::Command;

use crate::Error;
use crate::layout::{Package, failed, install, write};

/// What to do on the machine once the files are there.
const CORE_POSTINST: &str = "#!/bin/sh
set -e
if command -v systemd-sysusers >/dev/null; then systemd-sysusers flux.conf || true; fi
if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles --create flux.conf || true; fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
";

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
    write(&stage.join("DEBIAN/control"), control(package, version, &arch).as_bytes(), 0o644)?;
    if package.name == "flux-core" {
        write(&stage.join("DEBIAN/postinst"), CORE_POSTINST.as_bytes(), 0o755)?;
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

fn control(package: &Package, version: &str, arch: &str) -> String {
    let mut needs: Vec<String> =
        package.needs.iter().map(|name| format!("{name} (= {version})")).collect();
    needs.push("libc6".to_owned());
    format!(
        "Package: {}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: flux-wasm developers \
         <maintainers@localhost>\nSection: admin\nPriority: optional\nDepends: {}\nRecommends: \
         munge, libhwloc15\nDescription: {}\n",
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
    use crate::layout::PACKAGES;

    #[test]
    fn optional_packages_depend_on_the_core_of_the_same_version() {
        let sched = PACKAGES.iter().find(|package| package.name == "flux-sched").unwrap();
        let control = control(sched, "1.2.3", "amd64");
        assert!(control.contains("\nDepends: flux-core (= 1.2.3), libc6\n"), "{control}");
        assert!(control.ends_with('\n') && !control.contains("\n\n"), "{control}");
    }

    #[test]
    fn a_package_is_what_dpkg_can_read() {
        if Command::new("dpkg-deb").arg("--version").output().is_err() {
            eprintln!("dpkg-deb is not installed: skipped");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let programs = dir.path().join("bin");
        write(&programs.join("flux-imp"), b"program", 0o755).unwrap();
        let package = PACKAGES.iter().find(|package| package.name == "flux-security").unwrap();
        build(package, &crate::source(), &programs, dir.path()).unwrap();
        let file = std::fs::read_dir(dir.path())
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|e| e == "deb"))
            .unwrap();
        let listed = Command::new("dpkg-deb").arg("--contents").arg(file).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("-rwsr-xr-x root/root") && listed.contains("flux-imp"), "{listed}");
    }
}
