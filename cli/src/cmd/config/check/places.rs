//! In which file and line each key of a configuration space stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::toml_files;

/// `FILE:LINE` by dotted key; entries of arrays have their number as key.
#[derive(Debug, Default)]
pub(super) struct Places {
    dir: PathBuf,
    by_key: BTreeMap<String, String>,
}

impl Places {
    pub(super) fn of(dir: &Path) -> Places {
        let mut places = Places { dir: dir.to_owned(), by_key: BTreeMap::new() };
        for file in toml_files::files(dir).unwrap_or_default() {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Ok(table) = DeTable::parse(&text) {
                places.table(&file, &text, "", table.get_ref());
            }
        }
        places
    }

    /// Where the key is, or else the table that it should be in.
    pub(super) fn find(&self, key: &str) -> String {
        let parents = std::iter::successors(Some(key), |key| Some(key.rsplit_once('.')?.0));
        let found = parents.filter_map(|key| self.by_key.get(key)).next();
        found.cloned().unwrap_or_else(|| self.dir.display().to_string())
    }

    fn table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            let name = match prefix {
                "" => key.get_ref().to_string(),
                prefix => format!("{prefix}.{}", key.get_ref()),
            };
            self.value(path, text, &name, key.span().start, value.get_ref());
        }
    }

    fn value(&mut self, path: &Path, text: &str, name: &str, offset: usize, value: &DeValue<'_>) {
        let line = 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        // A table may be continued in another file.
        let place = format!("{}:{line}", path.display());
        self.by_key.entry(name.to_owned()).or_insert(place);
        match value {
            DeValue::Table(table) => self.table(path, text, name, table),
            DeValue::Array(array) => {
                for (at, value) in array.iter().enumerate() {
                    let name = format!("{name}.{at}");
                    self.value(path, text, &name, value.span().start, value.get_ref());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_their_lines_whatever_else_has_the_same_value() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[exec]\nallowed-shells = [\n  \"rel\",\n]\n[run.prolog]\npath = \"rel\"\n";
        std::fs::write(dir.path().join("imp.toml"), text).unwrap();
        let places = Places::of(dir.path());
        let line = |key: &str| places.find(key).rsplit_once(':').unwrap().1.to_owned();
        assert_eq!(line("exec.allowed-shells.0"), "3");
        assert_eq!(line("run.prolog.path"), "6");
        assert_eq!(line("run.prolog.absent"), "5");
        assert_eq!(places.find("sign"), dir.path().display().to_string());
    }
}
