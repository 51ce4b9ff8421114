//! Errnos of bundled plugins of job-ingest, as users of flux-core know them.

use super::handle::Plugin;
use flux_protocol::errno::Errno;

/// What flux-core's own plugins refuse for a jobspec that is wrong in itself is answered with
/// EPERM there; users know it as `[Errno 1]`.
pub fn as_known(plugin: &Plugin, errnum: u32) -> u32 {
    let about_jobspec = ["jobspec", "constraints", "defaults", "schema"].contains(&plugin.name());
    match errnum == Errno::EINVAL.0 && about_jobspec && plugin.facts().bundled {
        true => Errno::EPERM.0,
        false => errnum,
    }
}
