//! Soft resource limits of tasks. The shell sets its own; tasks inherit them.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::fatal::Fatal;
use crate::log::Log;
use crate::options::Options;

const COMPONENT: &str = "rlimit";

pub(crate) fn apply(options: &Options, log: &Log) -> Result<(), Fatal> {
    let Some(value) = options.get("rlimit") else { return Ok(()) };
    let Value::Object(limits) = value else {
        return Err(Fatal::new(COMPONENT, "failed to parse rlimit shell option"));
    };
    let mut bad = None;
    for (name, value) in limits {
        match (resource(name), value.as_i64()) {
            (Some(resource), Some(limit)) => set(name, resource, limit, log),
            _ => bad = Some(format!("invalid shell option rlimit.{name}={value}")),
        }
    }
    match bad {
        Some(text) => Err(Fatal::new(COMPONENT, text)),
        None => Ok(()),
    }
}

/// Limits that the system does not allow are reported and left alone.
fn set(name: &str, resource: Resource, limit: i64, log: &Log) {
    let (now, hard) = match getrlimit(resource) {
        Ok(limits) => limits,
        Err(e) => {
            log.error(COMPONENT, format_args!("getrlimit {name}: {}", e.desc()));
            return;
        }
    };
    // -1 is no limit, as RLIM_INFINITY is for the system.
    let mut soft = u64::try_from(limit).unwrap_or(RLIM_INFINITY);
    if hard != RLIM_INFINITY && soft > hard {
        log.warn(
            COMPONENT,
            format_args!("{name} exceeds current max, raising value to hard limit"),
        );
        soft = hard;
    }
    if soft == now {
        return;
    }
    if let Err(e) = setrlimit(resource, soft, hard) {
        log.error(COMPONENT, format_args!("setrlimit {name}: {}", e.desc()));
    }
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "cpu" => Resource::RLIMIT_CPU,
        "fsize" => Resource::RLIMIT_FSIZE,
        "data" => Resource::RLIMIT_DATA,
        "stack" => Resource::RLIMIT_STACK,
        "core" => Resource::RLIMIT_CORE,
        "nofile" | "ofile" => Resource::RLIMIT_NOFILE,
        "as" => Resource::RLIMIT_AS,
        "rss" => Resource::RLIMIT_RSS,
        "nproc" => Resource::RLIMIT_NPROC,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(value: Value) -> Options {
        Options::new([("rlimit".to_owned(), value)].into_iter().collect())
    }

    #[test]
    fn limits_that_are_none_are_refused() {
        let log = Log::new();
        for bad in [json!({"core": "x"}), json!({"nonsense": 1}), json!([])] {
            assert!(apply(&options(bad.clone()), &log).is_err(), "{bad}");
        }
        assert!(log.take().is_empty());
    }

    #[test]
    fn a_limit_above_the_hard_one_becomes_the_hard_one() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        setrlimit(Resource::RLIMIT_CORE, 0, hard).unwrap();
        apply(&options(json!({"core": -1})), &Log::new()).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap().0, hard);
        setrlimit(Resource::RLIMIT_CORE, soft, hard).unwrap();
    }
}
