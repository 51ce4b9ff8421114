//! A host with its own folders, and plugins written as text.
#![allow(dead_code, unreachable_pub)]

use flux_broker::plugin::types::{Job, JobState, Submission};
use flux_broker::plugin::{
    HostConfig, Notice, NoticeKind, PluginHost, PluginSpec, SharedJobs, default_path,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub host: PluginHost,
    pub jobs: SharedJobs,
    pub notices: mpsc::UnboundedReceiver<Notice>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    pub fn new() -> Self {
        Fixture::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut HostConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sender, notices) = mpsc::unbounded_channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        let jobs = SharedJobs::default();
        let mut config = HostConfig {
            path: default_path(),
            cache: Some(folder.path().join("cache")),
            log: Arc::new(move |plugin, level, text| {
                sink.lock().unwrap().push(format!("{plugin} {level:?}: {text}"));
            }),
            jobs: jobs.clone(),
            owner: 0,
            size: 1,
            level: 0,
            attributes: Default::default(),
            config: Default::default(),
            replay: None,
        };
        change(&mut config);
        Fixture { folder, host: PluginHost::new(config, sender), jobs, notices, log }
    }

    /// Writes a module and gives a spec for it, with a deadline of 200 ms.
    pub fn spec(&mut self, name: &str, bytes: &[u8]) -> PluginSpec {
        let path = self.folder.path().join(format!("{name}.wasm"));
        std::fs::write(&path, bytes).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&path, mode).unwrap();
        let mut spec = PluginSpec::named(path.to_str().unwrap());
        spec.limits.deadline = Duration::from_millis(200);
        spec
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub async fn next_fault(&mut self) -> String {
        loop {
            if let NoticeKind::Fault(fault) = self.notices.recv().await.unwrap().what {
                return fault.to_string();
            }
        }
    }
}

pub fn job(id: u64) -> Job {
    Job {
        id,
        userid: 1000,
        urgency: 16,
        priority: None,
        state: JobState::New,
        flags: 0,
        t_submit: 0.0,
        duration: 0.0,
        request: None,
        name: "true".to_owned(),
        named: false,
        queue: None,
        bank: None,
        project: None,
        constraints: None,
        job_result: None,
        end_event: None,
    }
}

pub fn named(name: &str) -> Submission {
    Submission {
        job: None,
        userid: 0,
        urgency: 16,
        flags: 0,
        jobspec: format!("{{\"attributes\":{{\"system\":{{\"job\":{{\"name\":\"{name}\"}}}}}}}}"),
    }
}

pub fn urgent(urgency: i32) -> Submission {
    Submission { urgency, ..named("x") }
}

/// Layout of the record in a plugin's memory.
pub const SUBMISSION_SIZE: usize = 224;
/// See [`SUBMISSION_SIZE`].
pub const SUBMISSION_URGENCY: usize = 204;

/// The body of a validator that accepts: verdicts of all zeros.
pub fn accept_all() -> String {
    "(i32.store (i32.const 16)
        (call $realloc (i32.const 0) (i32.const 0) (i32.const 4)
          (i32.mul (local.get 1) (i32.const 20))))
     (i32.store (i32.const 20) (local.get 1))
     (memory.fill (i32.load (i32.const 16)) (i32.const 0) (i32.mul (local.get 1) (i32.const 20)))
     (i32.const 16)"
        .to_owned()
}

pub fn validator(name: &str, body: &str) -> Vec<u8> {
    wat::parse_str(validator_text(name, body)).unwrap()
}

/// A validator whose `validate` (list address, list length) has this body.
pub fn validator_text(name: &str, body: &str) -> String {
    format!(
        r#"(module
  (import "flux:plugin/host@1.0.0" "log" (func $log (param i32 i32 i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "ouch!")
  (global $next (mut i32) (i32.const 2048))
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $start i32)
    (local.set $start
      (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (global.set $next (i32.add (local.get $start) (local.get 3)))
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then (drop (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get 3) (i32.const 65536)))))))
    (local.get $start))
  (func (export "flux:plugin/lifecycle@1.0.0#init")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16))
  (func (export "flux:plugin/lifecycle@1.0.0#configure") (param i32 i32 i32 i32) (result i32)
    (i32.const 16))
  (func (export "flux:plugin/lifecycle@1.0.0#query") (result i32) (i32.const 16))
  (func (export "flux:plugin/lifecycle@1.0.0#save") (result i32) (i32.const 16))
  (func $validate (export "flux:plugin/validation@1.0.0#validate") (param i32 i32) (result i32)
    {body})
  (@custom "flux:abi" "flux-plugin 1.0\0akind validator\0aname {name}\0adescription test\0a"))"#
    )
}
