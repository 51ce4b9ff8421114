//! What was acknowledged survives the sudden death of the broker.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::instance::{Instance, append, put, run};
use flux_protocol::rpc::kvs::commit::SYNC;

/// Tells a process of this test program to be the one that is killed: its state directory.
const VICTIM: &str = "FLUX_TEST_CRASH_STATEDIR";
/// How often to kill; the default is for every day.
const CYCLES: &str = "FLUX_TEST_CRASH_CYCLES";
const SEED: &str = "FLUX_TEST_CRASH_SEED";

#[test]
fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cycles = number(CYCLES).unwrap_or(20);
    let seed = number(SEED).unwrap_or(7);
    let mut random = seed;
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for cycle in 0..cycles {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wanted = (random >> 33) as u32 % 40;
        acknowledged = live_and_die(dir.path(), acknowledged, wanted);
        check(dir.path(), acknowledged, &format!("seed {seed}, cycle {cycle}"));
    }
    assert!(acknowledged >= cycles);
}

/// Run a broker that commits, and kill it after some acknowledgements. Returns the last number
/// that was acknowledged.
fn live_and_die(statedir: &Path, first: u64, wanted: u32) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::victim", "--ignored", "--nocapture"])
        .env(VICTIM, statedir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut last = first;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acks = 0;
    while acks < wanted.max(1) {
        let line = lines.next().expect("the victim must not end by itself").unwrap();
        if let Some(number) = line.strip_prefix("acknowledged ") {
            last = number.parse().unwrap();
            acks += 1;
        }
    }
    child.kill().unwrap();
    // What it said before it died counts as well.
    for line in lines.map_while(Result::ok) {
        if let Some(Ok(number)) = line.strip_prefix("acknowledged ").map(str::parse) {
            last = number;
        }
    }
    child.wait().unwrap();
    last
}

fn check(statedir: &Path, acknowledged: u64, when: &str) {
    let db = rusqlite::Connection::open(statedir.join("content.sqlite")).unwrap();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "{when}");
    drop(db);
    run(async {
        let instance = Instance::start(statedir).await;
        for number in 1..=acknowledged {
            let value = instance.get(&key(number)).await.unwrap_or_else(|failure| {
                panic!("{when}: {number} of {acknowledged} is lost: {failure}")
            });
            assert_eq!(value, value_of(number), "{when}");
        }
        let log = instance.get("log").await.unwrap();
        let lines = String::from_utf8(log).unwrap();
        let expected: String = (1..=acknowledged).map(|number| format!("{number}\n")).collect();
        assert!(lines.starts_with(&expected), "{when}: the log has {lines:?}");
        instance.stop().await;
    });
}

fn key(number: u64) -> String {
    format!("dir{}.sub.{number}", number % 7)
}

/// Some values stand in a directory, some are blobs.
fn value_of(number: u64) -> Vec<u8> {
    format!("value {number} ").repeat(1 + (number % 50) as usize).into_bytes()
}

/// Commits numbers without end, and says which were acknowledged.
#[test]
#[ignore = "is run and killed by another test"]
fn victim() {
    let Some(statedir) = std::env::var_os(VICTIM) else { return };
    run(async {
        let instance = Instance::start(Path::new(&statedir)).await;
        let log = instance.get("log").await.unwrap_or_default();
        // One that was not acknowledged may be there all the same.
        let mut number = log.iter().filter(|byte| **byte == b'\n').count() as u64;
        let mut stdout = std::io::stdout();
        loop {
            number += 1;
            let ops = vec![
                put(&key(number), &value_of(number)),
                append("log", format!("{number}\n").as_bytes()),
            ];
            // Others come and go between.
            let noise = instance.commit(0, vec![append("noise", b"x")]);
            let (_, result) = tokio::join!(noise, instance.commit(SYNC, ops));
            result.unwrap();
            writeln!(stdout, "acknowledged {number}").unwrap();
            stdout.flush().unwrap();
        }
    });
}
