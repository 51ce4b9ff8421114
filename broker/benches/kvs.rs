//! How fast the content store and the KVS are: `cargo bench -p flux-broker --bench kvs`.
//!
//! Prints operations per second, measured by callers in the same process, with the database in a
//! temporary directory (`TMPDIR`), as it is kept in production.

#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flux_broker::attrs::{Access, Attrs};
use flux_broker::broker::Broker;
use flux_broker::config::Config;
use flux_broker::handle::{Handle, Responses};
use flux_broker::loaded::Loaded;
use flux_broker::service::load;
use flux_broker::services::content::Content;
use flux_broker::services::content_sqlite::ContentSqlite;
use flux_broker::services::kvs::Kvs;
use flux_protocol::credential::Userid;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::Empty;
use flux_protocol::rpc::content;
use flux_protocol::rpc::kvs::{self, commit};
use flux_protocol::treeobj::Treeobj;

const RUN: Duration = Duration::from_secs(2);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, all());
}

async fn all() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, loaded) = start(dir.path()).await;
    println!("{:>10}  what", "per second");
    for (open, what) in [(1, "one at a time"), (16, "16 open"), (1000, "1000 open")] {
        let rate =
            commits(&handle, open, 0, |n| vec![append(&job_key(n, "eventlog"), EVENT)]).await;
        report(rate, &format!("commits of one event to a job's eventlog, {what}"));
    }
    for (open, what) in [(1, "one at a time"), (16, "16 open"), (1000, "1000 open")] {
        let rate =
            commits(&handle, open, commit::SYNC, |n| vec![append(&job_key(n, "eventlog"), EVENT)])
                .await;
        report(rate, &format!("the same with SYNC, {what}"));
    }
    let rate = commits(&handle, 100, 0, |n| vec![append("one.log", format!("{n}\n").as_bytes())]);
    report(rate.await, "appends to one key, 100 open");
    let rate = commits(&handle, 16, 0, |n| vec![put(&format!("flat.{n}"), b"1")]);
    report(rate.await, "new keys in one directory that grows, 16 open");
    handle.rpc::<content::Flush>(&Empty).await.unwrap();
    let rate = lookups(&handle, |n| job_key(n % 1000, "eventlog")).await;
    report(rate, "lookups of eventlogs, one at a time");
    let rate = lookups(&handle, |n| format!("flat.{}", n % 1000)).await;
    report(rate, "lookups of small values, one at a time");
    for service in loaded.into_iter().rev() {
        service.stop().await;
    }
    let size = std::fs::metadata(dir.path().join("content.sqlite")).unwrap().len();
    println!("{:>10}  MiB of database", size >> 20);
}

const EVENT: &[u8] = b"{\"timestamp\":1795360690.3189058,\"name\":\"submit\",\"context\":{\"userid\":1000,\"urgency\":16,\"flags\":0,\"version\":1}}\n";

/// As job directories are laid out: four levels, from the job's id.
fn job_key(n: u64, name: &str) -> String {
    let id = (n / 8) << 24 | (n % 8);
    let [a, b, c, d] = [id >> 48 & 0xffff, id >> 32 & 0xffff, id >> 16 & 0xffff, id & 0xffff];
    format!("job.{a:04x}.{b:04x}.{c:04x}.{d:04x}.{name}")
}

async fn start(statedir: &std::path::Path) -> (Handle, Vec<Loaded>) {
    let attrs = Attrs::default();
    attrs.put("statedir", statedir.to_str().unwrap(), Access::Immutable);
    let broker = Broker::new(0, 1, Userid(100), attrs, Config::default());
    let loaded = vec![
        load::<Content>(&broker, None, &[]).await.unwrap(),
        load::<ContentSqlite>(&broker, None, &[]).await.unwrap(),
        load::<Kvs>(&broker, None, &[]).await.unwrap(),
    ];
    (Handle::new(broker.router().clone()), loaded)
}

fn put(key: &str, data: &[u8]) -> kvs::Op {
    kvs::Op { key: key.to_owned(), flags: 0, dirent: Some(Treeobj::val(data)) }
}

fn append(key: &str, data: &[u8]) -> kvs::Op {
    kvs::Op { flags: kvs::OP_APPEND, ..put(key, data) }
}

/// Commits per second with so many open at a time.
async fn commits(
    handle: &Handle,
    open: usize,
    flags: u32,
    ops: impl Fn(u64) -> Vec<kvs::Op>,
) -> f64 {
    let mut waiting: VecDeque<Responses<kvs::Commit>> = VecDeque::new();
    let (begin, mut done, mut next) = (Instant::now(), 0u64, 0);
    while begin.elapsed() < RUN {
        while waiting.len() < open {
            let namespace = kvs::PRIMARY.to_owned();
            let request = kvs::CommitRequest { namespace, flags, ops: ops(next) };
            next += 1;
            let sent = handle.send::<kvs::Commit>(Nodeid::ANY, Flags::default(), &request);
            waiting.push_back(sent.unwrap());
        }
        waiting.pop_front().unwrap().next().await.unwrap();
        done += 1;
    }
    let rate = done as f64 / begin.elapsed().as_secs_f64();
    for mut response in waiting {
        response.next().await.unwrap();
    }
    rate
}

async fn lookups(handle: &Handle, key: impl Fn(u64) -> String) -> f64 {
    let (begin, mut done) = (Instant::now(), 0u64);
    while begin.elapsed() < RUN {
        let request = kvs::LookupRequest {
            key: key(done),
            namespace: Some(kvs::PRIMARY.to_owned()),
            flags: 0,
            rootdir: None,
            rootseq: None,
        };
        handle.rpc::<kvs::Lookup>(&request).await.unwrap();
        done += 1;
    }
    done as f64 / begin.elapsed().as_secs_f64()
}

fn report(rate: f64, what: &str) {
    println!("{rate:>10.0}  {what}");
}
