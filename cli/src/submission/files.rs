//! `--add-file` and values of `--setopt` and `--setattr`: what is put into a jobspec as it is.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_protocol::jobspec::Jobspec;
use serde_json::{Map, Value, json};

use super::refuse;
use crate::failure::{Failure, strerror};

/// A regular file, in a mode.
const S_IFREG: u32 = 0o100_000;
/// Permissions of data that was no file.
const PRIVATE: u32 = 0o600;

/// An RFC 37 file in the jobspec: `PATH`, `NAME=PATH`, `NAME:PERMS=PATH`, or with a newline in it,
/// `NAME=DATA`.
pub(crate) fn add_file(jobspec: &mut Jobspec, arg: &str) -> Result<(), Failure> {
    let unescaped = arg.replace("\\n", "\n");
    let (name, data, perms) = match unescaped.split_once('=') {
        Some((name, data)) if !data.is_empty() => {
            let (name, perms) = split_permissions(name);
            (name, data, perms)
        }
        _ => {
            let path = unescaped.trim_end_matches('=');
            if path.contains('\n') {
                return Err(refuse("--add-file: file name missing"));
            }
            (path.rsplit('/').next().unwrap_or(path), path, None)
        }
    };
    let object = if data.contains('\n') {
        text_file(data, perms.unwrap_or(PRIVATE))
    } else {
        read_file(Path::new(data), perms)
            .map_err(|error| refuse(format_args!("--add-file={arg}: {error}")))?
    };
    set_file(jobspec, name, object);
    Ok(())
}

pub(crate) fn set_file(jobspec: &mut Jobspec, name: &str, object: Value) {
    // Names of files have dots, which are no path in the jobspec.
    let mut files = match jobspec.remove_attribute("system.files") {
        Some(Value::Object(files)) => files,
        _ => Map::new(),
    };
    files.insert(name.to_owned(), object);
    jobspec.set_attribute("system.files", Value::Object(files));
}

pub(crate) fn text_file(text: &str, perms: u32) -> Value {
    json!({"mode": perms | S_IFREG, "data": text, "encoding": "utf-8"})
}

pub(crate) fn json_file(value: &Value) -> Value {
    json!({"mode": PRIVATE | S_IFREG, "data": value})
}

fn split_permissions(name: &str) -> (&str, Option<u32>) {
    let split = name.split_once(':').and_then(|(name, perms)| {
        let digits = perms.strip_prefix("0o").unwrap_or(perms);
        Some((name, u32::from_str_radix(digits, 8).ok()?))
    });
    split.map_or((name, None), |(name, perms)| (name, Some(perms)))
}

fn read_file(path: &Path, perms: Option<u32>) -> Result<Value, String> {
    let failed = |error: std::io::Error| {
        let number = error.raw_os_error().unwrap_or_default();
        format!("[Errno {number}] {}: '{}'", strerror(&error), path.display())
    };
    let meta = std::fs::metadata(path).map_err(failed)?;
    let bytes = std::fs::read(path).map_err(failed)?;
    let mode = perms.map_or(meta.mode(), |perms| perms | S_IFREG);
    let (data, encoding) = match String::from_utf8(bytes) {
        Ok(text) => (text, "utf-8"),
        Err(error) => (STANDARD.encode(error.as_bytes()), "base64"),
    };
    Ok(json!({"mode": mode, "size": meta.size(), "data": data, "encoding": encoding}))
}

/// `KEY[=VALUE]`: VALUE is JSON where it can be, else text, and 1 where there is none. `^KEY=FILE`
/// has it in a file.
pub(crate) fn key_value(option: &str, text: &str) -> Result<(String, Value), Failure> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    if let Some(key) = key.strip_prefix('^') {
        let path = value.unwrap_or("1");
        let text = std::fs::read_to_string(path)
            .map_err(|error| refuse(format_args!("{}: '{path}'", strerror(&error))))?;
        let value = serde_json::from_str(&text)
            .map_err(|error| refuse(format_args!("{option}: {path}: {error}")))?;
        return Ok((key.trim_start_matches('^').to_owned(), value));
    }
    let value = match value {
        None => json!(1),
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    };
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_protocol::jobspec::{Extras, TaskRequest};

    fn file(arg: &str, name: &str) -> Option<Value> {
        let request = TaskRequest::new(["true"]);
        let mut jobspec = Jobspec::from_command(&request, &Extras::default()).unwrap();
        add_file(&mut jobspec, arg).unwrap();
        jobspec.attribute("system.files")?.get(name).cloned()
    }

    #[test]
    fn files_and_data_are_embedded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.x");
        std::fs::write(&path, [0xff, 0]).unwrap();
        let object = file(path.to_str().unwrap(), "f.x").unwrap();
        assert_eq!(object.get("data"), Some(&json!("/wA=")));
        assert_eq!(object.get("encoding"), Some(&json!("base64")));
        assert_eq!(object.get("size"), Some(&json!(2)));
        let renamed = file(&format!("y:755={}", path.display()), "y").unwrap();
        assert_eq!(renamed.get("mode"), Some(&json!(0o100_755)));
        let data = json!({"mode": 0o100_600, "data": "a\nb", "encoding": "utf-8"});
        assert_eq!(file("z=a\\nb", "z"), Some(data));
    }

    #[test]
    fn values_are_json_where_they_can_be() {
        let value = |text: &str| key_value("--setopt", text).unwrap();
        assert_eq!(value("a"), ("a".to_owned(), json!(1)));
        assert_eq!(value("a=b=c"), ("a".to_owned(), json!("b=c")));
        assert_eq!(value("a.b={\"c\":[2]}"), ("a.b".to_owned(), json!({"c": [2]})));
        assert_eq!(value("a="), ("a".to_owned(), json!("")));
        assert!(key_value("--setopt", "^a=/nonexistent").is_err());
    }
}
