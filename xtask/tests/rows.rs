//! `tests/rows/*.tsv` say which test shows which feature row; a test that is renamed or removed
//! must not stay in those tables.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One line of a table: `row<TAB>tests<TAB>remark`.
struct Row {
    id: String,
    /// `path/from/the/root.rs::name_of_the_test`; none when the row is checked by hand.
    tests: Vec<String>,
    remark: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn tables() -> Vec<(PathBuf, Vec<Row>)> {
    let mut files: Vec<_> = fs::read_dir(root().join("tests/rows"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tsv"))
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> Vec<Row> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("row\ttests\tremark"), "{}: first line", path.display());
    lines
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let [id, tests, remark] = columns.as_slice() else {
                panic!("{}: not three columns: {line}", path.display());
            };
            let tests = tests.split(',').map(str::trim).filter(|test| *test != "-");
            Row {
                id: (*id).to_owned(),
                tests: tests.map(str::to_owned).collect(),
                remark: (*remark).to_owned(),
            }
        })
        .collect()
}

#[test]
fn every_test_that_a_row_names_exists() {
    let mut sources = BTreeMap::new();
    let mut missing = Vec::new();
    for (_, rows) in tables() {
        for (id, test) in
            rows.iter().flat_map(|row| row.tests.iter().map(move |test| (&row.id, test)))
        {
            let (file, name) = test.split_once("::").unwrap_or((test, ""));
            let source = sources
                .entry(file.to_owned())
                .or_insert_with(|| fs::read_to_string(root().join(file)).unwrap_or_default());
            let name = name.rsplit("::").next().unwrap_or_default();
            if name.is_empty() || !source.contains(&format!("fn {name}(")) {
                missing.push(format!("{id}: {test}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

#[test]
fn every_row_is_in_the_table_of_its_area_once_with_a_test_or_a_remark() {
    for (path, rows) in tables() {
        let area = path.file_stem().unwrap().to_str().unwrap();
        let mut ids: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
        for row in &rows {
            assert!(row.id.starts_with(&format!("{area}-")), "{}: {}", path.display(), row.id);
            assert!(!row.tests.is_empty() || !row.remark.is_empty(), "{}: says nothing", row.id);
        }
        ids.sort_unstable();
        let before = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), before, "{}: a row is there twice", path.display());
    }
}
