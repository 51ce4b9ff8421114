//! Files that a plugin's configuration names.
//!
//! A plugin has no files. One with the capability `file:KEY` gets the text of the file that its
//! configuration has under KEY (`KEY = "FILE"`, or `args = ["--KEY=FILE"]`), as `files.KEY` of its
//! configuration: read when the plugin is loaded and whenever it is configured.

use super::capability::arguments;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;

/// Longest file.
const FILE_MAX: u64 = 1 << 20;

/// The texts by key. A key that the configuration does not have has none.
pub(super) fn read(
    conf: &Map<String, Value>,
    granted: &[String],
) -> Result<Map<String, Value>, String> {
    let mut files = Map::new();
    for key in arguments(granted, "file:") {
        if let Some(path) = path(conf, key) {
            let text = read_one(path).map_err(|error| format!("{key}: {path}: {error}"))?;
            files.insert(key.to_owned(), Value::String(text));
        }
    }
    Ok(files)
}

fn path<'a>(conf: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    let arguments = conf.get("args").and_then(Value::as_array).into_iter().flatten();
    let mut arguments = arguments.filter_map(Value::as_str);
    let option = format!("--{key}=");
    match conf.get(key) {
        Some(value) => value.as_str(),
        None => arguments.find_map(|argument| argument.strip_prefix(&option)),
    }
}

fn read_one(path: &str) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file.take(FILE_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 > FILE_MAX => Err(format!("longer than {FILE_MAX} bytes")),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn files(conf: Value, capability: &str) -> Result<Value, String> {
        let conf = conf.as_object().cloned().unwrap_or_default();
        read(&conf, &[capability.to_owned()]).map(Value::Object)
    }

    #[test]
    fn the_file_under_a_granted_key_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.json");
        std::fs::write(&file, "{}").unwrap();
        let file = file.to_str().unwrap();
        let conf = json!({ "schema": file, "other": "/etc/passwd" });
        assert_eq!(files(conf.clone(), "file:schema"), Ok(json!({ "schema": "{}" })));
        assert_eq!(files(conf, "drain"), Ok(json!({})));
        let conf = json!({ "args": ["-x", format!("--schema={file}")] });
        assert_eq!(files(conf, "file:schema"), Ok(json!({ "schema": "{}" })));
        assert_eq!(files(json!({}), "file:schema"), Ok(json!({})));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let error = files(json!({ "schema": "/nowhere" }), "file:schema").unwrap_err();
        assert!(error.starts_with("schema: /nowhere: No such file"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("long");
        std::fs::write(&file, vec![b' '; (1 << 20) + 1]).unwrap();
        let error = files(json!({ "schema": file.to_str().unwrap() }), "file:schema").unwrap_err();
        assert!(error.ends_with("longer than 1048576 bytes"), "{error}");
    }
}
