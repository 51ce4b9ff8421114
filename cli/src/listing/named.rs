//! Formats that are called by name: those of the command, and those of the user's configuration in
//! `flux/COMMAND.toml` (or `.json`, `.yaml`) of the folders that the XDG base directory specification names.
//!
//! ```toml
//! [formats.mine]
//! description = "my own"
//! format = "{id} {name}"
//! ```

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::yaml;
use crate::environment::Environment;
use crate::failure::{Failure, strerror};
use crate::outln;
use crate::toml_files::{self, FilesError};

/// A format that a command brings along.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Builtin {
    pub name: &'static str,
    pub description: &'static str,
    pub format: &'static str,
}

/// The formats of one command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Formats {
    /// Of the configuration file, such as `flux-jobs`.
    pub command: &'static str,
    /// Of the table in that file, for commands that have several.
    pub subcommand: Option<&'static str>,
    /// The subcommands that files may have tables for.
    pub tables: &'static [&'static str],
    pub builtin: &'static [Builtin],
}

struct Entry {
    name: String,
    description: Option<String>,
    format: String,
}

// === impl Formats ===

impl Formats {
    /// The format string that the argument of `--format` means.
    ///
    /// Nothing where it was a question about the formats, which has been answered then.
    pub(crate) fn choose(
        &self,
        env: &Environment,
        wanted: &str,
    ) -> Result<Option<String>, Failure> {
        let mut wanted = wanted;
        // A configuration that can't be read is an error for all who call the command.
        let entries = self.entries(env)?;
        if wanted.contains('{') {
            return Ok(Some(wanted.to_owned()));
        }
        if wanted == "help" {
            self.help(&entries);
            return Ok(None);
        }
        let find = |name: &str| entries.iter().find(|entry| entry.name == name);
        if let Some(name) = wanted.strip_prefix("get-config=") {
            let entry = find(name).ok_or_else(|| no_such_format(name))?;
            self.show(entry);
            return Ok(None);
        }
        if wanted == "default"
            && let Some(default) = env.get(&self.default_variable())
        {
            wanted = default;
            if wanted.contains('{') {
                return Ok(Some(wanted.to_owned()));
            }
        }
        match find(wanted) {
            Some(entry) => Ok(Some(entry.format.clone())),
            None => Err(Failure::new(format_args!(
                "ERROR: --format: No such format {wanted} (Did you mean '{}'?)",
                as_fields(wanted)
            ))),
        }
    }

    /// The user has a default of their own, which replaces any other.
    pub(crate) fn has_default(&self, env: &Environment) -> bool {
        env.get(&self.default_variable()).is_some()
    }

    /// Such as `FLUX_JOBS_FORMAT_DEFAULT`.
    fn default_variable(&self) -> String {
        let upper = |name: &str| name.to_uppercase().replace('-', "_");
        let subcommand = self.subcommand.map(|name| format!("_{}", upper(name)));
        format!("{}{}_FORMAT_DEFAULT", upper(self.command), subcommand.unwrap_or_default())
    }

    fn help(&self, entries: &[Entry]) {
        outln!("\nConfigured {} output formats:\n", self.command);
        for entry in entries {
            match &entry.description {
                Some(description) => outln!("  {:<12} {description}", entry.name),
                None => outln!("  {:<12}", entry.name),
            }
        }
    }

    fn show(&self, entry: &Entry) {
        let table = self.subcommand.map(|name| format!("{name}."));
        outln!("[{}formats.{}]", table.unwrap_or_default(), entry.name);
        if let Some(description) = &entry.description {
            outln!("description = \"{description}\"");
        }
        outln!("format = \"{}\"", entry.format);
    }

    /// What the command brings along, then what the user has.
    fn entries(&self, env: &Environment) -> Result<Vec<Entry>, Failure> {
        let mut entries: Vec<Entry> = self
            .builtin
            .iter()
            .map(|builtin| Entry {
                name: builtin.name.to_owned(),
                description: Some(builtin.description.to_owned()),
                format: builtin.format.to_owned(),
            })
            .collect();
        for file in self.files(env) {
            let bad =
                |reason: &str| Failure::new(format_args!("ERROR: {}: {reason}", file.display()));
            let mut config = read(&file).map_err(|e| Failure::new(format_args!("ERROR: {e}")))?;
            if let Some(subcommand) = self.subcommand {
                if let Some(key) = config.keys().find(|key| !self.tables.contains(&key.as_str())) {
                    return Err(bad(&format!("invalid key {key}")));
                }
                let table = config.get(subcommand).and_then(Value::as_object).cloned();
                config = table.unwrap_or_default();
            }
            for (key, value) in config {
                if key != "formats" {
                    return Err(bad(&format!("invalid key {key}")));
                }
                let Value::Object(formats) = value else {
                    return Err(bad("the 'formats' key must be a mapping"));
                };
                self.add(formats, &mut entries).map_err(|reason| bad(&reason))?;
            }
        }
        Ok(entries)
    }

    fn add(&self, formats: Map<String, Value>, entries: &mut Vec<Entry>) -> Result<(), String> {
        for (name, format) in formats {
            if self.builtin.iter().any(|builtin| builtin.name == name) {
                return Err(format!("override of builtin format '{name}' not permitted"));
            }
            let Value::Object(format) = format else {
                return Err(format!("'formats.{name}' must be a mapping"));
            };
            let description = format.get("description").and_then(Value::as_str).map(str::to_owned);
            let format = match format.get("format") {
                Some(Value::String(format)) => format.clone(),
                Some(_) => return Err(format!("formats.{name}: 'format' key must be a string")),
                None => return Err(format!("formats.{name}: required key 'format' missing")),
            };
            // The more personal file comes later.
            entries.retain(|entry| entry.name != name);
            entries.push(Entry { name, description, format });
        }
        Ok(())
    }

    /// Files that exist, the most personal last.
    fn files(&self, env: &Environment) -> Vec<PathBuf> {
        let set = |name| env.get(name).filter(|value| !value.is_empty());
        let system = set("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg");
        let mut dirs: Vec<PathBuf> = system.split(':').rev().map(PathBuf::from).collect();
        match (set("XDG_CONFIG_HOME"), set("HOME")) {
            (Some(dir), _) => dirs.push(dir.into()),
            (None, Some(home)) => dirs.push(PathBuf::from(home).join(".config")),
            (None, None) => {}
        }
        let names =
            ["json", "toml", "yaml"].map(|suffix| format!("flux/{}.{suffix}", self.command));
        dirs.iter()
            .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
            .filter(|path| path.is_file())
            .collect()
    }
}

fn read(file: &Path) -> Result<Map<String, Value>, FilesError> {
    if file.extension().is_none_or(|extension| extension != "yaml") {
        return toml_files::read(file);
    }
    let path = file.to_owned();
    match std::fs::read_to_string(file) {
        Ok(text) => {
            yaml::parse(&text).map_err(|(line, reason)| FilesError::Syntax { path, line, reason })
        }
        Err(e) => Err(FilesError::Read { path, reason: strerror(&e) }),
    }
}

fn no_such_format(name: &str) -> Failure {
    Failure::new(format_args!("ERROR: --format: No such format {name}"))
}

/// Words put in braces: who wrote `name` may have meant `{name}`.
fn as_fields(text: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        if is_word(c) != inside {
            out.push(if inside { '}' } else { '{' });
            inside = !inside;
        }
        out.push(c);
    }
    if inside {
        out.push('}');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_fields() {
        assert_eq!(as_fields("id"), "{id}");
        assert_eq!(as_fields("id.f58 name"), "{id}.{f58} {name}");
    }

    #[test]
    fn a_variable_per_command_overrides_the_default() {
        let formats =
            |command, subcommand| Formats { command, subcommand, tables: &[], builtin: &[] };
        assert_eq!(formats("flux-jobs", None).default_variable(), "FLUX_JOBS_FORMAT_DEFAULT");
        assert_eq!(
            formats("flux-resource", Some("drain")).default_variable(),
            "FLUX_RESOURCE_DRAIN_FORMAT_DEFAULT"
        );
    }
}
