//! `flux-imp whoami` and `flux-imp version`.

use std::io::Write;

use crate::caller::Caller;
use crate::conf::Conf;
use crate::fatal::Fatal;
use crate::message::Message;
use crate::privsep::{Child, Parent};
use crate::sys;

pub(crate) fn version() -> Result<i32, Fatal> {
    print(&format!("flux-imp {}\n", env!("CARGO_PKG_VERSION")))
}

pub(crate) fn unprivileged(_: &Caller, _: &Conf, parent: Option<Parent>) -> Result<i32, Fatal> {
    print(&ids("unprivileged"))?;
    match parent {
        Some(parent) => parent.send(&Message::new("whoami")),
        None => Ok(0),
    }
}

pub(crate) fn privileged(_: &Caller, _: &Conf, _: Message, child: Child) -> Result<i32, Fatal> {
    child.wait()?;
    print(&ids("privileged"))
}

fn ids(half: &str) -> String {
    let (u, g) = (sys::uids(), sys::gids());
    format!(
        "flux-imp: {half}: uid={} euid={} gid={} egid={}\n",
        u.real, u.effective, g.real, g.effective
    )
}

fn print(text: &str) -> Result<i32, Fatal> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(0),
        Err(_) => Err(Fatal::new("standard output is closed")),
    }
}
