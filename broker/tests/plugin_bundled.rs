//! The bundled plugins, as the broker loads them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod plugin_support;

use flux_broker::plugin::types::{
    Change, Count, Depth, Event, Freed, Job, JobState, Reply, Request, ResourceSet, Targets,
};
use flux_broker::plugin::{Kind, PluginSpec, Scheduler, SchedulerEvent};
use plugin_support::Fixture;
use tokio::sync::mpsc::UnboundedReceiver;

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
        queue: None,
        bank: None,
        project: None,
        constraints: None,
        job_result: None,
        end_event: None,
    }
}

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
