//! Calls of the host with any arguments, by a plugin whose memory is garbage and whose allocator
//! lies: the host answers or ends the plugin, and keeps nothing of it.
//!
//! A case is one call; what is random in it comes from its number, so that a case that fails can be
//! run again alone. `FLUX_HOSTILE_CASES` sets how many there are, `FLUX_HOSTILE_FIRST` which is the
//! first.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod plugin_support;

use flux_broker::plugin::types::{Event, Verdict};
use flux_broker::plugin::{CallError, JobFacts, Kind};
use plugin_support::{Fixture, accept_all, job, named, validator_text};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What is tried where nothing else is said; 100,000 take a minute.
const CASES: u64 = 10_000;

/// The other functions of the host, and random numbers of the plugin's own.
const IMPORTS: &str = r#"
  (import "flux:plugin/host@1.0.0" "now" (func $now (result f64)))
  (import "flux:plugin/host@1.0.0" "random" (func $host_random (result i64)))
  (import "flux:plugin/host@1.0.0" "remaining" (func $remaining (result f64)))
  (import "flux:plugin/host@1.0.0" "granted" (func $granted (param i32 i32) (result i32)))
  (import "flux:plugin/host@1.0.0" "get" (func $get (param i32 i32 i32)))
  (import "flux:plugin/host@1.0.0" "keys" (func $keys (param i32 i32 i32)))
  (import "flux:plugin/jobs@1.0.0" "lookup" (func $lookup (param i64 i32)))
  (import "flux:plugin/jobs@1.0.0" "jobspec" (func $jobspec (param i64 i32)))
  (import "flux:plugin/jobs@1.0.0" "resources" (func $resources (param i64 i32)))
  (import "flux:plugin/jobs@1.0.0" "event-posted" (func $posted (param i64 i32 i32 i32)))
"#;

const FUNCTIONS: &str = r#"
  (global $state (mut i64) (i64.const 0))
  (global $lies (mut i32) (i32.const 0))
  ;; SplitMix64
  (func $random (result i64) (local $z i64)
    (global.set $state (i64.add (global.get $state) (i64.const 0x9e3779b97f4a7c15)))
    (local.set $z (global.get $state))
    (local.set $z (i64.mul (i64.xor (local.get $z) (i64.shr_u (local.get $z) (i64.const 30)))
      (i64.const 0xbf58476d1ce4e5b9)))
    (local.set $z (i64.mul (i64.xor (local.get $z) (i64.shr_u (local.get $z) (i64.const 27)))
      (i64.const 0x94d049bb133111eb)))
    (i64.xor (local.get $z) (i64.shr_u (local.get $z) (i64.const 31))))
  (func $below (param $n i32) (result i32)
    (i32.rem_u (i32.wrap_i64 (call $random)) (local.get $n)))
  ;; Mostly within the first pages, at times at the end of memory, beyond it, or anything.
  (func $wild (result i32) (local $k i32)
    (local.set $k (call $below (i32.const 10)))
    (if (i32.lt_u (local.get $k) (i32.const 5)) (then (return (call $below (i32.const 64)))))
    (if (i32.lt_u (local.get $k) (i32.const 8)) (then (return
      (i32.and (call $below (i32.const 65536)) (i32.const -8)))))
    (if (i32.eq (local.get $k) (i32.const 8)) (then (return
      (i32.sub (i32.mul (memory.size) (i32.const 65536)) (call $below (i32.const 32))))))
    (i32.wrap_i64 (call $random)))
  ;; A place, a length, and a place for an answer: nine times of ten such as may well be right.
  (func $at (result i32)
    (if (result i32) (call $below (i32.const 10))
      (then (call $below (i32.const 65000))) (else (call $wild))))
  (func $len (result i32)
    (if (result i32) (call $below (i32.const 10))
      (then (call $below (i32.const 64))) (else (call $wild))))
  (func $out (result i32)
    (if (result i32) (call $below (i32.const 10))
      (then (i32.and (call $below (i32.const 65000)) (i32.const -8))) (else (call $wild))))
  (func $id (result i64) (i64.extend_i32_u (call $below (i32.const 4))))
  (func $dirty (local $i i32)
    (loop $l
      (i32.store (i32.add (i32.const 8192) (i32.mul (local.get $i) (i32.const 4))) (call $wild))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get $i) (i32.const 64)))))
  (func $one (local $what i32)
    (local.set $what (call $below (i32.const 11)))
    (if (i32.eq (local.get $what) (i32.const 0)) (then
      (call $log (call $below (i32.const 9)) (call $at) (call $len))))
    (if (i32.eq (local.get $what) (i32.const 1)) (then (drop (call $now))))
    (if (i32.eq (local.get $what) (i32.const 2)) (then (drop (call $host_random))))
    (if (i32.eq (local.get $what) (i32.const 3)) (then (drop (call $remaining))))
    (if (i32.eq (local.get $what) (i32.const 4)) (then
      (drop (call $granted (call $at) (call $len)))))
    (if (i32.eq (local.get $what) (i32.const 5)) (then
      (call $get (call $at) (call $len) (call $out))))
    (if (i32.eq (local.get $what) (i32.const 6)) (then
      (call $keys (call $at) (call $len) (call $out))))
    (if (i32.eq (local.get $what) (i32.const 7)) (then (call $lookup (call $id) (call $out))))
    (if (i32.eq (local.get $what) (i32.const 8)) (then (call $jobspec (call $id) (call $out))))
    (if (i32.eq (local.get $what) (i32.const 9)) (then (call $resources (call $id) (call $out))))
    (if (i32.eq (local.get $what) (i32.const 10)) (then
      (call $posted (call $id) (call $at) (call $len) (call $out)))))
"#;

/// Three calls of the host, then an answer: often a right one ("nothing to say"), else any.
fn hostile() -> Vec<u8> {
    // An event is a variant; the id of the job in it is the first thing of its content.
    let body = "(global.set $state (i64.load offset=8 (local.get 0)))
         (call $dirty)
         (global.set $lies (call $below (i32.const 4)))
         (call $one) (call $one) (call $one)
         (global.set $lies (i32.const 0))
         (global.set $next (i32.const 32768))
         (if (call $below (i32.const 2)) (then (return (call $wild))))
         (memory.fill (i32.const 16384) (i32.const 0) (i32.const 1024))
         (i32.store (i32.const 16) (i32.const 16384))
         (i32.store (i32.const 20) (i32.const 1))
         (i32.const 16)";
    let text = validator_text("hostile", body)
        .replace("  (import \"wasi", &format!("{IMPORTS}  (import \"wasi"))
        .replace("  (global $next", &format!("{FUNCTIONS}  (global $next"))
        .replace("flux:plugin/validation@1.0.0#validate", "flux:plugin/callbacks@1.0.0#handle")
        .replace("kind validator", "kind jobtap")
        // An allocator that gives what it likes.
        .replace(
            "(local $start i32)",
            "(local $start i32)
             (if (i32.eq (global.get $lies) (i32.const 1)) (then (return (call $wild))))",
        );
    wat::parse_str(text).unwrap()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn whatever_a_plugin_passes_to_the_host_the_host_lives_and_does_not_grow() {
    // What is logged is as wild as the rest, and nobody's business here.
    let mut fixture = Fixture::with(|host| host.log = Arc::new(|_, _, _| {}));
    for id in 1..3 {
        fixture.jobs.put(JobFacts {
            job: job(id),
            jobspec: format!("{{\"fill\":\"{}\"}}", "x".repeat(500)).into(),
            resources: Some("{\"version\":1}".into()),
            events: ["submit".into()].into(),
        });
    }
    let mut spec = fixture.spec("hostile", &hostile());
    spec.patience.faults = u32::MAX;
    spec.patience.pause = Duration::ZERO;
    let values: BTreeMap<String, Vec<u8>> =
        [("", 0), ("a", 10), ("b", 70_000)].map(|(key, len)| (key.to_owned(), vec![7; len])).into();
    let plugin = fixture.host.load(&spec, Kind::Jobtap, values).await.unwrap();
    let (first, cases) = (number("FLUX_HOSTILE_FIRST", 1), number("FLUX_HOSTILE_CASES", CASES));
    let (mut good, mut ended, mut settled) = (0, 0, 0);
    for case in 0..cases {
        if case == cases / 2 {
            settled = resident();
        }
        let event = Event::Validate(job(first + case));
        match plugin.handle(vec![event]).await.pop() {
            Some(Ok(_)) => good += 1,
            Some(Err(CallError::Fault(_))) => ended += 1,
            other => panic!("case {case}: {other:?}"),
        }
        while fixture.notices.try_recv().is_ok() {}
    }
    let grown = resident().saturating_sub(settled);
    println!("{good} answered, {ended} ended the plugin, {} KiB more", grown >> 10);
    if cases >= 1000 {
        assert!(good > cases / 10 && ended > cases / 10, "{good} answered, {ended} ended");
        assert!(grown < 64 << 20, "{} MiB more after {cases} cases", grown >> 20);
    }
    let mut decent = fixture.spec("decent", &plugin_support::validator("decent", &accept_all()));
    decent.limits.deadline = Duration::from_secs(10);
    let decent = fixture.host.load(&decent, Kind::Validator, Default::default()).await.unwrap();
    assert_eq!(decent.validate(vec![named("x")]).await, [Ok(Verdict::Accept)]);
}
