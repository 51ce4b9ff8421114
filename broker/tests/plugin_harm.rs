//! Plugins written to do harm: the broker lives, says which plugin did what in which callback,
//! and other jobs are not touched.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

mod plugin_support;

use flux_broker::plugin::types::Verdict;
use flux_broker::plugin::{CallError, FaultKind, Kind, LoadError, NoticeKind, PluginSpec};
use plugin_support::{Fixture, accept_all, named, validator, validator_text};
use std::time::{Duration, Instant};

/// Validates a job that the plugin chokes on; gives the fault.
async fn fault_of(body: &str) -> (FaultKind, String) {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("harm", &validator("harm", body));
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    let answers = plugin.validate(vec![named("x")]).await;
    let Err(CallError::Fault(fault)) = &answers[0] else { panic!("{answers:?}") };
    let text = fault.to_string();
    assert!(text.contains("plugin harm") && text.contains("in validate"), "{text}");
    assert_eq!(fixture.next_fault().await, text);
    assert!(fixture.log().iter().any(|line| line.contains(&text)));

    // The host lives: another plugin loads and answers.
    let good = fixture.spec("good", &validator("good", &accept_all()));
    let good = fixture.host.load(&good, Kind::Validator, Default::default()).await.unwrap();
    assert_eq!(good.validate(vec![named("x")]).await, [Ok(Verdict::Accept)]);
    (fault.kind, text)
}

#[tokio::test]
async fn endless_loop_is_ended_by_the_deadline() {
    let (kind, text) = fault_of("(loop $l (br $l)) unreachable").await;
    assert_eq!(kind, FaultKind::Deadline);
    assert!(text.ends_with("exceeded its deadline in validate: 200 ms"), "{text}");
}

#[tokio::test]
async fn allocation_without_end_stops_at_the_memory_limit() {
    let body = "(loop $l (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1))
                   (then (unreachable))) (br $l)) unreachable";
    let (kind, text) = fault_of(body).await;
    assert_eq!(kind, FaultKind::Memory);
    assert!(text.ends_with("64 MiB"), "{text}");
}

#[tokio::test]
async fn trap_is_reported() {
    let (kind, text) = fault_of("unreachable").await;
    assert_eq!(kind, FaultKind::Trap);
    assert!(text.contains("unreachable"), "{text}");
}

#[tokio::test]
async fn bad_address_is_reported() {
    let (kind, _) = fault_of("(i32.load (i32.const 0x7ffffff0))").await;
    assert_eq!(kind, FaultKind::Trap);
}

#[tokio::test]
async fn stack_overflow_is_reported() {
    let (kind, _) = fault_of("(call $validate (local.get 0) (local.get 1))").await;
    assert_eq!(kind, FaultKind::Stack);
}

#[tokio::test]
async fn answer_of_a_gigabyte_is_not_copied() {
    let body = "(i32.store (i32.const 16) (i32.const 64))
                (i32.store (i32.const 20) (i32.const 0x03333333))
                (i32.const 16)";
    let (kind, _) = fault_of(body).await;
    assert_eq!(kind, FaultKind::Garbage);
}

/// A list of verdicts that all carry the same long text: small for the plugin, huge for the host.
#[tokio::test]
async fn answer_that_repeats_one_long_text_is_not_copied() {
    let body = "(local $i i32)
        (drop (memory.grow (i32.const 256)))
        (loop $l
          (i32.store (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const 20))) (i32.const 1))
          (i32.store offset=12
            (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const 20))) (i32.const 8000000))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $l (i32.lt_u (local.get $i) (i32.const 100000))))
        (i32.store (i32.const 16) (i32.const 4096))
        (i32.store (i32.const 20) (i32.const 100000))
        (i32.const 16)";
    let (kind, _) = fault_of(body).await;
    assert_eq!(kind, FaultKind::Garbage);
}

#[tokio::test]
async fn answer_that_is_not_text_is_garbage() {
    let body = "(i32.store (i32.const 16) (i32.const 64))
                (i32.store (i32.const 20) (i32.const 1))
                (i32.store (i32.const 64) (i32.const 1))
                (i32.store (i32.const 72) (i32.const 128))
                (i32.store (i32.const 76) (i32.const 2))
                (i32.store8 (i32.const 128) (i32.const 0xff))
                (i32.const 16)";
    let (kind, text) = fault_of(body).await;
    assert_eq!(kind, FaultKind::Garbage);
    assert!(text.contains("utf-8"), "{text}");
}

#[tokio::test]
async fn verdict_that_does_not_exist_is_garbage() {
    let body = "(i32.store (i32.const 16) (i32.const 64))
                (i32.store (i32.const 20) (i32.const 1))
                (i32.store (i32.const 64) (i32.const 77))
                (i32.const 16)";
    assert_eq!(fault_of(body).await.0, FaultKind::Garbage);
}

#[tokio::test]
async fn too_few_answers_are_misuse() {
    let (kind, text) = fault_of("(i32.const 16)").await;
    assert_eq!(kind, FaultKind::Misuse);
    assert!(text.ends_with("0 answers to 1 calls"), "{text}");
}

#[tokio::test]
async fn panic_is_reported_with_its_message() {
    let body = "(call $log (i32.const 2) (i32.const 1024) (i32.const 5)) unreachable";
    let (kind, text) = fault_of(body).await;
    assert_eq!(kind, FaultKind::Panic);
    assert!(text.ends_with("panicked in validate: ouch!"), "{text}");
}

/// WASI is there for the linker's sake only.
#[tokio::test]
async fn leaving_by_wasi_is_a_trap() {
    assert_eq!(fault_of("(call $exit (i32.const 0)) unreachable").await.0, FaultKind::Trap);
}

#[tokio::test]
async fn one_bad_job_of_a_batch_does_not_touch_the_others() {
    let mut fixture = Fixture::new();
    // Traps on a job of urgency 7, accepts any other.
    let body = format!(
        "(local $i i32)
         (loop $l
           (if (i32.lt_u (local.get $i) (local.get 1)) (then
             (if (i32.eq (i32.const 7) (i32.load offset={urgency}
                   (i32.add (local.get 0) (i32.mul (local.get $i) (i32.const {size})))))
               (then (unreachable)))
             (local.set $i (i32.add (local.get $i) (i32.const 1)))
             (br $l))))
         {}",
        accept_all(),
        urgency = plugin_support::SUBMISSION_URGENCY,
        size = plugin_support::SUBMISSION_SIZE,
    );
    let spec = fixture.spec("picky", &validator("picky", &body));
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    let jobs = (0..50).map(|i| plugin_support::urgent(if i == 20 { 7 } else { 16 })).collect();
    let answers = plugin.validate(jobs).await;
    for (i, answer) in answers.iter().enumerate() {
        match answer {
            Err(CallError::Fault(fault)) => assert_eq!((i, fault.kind), (20, FaultKind::Trap)),
            answer => assert_eq!((i == 20, answer), (false, &Ok(Verdict::Accept))),
        }
    }
    // Once in the batch, once alone; two more instances.
    let report = plugin.stats();
    assert_eq!((report.status, report.faults, report.starts), ("running", 2, 3));
}

#[tokio::test]
async fn plugin_that_keeps_faulting_is_quarantined_until_rearmed() {
    let mut fixture = Fixture::new();
    let mut spec = fixture.spec("harm", &validator("harm", "unreachable"));
    spec.patience.faults = 3;
    spec.patience.pause = Duration::ZERO;
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    for _ in 0..3 {
        plugin.validate(vec![named("x")]).await;
    }
    let answers = plugin.validate(vec![named("x")]).await;
    let Err(error @ CallError::Quarantined { .. }) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!(error.to_string(), "plugin harm is quarantined after 3 faults");
    assert_eq!(plugin.stats().status, "quarantined");
    while !matches!(fixture.notices.recv().await.unwrap().what, NoticeKind::Quarantined) {}
    plugin.rearm().await.unwrap();
    assert_eq!(plugin.stats().status, "running");
}

#[tokio::test]
async fn calls_that_take_too_long_only_together_are_no_fault() {
    let mut fixture = Fixture::new();
    // 50 ms for each job, of the 200 ms that a call may take.
    let burn = r#"
        (local $job i32) (local $end f64)
        (loop $next
          (local.set $end (f64.sub (call $remaining) (f64.const 0.05)))
          (loop $burn (br_if $burn (f64.gt (call $remaining) (local.get $end))))
          (local.set $job (i32.add (local.get $job) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $job) (local.get 1))))"#;
    let log = r#"(import "flux:plugin/host@1.0.0" "log""#;
    let remaining =
        r#"(import "flux:plugin/host@1.0.0" "remaining" (func $remaining (result f64)))"#;
    let text = validator_text("slow", &format!("{burn}{}", accept_all()));
    let module = wat::parse_str(text.replace(log, &format!("{remaining}\n  {log}"))).unwrap();
    let mut spec = fixture.spec("slow", &module);
    spec.patience.faults = 1;
    let plugin = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    let answers = plugin.validate((0..10).map(|_| named("x")).collect()).await;
    assert_eq!(answers, vec![Ok(Verdict::Accept); 10]);
    let report = plugin.stats();
    assert_eq!((report.status, report.faults), ("running", 0));
    let said = "several calls of validate at once take too long: 200 ms";
    assert!(fixture.log().iter().any(|line| line.contains(said)), "{:?}", fixture.log());
}

#[tokio::test]
async fn slow_plugin_does_not_stall_the_broker() {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("slow", &validator("slow", "(loop $l (br $l)) unreachable"));
    let slow = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap();
    let call = slow.validate(vec![named("x")]);
    tokio::pin!(call);
    let mut turns = 0;
    let start = Instant::now();
    loop {
        tokio::select! {
            biased;
            answers = &mut call => {
                assert!(answers[0].is_err());
                break;
            }
            () = tokio::task::yield_now() => turns += 1,
        }
    }
    assert!(turns > 100, "the caller had {turns} turns in {:?}", start.elapsed());
}

// === What does not load ===

async fn refusal_of(bytes: &[u8]) -> String {
    let mut fixture = Fixture::new();
    let spec = fixture.spec("bad", bytes);
    let error = fixture.host.load(&spec, Kind::Validator, Default::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("bad.wasm: "), "{text}");
    text
}

#[tokio::test]
async fn files_that_are_no_plugins_are_refused_with_a_reason() {
    let good = validator("bad", &accept_all());
    let section =
        |text: &str| wat::parse_str(format!("(module (@custom \"flux:abi\" \"{text}\"))"));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (std::fs::read(std::env::current_exe().unwrap()).unwrap()[..4096].to_vec(), "native ELF"),
        (good[..good.len() / 2].to_vec(), "truncated WebAssembly module"),
        (b"hello world".to_vec(), "not a WebAssembly module"),
        (b"\0asm\x01\0\0\0".to_vec(), "no flux:abi section"),
        (section("flux-plugin 2.0\\0a").unwrap(), "ABI 2.0 not supported (host 1.0)"),
        (section("flux-plugin 1.1\\0a").unwrap(), "ABI 1.1 not supported (host 1.0)"),
        (
            section("flux-plugin 1.0\\0akind jobtap\\0aname bad\\0a").unwrap(),
            "a jobtap plugin, but a validator plugin is wanted here",
        ),
        (section("flux-plugin 1.0\\0akind validator\\0aname bad\\0a").unwrap(), "lifecycle"),
        (
            section("flux-plugin 1.0\\0akind validator\\0aname bad\\0acapability drain\\0a")
                .unwrap(),
            "asks for capability 'drain', which is not granted",
        ),
    ];
    for (bytes, expected) in cases {
        let text = refusal_of(&bytes).await;
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn undeclared_import_is_refused_by_name() {
    let wat = plugin_support::validator_text("bad", &accept_all())
        .replace("(memory (export", "(import \"env\" \"system\" (func)) (memory (export");
    let error = refusal_of(&wat::parse_str(wat).unwrap()).await;
    assert!(error.contains("imports env system"), "{error}");
}

#[tokio::test]
async fn wrong_signature_is_refused_by_name() {
    let wat = plugin_support::validator_text("bad", &accept_all())
        .replace("#validate\") (param i32 i32)", "#validate\") (param i32 i32 i32)");
    let error = refusal_of(&wat::parse_str(wat).unwrap()).await;
    assert!(error.contains("validate"), "{error}");
}

#[tokio::test]
async fn start_function_that_traps_is_a_load_error() {
    let wat = plugin_support::validator_text("bad", &accept_all())
        .replace("(memory (export", "(func $start unreachable) (start $start) (memory (export");
    let error = refusal_of(&wat::parse_str(wat).unwrap()).await;
    assert!(error.contains("plugin bad trapped in start"), "{error}");
}

#[tokio::test]
async fn unknown_plugin_is_not_found() {
    let fixture = Fixture::new();
    let spec = PluginSpec::named("nope.so");
    let error = fixture.host.load(&spec, Kind::Jobtap, Default::default()).await.unwrap_err();
    assert!(matches!(error, LoadError::Source { .. }));
    assert_eq!(error.to_string(), "nope.so: No such plugin found");
}

/// Bytes that are nearly a plugin: some are changed, a part is taken out, doubled or cut off.
#[test]
fn whatever_bytes_come_are_inspected_or_refused() {
    let good = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugins/c-nofoo.wasm"));
    let good = good.unwrap();
    let tiny = wat::parse_str(
        "(module (memory 1) (func (export \"f\") (param i32) (result i32) local.get 0)
           (@custom \"flux:abi\" \"flux-plugin 1.0\\0akind jobtap\\0aname x\\0a\"))",
    )
    .unwrap();
    let mut state = 0x9e37_79b9_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut inspected = 0;
    for round in 0..20_000 {
        // The large one is slow to validate.
        let mut bytes = if round % 100 == 0 { good.clone() } else { tiny.clone() };
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let part = bytes[at..(at + random(16)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        inspected += usize::from(flux_broker::plugin::inspect(&bytes).is_ok());
    }
    assert!(inspected > 0, "no change at all was harmless");
}
