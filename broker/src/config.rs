//! The configuration object: every `*.toml` of a directory, merged (flux-config(5)).

pub mod access;
pub mod bootstrap;
pub mod execution;
pub mod job_list;
pub mod job_manager;
pub mod periodic;
mod places;
pub mod policy;
pub mod queues;
pub mod resource;
pub mod storage;
pub mod table;
pub mod tables;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use places::Places;
use table::TableError;

/// The whole configuration as one JSON object, which is also its form on the wire.
///
/// Services read their tables with the types of the modules below; [`tables::check`] reads them
/// all.
#[derive(Debug, Clone, Default)]
pub struct Config {
    root: Map<String, Value>,
    places: Places,
    warnings: RefCell<Vec<TableError>>,
}

impl PartialEq for Config {
    fn eq(&self, other: &Config) -> bool {
        self.root == other.root
    }
}

/// Why a configuration can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}:{line}: {text}", path.display())]
    Syntax { path: PathBuf, line: usize, text: String },
    #[error("{}: {text}", path.display())]
    Merge { path: PathBuf, text: String },
    #[error("--conf={value}: {text}")]
    Update { value: String, text: String },
    #[error("{}{error}", place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
    Table { place: Option<String>, error: TableError },
}

impl Config {
    pub fn from_object(root: Map<String, Value>) -> Config {
        Config { root, ..Config::default() }
    }

    /// Read all tables that Flux knows. The error says in which file and line.
    pub fn check(&self) -> Result<(), ConfigError> {
        tables::check(self).map_err(|refusal| ConfigError::Table {
            place: self.places.find(&refusal.error.path()),
            error: refusal.error,
        })
    }

    /// All that is wrong or likely to be a mistake, for a check without a broker: a line each, with
    /// file and line.
    pub fn findings(&self) -> Vec<String> {
        let located = |error: TableError| {
            let place = self.places.find(&error.path());
            let mut text = ConfigError::Table { place, error }.to_string().replace('\n', "; ");
            if text.ends_with("is not a valid FSD") {
                text.push_str(" (write it like 500ms, 30s, 5m, 2h or 7d)");
            }
            text
        };
        let mut read = self.clone();
        let mut findings: Vec<String> =
            tables::check_all(&mut read).into_iter().map(located).collect();
        findings.extend(read.warnings());
        findings.dedup();
        findings
    }

    /// `FILE:LINE: ` of a dotted key; empty when it is in no file.
    pub fn place(&self, key: &str) -> String {
        self.places.find(key).map(|place| format!("{place}: ")).unwrap_or_default()
    }

    /// `FILE:LINE: ` of what an error text is about: the first `[table]`, `[table.array][0]`,
    /// `[table] key` or `table.key` in it that is in some file; empty when there is none.
    pub fn place_of(&self, text: &str) -> String {
        let strip = |word: &str| {
            let inner = word.trim_matches(|c: char| c.is_ascii_punctuation());
            inner.replace("][", ".")
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut found = words.iter().enumerate().filter_map(|(at, word)| {
            let key = strip(word);
            let is_key = word.starts_with('[') || key.contains('.');
            if !is_key || !self.places.has(&key) {
                return None;
            }
            let next = words.get(at + 1).map(|word| format!("{key}.{}", strip(word)));
            Some(next.filter(|key| self.places.has(key)).unwrap_or(key))
        });
        found.next().map(|key| self.place(&key)).unwrap_or_default()
    }

    pub(crate) fn warn(&self, error: TableError) {
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&error) {
            warnings.push(error);
        }
    }

    /// What was let through but is likely a mistake, with file and line.
    pub fn warnings(&self) -> Vec<String> {
        let text = |error: &TableError| match self.places.find(&error.path()) {
            Some(place) => format!("{place}: {error}"),
            None => error.to_string(),
        };
        self.warnings.borrow().iter().map(text).collect()
    }

    pub fn object(&self) -> &Map<String, Value> {
        &self.root
    }

    /// The value at a dotted key, such as `policy.limits.duration`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let mut keys = key.split('.');
        let first = self.root.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }

    /// Take the value at a dotted key out; entries of arrays have their number as key.
    pub(crate) fn remove(&mut self, key: &str) -> bool {
        let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut words = path.split('.').filter(|word| !word.is_empty());
        let table = match words.next() {
            None => Some(&mut self.root),
            Some(first) => {
                let value = words.try_fold(self.root.get_mut(first), |value, word| {
                    Some(match value? {
                        Value::Array(array) => array.get_mut(word.parse::<usize>().ok()?),
                        value => value.get_mut(word),
                    })
                });
                value.flatten().and_then(Value::as_object_mut)
            }
        };
        table.is_some_and(|table| table.shift_remove(last).is_some())
    }

    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// Read a `.toml` (or `.json`) file, or all `*.toml` files of a directory in the order of
    /// their names.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        for file in config_files(path)? {
            let before = config.places.clone();
            let table = read_file(&file, &mut config.places)?;
            merge(&mut config.root, table).map_err(|key| {
                let (here, there) = (config.places.find(&key), before.find(&key));
                let other = there.map(|place| format!(" ({place})")).unwrap_or_default();
                let text =
                    format!("'{key}' is set in another file of the directory already{other}");
                let path = here.map_or_else(|| file.clone(), PathBuf::from);
                ConfigError::Merge { path, text }
            })?;
        }
        Ok(config)
    }
}

impl Config {
    /// Update from the value of a `--conf` option: `KEY=VAL`, inline JSON, inline TOML (with a
    /// newline in it), or a path.
    pub fn update(&mut self, value: &str) -> Result<(), ConfigError> {
        let error = |text: String| ConfigError::Update { value: value.to_owned(), text };
        let table = if value.trim_start().starts_with('{') {
            serde_json::from_str(value).map_err(|e| error(e.to_string()))?
        } else if value.contains('\n') {
            toml::from_str(value).map_err(|e| error(e.message().to_owned()))?
        } else if let Some((key, text)) = value.split_once('=') {
            key_value(key, text).map_err(error)?
        } else {
            read_file(Path::new(value), &mut self.places)?
        };
        overwrite(&mut self.root, table);
        Ok(())
    }
}

/// `a.b=VAL` as nested tables; what is not JSON is a string.
fn key_value(key: &str, text: &str) -> Result<Map<String, Value>, String> {
    let leaf = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let value = key.rsplit('.').try_fold(leaf, |value, key| match key {
        "" => Err(format!("'{key}' is not a key")),
        key => Ok(Value::Object(Map::from_iter([(key.to_owned(), value)]))),
    })?;
    match value {
        Value::Object(table) => Ok(table),
        _ => Err("there is no key".to_owned()),
    }
}

/// Merge tables key by key; what is new stands above what is there.
fn overwrite(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(here)) => overwrite(there, here),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn config_files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let error = |error| ConfigError::Read { path: path.to_owned(), error };
    if !std::fs::metadata(path).map_err(error)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files = flux_sign::secure::toml_paths(path).map_err(error)?;
    // Reading a FIFO would wait for whoever writes to it.
    let is_other = |file: &&PathBuf| file.metadata().is_ok_and(|meta| !meta.is_file());
    match files.iter().find(is_other) {
        Some(file) => {
            let error = std::io::Error::other("not a regular file");
            Err(ConfigError::Read { path: file.clone(), error })
        }
        None => Ok(files),
    }
}

fn read_file(path: &Path, places: &mut Places) -> Result<Map<String, Value>, ConfigError> {
    let bytes =
        std::fs::read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let lines = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n');
        let (line, text) = (1 + lines.count(), "not UTF-8 text; save the file as UTF-8".to_owned());
        ConfigError::Syntax { path: path.to_owned(), line, text }
    })?;
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.line(),
            text: error.to_string(),
        });
    }
    let table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| places::line_of(&text, span.start)),
        text: error.message().to_owned(),
    })?;
    places.note(path, &text);
    Ok(table)
}

/// Merge tables key by key; a key that is set twice is an error, and is returned.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) -> Result<(), String> {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(here)) => {
                merge(there, here).map_err(|inner| format!("{key}.{inner}"))?;
            }
            (Some(_), _) => return Err(key),
            (None, value) => {
                into.insert(key, value);
            }
        }
    }
    Ok(())
}
