//! Options become the jobspecs that flux-core makes of them; see the note in the table.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TABLE: &str = include_str!("../../tests/vectors/jobspec-options.json");

fn flux(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flux"))
        .args(args)
        .current_dir(dir)
        .env_remove("FLUX_URI")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// 60 and 60.0 are the same number, which they are not to `Value`.
fn normalize(value: &mut Value) {
    match value {
        Value::Object(object) => object.values_mut().for_each(normalize),
        Value::Array(list) => list.iter_mut().for_each(normalize),
        Value::Number(number) => *value = Value::from(number.as_f64().unwrap()),
        _ => {}
    }
}

/// Leave out what depends on who runs this, where.
fn comparable(text: &[u8], keep_limits: bool) -> Value {
    let mut jobspec: Value = serde_json::from_slice(text).unwrap();
    let system = jobspec["attributes"]["system"].as_object_mut().unwrap();
    system.shift_remove("environment");
    system.shift_remove("cwd");
    if let Some(options) = system["shell"]["options"].as_object_mut() {
        if keep_limits {
            options["rlimit"].as_object_mut().unwrap().shift_remove("stack");
        } else {
            options.shift_remove("rlimit");
        }
    }
    if system["shell"]["options"].as_object().is_some_and(serde_json::Map::is_empty) {
        system.shift_remove("shell");
    }
    normalize(&mut jobspec);
    jobspec
}

#[test]
fn options_make_the_jobspecs_that_flux_core_makes() {
    let table: Value = serde_json::from_str(TABLE).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, file) in table["files"].as_object().unwrap() {
        let path = dir.path().join(name);
        std::fs::write(&path, file[0].as_str().unwrap()).unwrap();
        let mode = u32::try_from(file[1].as_u64().unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for row in table["rows"].as_array().unwrap() {
        let words: Vec<&str> =
            row["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        let mut args = vec![words[0], "--dry-run"];
        args.extend(&words[1..]);
        let output = flux(&args, dir.path());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if let Some(error) = row["error"].as_str() {
            assert!(!output.status.success(), "{words:?}");
            assert_eq!(errors.trim_end().lines().last(), Some(error), "{words:?}");
            continue;
        }
        assert!(output.status.success(), "{words:?}: {errors}");
        let mut expected = row["jobspec"].clone();
        let keep_limits = words.iter().any(|word| word.contains("core=16"))
            || words.iter().any(|word| word.contains("unlimited"));
        let found = comparable(&output.stdout, keep_limits);
        let system = expected["attributes"]["system"].as_object_mut().unwrap();
        if system.get("shell").is_some_and(|shell| shell["options"]["rlimit"] == Value::Null)
            && let Some(options) = system["shell"]["options"].as_object_mut()
        {
            options.shift_remove("rlimit");
        }
        normalize(&mut expected);
        assert_eq!(found, expected, "{words:?}");
    }
}

#[test]
fn flux_mini_reads_a_time_limit_without_unit_in_seconds() {
    let dir = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (&["mini", "submit", "--dry-run", "-t", "90", "true"][..], 90.0),
        (&["submit", "--dry-run", "-t", "90", "true"], 5400.0),
        (&["mini", "alloc", "--dry-run", "-n1", "-t", "2m"], 120.0),
    ] {
        let output = flux(args, dir.path());
        let jobspec: Value = serde_json::from_slice(&output.stdout).unwrap();
        let duration = jobspec["attributes"]["system"]["duration"].as_f64();
        assert_eq!(duration, Some(expected), "{args:?}");
    }
}

#[test]
fn flux_bulksubmit_shows_the_commands_that_it_would_submit() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["bulksubmit", "--dry-run", "--job-name={0./%}", "echo", "{}", ":::", "/a/b.c", "d"];
    let output = flux(&args, dir.path());
    let expected = "bulksubmit: submit --job-name=b echo /a/b.c\n\
                    bulksubmit: submit --job-name=d echo d\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let output = flux(&["bulksubmit", "--dry-run", "echo", "{1}", ":::", "a"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "flux: ERROR: Invalid replacement string in command: '{1}'\n");
}
