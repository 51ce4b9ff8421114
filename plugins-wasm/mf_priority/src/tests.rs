use super::*;
use flux_plugin::testing;
use flux_plugin::types::{Count, JobJson, JobNote, Request};

const BOB: u32 = 1001;

fn association(user: u32, bank: &str, default: &str) -> Value {
    json!({
        "userid": user, "bank": bank, "def_bank": default, "fairshare": 0.5,
        "max_running_jobs": 1, "max_active_jobs": 3, "queues": "batch,debug", "active": 1,
        "projects": "p1,*", "def_project": "*", "max_nodes": 4, "max_cores": 16,
        "max_sched_jobs": 100,
    })
}

fn queue(name: &str, priority: i64) -> Value {
    json!({
        "queue": name, "min_nodes_per_job": 1, "max_nodes_per_job": 10, "max_time_per_job": 60,
        "priority": priority, "max_running_jobs": 100, "max_nodes_per_assoc": 100,
        "max_sched_jobs": 100, "max_sched_nodes_per_assoc": 100,
        "max_sched_cores_per_assoc": 1000,
    })
}

fn request(method: &str, payload: &Value) -> Event {
    let payload = payload.to_string();
    let method = method.to_owned();
    Event::Rpc(RpcRequest { token: 1, method, userid: 0, rolemask: 5, payload })
}

fn empty() -> MfPriority {
    testing::reset();
    MfPriority::init(&testing::context("{}", "{}")).unwrap()
}

fn push(plugin: &mut MfPriority, method: &str, data: Value) {
    let (reply, _) = call(plugin, request(method, &json!({ "data": data })));
    assert_eq!(reply, Reply::Respond("{}".to_owned()));
}

fn loaded() -> MfPriority {
    let mut plugin = empty();
    let banks = [association(BOB, "A", "A"), association(BOB, "B", "A")];
    push(&mut plugin, "rec_update", json!(banks));
    push(
        &mut plugin,
        "rec_q_update",
        json!([queue("batch", 3), queue("debug", 10), queue("x", 1)]),
    );
    push(
        &mut plugin,
        "rec_proj_update",
        json!([{"project": "*"}, {"project": "p1"}, {"project": "p2"}]),
    );
    plugin
}

fn call(plugin: &mut MfPriority, event: Event) -> (Reply, Vec<Effect>) {
    let mut effects = Effects::default();
    let reply = plugin.handle(event, &mut effects);
    testing::apply_state(effects.list());
    (reply, effects.into_list())
}

fn job(id: JobId) -> Job {
    let one = Count { min: 1, max: Some(1), step: None };
    let request = Request {
        nodes: Some(one),
        slots: one,
        cores_per_slot: 2,
        gpus_per_slot: 0,
        exclusive: false,
    };
    Job { userid: BOB, request: Some(request), ..testing::job(id) }
}

fn news(job: Job, origin: Origin) -> Event {
    Event::New(JobNew { job, origin })
}

fn to(state: JobState, job: Job) -> Event {
    let entry = Entry { timestamp: 0.0, name: String::new(), context: "{}".to_owned() };
    Event::State(StateChange { job: Job { state, ..job }, previous: JobState::New, entry })
}

fn refusal(plugin: &mut MfPriority, job: Job) -> String {
    match call(plugin, Event::Validate(job)).0 {
        Reply::Refuse(refusal) => refusal.text,
        Reply::Pass => "ok".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Submits a job and moves it on until something holds it; what holds it.
fn submit(plugin: &mut MfPriority, id: JobId) -> Vec<String> {
    testing::put_job(job(id));
    call(plugin, news(job(id), Origin::Submitted));
    let (_, effects) = call(plugin, to(JobState::Depend, job(id)));
    let held = effects.into_iter().filter_map(|effect| match effect {
        Effect::DependencyAdd(JobNote { text, .. }) => Some(text),
        _ => None,
    });
    let held: Vec<String> = held.collect();
    if held.is_empty() {
        call(plugin, to(JobState::Priority, job(id)));
        call(plugin, to(JobState::Sched, job(id)));
    }
    held
}

fn released(effects: &[Effect]) -> Vec<JobId> {
    let id = |effect: &Effect| match effect {
        Effect::DependencyRemove(note) => Some(note.id),
        _ => None,
    };
    effects.iter().filter_map(id).collect()
}

#[test]
fn priority_is_the_weighted_sum_of_the_factors() {
    let mut plugin = loaded();
    let priority = |plugin: &mut MfPriority, job: Job| call(plugin, Event::PriorityGet(job)).0;
    assert_eq!(priority(&mut plugin, job(1)), Reply::Priority(50_000));
    let batch = Job { queue: Some("batch".into()), urgency: 20, ..job(2) };
    assert_eq!(priority(&mut plugin, batch), Reply::Priority(50_000 + 30_000 + 4000));
    push(&mut plugin, "rec_fac_update", json!([{"factor": "bank", "weight": 10}]));
    push(&mut plugin, "rec_bank_update", json!([{"bank": "A", "priority": 2.5}]));
    assert_eq!(priority(&mut plugin, job(1)), Reply::Priority(50_025));
    push(&mut plugin, "rec_fac_update", json!([{"factor": "fairshare", "weight": 0}]));
    assert_eq!(priority(&mut plugin, Job { urgency: 1, ..job(1) }), Reply::Priority(0));
}

#[test]
fn fair_share_is_noted_in_the_eventlog_when_it_changes() {
    let mut plugin = loaded();
    let memos = |plugin: &mut MfPriority| {
        let (_, effects) = call(plugin, Event::PriorityGet(job(1)));
        effects.iter().filter(|effect| matches!(effect, Effect::PostEvent(_))).count()
    };
    assert_eq!((memos(&mut plugin), memos(&mut plugin)), (1, 0));
    let mut changed = association(BOB, "A", "A");
    changed["fairshare"] = json!(0.25);
    push(&mut plugin, "rec_update", json!([changed]));
    assert_eq!(memos(&mut plugin), 1);
}

#[test]
fn defaults_are_written_into_the_jobspec() {
    let mut plugin = loaded();
    let (_, effects) = call(&mut plugin, news(job(1), Origin::Submitted));
    let json = r#"{"attributes.system.bank":"A","attributes.system.project":"*"}"#.to_owned();
    assert_eq!(effects, [Effect::UpdateJobspec(JobJson { id: 1, json })]);
    let named = Job { bank: Some("B".into()), project: Some("p1".into()), ..job(2) };
    assert_eq!(call(&mut plugin, news(named, Origin::Submitted)).1, []);
}

#[test]
fn jobs_wait_for_data_and_those_of_unknown_users_go_on_waiting() {
    let mut plugin = empty();
    assert_eq!(refusal(&mut plugin, job(1)), "ok");
    call(&mut plugin, news(job(1), Origin::Submitted));
    let (reply, _) = call(&mut plugin, to(JobState::Priority, job(1)));
    assert_eq!(reply, Reply::PriorityUnavailable);
    push(&mut plugin, "rec_update", json!([association(BOB, "A", "A")]));
    let (reply, effects) = call(&mut plugin, Event::PriorityGet(job(1)));
    assert_eq!(reply, Reply::Priority(50_000));
    assert!(matches!(effects.first(), Some(Effect::UpdateJobspec(_))));
    let stranger = Job { userid: 7, ..job(2) };
    assert_eq!(refusal(&mut plugin, stranger.clone()), "ok");
    let (reply, effects) = call(&mut plugin, Event::PriorityGet(stranger.clone()));
    assert_eq!(reply, Reply::PriorityUnavailable);
    let told = |effect: &Effect| matches!(effect, Effect::Explain(JobNote { text, .. }) if text == "waits until user 7 has a bank");
    assert!(effects.iter().any(told), "{effects:?}");
    push(&mut plugin, "rec_update", json!([association(7, "A", "A")]));
    assert_eq!(call(&mut plugin, Event::PriorityGet(stranger)).0, Reply::Priority(50_000));
}

#[test]
fn what_the_association_may_not_do_is_refused_in_the_known_words() {
    let mut plugin = loaded();
    let wide = |nodes: u32| {
        let request = job(1).request.map(|request| Request {
            nodes: Some(Count { min: nodes, max: None, step: None }),
            ..request
        });
        Job { request, ..job(1) }
    };
    let cases = [
        (Job { bank: Some("C".into()), ..job(1) }, "user does not belong to specified bank"),
        (Job { queue: Some("x".into()), ..job(1) }, "Queue not valid for user: x"),
        (
            Job { project: Some("p2".into()), ..job(1) },
            "project \"p2\" not valid for user; valid projects for user: p1,*",
        ),
        (
            wide(5),
            "job size (5 node(s), 10 core(s)) is greater than max resources limits configured for association (4 node(s), 16 core(s))",
        ),
        (Job { queue: Some("unknown".into()), ..job(1) }, "Queue does not exist: unknown"),
    ];
    for (job, expected) in cases {
        assert_eq!(refusal(&mut plugin, job), expected);
    }
    // Where no queue has an entry, all are open, unless that is not wanted.
    push(&mut plugin, "rec_q_update", json!([]));
    let unknown = Job { queue: Some("unknown".into()), ..job(1) };
    assert_eq!(refusal(&mut plugin, unknown.clone()), "ok");
    push(&mut plugin, "rec_config_update", json!({"deny_unknown_queues": true}));
    assert_eq!(refusal(&mut plugin, unknown), "Queue does not exist: unknown");
    let mut disabled = association(BOB, "A", "A");
    disabled["active"] = json!(0);
    push(&mut plugin, "rec_update", json!([disabled]));
    let text = "user/bank entry has been disabled from flux-accounting DB";
    assert_eq!(refusal(&mut plugin, job(1)), text);
}

#[test]
fn too_many_active_jobs_are_refused() {
    let mut plugin = loaded();
    for id in 1..=3 {
        assert_eq!(refusal(&mut plugin, job(id)), "ok");
        submit(&mut plugin, id);
    }
    assert_eq!(refusal(&mut plugin, job(4)), "user has max active jobs");
    call(&mut plugin, to(JobState::Inactive, job(3)));
    assert_eq!(refusal(&mut plugin, job(4)), "ok");
    call(&mut plugin, news(job(4), Origin::Submitted));
    call(&mut plugin, Event::Destroy(4));
    assert_eq!(refusal(&mut plugin, job(5)), "ok");
}

#[test]
fn over_the_limit_of_running_jobs_one_goes_when_one_ends() {
    let mut plugin = loaded();
    assert!(submit(&mut plugin, 1).is_empty());
    assert_eq!(submit(&mut plugin, 2), ["max-running-jobs-user-limit"]);
    assert_eq!(submit(&mut plugin, 3), ["max-running-jobs-user-limit"]);
    let (_, effects) = call(&mut plugin, to(JobState::Run, job(1)));
    assert!(released(&effects).is_empty());
    let (_, effects) = call(&mut plugin, to(JobState::Inactive, job(1)));
    assert_eq!(released(&effects), [2]);
    let (_, effects) = call(&mut plugin, to(JobState::Inactive, job(3)));
    assert!(released(&effects).is_empty());
}

#[test]
fn a_raised_limit_lets_held_jobs_go_with_the_next_reprioritization() {
    let mut plugin = loaded();
    submit(&mut plugin, 1);
    submit(&mut plugin, 2);
    let mut raised = association(BOB, "A", "A");
    raised["max_running_jobs"] = json!(5);
    push(&mut plugin, "rec_update", json!([raised]));
    let (_, effects) = call(&mut plugin, request("reprioritize", &json!({})));
    assert_eq!(effects.first(), Some(&Effect::ReprioritizeAll));
    assert_eq!(released(&effects), [2]);
}

#[test]
fn limits_of_resources_and_queues_hold_jobs_too() {
    let mut plugin = loaded();
    let mut small = association(BOB, "A", "A");
    small["max_running_jobs"] = json!(10);
    small["max_nodes"] = json!(1);
    push(&mut plugin, "rec_update", json!([small]));
    let mut batch = queue("batch", 0);
    batch["max_running_jobs"] = json!(1);
    batch["max_sched_nodes_per_assoc"] = json!(1);
    push(&mut plugin, "rec_q_update", json!([batch]));
    let submit = |plugin: &mut MfPriority, id| {
        let job = Job { queue: Some("batch".into()), ..job(id) };
        testing::put_job(job.clone());
        call(plugin, news(job.clone(), Origin::Submitted));
        let effects = call(plugin, to(JobState::Depend, job)).1;
        let text = |effect: &Effect| match effect {
            Effect::DependencyAdd(note) => Some(note.text.clone()),
            _ => None,
        };
        effects.iter().filter_map(text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(submit(&mut plugin, 1), "");
    let held = "max-run-jobs-queue max-sched-nodes-queue-limit max-resources-user-limit";
    assert_eq!(submit(&mut plugin, 2), held);
    let report: Value = serde_json::from_str(&plugin.query()).unwrap();
    let deps = report.pointer("/mf_priority_map/0/banks/0/held_jobs/2/deps").unwrap();
    assert_eq!(deps.as_array().unwrap().len(), 3);
}

#[test]
fn jobs_that_were_there_before_are_counted() {
    let mut plugin = loaded();
    let running = Job { state: JobState::Run, ..job(1) };
    call(&mut plugin, news(running, Origin::Restarted));
    assert_eq!(submit(&mut plugin, 2), ["max-running-jobs-user-limit"]);
}

#[test]
fn a_job_that_changes_its_bank_counts_for_the_new_one() {
    use flux_plugin::types::{JobUpdated, UpdateRequest};
    let mut plugin = loaded();
    submit(&mut plugin, 1);
    let ask = |plugin: &mut MfPriority, key: &str, value: &str| {
        let request = UpdateRequest {
            job: job(1),
            userid: BOB,
            rolemask: 2,
            key: format!("attributes.system.{key}"),
            value: format!("\"{value}\""),
            updates: "{}".to_owned(),
        };
        match call(plugin, Event::Update(request)).0 {
            Reply::Allow(_) => "allowed".to_owned(),
            Reply::Refuse(refusal) => refusal.text,
            other => format!("{other:?}"),
        }
    };
    assert_eq!(ask(&mut plugin, "queue", "debug"), "allowed");
    assert_eq!(ask(&mut plugin, "queue", "x"), "Queue not valid for user: x");
    let text = "update_bank: cannot find flux-accounting entry for uid/bank: 1001/C";
    assert_eq!(ask(&mut plugin, "bank", "C"), text);
    assert_eq!(ask(&mut plugin, "bank", "B"), "allowed");
    let updates = r#"{"attributes.system.bank":"B"}"#.to_owned();
    call(&mut plugin, Event::Updated(JobUpdated { job: job(1), updates }));
    assert!(ask(&mut plugin, "bank", "B").starts_with("updating to bank B while it is already"));
    assert!(submit(&mut plugin, 2).is_empty());
}

#[test]
fn bad_data_change_nothing_and_are_told() {
    let mut plugin = loaded();
    let before = plugin.data.clone();
    let mut bad = association(BOB, "A", "A");
    bad["max_nodes"] = json!("many");
    let data = json!({ "data": [association(9, "A", "A"), bad] });
    let (reply, _) = call(&mut plugin, request("rec_update", &data));
    assert!(matches!(reply, Reply::Refuse(_)));
    assert_eq!(plugin.data, before);
    assert!(
        testing::take_log().concat().contains("mf_priority unpack: Expected integer, got string")
    );
    let (reply, _) = call(&mut plugin, request("rec_q_update", &json!({})));
    assert!(matches!(reply, Reply::Refuse(refusal) if refusal.errnum == errno::EPROTO));
}

#[test]
fn data_survive_a_restart_and_can_come_with_the_configuration() {
    let plugin = loaded();
    let again = MfPriority::init(&testing::context("{}", "{}")).unwrap();
    assert_eq!(again.data, plugin.data);
    testing::reset();
    let saved = Some(plugin.save());
    let replaced = Context { saved, ..testing::context("{}", "{}") };
    assert_eq!(MfPriority::init(&replaced).unwrap().data, plugin.data);
    let config = json!({ "config": { "associations": [association(3, "A", "A")] } }).to_string();
    let configured = MfPriority::init(&testing::context(&config, "{}")).unwrap();
    assert!(configured.data.association(3, None).is_some());
}
