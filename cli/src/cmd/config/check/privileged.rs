//! What is wrong with the configuration of signing and of the IMP.

use std::path::Path;

use flux_protocol::payload::Object;
use flux_sign::Mechanism;
use serde_json::Value;

use super::Problem;
use crate::toml_files;

/// What these programs, whose parser is of a part of TOML, can't read.
pub(super) fn unread(dir: &Path) -> Vec<String> {
    let mut table = flux_sign::toml::Table::new();
    let mut lines = Vec::new();
    for file in toml_files::files(dir).unwrap_or_default() {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Err(error) = flux_sign::toml::parse_into(&mut table, &text) {
            lines.push(format!("{}:{error}", file.display()));
        }
    }
    lines
}

pub(super) fn sign_problems(config: &Object) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    let Some(sign) = config.get("sign") else {
        return vec![("sign".to_owned(), "there is no [sign] table".to_owned())];
    };
    let Some(table) = sign.as_object() else {
        return vec![("sign".to_owned(), "sign must be a table".to_owned())];
    };
    for (key, value) in table {
        let text = match (key.as_str(), value) {
            ("max-ttl", value) => ttl_problem(value),
            ("default-type", value) => default_problem(value, table.get("allowed-types")),
            ("allowed-types", value) => allowed_problem(value),
            ("munge", Value::Object(munge)) => {
                problems.extend(munge_problems(munge));
                None
            }
            ("munge", _) => Some("munge must be a table".to_owned()),
            // Of flux-security, which signs with certificates as well.
            ("curve", Value::Object(_)) => None,
            (other, Value::Object(_)) => Some(format!("unknown table [sign.{other}]")),
            (other, _) => Some(format!("unknown key '{other}' in [sign]")),
        };
        problems.extend(text.map(|text| (format!("sign.{key}"), text)));
    }
    for key in ["max-ttl", "default-type", "allowed-types"] {
        if !table.contains_key(key) {
            problems.push(("sign".to_owned(), format!("'{key}' must be set in [sign]")));
        }
    }
    problems
}

fn munge_problems(munge: &Object) -> Vec<Problem> {
    let problem = |(key, value): (&String, &Value)| {
        let text = match (key.as_str(), value) {
            ("socket-path", Value::String(path)) if path.starts_with('/') => return None,
            ("socket-path", _) => "munge.socket-path must be an absolute path".to_owned(),
            (other, _) => {
                format!("unknown key '{other}' in [sign.munge], which has 'socket-path' alone")
            }
        };
        Some((format!("sign.munge.{key}"), text))
    };
    munge.iter().filter_map(problem).collect()
}

fn ttl_problem(value: &Value) -> Option<String> {
    match value.as_i64() {
        None => Some("max-ttl must be a number of seconds".to_owned()),
        Some(seconds) if seconds <= 0 => Some("max-ttl should be greater than zero".to_owned()),
        Some(_) => None,
    }
}

fn mechanism_problem(value: &Value) -> Option<String> {
    let name = value.as_str()?;
    Mechanism::from_name(name).is_none().then(|| format!("unknown mechanism '{name}'"))
}

fn default_problem(value: &Value, allowed: Option<&Value>) -> Option<String> {
    let Some(name) = value.as_str() else {
        return Some("default-type must be a string".to_owned());
    };
    let not_allowed = allowed.and_then(Value::as_array).is_some_and(|a| !a.contains(value));
    let text = || format!("default-type '{name}' is not in allowed-types");
    mechanism_problem(value).or_else(|| not_allowed.then(text))
}

fn allowed_problem(value: &Value) -> Option<String> {
    match value.as_array() {
        Some(array) if array.is_empty() => Some("allowed-types array is empty".to_owned()),
        Some(array) if is_strings(value) => array.iter().find_map(mechanism_problem),
        _ => Some("allowed-types must be an array of strings".to_owned()),
    }
}

const IMP_FLAGS: [&str; 3] = ["allow-unprivileged-exec", "pam-support", "allow-sudo"];

pub(super) fn imp_problems(config: &Object) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (table, value) in config {
        match (table.as_str(), value) {
            ("exec", Value::Object(exec)) => problems.extend(exec_problems(exec)),
            ("run", Value::Object(run)) => {
                problems.extend(run.iter().flat_map(|(name, entry)| run_problems(name, entry)));
            }
            ("exec" | "run", _) => {
                problems.push((table.clone(), format!("{table} must be a table")));
            }
            // For the whole of the program.
            ("allow-sudo", Value::Bool(_)) => {}
            (other, _) => {
                problems.push((other.to_owned(), format!("unknown table or key '{other}'")));
            }
        }
    }
    problems
}

fn exec_problems(exec: &Object) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value) in exec {
        let good = match key.as_str() {
            "allowed-users" | "allowed-shells" => is_strings(value),
            key if IMP_FLAGS.contains(&key) => value.is_boolean(),
            _ => false,
        };
        if !good {
            let text = format!("bad or unknown key '{key}' in [exec]");
            problems.push((format!("exec.{key}"), text));
        }
        let shells = value.as_array().filter(|_| key == "allowed-shells");
        for (at, path) in shells.into_iter().flatten().enumerate() {
            let text = path.as_str().and_then(program_problem);
            problems.extend(text.map(|text| (format!("exec.{key}.{at}"), text)));
        }
    }
    problems
}

fn run_problems(name: &str, entry: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value) in entry.as_object().into_iter().flatten() {
        let good = match key.as_str() {
            "allowed-users" | "allowed-environment" => is_strings(value),
            "path" => value.is_string(),
            _ => false,
        };
        if !good {
            let text = format!("bad or unknown key '{key}' in [run.{name}]");
            problems.push((format!("run.{name}.{key}"), text));
        }
    }
    match entry.get("path") {
        None => problems.push((format!("run.{name}"), format!("[run.{name}] has no path"))),
        Some(path) => {
            let text = path.as_str().and_then(program_problem);
            problems.extend(text.map(|text| (format!("run.{name}.path"), text)));
        }
    }
    problems
}

/// The IMP starts what is named by its full path.
fn program_problem(path: &str) -> Option<String> {
    match path {
        path if !path.starts_with('/') => Some(format!("{path}: must be an absolute path")),
        path if !Path::new(path).is_file() => Some(format!("{path}: there is no such program")),
        _ => None,
    }
}

fn is_strings(value: &Value) -> bool {
    value.as_array().is_some_and(|array| array.iter().all(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn mistakes_in_signing_are_named() {
        let sign = |text: &str| texts(sign_problems(&toml_files::parse_toml(text).unwrap()));
        let good = "[sign]\nmax-ttl = 10\ndefault-type = \"munge\"\nallowed-types = [\"munge\"]\n";
        assert!(sign(good).is_empty());
        assert_eq!(
            sign("[sign]\nmax-ttl = \"x\"\ntypo = 1\n"),
            [
                "max-ttl must be a number of seconds",
                "unknown key 'typo' in [sign]",
                "'default-type' must be set in [sign]",
                "'allowed-types' must be set in [sign]"
            ]
        );
        for (from, to, text) in [
            ("\"munge\"\n", "\"none\"\n", "default-type 'none' is not in allowed-types"),
            ("\"munge\"\n", "\"curve\"\n", "unknown mechanism 'curve'"),
            ("[\"munge\"]", "[\"munge\", \"foo\"]", "unknown mechanism 'foo'"),
            ("[\"munge\"]", "[]", "allowed-types array is empty"),
            ("= 10", "= -1", "max-ttl should be greater than zero"),
        ] {
            let found = sign(&good.replace(from, to));
            assert!(found.contains(&text.to_owned()), "{text}: {found:?}");
        }
        for (more, text) in [
            ("[sign.munge]\nsocket-path = \"/run/m\"\n", ""),
            ("[sign.munge]\nsocket-path = 1\n", "munge.socket-path must be an absolute path"),
            (
                "[sign.munge]\nbogus = 1\n",
                "unknown key 'bogus' in [sign.munge], which has 'socket-path' alone",
            ),
            ("[sign.mnge]\nsocket-path = \"/run/m\"\n", "unknown table [sign.mnge]"),
            ("munge = 1\n", "munge must be a table"),
        ] {
            assert_eq!(sign(&format!("{good}{more}")).concat(), text);
        }
    }

    #[test]
    fn mistakes_in_the_imps_tables_are_named() {
        let imp = |text: &str| texts(imp_problems(&toml_files::parse_toml(text).unwrap()));
        assert!(
            imp("[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"/bin/sh\"]\n").is_empty()
        );
        assert_eq!(imp("[exec]\nallowed-users = \"flux\"\n").len(), 1);
        let run = imp("[run.prolog]\nallowed-users = [\"flux\"]\npath = \"/nonexistent/prolog\"\n");
        assert_eq!(run, ["/nonexistent/prolog: there is no such program"]);
        assert_eq!(imp("[run.p]\npath = \"rel\"\n"), ["rel: must be an absolute path"]);
        assert_eq!(imp("[run.p]\n"), ["[run.p] has no path"]);
        assert_eq!(imp("exec = 1\n"), ["exec must be a table"]);
    }

    #[test]
    fn what_the_smaller_parser_does_not_know_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "[sign]\nmax-ttl = 1.5\n").unwrap();
        let lines = unread(dir.path());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("a.toml:2: "), "{lines:?}");
    }
}
