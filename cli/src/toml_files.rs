//! Configuration in files: one TOML or JSON file, or all `*.toml` files of a folder.

use std::path::{Path, PathBuf};

use flux_protocol::payload::Object;
use serde_json::Value;

use crate::failure::strerror;

/// What is wrong, with path and line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("{path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error("{path}:{line}: {reason}")]
    Syntax { path: PathBuf, line: usize, reason: String },
    #[error("{path}: {key} is set in another file, too")]
    Duplicate { path: PathBuf, key: String },
}

/// Read the file, or the files of the folder in the order of their names.
pub(crate) fn read(path: &Path) -> Result<Object, FilesError> {
    if !path.is_dir() {
        return read_file(path);
    }
    let mut all = Object::new();
    for file in files(path)? {
        let object = read_file(&file)?;
        merge(&mut all, object).map_err(|key| FilesError::Duplicate { path: file, key })?;
    }
    Ok(all)
}

/// The folder's files that are read, in the order of their names.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let unreadable =
        |e: std::io::Error| FilesError::Read { path: dir.to_owned(), reason: strerror(&e) };
    let files = flux_sign::secure::toml_paths(dir).map_err(unreadable)?;
    // Reading a FIFO would wait for whoever writes to it.
    let is_other = |file: &&PathBuf| file.metadata().is_ok_and(|meta| !meta.is_file());
    match files.iter().find(is_other) {
        Some(path) => {
            let reason = "not a regular file".to_owned();
            Err(FilesError::Read { path: path.clone(), reason })
        }
        None => Ok(files),
    }
}

/// TOML as a JSON object; the error tells the line.
pub(crate) fn parse_toml(text: &str) -> Result<Object, String> {
    read_toml(text).map_err(|(line, reason)| format!("line {line}: {reason}"))
}

fn read_toml(text: &str) -> Result<Object, (usize, String)> {
    toml::from_str(text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        (before.matches('\n').count() + 1, e.message().to_owned())
    })
}

fn read_file(path: &Path) -> Result<Object, FilesError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| FilesError::Read { path: path.to_owned(), reason: strerror(&e) })?;
    let object = if path.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|e| (e.line(), e.to_string()))
    } else {
        read_toml(&text)
    };
    object.map_err(|(line, reason)| FilesError::Syntax { path: path.to_owned(), line, reason })
}

/// Tables are joined; the error is a key that both set.
fn merge(into: &mut Object, from: Object) -> Result<(), String> {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => {
                merge(into, from).map_err(|inner| format!("{key}.{inner}"))?;
            }
            (Some(_), _) => return Err(key),
            (None, value) => drop(into.insert(key, value)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_give_the_same_as_one_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.toml"), "[kvs]\na = 1\n[tbon]\nx = 2\n").unwrap();
        std::fs::write(dir.path().join("a.toml"), "[tbon]\ny = 3\n").unwrap();
        std::fs::write(dir.path().join("c.conf"), "nonsense").unwrap();
        let whole = parse_toml("[tbon]\nx = 2\ny = 3\n[kvs]\na = 1\n").unwrap();
        assert_eq!(read(dir.path()).unwrap(), whole);
    }

    #[test]
    fn errors_tell_where() {
        assert!(parse_toml("a = 1\n[bad").unwrap_err().starts_with("line 2: "));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "[t]\na = 1\n").unwrap();
        std::fs::write(dir.path().join("b.toml"), "[t]\na = 2\n").unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("b.toml: t.a is set in another file, too"), "{error}");
    }
}
