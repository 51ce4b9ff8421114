//! `--rlimit` rules: which soft limits of this process a job gets.

use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Map, Value, json};

use super::refuse;
use crate::failure::Failure;
use crate::pattern::Pattern;

/// Limits by the names that the job shell knows; `ofile` is of old for `nofile`.
const LIMITS: [(&str, Resource); 16] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("ofile", Resource::RLIMIT_NOFILE),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

/// What jobs do not get unless they ask for it.
const NOT_BY_DEFAULT: [&str; 7] =
    ["memlock", "ofile", "msgqueue", "nice", "rtprio", "rttime", "sigpending"];

/// Limits by name; -1 is none. Rules may be several, separated by commas.
pub(crate) fn propagate(rules: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut limits = current("*")?;
    for name in NOT_BY_DEFAULT {
        limits.shift_remove(name);
    }
    for rule in rules.iter().flat_map(|rules| rules.split(',')) {
        if let Some(pattern) = rule.strip_prefix('-') {
            let pattern = Pattern::compile(&pattern.to_lowercase()).map_err(refuse)?;
            limits.retain(|name, _| !pattern.matches(name));
            continue;
        }
        match rule.split_once('=') {
            None => limits.extend(current(rule)?),
            Some((name, value)) => {
                let lower = name.to_lowercase();
                if !LIMITS.iter().any(|(known, _)| *known == lower) {
                    return Err(refuse(format_args!("Invalid rlimit \"{name}\"")));
                }
                limits.insert(
                    lower,
                    number(value)
                        .ok_or_else(|| refuse(format_args!("Invalid value in {name}={value}")))?,
                );
            }
        }
    }
    Ok(limits)
}

fn number(text: &str) -> Option<Value> {
    match text {
        "unlimited" | "infinity" | "inf" => Some(json!(-1)),
        text => text.trim().parse::<i64>().ok().map(|number| json!(number)),
    }
}

/// Soft limits of this process whose names match.
fn current(pattern: &str) -> Result<Map<String, Value>, Failure> {
    let lower = pattern.to_lowercase();
    let compiled = Pattern::compile(&lower).map_err(refuse)?;
    let mut limits = Map::new();
    for (name, resource) in LIMITS {
        if compiled.matches(name)
            && let Ok((soft, _)) = getrlimit(resource)
        {
            // RLIM_INFINITY is the largest number; Flux says -1.
            limits.insert(name.to_owned(), json!(i64::try_from(soft).unwrap_or(-1)));
        }
    }
    if limits.is_empty() {
        return Err(refuse(format_args!("No corresponding rlimit matching \"{lower}\"")));
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rules: &[&str]) -> Vec<String> {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let mut names: Vec<String> = propagate(&rules).unwrap().keys().cloned().collect();
        names.sort();
        names
    }

    #[test]
    fn some_limits_are_not_propagated_unless_asked_for() {
        let default = ["as", "core", "cpu", "data", "fsize", "nofile", "nproc", "rss", "stack"];
        assert_eq!(names(&[]), default);
        assert_eq!(names(&["-*", "MEMLOCK,core"]), ["core", "memlock"]);
        assert_eq!(names(&["-[ac]*"]), ["data", "fsize", "nofile", "nproc", "rss", "stack"]);
    }

    #[test]
    fn values_are_numbers_or_unlimited() {
        let limits = propagate(&["core=16,stack=unlimited".to_owned()]).unwrap();
        assert_eq!(limits.get("core"), Some(&json!(16)));
        assert_eq!(limits.get("stack"), Some(&json!(-1)));
        for bad in ["nope", "nope=1", "core=x"] {
            assert!(propagate(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
