//! Modules built against contract 1.0, kept as they were: they load and work for as long as the
//! broker supports contract 1. None of them may ever be rebuilt.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod plugin_support;

use flux_broker::plugin::types::{
    Change, Effect, Event, Freed, Job, JobNew, JobState, Origin, Reply, ResourceSet, Targets,
    Verdict,
};
use flux_broker::plugin::{
    CallError, FaultKind, JobFacts, Kind, NoticeKind, Plugin, PluginSpec, SchedulerEvent, inspect,
};
use plugin_support::{Fixture, job, named};
use sha2::{Digest, Sha256};
use std::time::Duration;

const JOBTAP: &[u8] = include_bytes!("plugins/frozen-1.0-jobtap.wasm");
const SCHEDULER: &[u8] = include_bytes!("plugins/frozen-1.0-scheduler.wasm");
const C_VALIDATOR: &[u8] = include_bytes!("plugins/c-nofoo.wasm");

async fn tracer(fixture: &mut Fixture) -> Plugin {
    let spec = fixture.spec("tracer", JOBTAP);
    fixture.host.load(&spec, Kind::Jobtap, Default::default()).await.unwrap()
}

fn called(id: u64, name: &str) -> Event {
    Event::PriorityGet(Job { name: name.to_owned(), ..job(id) })
}

fn known(id: u64, state: JobState) -> JobFacts {
    JobFacts {
        job: Job { state, ..job(id) },
        jobspec: r#"{"tasks":[]}"#.into(),
        resources: None,
        events: ["submit".into()].into(),
    }
}

/// The texts of the contract. A change here is a change of every plugin out there: it belongs in
/// a new folder, with a new version.
#[test]
fn contract_is_frozen() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../abi/wit/since_v1.0.0");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut sum = String::new();
    for file in files {
        let text = std::fs::read(&file).unwrap();
        let hex: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        sum += &format!("{hex}  {}\n", file.file_name().unwrap().to_str().unwrap());
    }
    assert_eq!(sum, include_str!("plugins/contract-1.0.sha256"));
}

#[test]
fn frozen_modules_say_what_they_are() {
    let tracer = inspect(JOBTAP).unwrap();
    assert_eq!((tracer.manifest.name.as_str(), tracer.manifest.kind), ("tracer", Kind::Jobtap));
    assert_eq!(tracer.manifest.abi.to_string(), "1.0");
    assert!(tracer.manifest.wants("job.state.run"));
    assert!(tracer.exports.contains(&"flux:plugin/callbacks@1.0.0#handle".to_owned()));
    assert_eq!(inspect(SCHEDULER).unwrap().manifest.kind, Kind::Scheduler);
    assert_eq!(inspect(C_VALIDATOR).unwrap().manifest.name, "nofoo");
}

#[tokio::test]
async fn plugin_in_c_refuses_as_programmed() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("nofoo", C_VALIDATOR);
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    let submission = |name: &str| {
        let job = Some(Job { name: name.to_owned(), ..job(0) });
        flux_broker::plugin::types::Submission { job, ..named(name) }
    };
    let verdicts = plugin.validate(vec![submission("foo"), submission("bar")]).await;
    let Ok(Verdict::Refuse(refusal)) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!((refusal.errnum, refusal.text.as_str()), (22, "jobs named foo are not run here"));
    assert_eq!(verdicts[1], Ok(Verdict::Accept));
}

#[tokio::test]
async fn rust_panic_is_reported_with_its_place() {
    let mut fixture = Fixture::new();
    let plugin = tracer(&mut fixture).await;
    let answers = plugin.handle(vec![called(1, "panic")]).await;
    let Err(CallError::Fault(fault)) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!(fault.kind, FaultKind::Panic);
    let text = fault.to_string();
    assert!(text.starts_with("plugin tracer panicked in job.priority.get: panicked at"), "{text}");
    assert!(text.ends_with(": asked to"), "{text}");
}

#[tokio::test]
async fn rust_plugin_that_loops_or_grows_is_stopped() {
    let mut fixture = Fixture::new();
    let plugin = tracer(&mut fixture).await;
    for (name, kind) in [("loop", FaultKind::Deadline), ("grow", FaultKind::Memory)] {
        let mut answers = plugin.handle(vec![called(1, name)]).await;
        while let Err(CallError::Down { retry, .. }) = &answers[0] {
            tokio::time::sleep(*retry).await;
            answers = plugin.handle(vec![called(1, name)]).await;
        }
        let Err(CallError::Fault(fault)) = &answers[0] else { panic!("{answers:?}") };
        assert_eq!(fault.kind, kind);
    }
    assert!(plugin.stats().peak_memory <= 64 << 20);
}

#[tokio::test]
async fn plugin_has_no_environment_no_files_and_no_network() {
    let mut fixture = Fixture::with(|config| {
        config.replay = Some(flux_broker::plugin::Replay { now: 5.0.into(), seed: 1 });
    });
    fixture.jobs.put(known(1, JobState::Sched));
    let plugin = tracer(&mut fixture).await;
    let answers = plugin.handle(vec![called(1, "look")]).await;
    let Effect::Explain(note) = &answers[0].as_ref().unwrap().effects[0] else { panic!() };
    let expected = "environment 0 file false socket false now 5 random ";
    assert!(note.text.starts_with(expected), "{}", note.text);
    let rest = r#"drain false jobspec {"tasks":[]} posted Some(true)"#;
    assert!(note.text.ends_with(rest), "{}", note.text);
}

#[tokio::test]
async fn effects_beyond_the_grant_are_dropped_and_logged() {
    let mut fixture = Fixture::new();
    let plugin = tracer(&mut fixture).await;
    for _ in 0..3 {
        let answers = plugin.handle(vec![called(1, "reach")]).await;
        // Of a request the plugin is to hear that it was refused.
        let refused = Effect::Other(("refused".to_owned(), "1".to_owned()));
        assert_eq!(answers[0].as_ref().unwrap().effects, [refused]);
    }
    let log = fixture.log();
    for capability in ["drain", "rpc:resource.status"] {
        let text = format!("effect refused (EPERM): capability {capability} is not granted");
        assert_eq!(log.iter().filter(|line| line.contains(&text)).count(), 1, "{log:?}");
    }
    assert_eq!(plugin.stats().metrics["reached"], 3.0);
}

#[tokio::test]
async fn flood_of_log_lines_is_cut() {
    let mut fixture = Fixture::new();
    let plugin = tracer(&mut fixture).await;
    plugin.handle(vec![called(1, "flood")]).await;
    assert!(fixture.log().len() < 500);
    assert!(plugin.stats().log_dropped > 500);
}

#[tokio::test]
async fn own_state_survives_a_fault_and_the_jobs_are_announced_again() {
    let mut fixture = Fixture::new();
    let plugin = tracer(&mut fixture).await;
    for count in 0..3 {
        let answers = plugin.handle(vec![called(9, "keep")]).await;
        assert_eq!(answers[0].as_ref().unwrap().reply, Reply::Priority(count));
    }
    fixture.jobs.put(known(1, JobState::Sched));
    fixture.jobs.put(known(2, JobState::Run));
    fixture.jobs.put(known(3, JobState::Inactive));
    assert!(plugin.handle(vec![called(9, "panic")]).await[0].is_err());
    let answers = plugin.handle(vec![called(9, "keep")]).await;
    assert_eq!(answers[0].as_ref().unwrap().reply, Reply::Priority(3));
    // Later states first, as its manifest asks.
    let query = plugin.query().await.unwrap();
    let trace = r#""trace":"create:2,new:2,create:1,new:1,priority:9""#;
    assert!(query.contains(trace), "{query}");
    let mut restarted = false;
    while let Ok(notice) = fixture.notices.try_recv() {
        restarted |= matches!(notice.what, NoticeKind::Restarted);
    }
    assert!(restarted);
}

#[tokio::test]
async fn replacement_inherits_state_and_a_bad_one_leaves_the_old_in_place() {
    let mut fixture = Fixture::new();
    let old = tracer(&mut fixture).await;
    old.handle(vec![called(1, "x"), called(1, "keep")]).await;
    let mut spec = fixture.spec("tracer", JOBTAP);
    spec.conf.insert("refuse-start".to_owned(), true.into());
    let error = fixture.host.replace(&old, &spec).await.unwrap_err().to_string();
    assert!(error.ends_with("plugin tracer refused to start: not today"), "{error}");
    assert!(old.query().await.unwrap().contains(r#""calls":2,"#));
    spec.conf.clear();
    let new = fixture.host.replace(&old, &spec).await.unwrap();
    assert!(new.query().await.unwrap().contains(r#""calls":2,"trace":"""#));
    let answers = new.handle(vec![called(1, "keep")]).await;
    assert_eq!(answers[0].as_ref().unwrap().reply, Reply::Priority(1));
}

#[tokio::test]
async fn one_bad_job_among_many_is_found() {
    let mut fixture = Fixture::new();
    let plugin = tracer(&mut fixture).await;
    let news = |id| {
        let name = if id == 70 { "panic" } else { "x" };
        let job = Job { name: name.to_owned(), ..job(id) };
        Event::New(JobNew { job, origin: Origin::Submitted })
    };
    let answers = plugin.handle((0..300).map(news).collect()).await;
    let failed: Vec<usize> =
        answers.iter().enumerate().filter(|(_, answer)| answer.is_err()).map(|(i, _)| i).collect();
    assert_eq!(failed, [70]);
}

// === A scheduler that breaks the rules ===

async fn rogue(what: &str) -> (Vec<SchedulerEvent>, String) {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("rogue", SCHEDULER);
    spec.conf.insert(what.to_owned(), true.into());
    spec.patience.pause = Duration::from_millis(1);
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let scheduler = fixture.host.load_scheduler(&spec, sender, Default::default()).await.unwrap();
    let children = vec![("core".to_owned(), "0-3".to_owned())];
    let set = ResourceSet {
        targets: vec![Targets { ranks: "0".to_owned(), children }],
        nodelist: "n0".to_owned(),
        properties: Vec::new(),
        starttime: 0.0,
        expiration: 0.0,
        scheduling: None,
    };
    let up = Change::Up("0".to_owned());
    scheduler.tell(vec![Change::Resources(set), up]).await.unwrap();
    scheduler.ready().await.unwrap();
    let jobs = vec![job(1), job(2)];
    scheduler.tell(vec![Change::Alloc(jobs)]).await.unwrap();
    let fault = fixture.next_fault().await;
    // It is quarantined in the end; the books are still there.
    while !matches!(fixture.notices.recv().await.unwrap().what, NoticeKind::Quarantined) {}
    let status = scheduler.status().await.unwrap();
    assert_eq!(status.all.ncores(), 4);
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    assert_eq!(status.allocated.ncores(), seen.len() as u64);
    (seen, fault)
}

#[tokio::test]
async fn core_that_is_taken_is_not_given_twice() {
    let (events, fault) = rogue("plain").await;
    assert!(matches!(events.as_slice(), [SchedulerEvent::Allocated { id: 1, .. }]), "{events:?}");
    let expected = "plugin rogue broke the rules in schedule: job 2: core 0 of rank 0 not free";
    assert_eq!(fault, expected);
}

#[tokio::test]
async fn request_is_not_answered_twice() {
    let (events, fault) = rogue("twice").await;
    assert_eq!(events.len(), 1);
    assert!(fault.ends_with("job 1 has no open request"), "{fault}");
}

#[tokio::test]
async fn job_that_did_not_ask_gets_nothing() {
    let (events, fault) = rogue("unknown").await;
    assert_eq!(events.len(), 1);
    assert!(fault.ends_with("job 1001 has no open request"), "{fault}");
}

#[tokio::test]
async fn scheduler_that_panics_gives_nothing_away() {
    let (events, fault) = rogue("panic").await;
    assert_eq!(events, []);
    assert!(fault.contains("panicked in schedule"), "{fault}");
}

#[tokio::test]
async fn freed_resources_can_be_given_again() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("rogue", SCHEDULER);
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let scheduler = fixture.host.load_scheduler(&spec, sender, Default::default()).await.unwrap();
    let children = vec![("core".to_owned(), "0".to_owned())];
    let set = ResourceSet {
        targets: vec![Targets { ranks: "0".to_owned(), children }],
        nodelist: "n0".to_owned(),
        properties: Vec::new(),
        starttime: 0.0,
        expiration: 0.0,
        scheduling: None,
    };
    scheduler.tell(vec![Change::Resources(set), Change::Up("0".to_owned())]).await.unwrap();
    scheduler.ready().await.unwrap();
    for id in 1..20 {
        scheduler.tell(vec![Change::Alloc(vec![job(id)])]).await.unwrap();
        let event = events.recv().await.unwrap();
        assert!(matches!(event, SchedulerEvent::Allocated { id: got, .. } if got == id));
        let freed = Freed { id, resources: Vec::new(), final_: true };
        scheduler.tell(vec![Change::Free(vec![freed])]).await.unwrap();
    }
    let named = PluginSpec::named("sched-fifo");
    let replaced = fixture.host.replace_scheduler(&scheduler, &named).await.unwrap();
    assert_eq!(replaced.plugin().name(), "sched-simple");
}
