//! The bundled plugins, as the broker loads them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod plugin_support;

use flux_broker::plugin::types::{
    Change, Count, Depth, Event, Freed, Job, Reply, Request, ResourceSet, Submission, Targets,
    Verdict,
};
use flux_broker::plugin::{Kind, PluginSpec, Scheduler, SchedulerEvent};
use plugin_support::{Fixture, job};
use tokio::sync::mpsc::UnboundedReceiver;

#[tokio::test]
async fn default_priority_is_the_urgency() {
    let fixture = Fixture::new();
    let spec = PluginSpec::named("priority-default");
    let plugin = fixture.host.load(&spec, Kind::Jobtap, Default::default()).await.unwrap();
    assert!(plugin.facts().bundled);
    let events = (0..200).map(|id| Event::PriorityGet(Job { urgency: 3, ..job(id) })).collect();
    let answers = plugin.handle(events).await;
    assert_eq!(answers.len(), 200);
    for answer in answers {
        assert_eq!(answer.unwrap().reply, Reply::Priority(3));
    }
    let stats = plugin.stats();
    assert_eq!(stats.callbacks["job.priority.get"].calls, 200);
}

#[test]
fn bundled_plugins_import_functions_of_the_host_alone() {
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins-wasm/dist");
    let mut seen = 0;
    for entry in std::fs::read_dir(dist).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let module = std::fs::read(&path).unwrap();
        for payload in wasmparser::Parser::new(0).parse_all(&module) {
            if let wasmparser::Payload::ImportSection(imports) = payload.unwrap() {
                for import in imports.into_imports() {
                    let import = import.unwrap();
                    let what =
                        format!("{} imports {} {}", path.display(), import.module, import.name);
                    assert!(import.module.starts_with("flux:plugin/"), "{what}");
                }
            }
        }
        seen += 1;
    }
    assert!(seen > 20, "{seen} modules");
}

// === The default scheduler ===

fn cores(ranks: &str, cores: &str) -> Vec<Targets> {
    let children = vec![("core".to_owned(), cores.to_owned())];
    vec![Targets { ranks: ranks.to_owned(), children }]
}

fn inventory(nodes: u32) -> ResourceSet {
    ResourceSet {
        targets: cores(&format!("0-{}", nodes - 1), "0-3"),
        nodelist: format!("n[0-{}]", nodes - 1),
        properties: Vec::new(),
        starttime: 0.0,
        expiration: 0.0,
        scheduling: None,
    }
}

fn wants(id: u64, slots: u32) -> Job {
    let request = Request {
        nodes: None,
        slots: Count { min: slots, max: Some(slots), step: None },
        cores_per_slot: 1,
        gpus_per_slot: 0,
        exclusive: false,
    };
    Job { request: Some(request), priority: Some(16), ..job(id) }
}

async fn scheduler(
    fixture: &Fixture,
    nodes: u32,
) -> (Scheduler, UnboundedReceiver<SchedulerEvent>) {
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let spec = PluginSpec::named("sched-fifo");
    let scheduler = fixture.host.load_scheduler(&spec, sender, Default::default()).await.unwrap();
    let up = format!("0-{}", nodes - 1);
    let changes = vec![Change::Resources(inventory(nodes)), Change::Up(up), Change::Hello(vec![])];
    scheduler.tell(changes).await.unwrap();
    assert_eq!(scheduler.ready().await.unwrap(), Depth::Limited(8));
    (scheduler, events)
}

async fn next_allocated(events: &mut UnboundedReceiver<SchedulerEvent>) -> (u64, String) {
    loop {
        match events.recv().await.unwrap() {
            SchedulerEvent::Allocated { id, r, .. } => return (id, r),
            SchedulerEvent::Annotated { .. } | SchedulerEvent::Effect(_) => {}
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn scheduler_allocates_denies_cancels_and_judges() {
    let fixture = Fixture::new();
    let (scheduler, mut events) = scheduler(&fixture, 2).await;
    scheduler.tell(vec![Change::Alloc(vec![wants(1, 2)])]).await.unwrap();
    let Some(SchedulerEvent::Allocated { id: 1, r, annotations }) = events.recv().await else {
        panic!()
    };
    let r: serde_json::Value = serde_json::from_str(&r).unwrap();
    assert_eq!(r["execution"]["R_lite"][0]["children"]["core"], "0-1");
    assert_eq!(r["execution"]["nodelist"][0], "n0");
    assert_eq!(r["execution"]["nslots"], 2);
    let expected = r#"{"sched":{"resource_summary":"rank0/core[0-1]"}}"#;
    assert_eq!(annotations.as_deref(), Some(expected));

    scheduler.tell(vec![Change::Alloc(vec![wants(2, 9)])]).await.unwrap();
    let Some(SchedulerEvent::Denied { id: 2, note }) = events.recv().await else { panic!() };
    assert!(note.starts_with("unsatisfiable request: need 9 slot(s)"), "{note}");

    scheduler.tell(vec![Change::Alloc(vec![wants(3, 8)])]).await.unwrap();
    scheduler.tell(vec![Change::Cancel(vec![3])]).await.unwrap();
    while events.recv().await.unwrap() != (SchedulerEvent::Canceled { id: 3 }) {}

    let refusal = scheduler.feasibility(wants(0, 9), "{}".to_owned()).await.unwrap().unwrap_err();
    assert!(refusal.text.starts_with("unsatisfiable request"), "{}", refusal.text);
    assert_eq!(scheduler.feasibility(wants(0, 8), "{}".to_owned()).await.unwrap(), Ok(()));
    assert_eq!(scheduler.expiration(1, 99.0).await.unwrap(), Ok(()));
    assert!(scheduler.expiration(7, 99.0).await.unwrap().is_err());
    let status = scheduler.status().await.unwrap();
    assert_eq!((status.all.ncores(), status.allocated.ncores(), status.down.ncores()), (8, 2, 0));
}

#[tokio::test]
async fn replacing_the_scheduler_loses_and_duplicates_no_job() {
    let fixture = Fixture::new();
    let (mut scheduler, mut events) = scheduler(&fixture, 2).await;
    let mut started = std::collections::BTreeSet::new();
    scheduler.tell(vec![Change::Alloc((0..1000).map(|id| wants(id, 1)).collect())]).await.unwrap();
    for round in 0..1000 {
        if round % 100 == 50 {
            let spec = PluginSpec::named("sched-fifo");
            scheduler = fixture.host.replace_scheduler(&scheduler, &spec).await.unwrap();
        }
        let (id, r) = next_allocated(&mut events).await;
        assert!(started.insert(id), "job {id} started twice: {r}");
        let freed = Freed { id, resources: Vec::new(), final_: true };
        scheduler.tell(vec![Change::Free(vec![freed])]).await.unwrap();
    }
    let status = scheduler.status().await.unwrap();
    assert_eq!(status.allocated.ncores(), 0);
}

// === All of them ===

#[tokio::test]
async fn every_bundled_plugin_loads_as_one_of_the_brokers_own() {
    let fixture = Fixture::new();
    let mut names = Vec::new();
    for kind in [Kind::Jobtap, Kind::Validator, Kind::Frobnicator] {
        for (path, manifest) in fixture.host.available(kind) {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if stem == "schema" {
                // Not without a schema: see below.
                continue;
            }
            let spec = PluginSpec::named(&stem);
            let plugin = fixture.host.load(&spec, kind, Default::default()).await.unwrap();
            assert!(plugin.facts().bundled, "{stem} differs from SHA256SUMS");
            assert!(!manifest.description.is_empty(), "{stem} says nothing of itself");
            serde_json::from_str::<serde_json::Value>(&plugin.query().await.unwrap()).unwrap();
            names.push(stem);
        }
    }
    let expected = [
        "alloc-bypass",
        "begin-time",
        "dependency-after",
        "dependency-singleton",
        "job-history",
        "limit-duration",
        "limit-job-size",
        "mf_priority",
        "perilog",
        "priority-default",
        "submit-hold",
        "update-duration",
        "update-queue",
        "feasibility",
        "jobspec",
        "require-instance",
        "constraints",
        "defaults",
    ];
    for name in expected {
        assert!(names.iter().any(|found| found == name), "{name} not among {names:?}");
    }
}

#[tokio::test]
async fn a_schema_that_the_configuration_names_reaches_the_sandbox() {
    let fixture = Fixture::new();
    let mut spec = PluginSpec::named("schema");
    let error = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap_err();
    assert!(error.to_string().contains("a schema is required"), "{error}");
    let file = fixture.folder.path().join("site.json");
    std::fs::write(&file, r#"{"required":["site"]}"#).unwrap();
    let argument = format!("--schema={}", file.display());
    spec.conf.insert("args".to_owned(), serde_json::json!([argument]));
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    let submission = |jobspec: &str| Submission {
        job: None,
        userid: 0,
        urgency: 16,
        flags: 0,
        jobspec: jobspec.to_owned(),
    };
    let verdicts =
        plugin.validate(vec![submission(r#"{"site":1}"#), submission(r#"{"x":1}"#)]).await;
    assert_eq!(*verdicts[0].as_ref().unwrap(), Verdict::Accept);
    let Verdict::Refuse(refusal) = verdicts[1].as_ref().unwrap() else { panic!() };
    assert_eq!(refusal.text, "'site' is a required property");
}

#[tokio::test]
async fn native_plugins_name_loads_the_module_with_a_notice() {
    let fixture = Fixture::new();
    let spec = PluginSpec::named("submit-hold.so");
    let plugin = fixture.host.load(&spec, Kind::Jobtap, Default::default()).await.unwrap();
    assert_eq!(plugin.facts().file_name, "submit-hold.wasm");
    let notice = "submit-hold Level::Notice: submit-hold.so is a native plugin's name: loading \
                  submit-hold.wasm";
    assert_eq!(fixture.log(), [notice]);
}

#[tokio::test]
async fn configuration_reaches_a_plugin_and_a_bad_one_is_refused() {
    let config = |text: &str| match serde_json::from_str(text).unwrap() {
        serde_json::Value::Object(map) => map,
        other => panic!("{other}"),
    };
    let fixture = Fixture::with(|host| {
        host.config = config(r#"{"policy":{"limits":{"duration":"2h"}},"secret":{"x":1}}"#);
    });
    let spec = PluginSpec::named("limit-duration");
    let plugin = fixture.host.load(&spec, Kind::Jobtap, Default::default()).await.unwrap();
    let validate = |duration| Event::Validate(Job { duration, ..job(1) });
    let answers = plugin.handle(vec![validate(7200.0), validate(10800.0)]).await;
    assert_eq!(answers[0].as_ref().unwrap().reply, Reply::Pass);
    let Reply::Refuse(refusal) = &answers[1].as_ref().unwrap().reply else { panic!() };
    assert_eq!(refusal.text, "requested duration (3h) exceeds policy limit of 2h");

    let bad = config(r#"{"policy":{"limits":{"duration":"x"}}}"#);
    let refused = plugin.configure(&Default::default(), &bad).await.unwrap().unwrap_err();
    assert_eq!(refused, "policy.limits.duration: FSD value is malformed");
    let good = config(r#"{"policy":{"limits":{"duration":"4h"}}}"#);
    plugin.configure(&Default::default(), &good).await.unwrap().unwrap();
    let answers = plugin.handle(vec![validate(10800.0)]).await;
    assert_eq!(answers[0].as_ref().unwrap().reply, Reply::Pass);
}

#[tokio::test]
async fn tampered_cache_is_compiled_anew() {
    let fixture = Fixture::new();
    let spec = PluginSpec::named("feasibility");
    fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    let cached = std::fs::read_dir(fixture.folder.path().join("cache")).unwrap();
    let file = cached.map(|entry| entry.unwrap().path()).next().unwrap();
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&file, &bad).unwrap();
    fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    assert!(std::fs::read(&file).unwrap() == good, "the damaged file was not replaced");
}
