//! Tools for plugins, which need no instance. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const JOBSPEC: &str = r#"{"resources":[{"type":"slot","count":1,"label":"task","with":[{"type":"core","count":1}]}],"tasks":[{"command":["true"],"slot":"task","count":{"per_slot":1}}],"attributes":{"system":{"duration":0}},"version":1}"#;

/// Run `flux ARGS...` without an instance.
fn flux(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_flux"))
        .args(args)
        .env("FLUX_URI", "local:///nowhere")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read its input may be gone.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(args: &[&str], input: &str) -> String {
    let output = flux(args, input);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn validators_are_listed_as_the_real_ones() {
    let expected = "Available plugins:\n\
        feasibility           Use sched.feasibility RPC to validate job\n\
        jobspec               Python bindings based jobspec validator\n\
        require-instance      Require that all jobs are new instances of Flux\n\
        schema                Validate jobspec using jsonschema\n";
    assert_eq!(said(&["job-validator", "--list-plugins"], ""), expected);
    let frobnicators = said(&["job-frobnicator", "--list-plugins"], "");
    let names: Vec<&str> = frobnicators.lines().skip(1).map(|line| &line[..11]).collect();
    assert_eq!(names, ["constraints", "defaults   "]);
}

/// In an instance, `flux job-validator` passes its configuration on so.
#[test]
fn a_sites_own_validator_is_listed_with_its_description() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let module = source("broker/tests/plugins/c-nofoo.wasm");
    let plugins = serde_json::json!(["jobspec", module]);
    let json = serde_json::json!({ "ingest": { "validator": { "plugins": plugins } } });
    std::fs::write(&config, json.to_string()).unwrap();
    let broker = Path::new(env!("CARGO_BIN_EXE_flux")).with_file_name("flux-broker");
    let list = Command::new(broker)
        .args(["plugin", "list", "validator", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(list.status.success(), "{text}");
    let line = text.lines().find(|line| line.starts_with("c-nofoo ")).unwrap();
    assert!(line.len() > 22, "{line}");
    assert!(text.contains("\njobspec  "), "{text}");
}

#[test]
fn jobspecs_on_standard_input_are_judged() {
    let validator = ["job-validator", "--jobspec-only"];
    assert_eq!(said(&validator, JOBSPEC), "{\"errnum\": 0}\n");
    let output = flux(&validator, r#"{"x":1}"#);
    assert_eq!(output.status.code(), Some(1));
    let expected = "{\"errnum\": 1, \"errstr\": \"Missing key (resources)\"}\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let line = format!(r#"{{"jobspec":{JOBSPEC},"userid":1,"urgency":16,"flags":0}}"#);
    let both = ["job-validator", "--plugins=jobspec,require-instance"];
    assert!(said(&both, &line).contains("Direct job submission is disabled"));
    let output = flux(&["job-validator", "--plugins=nope"], "");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("validator plugin 'nope' not found"), "{error}");
    assert!(said(&["job-frobnicator", "--jobspec-only"], JOBSPEC).contains("\"errnum\": 0"));
}

#[test]
fn a_schema_is_given_as_an_option() {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("site.json");
    std::fs::write(&schema, r#"{"properties":{"version":{"enum":[2]}}}"#).unwrap();
    let option = format!("--schema={}", schema.display());
    let output = flux(&["job-validator", "--jobspec-only", "--plugins=schema", &option], JOBSPEC);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("1 is not one of [2]"), "{text}");
}

#[test]
fn a_module_tells_of_itself_and_can_be_checked() {
    let text = said(&["plugin", "inspect", "--json", "perilog"], "");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["kind"], "jobtap");
    let capabilities = report["capabilities"].as_array().unwrap();
    assert!(capabilities.contains(&serde_json::json!("exec:prolog")));
    assert!(said(&["jobtap", "inspect", "perilog"], "").contains("topic"));
    assert!(said(&["plugin", "check", "mf_priority"], "").ends_with("ok\n"));
    let output = flux(&["plugin", "check", "/bin/true"], "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("a native ELF object"));
}

#[test]
fn recorded_jobs_are_replayed_the_same_each_time() {
    let recording = source("tests/vectors/jobs/success.json");
    let replay = ["jobtap", "test", "--replay", recording.to_str().unwrap(), "priority-default"];
    let first = said(&replay, "");
    assert!(first.contains("job.state.priority: priority 16"), "{first}");
    assert_eq!(said(&replay, ""), first);
}

#[test]
fn a_new_plugin_has_what_it_takes_to_build() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my-policy");
    let text = said(&["plugin", "new", path.to_str().unwrap()], "");
    assert!(text.contains("target/wasm32-wasip1/release/my_policy.wasm"), "{text}");
    let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("flux-plugin = { path = ") && !manifest.contains('@'), "{manifest}");
    let code = std::fs::read_to_string(path.join("src/lib.rs")).unwrap();
    assert!(code.contains("name: \"my-policy\"") && !code.contains('@'));
    let again = flux(&["plugin", "new", path.to_str().unwrap()], "");
    assert!(String::from_utf8_lossy(&again.stderr).contains("File exists"));
}
