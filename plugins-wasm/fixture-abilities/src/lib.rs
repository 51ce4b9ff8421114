//! Does everything that a jobtap plugin is able to do, one thing for each job: the job's name says
//! what. What is to happen later happens by a timer that is named after it and the job.

use flux_plugin::prelude::*;
use flux_plugin::types::{
    DependencyRequest, ExecStart, KvsQuery, Measure, PluginCall, RpcRequest, StateChange,
    UpdateAllowed, UpdateRequest,
};

/// The one resource that a job gets which does without the scheduler.
const R: &str = r#"{"version":1,"execution":{"R_lite":[{"rank":"0","children":{"core":"0"}}],
"starttime":0.0,"expiration":0.0,"nodelist":["vm0"]}}"#;

#[derive(Default)]
struct Abilities {
    /// Topic and job of each call.
    trace: Vec<String>,
    ticks: u32,
    held: bool,
}

impl Plugin for Abilities {
    fn init(context: &Context) -> Result<Self, String> {
        match context.config.contains("refuse-start") {
            true => Err("not today".to_owned()),
            false => Ok(Abilities::default()),
        }
    }

    fn configure(&mut self, config: &str, _: &str) -> Result<(), String> {
        if config.contains("bad") { Err("bad configuration".to_owned()) } else { Ok(()) }
    }

    fn query(&self) -> String {
        let trace: Vec<String> = self.trace.iter().map(|call| format!("\"{call}\"")).collect();
        format!(r#"{{"trace":[{}]}}"#, trace.join(","))
    }
}

impl Jobtap for Abilities {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        if let Some((topic, id)) = called(&event) {
            self.trace.push(format!("{topic} {id}"));
        }
        match event {
            Event::Create(new) => judge("job.create", "refuse-create", &new.job),
            Event::Validate(job) => judge("job.validate", "refuse-validate", &job),
            Event::New(new) => {
                begin(&new.job, effects);
                Reply::Pass
            }
            Event::Dependency(request) => depend(&request, effects),
            Event::State(change) => change_state(&change, effects),
            Event::PriorityGet(job) if job.name.starts_with("reprioritize") => Reply::Priority(9),
            Event::Posted(posted) => {
                if posted.entry.name == "start" {
                    effects.post_event(posted.job.id, "heard", "{}");
                    effects.unsubscribe(posted.job.id);
                }
                Reply::Pass
            }
            Event::Update(request) => update(&request),
            Event::Admit(admission) => {
                match admission.job.name == "admit" && !std::mem::replace(&mut self.held, true) {
                    true => Reply::Hold("not at once".to_owned()),
                    false => Reply::Accept,
                }
            }
            Event::Timer(name) => self.timer(&name, effects),
            Event::Rpc(request) => answer(&request, effects),
            Event::RpcResponse(response) => {
                let text = match &response.outcome {
                    Ok(_) => r#"{"errnum":0}"#.to_owned(),
                    Err(refusal) => format!(r#"{{"errnum":{}}}"#, refusal.errnum),
                };
                effects.post_event(response.tag, "answered", text);
                Reply::Pass
            }
            Event::Exec(update) => {
                let status = update.status;
                if update.finished {
                    let text = format!(r#"{{"status":{status}}}"#);
                    effects.post_event(update.job, "command-done", text);
                }
                Reply::Pass
            }
            Event::Published(published) => {
                if let Ok(id) = number(&published.payload).parse() {
                    effects.post_event(id, "published", "{}");
                }
                Reply::Pass
            }
            Event::Call(call) => {
                effects.post_event(call.job.id, "called", call.payload);
                Reply::Pass
            }
            _ => Reply::Pass,
        }
    }
}

impl Abilities {
    /// `WHAT JOBID`
    fn timer(&mut self, name: &str, effects: &mut Effects) -> Reply {
        let Some((what, id)) = name.split_once(' ') else { return Reply::Pass };
        let Ok(id) = id.parse() else { return Reply::Pass };
        match what {
            "let-go" => {
                effects.remove_dependency(id, "held-a-moment");
                effects.remove_dependency(id, "held-a-moment");
            }
            "unavailable" => effects.set_priority(id, 42),
            "reprioritize" => effects.reprioritize(vec![id]),
            "reprioritize-all" => effects.reprioritize_all(),
            "warm" => effects.prolog_finish(id, "warm-up", 0),
            "cool" => effects.epilog_finish(id, "cool-down", 0),
            "respond" => effects.respond(id, Ok(r#"{"late":true}"#.to_owned())),
            "tick" => {
                self.ticks += 1;
                if self.ticks == 3 {
                    effects.cancel_timer(name);
                    effects.post_event(id, "ticked", r#"{"times":3}"#);
                }
            }
            _ => {}
        }
        Reply::Pass
    }
}

/// The topic and the job of a call that is about one. Jobs that are named so panic in it.
fn called(event: &Event) -> Option<(String, JobId)> {
    let (topic, job) = match event {
        Event::Create(new) => ("job.create".to_owned(), &new.job),
        Event::Validate(job) => ("job.validate".to_owned(), job),
        Event::New(new) => ("job.new".to_owned(), &new.job),
        Event::Dependency(request) => (format!("job.dependency.{}", request.scheme), &request.job),
        Event::State(change) => (format!("job.state.{}", name_of(change.job.state)), &change.job),
        Event::PriorityGet(job) => ("job.priority.get".to_owned(), job),
        Event::Posted(posted) => (format!("job.event.{}", posted.entry.name), &posted.job),
        Event::Update(request) => (format!("job.update.{}", request.key), &request.job),
        Event::Updated(updated) => ("job.update".to_owned(), &updated.job),
        Event::Admit(admission) => ("job.admit".to_owned(), &admission.job),
        Event::InactiveAdd(job) => ("job.inactive-add".to_owned(), job),
        Event::Call(call) => (call.topic.clone(), &call.job),
        Event::InactiveRemove(id) => return Some(("job.inactive-remove".to_owned(), *id)),
        Event::Destroy(id) => return Some(("job.destroy".to_owned(), *id)),
        _ => return None,
    };
    assert!(job.name.strip_prefix("panic in ") != Some(&topic), "asked to");
    Some((topic, job.id))
}

fn judge(topic: &str, refused: &str, job: &Job) -> Reply {
    match job.name == refused {
        true => Reply::Refuse(refuse_with(errno::EINVAL, format!("refused in {topic}"))),
        false => Reply::Pass,
    }
}

/// Adds one twice, which is one.
fn depend(request: &DependencyRequest, effects: &mut Effects) -> Reply {
    let id = request.job.id;
    match request.value.as_str() {
        "refused" => Reply::Refuse(refuse_with(errno::EINVAL, "a dependency to be refused")),
        "held" => {
            effects.add_dependency(id, "held-a-moment");
            effects.add_dependency(id, "held-a-moment");
            later("let-go", id, effects);
            Reply::Accept
        }
        _ => Reply::Accept,
    }
}

fn change_state(change: &StateChange, effects: &mut Effects) -> Reply {
    let job = &change.job;
    match (job.state, job.name.as_str()) {
        (JobState::Priority, "priority") => return Reply::Priority(77),
        (JobState::Priority, "unavailable" | "reprioritize" | "reprioritize-all") => {
            later(&job.name, job.id, effects);
            return Reply::PriorityUnavailable;
        }
        (JobState::Sched, "bypass") => return Reply::Allocate(R.to_owned()),
        (JobState::Sched, "raise") => effects.raise(job.id, "abilities", 0, "asked to"),
        (JobState::Run, "prolog") => {
            effects.prolog_start(job.id, "warm-up");
            later("warm", job.id, effects);
        }
        (JobState::Run, "exec") => effects.exec(ExecStart {
            tag: format!("command-{}", job.id),
            job: job.id,
            command: "abilities".to_owned(),
            ranks: None,
            options: "{}".to_owned(),
        }),
        (JobState::Cleanup, "epilog") => {
            effects.epilog_start(job.id, "cool-down");
            later("cool", job.id, effects);
        }
        (JobState::Cleanup, "look") => effects.post_event(job.id, "looked", look(job.id)),
        _ => {}
    }
    Reply::Pass
}

fn update(request: &UpdateRequest) -> Reply {
    let allow = |validated, feasibility, updates: Option<&str>| {
        let updates = updates.map(str::to_owned);
        Reply::Allow(UpdateAllowed { validated, feasibility, updates })
    };
    match request.value.trim_matches('"') {
        "more" => allow(true, false, Some(r#"{"attributes.system.more":1}"#)),
        "judged" => allow(false, false, None),
        "nowhere" => {
            allow(true, true, Some(r#"{"attributes.system.constraints":{"ranks":["999"]}}"#))
        }
        "refused" => Reply::Refuse(refuse_with(errno::EPERM, "an update to be refused")),
        _ => Reply::Pass,
    }
}

/// What can be done for a job from its beginning.
fn begin(job: &Job, effects: &mut Effects) {
    let id = job.id;
    match job.name.as_str() {
        "annotate" => effects.annotate(id, r#"{"abilities":{"seen":true}}"#),
        "explain" => effects.explain(id, "as an example"),
        "post" => effects.post_event(id, "posted", r#"{"by":"abilities"}"#),
        "warn" => effects.raise(id, "abilities", 5, "a warning"),
        "update" => effects.update_jobspec(id, r#"{"attributes.system.duration":3600}"#),
        "flag" => effects.set_flag(id, "waitable"),
        "subscribe" => effects.subscribe(id),
        "tick" => effects.set_timer(format!("tick {id}"), host::now(), Some(0.01)),
        "count" => {
            effects.count("jobs", 1.0);
            effects.count("jobs", 1.0);
            effects.push(Effect::Gauge(Measure { name: "level".to_owned(), value: 0.5 }));
        }
        "log" => host::info(format!("job {id} is seen")),
        "drain" => effects.drain("3", "an example"),
        "rpc" => effects.rpc(id, "resource.status", "{}"),
        // There is no grant that would let it.
        "rpc-refused" => effects.rpc(id, "kvs.commit", "{}"),
        "rpc-nowhere" => effects.rpc(id, "nowhere.method", "{}"),
        "kvs" => effects.push(Effect::KvsRead(KvsQuery { tag: id, key: "resource.R".to_owned() })),
        "publish" => effects.publish("abilities.news", format!(r#"{{"id":{id}}}"#)),
        "call" => effects.push(Effect::Call(PluginCall {
            topic: "abilities.custom".to_owned(),
            job: id,
            payload: r#"{"a":1}"#.to_owned(),
        })),
        _ => {}
    }
}

fn answer(request: &RpcRequest, effects: &mut Effects) -> Reply {
    match request.method.as_str() {
        "echo" | "hello" => Reply::Respond(format!(r#"{{"echo":{}}}"#, request.payload)),
        "late" => {
            later("respond", request.token, effects);
            Reply::Later
        }
        _ => Reply::Refuse(refuse_with(errno::EPERM, "a request to be refused")),
    }
}

/// What the host knows of a job that has ended.
fn look(id: JobId) -> String {
    let job = host::job(id);
    let (result, end) = job.map_or((None, None), |job| (job.job_result, job.end_event));
    let jobspec = host::jobspec(id).unwrap_or_default();
    format!(
        r#"{{"result":"{result:?}","end":"{}","resources":{},"started":{},"cwd":{},"environment":{},"unknown":{}}}"#,
        end.unwrap_or_default(),
        host::resources(id).is_some_and(|r| r.contains("R_lite")),
        host::event_posted(id, "start").unwrap_or(false),
        jobspec.contains("\"cwd\""),
        jobspec.contains("\"environment\""),
        host::job(id + 1).is_some(),
    )
}

fn later(what: &str, id: JobId, effects: &mut Effects) {
    effects.set_timer(format!("{what} {id}"), host::now(), None);
}

fn name_of(state: JobState) -> &'static str {
    match state {
        JobState::New => "new",
        JobState::Depend => "depend",
        JobState::Priority => "priority",
        JobState::Sched => "sched",
        JobState::Run => "run",
        JobState::Cleanup => "cleanup",
        JobState::Inactive => "inactive",
    }
}

/// The digits of a text.
fn number(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

flux_plugin::jobtap! {
    Abilities,
    name: "abilities",
    description: "Does everything that a plugin is able to do",
    topics: [
        "job.create",
        "job.validate",
        "job.new",
        "job.dependency.abilities",
        "job.state.*",
        "job.priority.get",
        "job.event.*",
        "job.update",
        "job.update.attributes.system.custom",
        "job.admit",
        "job.inactive-add",
        "job.inactive-remove",
        "job.destroy",
        "abilities.custom",
    ],
    capabilities: [
        "drain",
        "rpc:resource.status",
        "rpc:nowhere.method",
        "kvs.read:resource.R",
        "event.publish:abilities.news",
        "event:abilities.*",
        "exec:abilities",
    ],
    services: [
        "echo": "owner",
        "hello": "user",
        "late": "owner",
        "refuse": "owner",
    ],
}
