//! Plugins that are replaced in a real instance while a thousand jobs wait and run: build the
//! workspace first.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

const JOBS: usize = 1000;

/// Ids that were given, and what became of the jobs.
const SCRIPT: &str = r#"
exec 2>&1
submit() { flux submit --cc=1-250 --setattr=exec.test.run_duration=0.02s true; }
submit >ids
flux jobtap load submit-hold.wasm
flux jobtap remove submit-hold.wasm
submit >>ids
flux module reload sched-simple
submit >>ids
flux jobtap load --remove=all job-history.wasm
echo '[sched]
plugin = "sched-backfill.wasm"' >conf/sched.toml
flux config reload
submit >>ids
flux jobtap load --remove=job-history.wasm post-event.wasm
flux module reload sched-simple
flux queue drain
flux plugin record $(cat ids) >logs
flux jobs -a -n --count=10000 -o '{id} {status}' >listed
"#;

#[test]
fn schedulers_and_plugins_are_replaced_under_a_thousand_jobs_and_each_runs_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("conf")).unwrap();
    let resource = "[resource]\nnoverify = true\n[[resource.config]]\nhosts = \"n0\"\n\
                    cores = \"0-15\"\n";
    std::fs::write(dir.path().join("conf/resource.toml"), resource).unwrap();
    std::fs::write(dir.path().join("script.sh"), SCRIPT).unwrap();
    let flux = Path::new(env!("CARGO_BIN_EXE_flux"));
    assert!(flux.with_file_name("flux-broker").is_file(), "build the workspace first");
    let output = Command::new(flux)
        .args(["start", "-s", "1", "-o,--config-path=conf", "sh", "script.sh"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .env("SHELL", "/bin/sh")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let ids: Vec<String> = read("ids").lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), JOBS, "{output:?}");
    let logs = read("logs");
    assert_eq!(logs.lines().count(), JOBS, "{output:?}");
    for (id, log) in ids.iter().zip(logs.lines()) {
        let job: serde_json::Value = serde_json::from_str(log).unwrap();
        let events = job["eventlog"].as_str().unwrap().lines();
        let names: Vec<String> = events
            .map(|event| serde_json::from_str::<serde_json::Value>(event).unwrap())
            .map(|event| event["name"].as_str().unwrap().to_owned())
            .collect();
        for once in ["submit", "validate", "depend", "alloc", "start", "finish", "free", "clean"] {
            let count = names.iter().filter(|name| *name == once).count();
            assert_eq!(count, 1, "{id} has {once} {count} times: {log}");
        }
        assert!(!names.contains(&"exception".to_owned()), "{id}: {log}");
    }
    let listed = read("listed");
    assert_eq!(listed.lines().count(), JOBS, "{listed}");
    assert!(listed.lines().all(|line| line.ends_with("COMPLETED")), "{listed}");
}
