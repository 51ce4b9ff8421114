//! The IMP's own configuration.
//!
//! ```toml
//! [exec]
//! allowed-users = [ "flux" ]
//! allowed-shells = [ "/usr/libexec/flux/flux-shell" ]
//!
//! [run.prolog]
//! allowed-users = [ "flux" ]
//! path = "/etc/flux/system/prolog"
//! ```
//!
//! What is not there grants nothing.

use std::path::{Path, PathBuf};

use flux_sign::secure;
use flux_sign::toml::{self, Table, Value};

use crate::caller::Caller;
use crate::fatal::{Fatal, warn};
use crate::sys;

/// Where it is, whoever calls: neither the environment nor an argument moves it.
const CONF_DIR: &str = "/etc/flux/imp/conf.d";

#[derive(Debug, Default)]
pub(crate) struct Conf {
    root: Table,
}

/// A `[run.NAME]` table.
#[derive(Debug)]
pub(crate) struct RunConf<'a> {
    table: &'a Table,
    pub(crate) path: PathBuf,
}

impl Conf {
    pub(crate) fn load(caller: &Caller) -> Result<Conf, Fatal> {
        Conf::load_from(Path::new(CONF_DIR), caller.trusted()).map_err(|text| {
            warn(format!("loading config: {text}"));
            Fatal::new("Failed to load configuration")
        })
    }

    fn load_from(dir: &Path, trusted: u32) -> Result<Conf, String> {
        let files = secure::read_toml_dir(dir, trusted).map_err(|insecure| insecure.to_string())?;
        if files.is_empty() {
            return Err(format!("{}/*.toml: No config file(s) found", dir.display()));
        }
        let mut root = Table::new();
        for (path, text) in files {
            toml::parse_into(&mut root, &text)
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(Conf { root })
    }

    fn exec(&self, key: &str) -> Option<&Value> {
        self.root.get("exec")?.as_table()?.get(key)
    }

    /// May this user run job shells, and signal them?
    pub(crate) fn may_exec(&self, name: &str) -> bool {
        contains(self.exec("allowed-users"), name)
    }

    pub(crate) fn is_shell(&self, path: &str) -> bool {
        path.starts_with('/') && contains(self.exec("allowed-shells"), path)
    }

    /// For tests: without the setuid bit, the shell runs as the caller.
    pub(crate) fn may_exec_unprivileged(&self) -> bool {
        self.exec("allow-unprivileged-exec") == Some(&Value::Bool(true))
    }

    pub(crate) fn wants_pam(&self) -> bool {
        self.exec("pam-support") == Some(&Value::Bool(true))
    }

    /// The command of that name, if its path is fit to be run as root.
    pub(crate) fn run(&self, name: &str, trusted: u32) -> Result<RunConf<'_>, Fatal> {
        let tables = self.root.get("run").and_then(Value::as_table);
        let table = tables.and_then(|run| run.get(name)).and_then(Value::as_table);
        let table =
            table.ok_or_else(|| Fatal::new(format!("run: {name}: no configuration found")))?;
        let path = table.get("path").and_then(Value::as_str).filter(|path| path.starts_with('/'));
        let path =
            path.ok_or_else(|| Fatal::new(format!("run: {name}: path is missing or invalid")))?;
        let path = PathBuf::from(path);
        secure::check(&path, trusted).map_err(|insecure| Fatal::new(format!("run: {insecure}")))?;
        Ok(RunConf { table, path })
    }

    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Conf {
        Conf { root: toml::parse(text).unwrap() }
    }
}

impl RunConf<'_> {
    pub(crate) fn may_run(&self, name: &str) -> bool {
        contains(self.table.get("allowed-users"), name)
    }

    /// Patterns of names of variables.
    pub(crate) fn allowed_environment(&self) -> Vec<&str> {
        self.table.get("allowed-environment").and_then(toml::strings).unwrap_or_default()
    }
}

fn contains(array: Option<&Value>, wanted: &str) -> bool {
    array.and_then(toml::strings).is_some_and(|strings| strings.contains(&wanted))
}

/// The name of the caller, which the lists of allowed users have.
pub(crate) fn caller_name(caller: &Caller) -> Result<String, Fatal> {
    sys::user(caller.uid).map(|user| user.name).ok_or_else(|| Fatal::new("Unable to lookup user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_configured_is_not_granted() {
        let conf = Conf::default();
        assert!(!conf.may_exec("flux") && !conf.is_shell("/bin/sh"));
        assert!(!conf.may_exec_unprivileged());
        let error = conf.run("prolog", 0).unwrap_err();
        assert_eq!(error.text(), "run: prolog: no configuration found");
    }

    #[test]
    fn values_of_another_type_grant_nothing() {
        let conf = Conf::from_text(
            "[exec]\nallowed-users = \"flux\"\nallowed-shells = [\"/bin/sh\", 1]\n\
             allow-unprivileged-exec = \"true\"\n[run]\nprolog = \"/bin/true\"\n",
        );
        assert!(!conf.may_exec("flux") && !conf.is_shell("/bin/sh"));
        assert!(!conf.may_exec_unprivileged());
        assert!(conf.run("prolog", 0).is_err());
    }

    #[test]
    fn a_shell_is_named_in_full() {
        let conf = Conf::from_text("[exec]\nallowed-shells = [\"/bin/sh\", \"sh\"]\n");
        assert!(conf.is_shell("/bin/sh"));
        for other in ["sh", "/bin/../bin/sh", "//bin/sh", "/bin/sh ", "/bin/s", ""] {
            assert!(!conf.is_shell(other), "{other}");
        }
    }

    #[test]
    fn a_path_to_run_is_absolute() {
        let path = |path: &str| Conf::from_text(&format!("[run.p]\npath = \"{path}\"\n"));
        for bad in ["rel.sh", "", "./x"] {
            let error = path(bad).run("p", 0).unwrap_err();
            assert_eq!(error.text(), "run: p: path is missing or invalid");
        }
        let error = path("/nonexistent/x").run("p", 0).unwrap_err();
        assert_eq!(error.text(), "run: /nonexistent/x: No such file or directory");
    }
}
