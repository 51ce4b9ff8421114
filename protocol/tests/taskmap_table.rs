//! Every row of tests/vectors/tables/taskmap.json, captured from a real Flux.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::taskmap::{Form, MAX_TASKS, Taskmap, TaskmapError};
use proptest::prelude::*;
use serde_json::{Value, json};

const FORMS: [Form; 5] = [Form::Json, Form::Wrapped, Form::Pmi, Form::Raw, Form::RawDeranged];

#[test]
fn every_captured_row_gives_the_real_answer() {
    table::check("taskmap.json", |row| {
        if row.op() != "decode" {
            return Err(format!("unknown op {}", row.op()));
        }
        match (Taskmap::decode(row.input().as_str().unwrap()), row.out()) {
            (Ok(map), Some(out)) => describe(&map, out),
            // Syntax errors are in the words of the JSON library.
            (Err(TaskmapError::Json(_)), None) => {
                let syntax = ["expected near", "invalid token near"];
                let real = row.errmsg();
                table::same("syntax error", &syntax.iter().any(|s| real.contains(s)), &true)
            }
            (Err(e), None) => table::same("errmsg", e.to_string().as_str(), row.errmsg()),
            (ours, real) => Err(format!("ours {ours:?}, real {real:?}")),
        }
    });
}

fn describe(map: &Taskmap, out: &Value) -> Result<(), String> {
    let size = |n: Option<u64>| n.map_or(json!(-1), |n| json!(n));
    let form = |form| map.encode(form).map_or_else(|_| json!({"errno": 2}), Value::from);
    for (key, real) in out.as_object().unwrap() {
        let ours = match key.as_str() {
            "json" => form(Form::Json),
            "wrapped" => form(Form::Wrapped),
            "pmi" => form(Form::Pmi),
            "raw" => form(Form::Raw),
            // Left out of the captures where it is long.
            "raw_deranged" if real.is_null() => continue,
            "raw_deranged" => form(Form::RawDeranged),
            "nnodes" => size(map.nnodes()),
            "ntasks" => size(map.total_ntasks()),
            "unknown" => json!(map.is_unknown()),
            "nodeid_of_task" => {
                let count = real.as_array().unwrap().len() as u32;
                (0..count).map(|task| json!(map.nodeid(task))).collect()
            }
            other => return Err(format!("unknown key {other}")),
        };
        table::same(key, &ours, real)?;
    }
    Ok(())
}

#[test]
fn maps_of_real_jobs_survive() {
    let mut seen = 0;
    for (name, job) in table::jobs() {
        let Some(log) = job["kvs"].get("guest.exec.eventlog").and_then(Value::as_array) else {
            continue;
        };
        for event in log.iter().filter(|event| event["name"] == "shell.start") {
            let real = &event["context"]["taskmap"];
            let map = Taskmap::decode_json(real).unwrap();
            assert_eq!(&json!(map), real, "{name}");
            assert_eq!(json!(map.total_ntasks()), job["jobs_json"]["ntasks"], "{name}");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} maps");
}

#[test]
fn sizes_are_compared_in_words() {
    let map = |text| Taskmap::decode(text).unwrap();
    assert!(map("0-1;2-3").check_size(&map("0,2;1,3")).is_ok());
    let error = |a, b| map(a).check_size(&map(b)).unwrap_err().to_string();
    assert_eq!(error("0-1;2-3", "0-3"), "got 1 nodes, expected 2");
    assert_eq!(error("0-1;2-3", "0;1"), "got 2 total tasks, expected 4");
    assert_eq!(error("", "0"), "got 1 nodes, expected -1");
}

#[test]
fn gaps_and_overlaps_are_named() {
    let error = |text| Taskmap::decode(text).unwrap_err().to_string();
    assert_eq!(error("0-2;8"), "missing taskids: 3-7");
    assert_eq!(error("0-2;4"), "missing taskid: 3");
    assert_eq!(error("0-5;3"), "duplicate taskid specified: 3");
    assert_eq!(error("\"[\""), "taskmap must be an object or array");
    assert_eq!(error("{\"version\":1,\"map\":{}}"), "taskmap must be an array");
}

#[test]
fn maps_that_would_fill_memory_are_refused() {
    for text in ["[[0,2,1,2000000000]]", "(vector,(0,2147483647,2147483647))", "0-2147483647"] {
        let error = Taskmap::decode(text).unwrap_err();
        assert_eq!(error.to_string(), format!("taskmap has more than {MAX_TASKS} tasks"));
    }
    // One task far away: no list of two billion empty nodes.
    let far = Taskmap::decode("[[2000000000,1,1,1]]").unwrap();
    assert_eq!(far.encode(Form::Raw).unwrap_err().0, 0);
    let gap = Taskmap::decode("[[0,3,1,1],[4,1,1,1]]").unwrap();
    assert_eq!(gap.encode(Form::Raw).unwrap_err().0, 3);
}

fn taskmap() -> impl Strategy<Value = Taskmap> {
    let block = (0..5u32, 1..5u32, 1..4u32, 1..4u32).prop_map(|(a, b, c, d)| json!([a, b, c, d]));
    prop::collection::vec(block, 0..5)
        .prop_map(|blocks| Taskmap::decode_json(&Value::Array(blocks)).unwrap())
}

proptest! {
    #[test]
    fn every_form_keeps_each_task_on_its_node(map in taskmap()) {
        let nodes = |map: &Taskmap| {
            let total = map.total_ntasks().unwrap_or(0) as u32;
            (0..total).map(|task| map.nodeid(task).unwrap()).collect::<Vec<_>>()
        };
        for form in FORMS {
            match map.encode(form) {
                Ok(text) => prop_assert_eq!(nodes(&Taskmap::decode(&text).unwrap()), nodes(&map)),
                Err(e) => prop_assert!(map.ntasks(e.0 as u32) == 0),
            }
        }
        prop_assert_eq!(&Taskmap::decode(&map.encode(Form::Json).unwrap()).unwrap(), &map);
        for (task, node) in nodes(&map).into_iter().enumerate() {
            prop_assert!(map.taskids(node).contains(task as u32));
        }
    }

    #[test]
    fn appending_never_leaves_two_blocks_that_are_one(steps in prop::collection::vec((0..4u32, 1..3u32, 1..3u32), 0..20)) {
        let mut map = Taskmap::new();
        let mut nodes = Vec::new();
        for (start, nnodes, ppn) in steps {
            map.append(start, nnodes, ppn);
            nodes.extend((start..start + nnodes).flat_map(|node| vec![node; ppn as usize]));
        }
        let ours: Vec<u32> = (0..nodes.len() as u32).map(|task| map.nodeid(task).unwrap()).collect();
        prop_assert_eq!(ours, nodes);
    }

    #[test]
    fn decoding_never_panics(text in "[\\[\\](){},;0-9-]{0,30}|\\(vector,[(),0-9 -]{0,20}|\\PC*") {
        if let Ok(map) = Taskmap::decode(&text) {
            let _ = map.encode(Form::Raw);
        }
    }
}
