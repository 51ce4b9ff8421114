//! The environment that commands and the programs they start see.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use flux_protocol::layout::Layout;

/// A copy of the process environment, with Flux's own paths in it.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    all: BTreeMap<String, String>,
    /// Variables that `flux env` prints: those that Flux has a say in.
    ours: Vec<&'static str>,
}

impl Environment {
    /// `invoked` is `argv[0]`: called by its plain name, `flux` is in `PATH` already.
    pub(crate) fn new(invoked: &str, program: &Path, layout: &Layout) -> Environment {
        let all = std::env::vars_os()
            .filter_map(|(name, value)| Some((utf8(name)?, utf8(value)?)))
            .collect();
        let mut this = Environment { all, ours: Vec::new() };
        if invoked != "flux"
            && let Some(dir) = program.parent()
        {
            this.ours.push("PATH");
            let path = this.get("PATH").unwrap_or("/bin:/usr/bin").to_owned();
            this.set("PATH", &path_with_self(&path, dir));
        }
        this.prepend("MANPATH", &layout.man_path().to_string_lossy());
        if this.get("MANPATH").is_some_and(|path| !path.contains(':')) {
            // An empty element stands for the system's manual pages.
            let path = format!("{}:", this.get("MANPATH").unwrap_or_default());
            this.set("MANPATH", &path);
        }
        for (name, path) in
            [("FLUX_EXEC_PATH", layout.exec_path()), ("FLUX_MODULE_PATH", layout.plugindir())]
        {
            this.prepend(name, &path.to_string_lossy());
            if let Some(first) = this.get(&format!("{name}_PREPEND")).map(str::to_owned) {
                this.prepend(name, &first);
            }
        }
        for name in ["FLUX_RC_EXTRA", "FLUX_SHELL_RC_PATH"] {
            this.take_search_path(name);
        }
        if this.get("FLUX_URI").is_some() {
            this.ours.push("FLUX_URI");
        }
        this
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str)
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.all.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.all.remove(name);
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, String> {
        &self.all
    }

    /// The variables that Flux has a say in.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ours.iter().filter_map(|name| Some((*name, self.get(name)?)))
    }

    /// Folders in which `flux-COMMAND` programs are looked for.
    pub(crate) fn search_path(&self) -> Vec<PathBuf> {
        [self.get("FLUX_EXEC_PATH"), self.get("PATH")]
            .into_iter()
            .flatten()
            .flat_map(|path| path.split(':'))
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
            .collect()
    }

    /// A search path of the user's, without the folders that it names a second time.
    fn take_search_path(&mut self, name: &'static str) {
        let Some(path) = self.get(name) else { return };
        let mut dirs: Vec<&str> = Vec::new();
        for dir in path.split(':').filter(|dir| !dir.is_empty()) {
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        let path = dirs.join(":");
        self.set(name, &path);
        self.ours.push(name);
    }

    /// Put `first` in front of a search path, once.
    fn prepend(&mut self, name: &'static str, first: &str) {
        let old = self.get(name).unwrap_or_default();
        let mut dirs = vec![first];
        // An empty element at the end has a meaning in MANPATH.
        dirs.extend(old.split(':').filter(|dir| *dir != first));
        if old.is_empty() {
            dirs.truncate(1);
        }
        let new = dirs.join(":");
        self.set(name, &new);
        if !self.ours.contains(&name) {
            self.ours.push(name);
        }
    }
}

/// `path` with `dir` before any other folder that has a `flux`, so that this one is found.
fn path_with_self(path: &str, dir: &Path) -> String {
    let mut dirs: Vec<PathBuf> = path.split(':').map(PathBuf::from).collect();
    for (at, entry) in dirs.iter().enumerate() {
        let Ok(real) = entry.canonicalize() else { continue };
        if real == dir {
            return path.to_owned();
        }
        if real.join("flux").is_file() {
            dirs.insert(at, dir.to_owned());
            return join(&dirs);
        }
    }
    dirs.push(dir.to_owned());
    join(&dirs)
}

fn join(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.to_string_lossy()).collect::<Vec<_>>().join(":")
}

fn utf8(text: OsString) -> Option<String> {
    text.into_string().ok()
}
