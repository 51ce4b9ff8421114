//! Jobs of a real Flux, run again by this shell against a test double of their brokers: the
//! eventlogs that come out must be those that the real shell has written.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_protocol::rpc::kvs::CommitRequest;
use serde::Deserialize as _;
use serde_json::{Value, json};

#[path = "replay/broker.rs"]
mod broker;

use broker::{Broker, JobInfo, commit_ops};

/// A captured job.
struct Capture {
    run: Value,
    job: JobInfo,
    size: u32,
    /// What the real shells committed, by key.
    kvs: BTreeMap<String, String>,
    /// Exceptions that they raised.
    raised: Vec<Value>,
    /// Input that came to the leader.
    stdin: Vec<Value>,
    /// Some of the text was left out.
    trimmed: bool,
}

struct Shells {
    children: Vec<Child>,
}

impl Capture {
    /// Read a capture, with a directory in the place of the one it was made in.
    fn read(name: &str, directory: &Path) -> Capture {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../tests/vectors/shell-{name}.jsonl"));
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let sent = |topic: &str, dir: &str| {
            let here = |line: &&Value| line["topic"] == topic && line["dir"] == dir;
            lines.iter().filter(here).map(|line| &line["payload"]).cloned().collect::<Vec<_>>()
        };
        let lookup = &sent("job-info.lookup", "b2c")[0];
        let r = sent("job-info.update-watch", "b2c")[0]["R"].clone();
        let mut kvs = BTreeMap::new();
        let mut trimmed = false;
        for commit in sent("kvs.commit", "c2b") {
            if commit.to_string().contains("TRIMMED") {
                trimmed = true;
            } else {
                commit_ops(&mut kvs, CommitRequest::deserialize(&commit).unwrap());
            }
        }
        let is_input = |line: &&Value| {
            line["dir"] == "b2c" && line["topic"].as_str().is_some_and(|t| t.ends_with(".stdin"))
        };
        let leaders = lines.iter().filter(|line| line["topic"] == "event.subscribe");
        let ranks: std::collections::BTreeSet<u64> =
            leaders.filter_map(|line| line["rank"].as_u64()).collect();
        Capture {
            run: lines[1].clone(),
            job: JobInfo {
                id: lookup["id"].as_u64().unwrap(),
                signed: moved(lookup["J"].as_str().unwrap(), directory),
                r: r.to_string(),
            },
            size: u32::try_from(ranks.len()).unwrap(),
            kvs,
            raised: sent("job-manager.raise", "c2b"),
            stdin: lines.iter().filter(is_input).map(|line| line["payload"].clone()).collect(),
            trimmed,
        }
    }

    fn service(&self) -> String {
        let id = flux_protocol::fluid::JobId(self.job.id);
        format!("{}-shell-{}", nix::unistd::getuid(), id.f58_plain())
    }
}

/// The signed jobspec with the captures' placeholders of directories filled in, and without the
/// resource limits: a machine whose own are lower says so in the output.
fn moved(signed: &str, directory: &Path) -> String {
    let parts: Vec<&str> = signed.split('.').collect();
    let json = String::from_utf8(STANDARD.decode(parts[1]).unwrap()).unwrap();
    let json = json.replace("$CWD", directory.to_str().unwrap());
    let json = json.replace("$PREFIX", directory.to_str().unwrap());
    let mut jobspec: Value = serde_json::from_str(&json).unwrap();
    let options = jobspec.pointer_mut("/attributes/system/shell/options").unwrap();
    options.as_object_mut().unwrap().shift_remove("rlimit");
    format!("{}.{}.{}", parts[0], STANDARD.encode(jobspec.to_string()), parts[2])
}

impl Shells {
    fn start(capture: &Capture, broker: &Broker) -> Shells {
        let children = (0..capture.size).map(|rank| {
            Command::new(env!("CARGO_BIN_EXE_flux-shell"))
                .arg(capture.job.id.to_string())
                .env("FLUX_URI", broker.uri(rank))
                .env("FLUX_KVS_NAMESPACE", format!("job-{}", capture.job.id))
                .env("LANG", "C.UTF-8")
                .env_remove("LC_ALL")
                .env_remove("FLUX_F58_FORCE_ASCII")
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        });
        Shells { children: children.collect() }
    }

    fn terminate(&self, rank: usize) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.children[rank].id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// Exit codes, by rank.
    fn wait(&mut self) -> Vec<i32> {
        self.children.iter_mut().map(|child| child.wait().unwrap().code().unwrap_or(-1)).collect()
    }
}

impl Drop for Shells {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Events of a log by name and context, without what differs from run to run.
fn events(kvs: &BTreeMap<String, String>, key: &str) -> Vec<(String, Value)> {
    let log = kvs.get(key).cloned().unwrap_or_default();
    let event = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let mut context = event["context"].take();
        if let Some(context) = context.as_object_mut() {
            context.retain(|key, _| !["pid", "file", "line"].contains(&key.as_str()));
            if let Some(Value::String(service)) = context.get_mut("service") {
                *service = service.split_once('-').unwrap().1.to_owned();
            }
        }
        (event["name"].as_str().unwrap().to_owned(), context)
    };
    log.lines().map(event).collect()
}

/// Data events of a log by stream and rank, and all others.
#[allow(clippy::type_complexity)]
fn streams(
    kvs: &BTreeMap<String, String>,
    key: &str,
) -> (BTreeMap<String, Vec<Value>>, Vec<Value>) {
    let mut data: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut others = Vec::new();
    for (name, mut context) in events(kvs, key) {
        if name == "data" {
            let context = context.as_object_mut().unwrap();
            let stream = context.shift_remove("stream").unwrap();
            let rank = context.shift_remove("rank").unwrap();
            data.entry(format!("{stream} {rank}")).or_default().push(json!(context));
        } else {
            others.push(json!([name, context]));
        }
    }
    (data, others)
}

/// The text that tasks wrote to a stream, by rank.
fn text(kvs: &BTreeMap<String, String>, stream: &str) -> Vec<String> {
    let data = streams(kvs, "output").0.into_iter().filter(|(name, _)| name.contains(stream));
    data.map(|(_, data)| data.iter().filter_map(|data| data["data"].as_str()).collect()).collect()
}

/// Run a captured job to its end; `act` plays those who take part in it.
fn replay(name: &str, act: impl FnOnce(&Capture, &Broker, &Shells)) -> Replayed {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let capture = Capture::read(name, directory.path());
    let broker = Broker::start(capture.job.clone(), capture.size, directory.path());
    let mut shells = Shells::start(&capture, &broker);
    act(&capture, &broker, &shells);
    let codes = shells.wait();
    let (kvs, raised) = {
        let state = broker.state();
        let raised = state.requests.iter().filter(|(topic, _)| topic == "job-manager.raise");
        (state.kvs.clone(), raised.map(|(_, payload)| payload.clone()).collect())
    };
    let left = std::fs::read_dir(directory.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.starts_with("jobtmp")), "a jobtmp is left");
    Replayed { capture, directory, codes, kvs, raised }
}

struct Replayed {
    capture: Capture,
    directory: tempfile::TempDir,
    codes: Vec<i32>,
    kvs: BTreeMap<String, String>,
    raised: Vec<Value>,
}

impl Replayed {
    fn assert_same_exec_events(&self) {
        let key = "exec.eventlog";
        assert_eq!(events(&self.kvs, key), events(&self.capture.kvs, key));
    }

    fn assert_same_output(&self) {
        assert!(!self.capture.trimmed);
        assert_eq!(streams(&self.kvs, "output"), streams(&self.capture.kvs, "output"));
    }
}

/// A program for the capture that runs `flux pmi barrier`.
fn prepare(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let bin: PathBuf = directory.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = r#"#!/bin/bash
ask() { printf '%s\n' "$1" >&$PMI_FD; read -r answer <&$PMI_FD; }
ask "cmd=init pmi_version=1 pmi_subversion=1"
ask "cmd=get_my_kvsname"; kvs=${answer##*kvsname=}
ask "cmd=put kvsname=$kvs key=k$PMI_RANK value=v$PMI_RANK"
ask "cmd=barrier_in"
ask "cmd=get kvsname=$kvs key=k$((1 - PMI_RANK))"; other=${answer##*value=}
ask "cmd=get kvsname=$kvs key=flux.instance-level"; level=${answer##*value=}
ask "cmd=finalize"
echo "$kvs $other level $level"
"#;
    std::fs::write(bin.join("flux"), script).unwrap();
    std::fs::set_permissions(bin.join("flux"), PermissionsExt::from_mode(0o755)).unwrap();
}

/// What `flux job attach` does with the input of the capture.
fn send_input(capture: &Capture, broker: &Broker) {
    broker.wait_for_event("exec.eventlog", "shell.init");
    for (tag, payload) in (4..).zip(&capture.stdin) {
        let (errnum, _) = broker.call(&format!("{}.stdin", capture.service()), tag, payload);
        assert_eq!(errnum, 0, "{payload}");
    }
}

#[test]
fn a_task_runs_and_its_output_is_recorded() {
    let run = replay("single", |_, _, _| {});
    assert_eq!(run.codes, [0]);
    run.assert_same_exec_events();
    run.assert_same_output();
    assert_eq!(text(&run.kvs, "stdout"), ["hello\n"]);
}

#[test]
fn input_reaches_the_task_and_the_log() {
    let run = replay("stdin", |capture, broker, _| send_input(capture, broker));
    assert_eq!(run.codes, [0]);
    run.assert_same_exec_events();
    run.assert_same_output();
    assert_eq!(streams(&run.kvs, "input"), streams(&run.capture.kvs, "input"));
    assert_eq!(text(&run.kvs, "stdout").concat(), run.capture.run["stdout"].as_str().unwrap());
}

#[test]
fn four_shells_act_as_one() {
    let run = replay("multi", |_, _, _| {});
    assert_eq!(run.codes, [0, 0, 0, 0]);
    let names =
        |events: Vec<(String, Value)>| events.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let key = "exec.eventlog";
    assert_eq!(names(events(&run.kvs, key)), names(events(&run.capture.kvs, key)));
    assert_eq!(events(&run.kvs, key)[..2], events(&run.capture.kvs, key)[..2]);
    assert_eq!(text(&run.kvs, "stdout"), ["out 0\n", "out 1\n", "out 2\n", "out 3\n"]);
    assert_eq!(text(&run.kvs, "stderr"), ["err\n", "err\n", "err\n", "err\n"]);
}

#[test]
fn the_first_task_to_fail_dooms_the_others() {
    let run = replay("fail", |_, broker, shells| {
        let raised = |topic: &(String, Value)| topic.0 == "job-manager.raise";
        broker.wait_for("exception", |state| state.requests.iter().find(|r| raised(r)).map(|_| ()));
        // As the execution system does then.
        shells.terminate(1);
    });
    assert_eq!(run.codes, [3, 143]);
    run.assert_same_exec_events();
    assert_eq!(run.raised, run.capture.raised);
    let log = |kvs| streams(kvs, "output").1.last().cloned();
    assert_eq!(log(&run.kvs), log(&run.capture.kvs));
}

#[test]
fn a_command_that_is_none_ends_the_job() {
    let run = replay("badcmd", |_, _, _| {});
    assert_eq!(run.codes, [127]);
    run.assert_same_exec_events();
    let note = |raised: &[Value]| {
        let note = raised[0]["note"].as_str().unwrap();
        note.split("): ").nth(1).unwrap().to_owned()
    };
    assert_eq!(note(&run.raised), note(&run.capture.raised));
}

#[test]
fn a_signal_to_the_job_reaches_all_tasks() {
    let run = replay("kill", |capture, broker, _| {
        broker.wait_for_event("exec.eventlog", "shell.start");
        broker.publish(&format!("shell-{}.kill", capture.job.id), &json!({"signum": 10}));
    });
    assert_eq!(run.codes, [138, 138]);
    let exit = events(&run.kvs, "exec.eventlog").pop().unwrap();
    assert_eq!((exit.0.as_str(), &exit.1["exitcode"]), ("shell.task-exit", &json!(138)));
    let (data, others) = streams(&run.kvs, "output");
    assert_eq!((data, others), streams(&run.capture.kvs, "output"));
}

#[test]
fn tasks_exchange_values_through_their_shells() {
    let run = replay("pmi", |_, _, _| {});
    assert_eq!(run.codes, [0, 0]);
    let f58 = flux_protocol::fluid::JobId(run.capture.job.id).f58();
    assert_eq!(
        text(&run.kvs, "stdout"),
        [format!("{f58} v1 level 1\n"), format!("{f58} v0 level 1\n")]
    );
}

#[test]
fn output_of_all_shells_goes_into_one_file() {
    let run = replay("output-file", |_, _, _| {});
    assert_eq!(run.codes, [0, 0]);
    let f58 = flux_protocol::fluid::JobId(run.capture.job.id).f58();
    let path = run.directory.path().join(format!("out.{f58}"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "filed\nfiled\n");
    let (data, others) = streams(&run.kvs, "output");
    assert_eq!(data, BTreeMap::new());
    let redirect = |stream: &str| json!(["redirect", {"stream": stream, "rank": "[0-1]", "path": path.to_str().unwrap()}]);
    assert_eq!(others[1..], [redirect("stdout"), redirect("stderr")]);
}

#[test]
fn a_task_may_have_a_terminal() {
    let run = replay("pty", |_, _, _| {});
    assert_eq!(run.codes, [0]);
    run.assert_same_exec_events();
    let [output] = <[String; 1]>::try_from(text(&run.kvs, "stdout")).unwrap();
    assert!(output.starts_with("/dev/pts/") && output.ends_with("\r\n"), "{output:?}");
}
