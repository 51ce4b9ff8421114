//! Where the parts of an installation are, as seen from one of its programs.
//!
//! `flux config builtin KEY` prints these paths, and `broker.conf-builtin` serves them.

use std::path::{Path, PathBuf};

/// Socket folder of the system instance.
pub const RUNDIR: &str = "/run/flux";

/// An installation below a prefix, or a build tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Installed {
        prefix: PathBuf,
    },
    /// All programs are in one folder, `etc` and the plugins in the source tree.
    Built {
        programs: PathBuf,
        source: PathBuf,
    },
}

impl Layout {
    /// From the absolute path of a program: `PREFIX/bin/flux`, `PREFIX/libexec/flux/flux-broker`,
    /// or `SOURCE/target/debug/flux`.
    pub fn from_program(program: &Path) -> Layout {
        let dir = program.parent().unwrap_or(Path::new("/"));
        let prefix = if dir.ends_with("bin") || dir.ends_with("sbin") {
            dir.parent()
        } else if dir.ends_with("libexec/flux") {
            dir.ancestors().nth(2)
        } else {
            None
        };
        let place = match prefix {
            Some(prefix) => Place::Installed { prefix: prefix.to_owned() },
            None => {
                let target = dir.ancestors().find(|dir| dir.ends_with("target"));
                let source = target.and_then(Path::parent).unwrap_or(dir);
                Place::Built { programs: dir.to_owned(), source: source.to_owned() }
            }
        };
        Layout { place }
    }

    pub fn is_installed(&self) -> bool {
        matches!(self.place, Place::Installed { .. })
    }

    /// Configuration: `/etc/flux` where the prefix is `/usr`. Programs of a build look there too, as
    /// signing and the IMP can look nowhere else.
    pub fn confdir(&self) -> PathBuf {
        match &self.place {
            Place::Installed { prefix } if prefix != Path::new("/usr") => prefix.join("etc/flux"),
            Place::Installed { .. } | Place::Built { .. } => "/etc/flux".into(),
        }
    }

    pub fn bindir(&self) -> PathBuf {
        match &self.place {
            Place::Installed { prefix } => prefix.join("bin"),
            Place::Built { programs, .. } => programs.clone(),
        }
    }

    /// Programs that users do not call themselves.
    pub fn libexecdir(&self) -> PathBuf {
        match &self.place {
            Place::Installed { prefix } => prefix.join("libexec/flux"),
            Place::Built { programs, .. } => programs.clone(),
        }
    }

    pub fn libdir(&self) -> PathBuf {
        match &self.place {
            Place::Installed { prefix } => prefix.join("lib/flux"),
            Place::Built { programs, .. } => programs.clone(),
        }
    }

    /// The PMI-1 library for C; the PMI-2 one is beside it.
    pub fn pmi_library(&self) -> PathBuf {
        let dir = match &self.place {
            Place::Installed { .. } => self.libdir(),
            // There whatever is built; beside the programs only after `cargo build` of all.
            Place::Built { programs, .. } => programs.join("deps"),
        };
        dir.join("libpmi.so")
    }

    pub fn datadir(&self) -> PathBuf {
        match &self.place {
            Place::Installed { prefix } => prefix.join("share/flux"),
            Place::Built { source, .. } => source.join("etc"),
        }
    }

    pub fn man_path(&self) -> PathBuf {
        match &self.place {
            Place::Installed { prefix } => prefix.join("share/man"),
            Place::Built { source, .. } => source.join("docs/man"),
        }
    }

    /// Plugins: `.wasm` files.
    pub fn plugindir(&self) -> PathBuf {
        match &self.place {
            Place::Installed { .. } => self.libdir().join("plugins"),
            Place::Built { source, .. } => source.join("plugins-wasm/dist"),
        }
    }

    /// Where `flux-COMMAND` programs are looked for before `PATH`.
    pub fn exec_path(&self) -> PathBuf {
        self.libexecdir().join("cmd")
    }

    /// The value of a key of `flux config builtin`.
    pub fn builtin(&self, key: &str) -> Option<String> {
        let path = match key {
            "confdir" => self.confdir(),
            "libexecdir" => self.libexecdir(),
            "datadir" => self.datadir(),
            "bindir" => self.bindir(),
            "libdir" => self.libdir(),
            "man_path" => self.man_path(),
            "exec_path" => self.exec_path(),
            "broker_path" => self.libexecdir().join("flux-broker"),
            "shell_path" => self.libexecdir().join("flux-shell"),
            "imp_path" => self.libexecdir().join("flux-imp"),
            "pmi_library_path" => self.pmi_library(),
            "shell_initrc" => self.confdir().join("shell/initrc.lua"),
            "module_path" | "jobtap_pluginpath" | "shell_pluginpath" => self.plugindir(),
            "rundir" => PathBuf::from(RUNDIR),
            "rc1_path" => return Some("flux modprobe rc1".to_owned()),
            "rc3_path" => return Some("flux modprobe rc3".to_owned()),
            _ => return None,
        };
        Some(path.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_one_installation_agree() {
        let flux = Layout::from_program(Path::new("/opt/flux/bin/flux"));
        let broker = Layout::from_program(Path::new("/opt/flux/libexec/flux/flux-broker"));
        assert_eq!(flux, broker);
        assert_eq!(
            flux.builtin("shell_path").as_deref(),
            Some("/opt/flux/libexec/flux/flux-shell")
        );
        assert_eq!(flux.pmi_library(), Path::new("/opt/flux/lib/flux/libpmi.so"));
        assert_eq!(flux.confdir(), Path::new("/opt/flux/etc/flux"));
        assert_eq!(
            Layout::from_program(Path::new("/usr/bin/flux")).confdir(),
            Path::new("/etc/flux")
        );
    }

    #[test]
    fn build_tree_has_its_programs_side_by_side() {
        let flux = Layout::from_program(Path::new("/src/flux/target/debug/flux"));
        assert_eq!(
            flux.builtin("broker_path").as_deref(),
            Some("/src/flux/target/debug/flux-broker")
        );
        assert_eq!(flux.confdir(), Path::new("/etc/flux"));
        assert_eq!(flux.datadir(), Path::new("/src/flux/etc"));
        assert_eq!(flux.builtin("nonsense"), None);
    }
}
