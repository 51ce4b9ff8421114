//! `kill -9` of a broker at any instant: the database is never damaged, and nothing is missing that
//! was acknowledged as being on the disk.
//!
//! Every instant is drawn from a seed, which is printed. `FLUX_TEST_CRASH_CYCLES` and
//! `FLUX_TEST_CRASH_SEED` ask for more, or for the same again:
//!
//! ```text
//! FLUX_TEST_CRASH_CYCLES=300 cargo test --workspace --test store crash -- --nocapture
//! ```

use std::cell::RefCell;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use flux_client::Client;
use flux_client::kvs::{self, Root, Transaction};
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_manager;
use flux_protocol::rpc::kvs::PRIMARY;
use flux_protocol::rpc::kvs::commit::SYNC;

use crate::instance::run;

const CYCLES: &str = "FLUX_TEST_CRASH_CYCLES";
const SEED: &str = "FLUX_TEST_CRASH_SEED";
/// Everyday use; 20 s.
const DEFAULT_CYCLES: u64 = 25;
/// Writers that commit at the same time, each to keys of its own.
const WRITERS: usize = 4;
/// Longer than a start takes on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of the random delay before the death, in milliseconds.
const DURING_START: u64 = 500;
const UNDER_LOAD: u64 = 250;

/// For each writer how many of its transactions were acknowledged.
type Acknowledged = Rc<RefCell<[u64; WRITERS]>>;

#[test]
fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cycles = number(CYCLES).unwrap_or(DEFAULT_CYCLES);
    let seed = number(SEED).unwrap_or(7);
    eprintln!("{SEED}={seed} {CYCLES}={cycles}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = Acknowledged::default();
    let mut in_the_start = 0;
    for cycle in 0..cycles {
        let when = format!("{SEED}={seed}, cycle {cycle}");
        let before = *acknowledged.borrow();
        let broker = Broker::start(dir.path());
        if random.below(5) == 0 {
            std::thread::sleep(Duration::from_millis(random.below(DURING_START)));
            in_the_start += 1;
        } else {
            let delay = Duration::from_millis(random.below(UNDER_LOAD));
            let found = run(work(&broker, &acknowledged, delay));
            assert_present(&before, &found, &when);
        }
        broker.kill();
        check_database(&dir.path().join("content.sqlite"), &when);
    }
    let total: u64 = acknowledged.borrow().iter().sum();
    eprintln!("{cycles} deaths, {in_the_start} of them in the start; {total} acknowledged");
    let broker = Broker::start(dir.path());
    run(verify(&broker, &acknowledged.borrow()));
    broker.kill();
    assert!(total >= cycles - in_the_start);
}

/// Rust and the engine of the plugins handle these, and would let the first one pass.
#[test]
fn a_signal_of_a_fault_that_somebody_sends_ends_the_broker() {
    use nix::sys::signal::{Signal, kill};
    use std::os::unix::process::ExitStatusExt;
    for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL] {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(dir.path());
        // By then the plugins are loaded, too.
        run(async {
            let client = broker.connect().await;
            let request = job_manager::QueueStatusRequest::default();
            let begin = Instant::now();
            while client.rpc::<job_manager::QueueStatus>(Nodeid::ANY, &request).await.is_err() {
                assert!(begin.elapsed() < PATIENCE, "the job manager does not start");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let pid = nix::unistd::Pid::from_raw(broker.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
        assert_eq!(broker.child.wait().unwrap().signal(), Some(signal as i32));
    }
}

/// A whole broker process whose state lasts.
struct Broker {
    child: Child,
    uri: String,
}

impl Broker {
    fn start(statedir: &Path) -> Broker {
        let rundir = statedir.join("run");
        std::fs::create_dir_all(&rundir).unwrap();
        let log = std::fs::File::create(statedir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_flux-broker"))
            .arg(format!("-Sstatedir={}", statedir.display()))
            .arg(format!("-Srundir={}", rundir.display()))
            .args(["-Sbroker.rc2_none=1", "--conf=resource.noverify=true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Broker { child, uri: format!("local://{}/local-0", rundir.display()) }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Connect as soon as the store can be used.
    async fn connect(&self) -> Client {
        let begin = Instant::now();
        loop {
            if let Ok(client) = Client::open(Some(&self.uri)).await
                && let Ok(_) | Err(Errno::ENOENT) =
                    kvs::get(&client, Root::Namespace(PRIMARY), "x").await.map_err(|e| e.errno())
            {
                return client;
            }
            assert!(begin.elapsed() < PATIENCE, "the broker does not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Commit until it is time; returns the logs that were there before, one for each writer.
async fn work(broker: &Broker, acknowledged: &Acknowledged, delay: Duration) -> Vec<String> {
    let client = broker.connect().await;
    let mut found = Vec::new();
    for writer in 0..WRITERS {
        found.push(log_of(&client, writer).await);
    }
    for (writer, log) in found.iter().enumerate() {
        // One that was not acknowledged may be there all the same; then it has to stay.
        let there = log.lines().count() as u64;
        acknowledged.borrow_mut()[writer] = there;
        tokio::task::spawn_local(write(client.clone(), writer, there + 1, acknowledged.clone()));
    }
    tokio::task::spawn_local(make_noise(client));
    // On a busy machine the first one takes longer than the delay.
    let begin = Instant::now();
    let before: u64 = acknowledged.borrow().iter().sum();
    while acknowledged.borrow().iter().sum::<u64>() == before {
        assert!(begin.elapsed() < PATIENCE, "nothing is acknowledged");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(delay).await;
    found
}

async fn write(client: Client, writer: usize, first: u64, acknowledged: Acknowledged) {
    for number in first.. {
        let mut transaction = Transaction::new();
        transaction.put(&key(writer, number), &value(number));
        transaction.append(&log_key(writer), format!("{number}\n").as_bytes());
        if number > 3 {
            transaction.unlink(&key(writer, number - 3));
        }
        if transaction.commit(&client, PRIMARY, SYNC).await.is_err() {
            return;
        }
        acknowledged.borrow_mut()[writer] = number;
    }
}

/// Transactions that nobody relies on, so that the others never are alone.
async fn make_noise(client: Client) {
    for number in 0_u64.. {
        let mut transaction = Transaction::new();
        transaction.append("noise", b"x").put("last", number.to_string().as_bytes());
        if transaction.commit(&client, PRIMARY, 0).await.is_err() {
            return;
        }
    }
}

async fn log_of(client: &Client, writer: usize) -> String {
    match kvs::get(client, Root::Namespace(PRIMARY), &log_key(writer)).await {
        Ok(log) => String::from_utf8(log).unwrap(),
        Err(error) => {
            assert_eq!(error.errno(), Errno::ENOENT);
            String::new()
        }
    }
}

fn assert_present(acknowledged: &[u64; WRITERS], found: &[String], when: &str) {
    for (writer, (count, log)) in acknowledged.iter().zip(found).enumerate() {
        let numbers: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
        let there = numbers.len() as u64;
        assert!(numbers.iter().copied().eq(1..=there), "{when}: writer {writer}: {log}");
        assert!(there >= *count, "{when}: writer {writer}: {there} of {count} are there");
        // Nobody sends a second one before the first is acknowledged.
        assert!(there <= count + 1, "{when}: writer {writer}: {there} of {count} are there");
    }
}

/// Values and removals are those of the transactions in the log: all of a transaction or nothing.
async fn verify(broker: &Broker, acknowledged: &[u64; WRITERS]) {
    let client = broker.connect().await;
    for (writer, count) in acknowledged.iter().enumerate() {
        let last = log_of(&client, writer).await.lines().count() as u64;
        assert!(last >= *count);
        for number in 1..=last {
            let found = kvs::get(&client, Root::Namespace(PRIMARY), &key(writer, number)).await;
            match found {
                Ok(found) => {
                    assert!(number + 3 > last, "writer {writer}: {number} should be gone");
                    assert_eq!(found, value(number));
                }
                Err(error) => {
                    assert_eq!(error.errno(), Errno::ENOENT);
                    assert!(number + 3 <= last, "writer {writer}: {number} of {last} is lost");
                }
            }
        }
    }
}

fn check_database(path: &Path, when: &str) {
    if !path.exists() {
        return;
    }
    let db = rusqlite::Connection::open(path).unwrap();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "{when}");
}

fn key(writer: usize, number: u64) -> String {
    format!("w{writer}.dir{}.{number}", number % 7)
}

fn log_key(writer: usize) -> String {
    format!("w{writer}.log")
}

/// Some values stand in a directory, some are blobs.
fn value(number: u64) -> Vec<u8> {
    format!("value {number} ").repeat(1 + (number % 50) as usize).into_bytes()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}
