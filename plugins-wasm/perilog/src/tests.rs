use super::*;
use flux_plugin::testing;
use flux_plugin::types::{
    EventPosted, JobNew, PerilogFinish, PerilogStart, RpcResponse, StateChange,
};

const BOTH: &str = r#"{"job-manager":{"prolog":{"command":["p"]},"epilog":{"command":["e"]}}}"#;
const PER_RANK: &str = r#"{"job-manager":{"prolog":{"command":["p"],"per-rank":true}}}"#;

fn perilog(config: &str) -> Perilog {
    testing::reset();
    Perilog::init(&testing::context("{}", config)).unwrap()
}

/// What is done, a word each.
fn call(plugin: &mut Perilog, event: Event) -> Vec<String> {
    let mut effects = Effects::default();
    plugin.handle(event, &mut effects);
    testing::apply_state(effects.list());
    let text = |effect| match effect {
        Effect::Subscribe(_) => "subscribe".to_owned(),
        Effect::Unsubscribe(_) => "unsubscribe".to_owned(),
        Effect::PrologStart(PerilogStart { description, .. }) => format!("start {description}"),
        Effect::EpilogStart(PerilogStart { description, .. }) => format!("start {description}"),
        Effect::PrologFinish(PerilogFinish { description, status, .. })
        | Effect::EpilogFinish(PerilogFinish { description, status, .. }) => {
            format!("finish {description} {status}")
        }
        Effect::Exec(exec) => format!("exec {}", exec.tag),
        Effect::Raise(raise) => format!("raise {} {} {}", raise.type_, raise.severity, raise.note),
        Effect::Rpc(rpc) => format!("{} {}", rpc.topic, rpc.payload),
        Effect::Put(put) => format!("put {}", put.value.is_some()),
        other => format!("{other:?}"),
    };
    let list = effects.into_list().into_iter().map(text);
    list.filter(|text| !text.starts_with("put")).collect()
}

fn job(state: JobState) -> Job {
    Job { state, ..testing::job(1) }
}

fn entry(name: &str) -> Entry {
    Entry { timestamp: 0.0, name: name.to_owned(), context: "{}".to_owned() }
}

fn run() -> Event {
    let (job, entry) = (job(JobState::Run), entry("alloc"));
    Event::State(StateChange { job, previous: JobState::Sched, entry })
}

fn finish() -> Event {
    Event::Posted(EventPosted { job: job(JobState::Cleanup), entry: entry("finish") })
}

fn exec(tag: &str, status: i32) -> ExecUpdate {
    ExecUpdate {
        tag: tag.to_owned(),
        job: 1,
        finished: true,
        status,
        failed_ranks: if status == 0 { String::new() } else { "1,3".to_owned() },
        timed_out: false,
        canceled: false,
        details: r#"{"hosts":"n[1,3]"}"#.to_owned(),
    }
}

#[test]
fn prolog_runs_before_the_job_and_epilog_after_it() {
    let mut plugin = perilog(BOTH);
    let begun = call(&mut plugin, run());
    assert_eq!(begun, ["subscribe", "start job-manager.prolog", "exec prolog-1"]);
    assert!(plugin.query().contains(r#""state":"running""#));
    let done = call(&mut plugin, Event::Exec(exec("prolog-1", 0)));
    assert_eq!(done, ["finish job-manager.prolog 0"]);
    assert_eq!(call(&mut plugin, finish()), ["start job-manager.epilog", "exec epilog-1"]);
    let done = call(&mut plugin, Event::Exec(exec("epilog-1", 0)));
    assert_eq!(done, ["unsubscribe", "finish job-manager.epilog 0"]);
}

#[test]
fn nothing_is_run_that_is_not_configured() {
    let mut plugin = perilog("{}");
    assert!(call(&mut plugin, run()).is_empty() && call(&mut plugin, finish()).is_empty());
    let mut plugin = perilog(PER_RANK);
    assert_eq!(call(&mut plugin, run()).len(), 3);
    assert!(call(&mut plugin, finish()).is_empty());
}

#[test]
fn a_prolog_that_fails_ends_the_job_and_the_epilog_still_runs() {
    let mut plugin = perilog(BOTH);
    call(&mut plugin, run());
    let failed = call(&mut plugin, Event::Exec(exec("prolog-1", 3 << 8)));
    assert_eq!(
        failed,
        [
            "start job-manager.epilog",
            "raise prolog 0 prolog exited with code=3 on n[1,3] (rank 1,3)",
            "finish job-manager.prolog 768",
            "exec epilog-1",
        ]
    );
}

#[test]
fn an_epilog_that_fails_does_not_change_the_result_of_the_job() {
    let mut plugin = perilog(BOTH);
    call(&mut plugin, finish());
    let failed = call(&mut plugin, Event::Exec(exec("epilog-1", 15)));
    let note = "raise epilog 2 epilog killed by signal 15 on n[1,3] (rank 1,3)";
    assert_eq!(failed, [note, "unsubscribe", "finish job-manager.epilog 15"]);
}

#[test]
fn nodes_where_it_failed_are_drained_before_the_job_may_free_them() {
    let mut plugin = perilog(PER_RANK);
    call(&mut plugin, run());
    let failed = call(&mut plugin, Event::Exec(exec("prolog-1", 256)));
    let reason = format!("prolog failed for job {}", Fluid(1).f58());
    let drain = json!({ "targets": "1,3", "reason": reason, "mode": "update" });
    assert_eq!(failed, [format!("resource.drain {drain}")]);
    let answer = RpcResponse { tag: 1, outcome: Ok("{}".to_owned()) };
    let done = call(&mut plugin, Event::RpcResponse(answer));
    assert_eq!(done.last().unwrap(), "finish job-manager.prolog 256");
}

#[test]
fn a_cancellation_is_no_failure_of_the_nodes() {
    let mut plugin = perilog(PER_RANK);
    call(&mut plugin, run());
    let update = ExecUpdate { canceled: true, ..exec("prolog-1", 15) };
    assert_eq!(call(&mut plugin, Event::Exec(update)), ["finish job-manager.prolog 15"]);
}

#[test]
fn what_timed_out_is_said_so() {
    let update = ExecUpdate { timed_out: true, ..exec("prolog-1", 15) };
    assert_eq!(reason(Kind::Prolog, &update), "prolog timed out on n[1,3] (rank 1,3)");
    let update = exec("prolog-1", 137 << 8);
    assert!(reason(Kind::Prolog, &update).starts_with("prolog killed by signal 9"));
}

#[test]
fn a_restarted_broker_runs_again_what_was_under_way() {
    let announce = |origin| Event::New(JobNew { job: job(JobState::Run), origin });
    for (origin, expected) in [
        (Origin::Restarted, vec!["subscribe", "exec prolog-1"]),
        (Origin::Loaded, vec!["subscribe"]),
    ] {
        let mut plugin = perilog(BOTH);
        testing::put_job(job(JobState::Run));
        testing::put_event(1, "prolog-start");
        assert_eq!(call(&mut plugin, announce(origin)), expected);
        assert_eq!(plugin.running.get(&1), Some(&Kind::Prolog));
    }
}

#[test]
fn a_fault_while_nodes_are_drained_does_not_leave_the_job_behind() {
    let mut plugin = perilog(PER_RANK);
    testing::put_job(job(JobState::Run));
    testing::put_event(1, "prolog-start");
    call(&mut plugin, Event::Exec(exec("prolog-1", 256)));
    let mut again = Perilog::init(&testing::context("{}", PER_RANK)).unwrap();
    let news = JobNew { job: job(JobState::Run), origin: Origin::Loaded };
    let done = call(&mut again, Event::New(news));
    assert_eq!(done.last().unwrap(), "finish job-manager.prolog 256");
    assert_eq!(host::keys("prolog"), Vec::<String>::new());
}
