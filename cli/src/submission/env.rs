//! `--env` rules: which environment a job gets.
//!
//! | rule | |
//! |---|---|
//! | `-PATTERN` | without the variables that match |
//! | `^FILE` | rules from a file, one a line |
//! | `PATTERN` | with matching variables of this process |
//! | `NAME=VALUE` | set; `$NAME`, `${NAME}` are those so far, else of this process |
//! | `NAME={{TAG}}...` | a template that the job shell fills in |

use std::collections::BTreeMap;

use super::refuse;
use crate::failure::{Failure, strerror};
use crate::pattern::Pattern;

pub(crate) type Variables = BTreeMap<String, String>;

/// The environment, and variables that are templates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    pub variables: Variables,
    pub templates: Variables,
}

/// What is left of `own`, the environment of this process, and what is added.
pub(crate) fn export(rules: &[String], own: &Variables) -> Result<Exported, Failure> {
    let mut exported = Exported { variables: own.clone(), templates: Variables::new() };
    for rule in rules {
        exported.apply(rule, own)?;
    }
    Ok(exported)
}

impl Exported {
    fn apply(&mut self, rule: &str, own: &Variables) -> Result<(), Failure> {
        if let Some(pattern) = rule.strip_prefix('-') {
            let pattern = compile(pattern)?;
            self.variables.retain(|name, _| !pattern.matches(name));
            return Ok(());
        }
        if let Some(file) = rule.strip_prefix('^') {
            return self.read(file, own);
        }
        let Some((name, value)) = rule.split_once('=') else {
            let pattern = compile(rule)?;
            for (name, value) in own.iter().filter(|(name, _)| pattern.matches(name)) {
                self.variables.entry(name.clone()).or_insert_with(|| value.clone());
            }
            return Ok(());
        };
        if value.contains("{{") {
            self.templates.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        let value = self.substitute(value, own, rule)?;
        self.variables.insert(name.to_owned(), value);
        Ok(())
    }

    fn read(&mut self, file: &str, own: &Variables) -> Result<(), Failure> {
        let path = match (file.strip_prefix('~'), own.get("HOME")) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                format!("{home}{rest}")
            }
            _ => file.to_owned(),
        };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let number = error.raw_os_error().unwrap_or_default();
            let reason = strerror(&error);
            refuse(format_args!("--env: [Errno {number}] {reason}: '{path}'"))
        })?;
        text.lines().try_for_each(|line| self.apply(line.trim(), own))
    }

    /// `$NAME`, `${NAME}`, and `$$` for a dollar.
    fn substitute(&self, text: &str, own: &Variables, rule: &str) -> Result<String, Failure> {
        let mut value = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            value.push_str(before);
            if let Some(behind) = behind.strip_prefix('$') {
                value.push('$');
                rest = behind;
                continue;
            }
            let (name, behind) = variable_name(behind)
                .ok_or_else(|| refuse(format_args!("--env: Unable to substitute {rule}")))?;
            let found = self.variables.get(name).or_else(|| own.get(name)).ok_or_else(|| {
                refuse(format_args!("--env: Variable '{name}' not found in {rule}"))
            })?;
            value.push_str(found);
            rest = behind;
        }
        value.push_str(rest);
        Ok(value)
    }
}

/// The name that a reference begins with, and what is behind the reference.
fn variable_name(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('{');
    let start = inside.unwrap_or(text);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = start.find(|c: char| !is_name(c)).unwrap_or(start.len());
    let (name, behind) = start.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let behind = if inside.is_some() { behind.strip_prefix('}')? } else { behind };
    Some((name, behind))
}

fn compile(pattern: &str) -> Result<Pattern, Failure> {
    Pattern::compile(pattern).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Variables {
        let pairs = [("PATH", "/bin"), ("HOME", "/home/u"), ("LD_X", "1"), ("LD_Y", "2")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn exported(rules: &[&str]) -> Result<Exported, Failure> {
        export(&rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>(), &own())
    }

    fn names(rules: &[&str]) -> Vec<String> {
        exported(rules).unwrap().variables.into_keys().collect()
    }

    #[test]
    fn patterns_take_away_and_bring_back() {
        assert_eq!(names(&[]), ["HOME", "LD_X", "LD_Y", "PATH"]);
        assert_eq!(names(&["-LD_*"]), ["HOME", "PATH"]);
        assert_eq!(names(&["-*", "P*"]), ["PATH"]);
        assert_eq!(names(&["-/^L.*_[XY]$/"]), ["HOME", "PATH"]);
        assert_eq!(names(&["-*", "/LD_/"]), ["LD_X", "LD_Y"]);
        // A regular expression is anchored at its beginning.
        assert_eq!(names(&["-/D_/"]), ["HOME", "LD_X", "LD_Y", "PATH"]);
    }

    #[test]
    fn values_refer_to_variables_so_far_then_to_those_of_the_process() {
        let rules = ["-*", "PATH", "A=${PATH}x", "B=$A:$HOME", "C=$$A", "PATH=/x:$PATH"];
        let variables = exported(&rules).unwrap().variables;
        let value = |name: &str| variables.get(name).map(String::as_str);
        assert_eq!(value("A"), Some("/binx"));
        assert_eq!(value("B"), Some("/binx:/home/u"));
        assert_eq!(value("C"), Some("$A"));
        assert_eq!(value("PATH"), Some("/x:/bin"));
    }

    #[test]
    fn templates_are_left_to_the_shell() {
        let exported = exported(&["-*", "R={{taskid}}"]).unwrap();
        assert!(exported.variables.is_empty());
        assert_eq!(exported.templates.get("R").map(String::as_str), Some("{{taskid}}"));
    }

    #[test]
    fn rules_come_from_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules");
        std::fs::write(&file, "-*\n  A=b  \n").unwrap();
        assert_eq!(names(&[&format!("^{}", file.display())]), ["A"]);
        assert!(exported(&["^/nonexistent/file"]).is_err());
    }

    #[test]
    fn references_to_nothing_are_refused() {
        for bad in ["A=$NOPE", "A=${NOPE}", "A=$", "A=$1", "A=${PATH"] {
            assert!(exported(&[bad]).is_err(), "{bad}");
        }
    }
}
