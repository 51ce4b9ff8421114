//! Jobs whose eventlogs were captured from a real Flux, run here as they were run there: shells,
//! tasks, their output and how they end. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The captured jobs, each with what the shell does to submit `$name` as `$id`, and to it. Not
/// `stdin-file`: what its `/dev/stdin` is depends on whom the job's shell inherits it from.
const CAPTURED: &[(&str, &str)] = &[
    // Both of its tasks on one node, as long as one is free.
    ("stdin-ranks", "send; printf 'abc\\n' | flux job attach --stdin-ranks=1 $id >/dev/null"),
    ("success", "send"),
    ("success-4x2", "send"),
    ("fail-rc", "send"),
    ("signal", "send"),
    ("exec-error", "send"),
    ("badcwd", "send"),
    ("timeout", "send"),
    ("nodekill", "send"),
    ("output-binary", "send"),
    ("exclusive-2-nodes", "send"),
    ("taskmap-cyclic", "send"),
    ("tasks-per-node", "send"),
    ("batch", "send"),
    ("cancel-pending", "send --urgency=0; flux job cancel $id"),
    ("cancel-running", "send; tasks; flux job cancel $id"),
    ("kill-term", "send; tasks; flux job kill -s TERM $id"),
    ("exception-nonfatal", "send; tasks; flux job raise -s 1 -t foo $id"),
    ("memo", "send; tasks; flux job memo $id a=1 b=foo; flux post-job-event $id myevent x=2"),
    ("urgency", "send --urgency=0; flux job urgency $id 20"),
    ("update-pending", "send --urgency=0; flux update $id duration=300; flux job urgency $id 16"),
    ("update-running", "send; tasks; flux update $id duration=+1m"),
    ("waitable-debug", "send --flags=debug,waitable,novalidate"),
    ("dependency-afterok", "first 0; after; flux job urgency $first 16"),
    ("dependency-fail", "first 0; after; flux job cancel $first"),
    ("stdin-attach", "send; printf 'abc\\n' | flux job attach $id >/dev/null"),
    ("begin-time", "soon"),
    (
        "lost-shell",
        "send; tasks; pid=$(flux job hostpids -r 1 $id | sed 's/.*://')
     kill -9 $(awk '{print $4}' /proc/$pid/stat)",
    ),
];

/// Those of an instance with queues, prolog and epilog. Not `prolog-fail`: the real one frees the
/// job's node while the epilog still runs.
const CAPTURED_ON_A_SITE: &[(&str, &str)] =
    &[("prolog-epilog", "send"), ("queue-debug-cancel", "send; tasks; flux job cancel $id")];

const SITE: &str = r#"
[queues.batch]
[queues.debug]
[policy.jobspec.defaults.system]
queue = "batch"
duration = "10m"
[job-manager]
plugins = [ { load = "perilog.so" } ]
[job-manager.prolog]
command = [ "true" ]
[job-manager.epilog]
command = [ "true" ]
[job-manager.housekeeping]
command = [ "sleep", "0.1" ]
"#;

/// `send OPTIONS` submits the jobspec, `tasks` waits until the tasks have been started.
const SETUP: &str = r#"
send() { id=$(flux job submit "$@" $name.json); }
tasks() { flux job wait-event -q -t 60 -p exec $id shell.start; }
soon() {
    sed "s/DEPENDENCY/$(($(date +%s) + 1))/" $name.json >$name.after.json
    id=$(flux job submit $name.after.json)
}
first() { first=$(flux submit --urgency=$1 true); }
after() {
    sed "s/DEPENDENCY/$first/" $name.json >$name.after.json
    id=$(flux job submit $name.after.json)
    flux job wait-event -q -t 60 $id validate
}
"#;

/// A job as it is compared.
#[derive(Debug, PartialEq)]
struct Told {
    events: Vec<String>,
    exec: Vec<String>,
    /// In any order, as tasks run side by side, and in any number of pieces.
    output: BTreeSet<String>,
    code: String,
}

#[test]
fn captured_jobs_run_here_as_they_ran_there() {
    compare(CAPTURED, "", "");
}

#[test]
fn captured_jobs_of_a_site_with_queues_and_prologs_run_here_as_they_ran_there() {
    compare(CAPTURED_ON_A_SITE, SITE, "flux queue start --all --quiet\n");
}

fn compare(jobs: &[(&str, &str)], config: &str, first: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("conf")).unwrap();
    std::fs::write(dir.path().join("conf/site.toml"), config).unwrap();
    let mut script = format!("{SETUP}{first}");
    for (name, course) in jobs {
        let spec = dir.path().join(format!("{name}.json"));
        std::fs::write(spec, jobspec(name, dir.path()).to_string()).unwrap();
        script.push_str(&format!("name={name}\n{course}\necho $id >{name}.id\n"));
    }
    for (name, _) in jobs {
        script.push_str(&format!(
            "id=$(cat {name}.id)\n\
             flux job wait-event -q -t 120 $id clean\n\
             flux job info $id eventlog >{name}.eventlog\n\
             flux job info $id guest.exec.eventlog >{name}.guest.exec.eventlog\n\
             flux job info $id guest.output >{name}.guest.output\n\
             flux job status $id; echo $? >{name}.code\n",
        ));
    }
    let said = instance(&script, dir.path());
    let mut differences = Vec::new();
    for (name, _) in jobs {
        let (theirs, ours) = (captured(name), found(name, dir.path()));
        if theirs != ours {
            differences.push(format!("{name}:\n  captured {theirs:?}\n  now      {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{}\n{said}", differences.join("\n"));
}

/// Run a script as the initial program of four brokers; returns what it says.
fn instance(script: &str, dir: &Path) -> String {
    let flux = Path::new(env!("CARGO_BIN_EXE_flux"));
    let shell = flux.with_file_name("flux-shell");
    assert!(shell.is_file(), "{} is missing: build the workspace first", shell.display());
    let path = dir.join("script.sh");
    std::fs::write(&path, format!("exec 2>&1\n{script}")).unwrap();
    let output = Command::new(flux)
        .args(["start", "-s4", "-o,--config-path=conf", "sh"])
        .arg(&path)
        .current_dir(dir)
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn vector(name: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path: PathBuf = root.join(format!("tests/vectors/jobs/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// As it was submitted, but for what names the machine.
fn jobspec(name: &str, dir: &Path) -> Value {
    let mut spec = vector(name)["kvs"]["jobspec"].take();
    let bin = Path::new(env!("CARGO_BIN_EXE_flux")).parent().unwrap();
    let system = &mut spec["attributes"]["system"];
    system["environment"] = json!({ "PATH": format!("{}:/usr/bin:/bin", bin.display()) });
    // Limits of this machine may be lower.
    system["shell"]["options"].as_object_mut().unwrap().shift_remove("rlimit");
    if system["cwd"] == "/tmp" {
        system["cwd"] = json!(dir);
    }
    if system["dependencies"].is_array() {
        system["dependencies"][0]["value"] = json!("DEPENDENCY");
    }
    spec
}

fn captured(name: &str) -> Told {
    let vector = vector(name);
    let log = |key: &str| vector["kvs"][key].as_array().cloned().unwrap_or_default();
    Told {
        events: in_turn(log("eventlog").iter().map(shown).collect()),
        exec: log("guest.exec.eventlog").iter().map(shown).collect(),
        output: kinds(&log("guest.output")),
        code: vector["job_status_rc"].to_string(),
    }
}

fn found(name: &str, dir: &Path) -> Told {
    let read =
        |key: &str| std::fs::read_to_string(dir.join(format!("{name}.{key}"))).unwrap_or_default();
    let log = |key: &str| -> Vec<Value> {
        read(key).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    Told {
        events: in_turn(log("eventlog").iter().map(shown).collect()),
        exec: log("guest.exec.eventlog").iter().map(shown).collect(),
        output: kinds(&log("guest.output")),
        code: read("code").trim().to_owned(),
    }
}

/// The epilog ends before resources are released or after that, as chance has it.
fn in_turn(mut events: Vec<String>) -> Vec<String> {
    let at = |name: &str| events.iter().position(|event| event.split(' ').next() == Some(name));
    if let (Some(finish), Some(free)) = (at("finish"), at("free"))
        && let Some(between) = events.get_mut(finish..free)
    {
        between.sort();
    }
    events
}

/// Name, and the keys of the context; the values of those that do not differ from run to run.
fn shown(event: &Value) -> String {
    const CONSTANT: &[&str] = &[
        "type", "severity", "final", "urgency", "priority", "version", "flags", "status",
        "taskmap", "size", "exitcode", "signaled",
    ];
    let mut words = vec![event["name"].as_str().unwrap_or_default().to_owned()];
    let context: BTreeMap<String, Value> =
        serde_json::from_value(event["context"].clone()).unwrap_or_default();
    // Where in its source something was logged is the real one's own affair.
    let known = context.iter().filter(|(key, _)| !["file", "line"].contains(&key.as_str()));
    words.extend(known.map(|(key, value)| match CONSTANT.contains(&key.as_str()) {
        true => format!("{key}={value}"),
        false => key.clone(),
    }));
    words.join(" ")
}

/// The kinds of events: output by task and stream, without the text.
fn kinds(log: &[Value]) -> BTreeSet<String> {
    let kind = |event: &Value| {
        let context = &event["context"];
        match event["name"].as_str() {
            Some("data") => {
                format!("data {} {} {}", context["stream"], context["rank"], context["eof"])
            }
            Some("header") => format!("header {context}"),
            _ => shown(event),
        }
    };
    log.iter().map(kind).collect()
}
