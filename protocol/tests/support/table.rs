//! Reads the tables of real answers and runs a check on every row.
#![allow(dead_code, reason = "each table uses a part of this")]

use serde_json::Value;
use std::fmt::Debug;
use std::path::PathBuf;

/// One captured call: an operation, its input, and the answer or the error.
#[derive(Debug)]
pub(crate) struct Row(Value);

impl Row {
    pub(crate) fn op(&self) -> &str {
        self.0["op"].as_str().unwrap()
    }

    pub(crate) fn input(&self) -> &Value {
        self.0.get("in").unwrap()
    }

    /// The answer, or None when the call failed.
    pub(crate) fn out(&self) -> Option<&Value> {
        let out = self.0.get("out");
        assert_ne!(out.is_some(), self.0.get("error").is_some(), "out or error: {:?}", self.0);
        out
    }

    pub(crate) fn errmsg(&self) -> &str {
        self.0["errmsg"].as_str().unwrap()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
}

/// Run `check` on each row of a table and report all rows that fail.
pub(crate) fn check(table: &str, check: impl Fn(&Row) -> Result<(), String>) {
    let document = read(&format!("tables/{table}"));
    let rows = document["rows"].as_array().unwrap();
    assert!(rows.len() > 50, "{table} holds only {} rows", rows.len());
    let failures: Vec<String> = rows
        .iter()
        .map(|row| Row(row.clone()))
        .filter_map(|row| check(&row).err().map(|why| format!("{:?}: {why}", row.0)))
        .collect();
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
}

/// Say which part of an answer differs.
pub(crate) fn same<A: PartialEq<B> + Debug + ?Sized, B: Debug + ?Sized>(
    what: &str,
    ours: &A,
    real: &B,
) -> Result<(), String> {
    if ours == real { Ok(()) } else { Err(format!("{what}: ours {ours:?}, real {real:?}")) }
}

/// A captured document, by its path below tests/vectors.
pub(crate) fn read(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(vectors().join(path)).unwrap()).unwrap()
}

/// All captured jobs, by name.
pub(crate) fn jobs() -> Vec<(String, Value)> {
    let mut jobs: Vec<_> = std::fs::read_dir(vectors().join("jobs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| (name.clone(), read(&format!("jobs/{name}"))))
        .collect();
    jobs.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(jobs.len() >= 32, "only {} captured jobs", jobs.len());
    jobs
}

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}
