//! The names that attributes may have: a misspelt one on the command line would be silently ignored
//! otherwise.

use super::Access;

/// What a broker finds out by itself, whatever anybody says.
const OWN: &[&str] = &[
    "rank",
    "size",
    "version",
    "security.owner",
    "parent-uri",
    "instance-level",
    "jobid",
    "jobid-path",
    "parent-kvs-namespace",
    "broker.mapping",
    "broker.pid",
    "broker.starttime",
    "broker.uuid",
    "tbon.descendants",
    "tbon.level",
    "tbon.maxlevel",
    "tbon.endpoint",
    "tbon.parent-endpoint",
];

/// What the command line may set to a value.
const SETTINGS: &[&str] = &[
    "rundir",
    "statedir",
    "local-uri",
    "hostlist",
    "hostname",
    "metrics-socket",
    "broker.boot-method",
    "broker.critical-ranks",
    "broker.quorum",
    "broker.quorum-timeout",
    "broker.quorum-warn",
    "broker.shutdown-timeout",
    "broker.shutdown-warn",
    "broker.cleanup-timeout",
    "broker.unload-builtins-timeout",
    "broker.rc1_path",
    "broker.rc3_path",
    "broker.exit-restart",
    "broker.exit-norestart",
    "broker.sd-stop-timeout",
    "conf.rc_path",
    "conf.shell_initrc",
    "conf.shell_pluginpath",
    "config.path",
    "content.backing-module",
    "content.dump",
    "content.hash",
    "content.restore",
    "cron.directory",
    "log-critical-level",
    "log-filename",
    "log-forward-level",
    "log-level",
    "log-ring-size",
    "log-stderr-level",
    "log-stderr-mode",
    "log-syslog-enable",
    "log-syslog-level",
    "tbon.child_rcvhwm",
    "tbon.connect_timeout",
    "tbon.fanout",
    "tbon.interface-hint",
    "tbon.tcp_user_timeout",
    "tbon.test-version",
    "tbon.topo",
    "tbon.torpid_max",
    "tbon.torpid_min",
    "tbon.zmq_io_threads",
];

/// What may also be given without a value, for 1.
const FLAGS: &[&str] = &[
    "broker.module-nopanic",
    "broker.rc2_none",
    "broker.rc2_pgrp",
    "broker.recovery-mode",
    "broker.safe-mode",
    "broker.sd-notify",
    "rundir-cleanup",
    "statedir-cleanup",
    "tbon.prefertcp",
    "tbon.zmqdebug",
];

/// Attributes that begin so mean nothing to the broker: launchers and tests use them as they like.
/// With what may become of one that is set at run time, where it may begin there.
pub(super) const FOREIGN: [(&str, Option<Access>); 5] = [
    ("test.", Some(Access::Runtime)),
    ("test-nr.", Some(Access::ReadOnly)),
    ("test-im.", Some(Access::Immutable)),
    ("test-rd.", None),
    ("vendor.", None),
];
const FOREIGN_OWN: &str = "test-ro.";

/// The value of an attribute of the command line, or why it may not be there.
pub fn on_command_line<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, &'static str> {
    if OWN.contains(&name) || name.starts_with(FOREIGN_OWN) {
        return Err("attribute may not be set on the command line");
    }
    let may_be_bare =
        FLAGS.contains(&name) || FOREIGN.iter().any(|(prefix, _)| name.starts_with(prefix));
    if !may_be_bare && !SETTINGS.contains(&name) {
        return Err("unknown attribute");
    }
    match value {
        Some(value) => Ok(value),
        None if may_be_bare => Ok("1"),
        None => Err("attribute needs a value, as in -S NAME=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_be_looked_at_is_refused() {
        assert_eq!(on_command_line("log-level", Some("7")), Ok("7"));
        assert_eq!(on_command_line("broker.rc2_none", None), Ok("1"));
        assert_eq!(on_command_line("test.any", None), Ok("1"));
        assert_eq!(on_command_line("log-levl", Some("7")), Err("unknown attribute"));
        assert_eq!(on_command_line("rc2_none", None), Err("unknown attribute"));
        let own = Err("attribute may not be set on the command line");
        assert_eq!(on_command_line("rank", Some("3")), own);
        assert_eq!(on_command_line("test-ro.any", Some("3")), own);
        let bare = on_command_line("log-syslog-enable", None).unwrap_err();
        assert!(bare.starts_with("attribute needs a value"), "{bare}");
    }
}
