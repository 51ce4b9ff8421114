//! The table of a job's processes, for debuggers (MPIR): which task runs where, as which process.
//! It is what `UID-shell-ID.proctable` answers.
//!
//! Lists of numbers and of names are packed: runs and repeats take one entry each.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Columns of the table, one entry for each task.
#[derive(Debug, Default)]
pub struct Proctable {
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub task: i64,
    pub host: String,
    pub executable: String,
    pub pid: i64,
    pub broker_rank: i64,
}

/// The table as it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packed {
    hosts: Value,
    executables: Value,
    ids: Value,
    pids: Value,
    ranks: Value,
}

/// Consecutive numbers, or one number repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: i64,
    more: i64,
    repeated: bool,
}

// === impl Proctable ===

impl Proctable {
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Add another shell's part. Returns whether it was one.
    pub fn merge(&mut self, packed: &Packed) -> bool {
        match packed.unpack() {
            Some(rows) => {
                self.rows.extend(rows);
                true
            }
            None => false,
        }
    }

    pub fn pack(&mut self) -> Packed {
        self.rows.sort();
        let numbers = |column: fn(&Row) -> i64| pack_numbers(self.rows.iter().map(column));
        Packed {
            hosts: pack_names(self.rows.iter().map(|row| row.host.as_str())),
            executables: pack_names(self.rows.iter().map(|row| row.executable.as_str())),
            ids: numbers(|row| row.task),
            pids: numbers(|row| row.pid),
            ranks: numbers(|row| row.broker_rank),
        }
    }
}

// === impl Packed ===

impl Packed {
    /// The rows, as many as the shortest column has.
    pub fn unpack(&self) -> Option<Vec<Row>> {
        let names = unpack_names(&self.hosts)?.into_iter().zip(unpack_names(&self.executables)?);
        let numbers = unpack_numbers(&self.pids)?.into_iter().zip(unpack_numbers(&self.ranks)?);
        let rows = unpack_numbers(&self.ids)?.into_iter().zip(names.zip(numbers));
        let row = |(task, ((host, executable), (pid, broker_rank)))| Row {
            task,
            host,
            executable,
            pid,
            broker_rank,
        };
        Some(rows.map(row).collect())
    }
}

fn runs(numbers: impl Iterator<Item = i64>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for number in numbers {
        if let Some(last) = runs.last_mut() {
            if !last.repeated && number == last.first + last.more + 1 {
                last.more += 1;
                continue;
            }
            if number == last.first && (last.repeated || last.more == 0) {
                last.repeated = true;
                last.more += 1;
                continue;
            }
        }
        runs.push(Run { first: number, more: 0, repeated: false });
    }
    runs
}

/// `[1234, [1, 3], [2, -1]]`: a number, a run of four, a number twice; each relative to the last
/// of the entry before.
fn pack_numbers(numbers: impl Iterator<Item = i64>) -> Value {
    let mut entries: Vec<Value> = Vec::new();
    let mut base = 0;
    for run in runs(numbers) {
        let start = run.first - base;
        base = if run.repeated { run.first } else { run.first + run.more };
        if run.more == 0 {
            entries.push(json!(start));
            continue;
        }
        let length = if run.repeated { -run.more } else { run.more };
        // The same entry once more is counted in a third member.
        if let Some(Value::Array(last)) = entries.last_mut()
            && last.first() == Some(&json!(start))
            && last.get(1) == Some(&json!(length))
        {
            let again = last.get(2).and_then(Value::as_i64).unwrap_or(0) + 1;
            last.truncate(2);
            last.push(json!(again));
            continue;
        }
        entries.push(json!([start, length]));
    }
    Value::Array(entries)
}

fn unpack_numbers(packed: &Value) -> Option<Vec<i64>> {
    /// Text of a few bytes can name billions.
    const MOST: usize = 1 << 24;
    let mut numbers = Vec::new();
    let mut base: i64 = 0;
    for entry in packed.as_array()? {
        let (start, length, again) = match entry {
            Value::Number(number) => (number.as_i64()?, 0, 0),
            Value::Array(members) => {
                let member = |at: usize| members.get(at).and_then(Value::as_i64);
                (member(0)?, member(1)?, member(2).unwrap_or(0))
            }
            _ => return None,
        };
        for _ in 0..=again.max(0) {
            let first = base.checked_add(start)?;
            let count = usize::try_from(length.unsigned_abs()).ok()?;
            if numbers.len().saturating_add(count) > MOST {
                return None;
            }
            let step = i64::from(length > 0);
            first.checked_add(length.checked_abs()?)?;
            numbers.extend((0..=length.abs()).map(|offset| first + step * offset));
            base = *numbers.last()?;
        }
    }
    Some(numbers)
}

/// `["a", ["n", [0, 3]]]`: a name, and four that end in a number.
fn pack_names<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let mut groups: Vec<(&str, Vec<i64>)> = Vec::new();
    for name in names {
        let (prefix, number) = split(name);
        match groups.last_mut() {
            Some((last, numbers)) if *last == prefix => numbers.push(number),
            _ => groups.push((prefix, vec![number])),
        }
    }
    let pack = |(prefix, numbers): (&str, Vec<i64>)| match numbers.as_slice() {
        [number] => json!(join(prefix, *number)),
        _ => json!([prefix, pack_numbers(numbers.into_iter())]),
    };
    Value::Array(groups.into_iter().map(pack).collect())
}

fn unpack_names(packed: &Value) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for entry in packed.as_array()? {
        match entry {
            Value::String(name) => names.push(name.clone()),
            Value::Array(members) => {
                let prefix = members.first()?.as_str()?;
                let numbers = unpack_numbers(members.get(1)?)?;
                names.extend(numbers.into_iter().map(|number| join(prefix, number)));
            }
            _ => return None,
        }
    }
    Some(names)
}

/// A name's number at the end, -1 for none; leading zeros belong to the name.
fn split(name: &str) -> (&str, i64) {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (prefix, number) = name.split_at(name.len() - digits);
    let zeros = number.len() - number.trim_start_matches('0').len();
    let zeros = if zeros == number.len() { zeros.saturating_sub(1) } else { zeros };
    let (prefix, number) = name.split_at(prefix.len() + zeros);
    match number.parse() {
        Ok(number) => (prefix, number),
        Err(_) => (name, -1),
    }
}

fn join(prefix: &str, number: i64) -> String {
    if number < 0 { prefix.to_owned() } else { format!("{prefix}{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(list: &[i64]) -> Value {
        pack_numbers(list.iter().copied())
    }

    #[test]
    fn runs_and_repeats_take_one_entry() {
        assert_eq!(numbers(&[1234, 1235, 1236, 1237]), json!([[1234, 3]]));
        assert_eq!(numbers(&[18, 18, 18]), json!([[18, -2]]));
        assert_eq!(numbers(&[5]), json!([5]));
        assert_eq!(numbers(&[1, 1, 2, 2, 3, 3]), json!([[1, -1, 2]]));
        assert_eq!(numbers(&[7, 3]), json!([7, -4]));
    }

    #[test]
    fn names_are_packed_by_their_numbers() {
        let names = ["n0", "n1", "n2", "login", "n07"];
        let packed = pack_names(names.into_iter());
        assert_eq!(packed, json!([["n", [[0, 2]]], "login", "n07"]));
        assert_eq!(pack_names(["vm", "vm"].into_iter()), json!([["vm", [[-1, -1]]]]));
    }

    #[test]
    fn parts_of_shells_become_one_table_in_the_order_of_tasks() {
        let row = |task: i64, host: &str| Row {
            task,
            host: host.to_owned(),
            executable: "app".to_owned(),
            pid: 100 + task,
            broker_rank: task % 2,
        };
        let mut leader = Proctable::default();
        leader.push(row(0, "n0"));
        leader.push(row(2, "n0"));
        let mut other = Proctable::default();
        other.push(row(1, "n1"));
        other.push(row(3, "n1"));
        assert!(leader.merge(&other.pack()));
        let packed = leader.pack();
        assert_eq!(packed.ids, json!([[0, 3]]));
        assert_eq!(packed.pids, json!([[100, 3]]));
        let rows = packed.unpack().unwrap();
        assert_eq!(rows, [row(0, "n0"), row(1, "n1"), row(2, "n0"), row(3, "n1")]);
        let mut bad = other.pack();
        bad.ids = json!([[0, 1i64 << 40]]);
        assert!(!leader.merge(&bad));
    }

    proptest! {
        #[test]
        fn numbers_come_back_as_they_went(list in prop::collection::vec(-3i64..9, 0..30)) {
            prop_assert_eq!(unpack_numbers(&numbers(&list)), Some(list));
        }

        #[test]
        fn names_come_back_as_they_went(list in prop::collection::vec("[ab]{0,2}[0-9]{0,3}", 0..12)) {
            let packed = pack_names(list.iter().map(String::as_str));
            prop_assert_eq!(unpack_names(&packed), Some(list));
        }
    }
}
