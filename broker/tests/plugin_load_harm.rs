//! Plugins that do harm before they are asked about any job, or where the host does not look for
//! it: while they are instantiated, in their own allocator, with tables. The host lives, and loads
//! others.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod plugin_support;

use flux_broker::plugin::types::Verdict;
use flux_broker::plugin::{CallError, Fault, FaultKind, Kind};
use plugin_support::{Fixture, accept_all, named, validator, validator_text};
use std::time::{Duration, Instant};

/// An accepting validator of which one piece of text is another.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let text = validator_text("bad", &accept_all());
    assert!(text.contains(from), "no {from} in {text}");
    wat::parse_str(text.replacen(from, to, 1)).unwrap()
}

/// With something more in the module, before its memory.
fn with(more: &str) -> Vec<u8> {
    changed("(memory (export", &format!("{more} (memory (export"))
}

async fn another_still_loads(fixture: &mut Fixture) {
    let good = fixture.spec("good", &validator("good", &accept_all()));
    let good = fixture.host.load(&good, Kind::Validator, Default::default()).await.unwrap();
    assert_eq!(good.validate(vec![named("x")]).await, [Ok(Verdict::Accept)]);
}

/// Why it does not load.
async fn refusal_of(bytes: &[u8]) -> String {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("bad", bytes);
    let began = Instant::now();
    let error = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap_err();
    // Its deadline is of processor time, and 200 ms.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    another_still_loads(&mut fixture).await;
    error.to_string()
}

/// What becomes of a plugin that loads and is asked.
async fn fault_of(bytes: &[u8]) -> Fault {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("bad", bytes);
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    let answers = plugin.validate(vec![named("x")]).await;
    another_still_loads(&mut fixture).await;
    let Err(CallError::Fault(fault)) = &answers[0] else { panic!("{answers:?}") };
    (**fault).clone()
}

#[tokio::test]
async fn a_start_function_without_end_is_ended() {
    let text = refusal_of(&with("(func $begin (loop $l (br $l))) (start $begin)")).await;
    assert!(text.contains("deadline"), "{text}");
}

#[tokio::test]
async fn a_start_function_that_calls_itself_runs_out_of_stack() {
    let text = refusal_of(&with("(func $begin (call $begin)) (start $begin)")).await;
    assert!(text.contains("stack"), "{text}");
}

#[tokio::test]
async fn a_memory_that_is_too_large_from_the_start_is_refused() {
    let bytes = changed("(memory (export \"memory\") 1)", "(memory (export \"memory\") 40000)");
    let text = refusal_of(&bytes).await;
    assert!(text.contains("memory"), "{text}");
}

#[tokio::test]
async fn a_table_of_a_billion_entries_is_refused() {
    let text = refusal_of(&with("(table 1000000000 funcref)")).await;
    assert!(text.contains("table"), "{text}");
}

#[tokio::test]
async fn tables_do_not_grow_without_end() {
    let body = "(local $size i32)
        (loop $l
          (local.set $size (table.grow $t (ref.null func) (i32.const 100000)))
          (br_if $l (i32.ne (local.get $size) (i32.const -1))))
        unreachable";
    let text = validator_text("bad", body).replacen(
        "(memory (export",
        "(table $t 1 funcref) (memory (export",
        1,
    );
    let fault = fault_of(&wat::parse_str(text).unwrap()).await;
    assert!(matches!(fault.kind, FaultKind::Trap | FaultKind::Memory), "{fault}");
}

#[tokio::test]
async fn tail_calls_without_end_are_ended() {
    let body = "(return_call $validate (local.get 0) (local.get 1))";
    let text = validator_text("bad", body);
    let mut fixture = Fixture::new();
    let spec = fixture.spec("bad", &wat::parse_str(text).unwrap());
    match fixture.host.load(&spec, Kind::Validator, Default::default()).await {
        Ok(plugin) => {
            let answers = plugin.validate(vec![named("x")]).await;
            let Err(CallError::Fault(fault)) = &answers[0] else { panic!("{answers:?}") };
            assert_eq!(fault.kind, FaultKind::Deadline);
        }
        Err(error) => assert!(error.to_string().contains("tail call"), "{error}"),
    }
    another_still_loads(&mut fixture).await;
}

/// A thread that waits for an atomic is in no loop that could be interrupted.
#[tokio::test]
async fn shared_memory_and_waiting_on_it_are_refused() {
    let bytes =
        changed("(memory (export \"memory\") 1)", "(memory (export \"memory\") 1 2 shared)");
    let text = refusal_of(&bytes).await;
    assert!(text.contains("shared") || text.contains("threads"), "{text}");
}

#[tokio::test]
async fn an_allocator_without_end_is_ended() {
    let bytes = changed("(local.set $start", "(loop $l (br $l)) (local.set $start");
    let mut fixture = Fixture::new();
    let spec = fixture.spec("bad", &bytes);
    // It is first called for what the plugin is told at its start.
    match fixture.host.load(&spec, Kind::Validator, Default::default()).await {
        Err(error) => assert!(error.to_string().contains("deadline"), "{error}"),
        Ok(plugin) => {
            let answers = plugin.validate(vec![named("x")]).await;
            let Err(CallError::Fault(fault)) = &answers[0] else { panic!("{answers:?}") };
            assert_eq!(fault.kind, FaultKind::Deadline);
        }
    }
    another_still_loads(&mut fixture).await;
}

#[tokio::test]
async fn an_allocator_that_gives_what_is_not_there_is_found_out() {
    let bytes = changed("    (local.get $start))", "    (i32.const 0x7ffffff0))");
    let mut fixture = Fixture::new();
    let spec = fixture.spec("bad", &bytes);
    if let Ok(plugin) = fixture.host.load(&spec, Kind::Validator, Default::default()).await {
        let answers = plugin.validate(vec![named("x")]).await;
        assert!(matches!(&answers[0], Err(CallError::Fault(_))), "{answers:?}");
    }
    another_still_loads(&mut fixture).await;
}

#[tokio::test]
async fn a_query_without_end_is_ended() {
    let export = "lifecycle@1.0.0#query\") (result i32)";
    let bytes = changed(export, &format!("{export} (loop $l (br $l))"));
    let mut fixture = Fixture::new();
    let spec = fixture.spec("bad", &bytes);
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    assert!(plugin.query().await.is_err());
    another_still_loads(&mut fixture).await;
}

#[tokio::test]
async fn imports_of_namespaces_that_nobody_has_are_refused_by_name() {
    for (module, name) in [("env", "system"), ("wasi_snapshot_preview1", "nonsense"), ("", "")] {
        let import = format!("(import \"{module}\" \"{name}\" (func (param i32) (result i32)))");
        let text = refusal_of(&changed("(module", &format!("(module {import}"))).await;
        assert!(text.contains(name) && text.contains(module), "{text}");
    }
}

/// A hundred thousand log lines of a call that is right otherwise.
#[tokio::test]
async fn a_flood_of_log_lines_does_not_reach_the_log() {
    let body = format!(
        "(local $i i32)
         (loop $l
           (call $log (i32.const 2) (i32.const 1024) (i32.const 5))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $l (i32.lt_u (local.get $i) (i32.const 100000))))
         {}",
        accept_all()
    );
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("loud", &validator("loud", &body));
    spec.limits.deadline = Duration::from_secs(20);
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    plugin.validate(vec![named("x")]).await;
    let lines = fixture.log().len();
    assert!(lines < 2000, "{lines} lines");
    another_still_loads(&mut fixture).await;
}
