//! In which file and line each key stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

/// File and line by dotted key; entries of arrays have their number as key.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    by_key: BTreeMap<String, (PathBuf, usize)>,
}

impl Places {
    /// Note the keys of a file that was parsed.
    pub(super) fn note(&mut self, path: &Path, text: &str) {
        if let Ok(table) = DeTable::parse(text) {
            self.table(path, text, "", table.get_ref());
        }
    }

    fn table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            let name = match prefix {
                "" => key.get_ref().to_string(),
                prefix => format!("{prefix}.{}", key.get_ref()),
            };
            let line = line_of(text, key.span().start);
            self.by_key.insert(name.clone(), (path.to_owned(), line));
            self.value(path, text, &name, value.get_ref());
        }
    }

    fn value(&mut self, path: &Path, text: &str, name: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.table(path, text, name, table),
            DeValue::Array(array) => {
                for (at, value) in array.iter().enumerate() {
                    let name = format!("{name}.{at}");
                    let line = line_of(text, value.span().start);
                    self.by_key.insert(name.clone(), (path.to_owned(), line));
                    self.value(path, text, &name, value.get_ref());
                }
            }
            _ => {}
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// `FILE:LINE` of a key, or of the table that it should be in.
    pub(super) fn find(&self, key: &str) -> Option<String> {
        // Error texts write entries of arrays as `table.key][0`.
        let mut key = key.replace("][", ".");
        loop {
            if let Some((path, line)) = self.by_key.get(&key) {
                return Some(format!("{}:{line}", path.display()));
            }
            key.truncate(key.rfind('.')?);
        }
    }
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_their_lines() {
        let mut places = Places::default();
        let text = "[bootstrap]\nport = 1\nhosts = [\n  { host = \"a\" },\n  { hst = \"b\" },\n]\n";
        places.note(Path::new("x.toml"), text);
        let find = |key: &str| places.find(key);
        assert_eq!(find("bootstrap.port"), Some("x.toml:2".to_owned()));
        assert_eq!(find("bootstrap.hosts][1.hst"), Some("x.toml:5".to_owned()));
        assert_eq!(find("bootstrap.absent"), Some("x.toml:1".to_owned()));
        assert_eq!(find("other.key"), None);
    }
}
