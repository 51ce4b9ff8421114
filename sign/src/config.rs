//! The `[sign]` table.
//!
//! ```toml
//! [sign]
//! max-ttl = 1209600
//! default-type = "munge"
//! allowed-types = [ "munge" ]
//! ```

use std::path::{Path, PathBuf};

use crate::error::SignError;
use crate::munge::SOCKET;
use crate::secure;
use crate::toml::{self, Table, Value};

/// Where the configuration is, whoever asks: neither the environment nor an argument moves it.
pub const CONF_DIR: &str = "/etc/flux/security/conf.d";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    None,
    Munge,
}

impl Mechanism {
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::None => "none",
            Mechanism::Munge => "munge",
        }
    }

    pub fn from_name(name: &str) -> Option<Mechanism> {
        match name {
            "none" => Some(Mechanism::None),
            "munge" => Some(Mechanism::Munge),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Seconds that a signature is valid.
    pub max_ttl: u64,
    /// What is signed with.
    pub default: Mechanism,
    /// What is believed.
    pub allowed: Vec<Mechanism>,
    pub munge_socket: PathBuf,
}

impl Config {
    /// Read [`CONF_DIR`]; `trusted` as in [`secure`].
    pub fn load(trusted: u32) -> Result<Config, SignError> {
        Config::load_from(Path::new(CONF_DIR), trusted)
    }

    pub fn load_from(dir: &Path, trusted: u32) -> Result<Config, SignError> {
        let files = secure::read_toml_dir(dir, trusted)
            .map_err(|insecure| SignError::Config(format!("sign: {insecure}")))?;
        if files.is_empty() {
            let text = format!("sign: {}/*.toml: No match", dir.display());
            return Err(SignError::Config(text));
        }
        let mut root = Table::new();
        for (path, text) in files {
            toml::parse_into(&mut root, &text)
                .map_err(|error| SignError::Config(format!("sign: {}:{error}", path.display())))?;
        }
        Config::from_table(&root)
    }

    pub fn from_table(root: &Table) -> Result<Config, SignError> {
        let wrong = |text: String| SignError::Table(text);
        let table =
            root.get("sign").ok_or_else(|| wrong("config object not found: sign".into()))?;
        let table = table
            .as_table()
            .ok_or_else(|| wrong(format!("config error: 'sign' is {}", table.kind())))?;
        known_keys(table, &["max-ttl", "default-type", "allowed-types", "munge"])?;
        Ok(Config {
            max_ttl: max_ttl(table)?,
            allowed: allowed_types(table)?,
            default: default_type(table)?,
            munge_socket: munge_socket(table)?,
        })
    }
}

fn known_keys(table: &Table, known: &[&str]) -> Result<(), SignError> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        // Tables are other mechanisms' settings.
        Some(key) if !matches!(table.get(key), Some(Value::Table(_))) => {
            Err(SignError::Table(format!("config error: key '{key}' is unknown")))
        }
        _ => Ok(()),
    }
}

fn required<'a>(table: &'a Table, key: &str) -> Result<&'a Value, SignError> {
    table.get(key).ok_or_else(|| SignError::Table(format!("config error: '{key}' must be set")))
}

fn mistyped(key: &str, kind: &str) -> SignError {
    SignError::Table(format!("config error: '{key}' must be of type {kind}"))
}

fn max_ttl(table: &Table) -> Result<u64, SignError> {
    let Value::Int(seconds) = required(table, "max-ttl")? else {
        return Err(mistyped("max-ttl", "integer"));
    };
    match u64::try_from(*seconds) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err(SignError::Table("max-ttl should be greater than zero".to_owned())),
    }
}

fn mechanism(name: &str) -> Result<Mechanism, SignError> {
    let unknown = || SignError::Table(format!("unknown mechanism={name}"));
    Mechanism::from_name(name).ok_or_else(unknown)
}

fn allowed_types(table: &Table) -> Result<Vec<Mechanism>, SignError> {
    let Value::Array(names) = required(table, "allowed-types")? else {
        return Err(mistyped("allowed-types", "array"));
    };
    if names.is_empty() {
        return Err(SignError::Table("allowed-types array is empty".to_owned()));
    }
    let allowed = names.iter().enumerate().map(|(index, name)| match name {
        Value::Str(name) => mechanism(name),
        _ => Err(SignError::Table(format!("allowed-types[{index}] not a string"))),
    });
    allowed.collect()
}

fn default_type(table: &Table) -> Result<Mechanism, SignError> {
    let name = required(table, "default-type")?.as_str();
    mechanism(name.ok_or_else(|| mistyped("default-type", "string"))?)
}

fn munge_socket(table: &Table) -> Result<PathBuf, SignError> {
    let Some(munge) = table.get("munge") else { return Ok(PathBuf::from(SOCKET)) };
    let munge = munge.as_table().ok_or_else(|| mistyped("munge", "table"))?;
    known_keys(munge, &["socket-path"])?;
    let Some(path) = munge.get("socket-path") else { return Ok(PathBuf::from(SOCKET)) };
    match path.as_str() {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err(SignError::Table("munge.socket-path is not an absolute path".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::from_table(&toml::parse(text).unwrap()).map_err(|error| error.to_string())
    }

    const GOOD: &str = "[sign]\nmax-ttl = 1209600\ndefault-type = \"munge\"\n\
        allowed-types = [ \"munge\" ]\n";

    #[test]
    fn the_example_of_the_guide_is_taken() {
        let config = parse(GOOD).unwrap();
        assert_eq!((config.max_ttl, config.default), (1_209_600, Mechanism::Munge));
        assert_eq!(config.allowed, [Mechanism::Munge]);
        assert_eq!(config.munge_socket, Path::new(SOCKET));
        let socket = format!("{GOOD}[sign.munge]\nsocket-path = \"/x/y\"\n");
        assert_eq!(parse(&socket).unwrap().munge_socket, Path::new("/x/y"));
    }

    #[test]
    fn each_fault_is_named() {
        let faults = [
            ("max-ttl = 1209600", "max-ttl = 0", "sign: max-ttl should be greater than zero"),
            ("max-ttl = 1209600", "max-ttl = -100", "sign: max-ttl should be greater than zero"),
            (
                "max-ttl = 1209600",
                "max-ttl = \"1\"",
                "sign: config error: 'max-ttl' must be of type integer",
            ),
            ("max-ttl = 1209600", "", "sign: config error: 'max-ttl' must be set"),
            ("[ \"munge\" ]", "[]", "sign: allowed-types array is empty"),
            ("[ \"munge\" ]", "[\"munge\", 1]", "sign: allowed-types[1] not a string"),
            ("[ \"munge\" ]", "[\"foo\"]", "sign: unknown mechanism=foo"),
            ("default-type = \"munge\"", "default-type = \"bar\"", "sign: unknown mechanism=bar"),
            ("[sign]", "[sign]\nfoo = 1", "sign: config error: key 'foo' is unknown"),
            ("[sign]", "[other]", "sign: config object not found: sign"),
        ];
        for (from, to, text) in faults {
            assert_eq!(parse(&GOOD.replace(from, to)), Err(text.to_owned()));
        }
    }

    #[test]
    fn a_directory_that_is_missing_or_empty_is_named() {
        let missing = Config::load_from(Path::new("/nonexistent/conf.d"), 0).unwrap_err();
        let text = "sign: /nonexistent/conf.d: No such file or directory";
        assert_eq!(missing.to_string(), text);
        let dir = tempfile::tempdir().unwrap();
        let empty = Config::load_from(dir.path(), 0).unwrap_err();
        assert!(empty.to_string().ends_with("/*.toml: No match"), "{empty}");
    }
}
