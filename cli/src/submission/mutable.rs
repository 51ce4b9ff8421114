//! Substitution in options and command: `{}` and `{0.%}` of `flux bulksubmit`, `{cc}` of `--cc`.
//!
//! | field | |
//! |---|---|
//! | `{}`, `{0}`, `{1}` | inputs, in order or by number |
//! | `{0.%}` | without the extension of the file name |
//! | `{0./}`, `{0.//}`, `{0./%}` | file name, folder, file name without extension |
//! | `{0.NAME}` | as `--define=NAME=CODE` says |
//! | `{seq}`, `{seq1}`, `{cc}` | the number of the job from 0 or 1, the member of `--cc` |
//!
//! Double braces are the job shell's and left alone.

use std::collections::BTreeMap;

use super::options::{Common, Dependency, Many, Tasks};
use super::refuse;
use crate::failure::Failure;

/// Where `--define`d code puts the ends of the elements of a list.
pub(crate) const LIST_MARK: &str = "::list::";

/// A job before its jobspec is made.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub common: Common,
    pub tasks: Tasks,
    pub many: Many,
    pub command: Vec<String>,
    /// Options that substitution has changed, as they would be written.
    changed: Vec<String>,
}

/// What the fields stand for.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    pub inputs: &'a [String],
    pub named: BTreeMap<&'static str, String>,
    pub methods: &'a Methods,
}

/// Results of `--define`d code, by name and input.
#[derive(Debug, Default)]
pub(crate) struct Methods(pub BTreeMap<String, BTreeMap<String, String>>);

/// No methods.
pub(crate) static NO_METHODS: Methods = Methods(BTreeMap::new());

enum Slot<'a> {
    One(&'a mut Option<String>),
    Many(&'a mut Vec<String>),
    Uris(&'a mut Vec<Dependency>),
}

#[derive(Debug, thiserror::Error)]
enum FieldError {
    #[error("{0}")]
    Syntax(&'static str),
    /// An input that there is not.
    #[error("Replacement index {0} out of range for positional args tuple")]
    Index(usize),
    /// A name that there is not.
    #[error("'{0}'")]
    Key(String),
    #[error("Unknown input string method '.{0}'")]
    Method(String),
    #[error("Invalid format specifier '{0}'")]
    Spec(String),
}

impl Default for &Methods {
    fn default() -> Self {
        &NO_METHODS
    }
}

// === impl Draft ===

impl Draft {
    pub(crate) fn new(common: Common, tasks: Tasks, many: Many, command: Vec<String>) -> Draft {
        Draft { common, tasks, many, command, changed: Vec::new() }
    }

    /// The same with everything substituted.
    pub(crate) fn substitute(&self, fields: &Fields<'_>) -> Result<Draft, Failure> {
        let mut new = self.clone();
        new.command = Vec::new();
        for arg in &self.command {
            match fields.render(arg) {
                Ok(text) => new.command.extend(text.split(LIST_MARK).map(str::to_owned)),
                Err(FieldError::Index(_) | FieldError::Key(_)) => {
                    let text = format!("Invalid replacement string in command: '{arg}'");
                    return Err(refuse(text).prefix("flux"));
                }
                Err(error) => return Err(refuse(error)),
            }
        }
        let mut changed = Vec::new();
        for (option, slot) in new.slots() {
            if let Some(text) = slot.substitute(option, fields)? {
                changed.push(format!("{option}{text}"));
            }
        }
        new.changed = changed;
        Ok(new)
    }

    /// The options that can be substituted in, with how they are written.
    fn slots(&mut self) -> Vec<(&'static str, Slot<'_>)> {
        use Slot::{Many, One, Uris};
        let Draft { common, tasks, many, .. } = self;
        vec![
            ("-q", One(&mut common.queue)),
            ("-B", One(&mut common.bank)),
            ("-n", One(&mut tasks.ntasks)),
            ("-N", One(&mut tasks.nodes)),
            ("-c", One(&mut tasks.cores_per_task)),
            ("-g", One(&mut tasks.gpus_per_task)),
            ("--cores=", One(&mut tasks.cores)),
            ("--tasks-per-node=", One(&mut tasks.tasks_per_node)),
            ("--tasks-per-core=", One(&mut tasks.tasks_per_core)),
            ("--gpus-per-node=", One(&mut tasks.gpus_per_node)),
            ("-t", One(&mut common.time_limit)),
            ("--env=", Many(&mut common.env.0)),
            ("--urgency=", One(&mut common.urgency)),
            ("-o ", Many(&mut common.setopt)),
            ("--setattr=", Many(&mut common.setattr)),
            ("--job-name=", One(&mut common.job_name)),
            ("--input=", One(&mut common.input)),
            ("--output=", One(&mut common.output)),
            ("--error=", One(&mut common.error)),
            ("--cc=", One(&mut many.cc)),
            ("--bcc=", One(&mut many.bcc)),
            ("--log=", One(&mut many.log)),
            ("--log-stderr=", One(&mut many.log_stderr)),
            ("--dependency=", Uris(&mut common.dependencies.0)),
            ("--taskmap=", One(&mut tasks.taskmap)),
            ("--requires=", Many(&mut common.requires)),
            ("--wait-event=", One(&mut many.wait.0)),
            ("--cwd=", One(&mut common.cwd)),
            ("--flags=", Many(&mut common.flags)),
            ("--signal=", One(&mut common.signal)),
        ]
    }
}

/// As the command line of a single job, for `--dry-run`.
impl std::fmt::Display for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<&str> =
            self.changed.iter().chain(&self.command).map(String::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

// === impl Slot ===

impl Slot<'_> {
    /// The new value as text, where it is another one; `--cc` always counts.
    fn substitute(self, option: &str, fields: &Fields<'_>) -> Result<Option<String>, Failure> {
        match self {
            Slot::One(None) => Ok(None),
            Slot::One(Some(text)) => {
                let new = fields.option(option, text)?;
                let is_new = new != *text || option == "--cc=";
                *text = new;
                Ok(is_new.then(|| text.clone()))
            }
            Slot::Many(list) => {
                let new: Result<Vec<String>, Failure> =
                    list.iter().map(|text| fields.option(option, text)).collect();
                let new = new?;
                let is_new = new != *list;
                *list = new;
                Ok(is_new.then(|| python_list(list)))
            }
            Slot::Uris(list) => {
                let mut is_new = false;
                let mut texts = Vec::new();
                for entry in list {
                    if let Dependency::Uri(uri) = entry {
                        let new = fields.option(option, uri)?;
                        is_new |= new != *uri;
                        texts.push(new.clone());
                        *uri = new;
                    }
                }
                Ok(is_new.then(|| python_list(&texts)))
            }
        }
    }
}

/// `['a', 'b']`
fn python_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| format!("'{text}'")).collect();
    format!("[{}]", quoted.join(", "))
}

// === impl Fields ===

impl Fields<'_> {
    fn option(&self, option: &str, text: &str) -> Result<String, Failure> {
        self.render(text).map_err(|error| match error {
            FieldError::Index(_) => {
                refuse(format_args!("Invalid replacement index in {option}{text}'")).prefix("flux")
            }
            FieldError::Key(_) => {
                let text = format!("Replacement key {error} not found in '{option}{text}'");
                refuse(text).prefix("flux")
            }
            error => refuse(error),
        })
    }

    fn render(&self, text: &str) -> Result<String, FieldError> {
        let mut result = String::new();
        let mut next = 0;
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            result.push_str(before);
            if let Some(double) = ["{{", "}}"].into_iter().find(|two| brace.starts_with(two)) {
                result.push_str(double);
                rest = brace.get(2..).unwrap_or_default();
                continue;
            }
            let Some(inside) = brace.strip_prefix('{') else {
                return Err(FieldError::Syntax("Single '}' encountered in format string"));
            };
            let (field, behind) = inside
                .split_once('}')
                .ok_or(FieldError::Syntax("expected '}' before end of string"))?;
            result.push_str(&self.field(field, &mut next)?);
            rest = behind;
        }
        result.push_str(rest);
        Ok(result)
    }

    fn field(&self, field: &str, next: &mut usize) -> Result<String, FieldError> {
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, method) = match field.split_once('.') {
            Some((name, method)) => (name, Some(method)),
            None => (field, None),
        };
        let index = match name {
            "" => {
                *next += 1;
                Some(*next - 1)
            }
            name => name.parse().ok(),
        };
        let value = match index {
            Some(index) => self.inputs.get(index).ok_or(FieldError::Index(index))?,
            None => self.named.get(name).ok_or_else(|| FieldError::Key(name.to_owned()))?,
        };
        let value = match method {
            None => value.clone(),
            Some(method) => self.transform(value, method)?,
        };
        pad(&value, spec)
    }

    fn transform(&self, input: &str, method: &str) -> Result<String, FieldError> {
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(match method {
            "%" => without_extension(input).to_owned(),
            "/" => name(input),
            "/%" => name(without_extension(input)),
            "//" => match input.rsplit_once('/') {
                Some((folder, _)) if folder.trim_end_matches('/').is_empty() => "/".to_owned(),
                Some((folder, _)) => folder.trim_end_matches('/').to_owned(),
                None => String::new(),
            },
            method => self
                .methods
                .0
                .get(method)
                .and_then(|results| results.get(input))
                .ok_or_else(|| FieldError::Method(method.to_owned()))?
                .clone(),
        })
    }
}

/// Dots that a file name begins with are no extension.
fn without_extension(path: &str) -> &str {
    let start = path.rfind('/').map_or(0, |at| at + 1);
    let name = path.get(start..).unwrap_or_default();
    let visible = name.trim_start_matches('.');
    match visible.rfind('.') {
        Some(at) => path.get(..start + name.len() - visible.len() + at).unwrap_or(path),
        None => path,
    }
}

/// `[<>][0][WIDTH][d]`
fn pad(value: &str, spec: &str) -> Result<String, FieldError> {
    let bad = || FieldError::Spec(spec.to_owned());
    let number = value.parse::<i64>().is_ok();
    let (right, rest) = match spec.strip_prefix('<') {
        Some(rest) => (false, rest),
        None => match spec.strip_prefix('>') {
            Some(rest) => (true, rest),
            None => (number, spec),
        },
    };
    let rest = rest.strip_suffix(['d', 's']).unwrap_or(rest);
    let zeros = rest.starts_with('0') && number;
    let width: usize = if rest.is_empty() { 0 } else { rest.parse().map_err(|_| bad())? };
    let missing = width.saturating_sub(value.chars().count());
    Ok(match (zeros, right) {
        (true, _) => format!("{}{value}", "0".repeat(missing)),
        (false, true) => format!("{}{value}", " ".repeat(missing)),
        (false, false) => format!("{value}{}", " ".repeat(missing)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Result<String, FieldError> {
        let inputs = ["/dir/file.tar.gz".to_owned(), "b".to_owned()];
        let named = [("seq", "3".to_owned()), ("cc", "{cc}".to_owned())].into();
        Fields { inputs: &inputs, named, methods: &NO_METHODS }.render(text)
    }

    #[test]
    fn fields_are_inputs_and_parts_of_them() {
        for (text, expected) in [
            ("{} {}", "/dir/file.tar.gz b"),
            ("{1}-{0./}", "b-file.tar.gz"),
            ("{.%} {1}", "/dir/file.tar b"),
            ("{0./%} {0.//}", "file.tar /dir"),
            ("{seq:03} {seq}", "003 3"),
            ("{cc} {{id}}", "{cc} {{id}}"),
        ] {
            assert_eq!(render(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn fields_that_are_nothing_are_refused() {
        assert!(matches!(render("{2}"), Err(FieldError::Index(2))));
        assert!(matches!(render("{nope}"), Err(FieldError::Key(_))));
        assert!(matches!(render("{0.nope}"), Err(FieldError::Method(_))));
        assert!(matches!(render("{"), Err(FieldError::Syntax(_))));
        assert!(matches!(render("a}"), Err(FieldError::Syntax(_))));
    }

    #[test]
    fn extensions_are_what_follows_the_last_dot_of_the_name() {
        for (path, expected) in
            [("a.b", "a"), (".rc", ".rc"), ("d.x/f", "d.x/f"), ("..a.b", "..a"), ("a.", "a")]
        {
            assert_eq!(without_extension(path), expected, "{path}");
        }
    }
}
