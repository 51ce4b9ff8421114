//! Who called, and what was inherited from there: taken down, then dropped.

use std::ffi::{OsStr, OsString};

use crate::sys;

/// Everything that the caller decides; nothing of it is to be believed.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Real ids: the kernel's word.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its process, unless it is gone already.
    pub(crate) parent: i32,
    effective: u32,
    /// Do the effective ids say more than root's user id can?
    odd: bool,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Caller {
    /// Before anything else: descriptors are closed but for the standard ones (which the Rust
    /// runtime has opened where they were closed), the environment is emptied, signals have their
    /// default effect, files are made without write access for others.
    pub(crate) fn take() -> Caller {
        let (uids, gids) = (sys::uids(), sys::gids());
        let caller = Caller {
            uid: uids.real,
            gid: gids.real,
            parent: sys::parent(),
            effective: uids.effective,
            odd: (uids.effective != 0 && uids.effective != uids.real)
                || gids.effective != gids.real,
            args: std::env::args_os().collect(),
            environment: std::env::vars_os().collect(),
        };
        sys::drop_inherited();
        caller
    }

    /// Is this process root, by its setuid bit?
    pub(crate) fn is_privileged(&self) -> bool {
        self.effective == 0
    }

    /// Is it setuid to somebody else, or setgid? Then whoever installed it did not mean this.
    pub(crate) fn is_odd(&self) -> bool {
        self.odd
    }

    /// Who may have written the configuration besides root: without privilege there is none to
    /// gain by writing it.
    pub(crate) fn trusted(&self) -> u32 {
        self.effective
    }

    pub(crate) fn arg(&self, index: usize) -> Option<&OsStr> {
        self.args.get(index).map(OsString::as_os_str)
    }

    pub(crate) fn args_from(&self, index: usize) -> &[OsString] {
        self.args.get(index..).unwrap_or_default()
    }

    /// Those variables whose name is one; others can't be passed on.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.environment.iter().filter_map(|(name, value)| {
            let name = name.to_str().filter(|name| crate::environment::is_name(name))?;
            Some((name, value.as_os_str()))
        })
    }
}
