//! `content.*`, `content-backing.*`, `kvs.*` and `kvs-watch.*`.

use std::collections::BTreeMap;

use flux_broker::handle::Handle;
use flux_broker::services::attr::Attr;
use flux_broker::services::content::Content;
use flux_broker::services::content_sqlite::ContentSqlite;
use flux_broker::services::kvs::Kvs;
use flux_broker::services::kvs_watch::KvsWatch;
use flux_protocol::message::{Kind, Message};
use flux_protocol::payload::{Payload, Raw};
use flux_protocol::rpc::content::{self, CheckpointGetResponse};
use flux_protocol::rpc::kvs;
use flux_protocol::treeobj::Treeobj;
use flux_replay::{Replay, Rules, Vector, What};

use crate::instance::{Instance, run};

async fn store() -> Instance {
    Instance::start().with::<Attr>().await.with::<Content>().await.with::<ContentSqlite>().await
}

#[test]
fn content_is_stored_and_loaded_as_captured() {
    run(async {
        let instance = store().await;
        let vector = Vector::load("content").unwrap();
        put_checkpoints(&instance, &vector).await;
        let sqlite = ["object_count", "current_epoch", "dbfile_size", "dbfile_free"];
        let times = ["count", "min", "max", "mean", "stddev"];
        let mut rules = Rules::default().any("config.journal_mode").any("checkpoints.*.id");
        for key in sqlite {
            rules = rules.any(key);
        }
        for key in times {
            rules = rules.any(&format!("load_time.{key}")).any(&format!("store_time.{key}"));
        }
        let socket = instance.socket();
        Replay::new(&vector, rules, &socket).play().await.assert_equal();
        let topics = ["content.", "content-backing.", "content-sqlite."];
        instance.sweep(|topic| topics.iter().any(|service| topic.starts_with(service))).await;
        instance.stop().await;
    });
}

/// The captured instance had checkpoints already.
async fn put_checkpoints(instance: &Instance, vector: &Vector) {
    let handle = Handle::new(instance.broker.router().clone());
    let response = messages(vector)
        .find(|m| m.topic.as_str() == "content.checkpoint-get" && m.errnum() == 0 && is_response(m))
        .map(|m| CheckpointGetResponse::decode(m.payload.as_ref()).unwrap())
        .unwrap();
    for value in response.value.into_iter().rev() {
        let request = content::CheckpointPutRequest { value };
        handle.rpc::<content::CheckpointPut>(&request).await.unwrap();
    }
    handle.close();
}

/// Root references are digests of all that is in the tree: when they are equal to the captured
/// ones, so are the trees, byte for byte.
#[test]
fn the_kvs_has_the_captured_trees() {
    run(async {
        let instance = store().await.with::<Kvs>().await.with::<KvsWatch>().await;
        let mut vector = Vector::load("kvs").unwrap();
        mend_long_value(&mut vector);
        put_tree_before(&instance, &vector).await;
        let socket = instance.socket();
        let rules = Rules::default()
            .any("cache.obj size total (MiB)")
            .any("cache.obj size (KiB).count")
            .any("cache.obj size (KiB).min")
            .any("cache.obj size (KiB).max")
            .any("cache.obj size (KiB).mean")
            .any("cache.obj size (KiB).stddev")
            .any("cache.#faults")
            .any("namespace.primary.#no-op stores")
            .any("transaction-opcount.commit.count")
            .any("transaction-opcount.commit.mean")
            .any("transaction-opcount.commit.stddev")
            // A real namespace that has been removed is listed for a while.
            .optional("namespace.ns1");
        Replay::new(&vector, rules, &socket).play().await.assert_equal();
        // Not of this service: new configurations, and the leaving of clients, which a real kvs
        // refuses to hear of from guests.
        let others = ["kvs.disconnect", "kvs.config-reload", "kvs.config-update"];
        instance.sweep(|topic| topic.starts_with("kvs.") && !others.contains(&topic)).await;
        instance.stop().await;
    });
}

#[test]
fn watchers_are_answered_as_captured() {
    run(async {
        let instance = store().await.with::<Kvs>().await.with::<KvsWatch>().await;
        let vector = Vector::load("kvs-watch").unwrap();
        let changes = changes(&vector);
        let handle = Handle::new(instance.broker.router().clone());
        let socket = instance.socket();
        Replay::new(&vector, Rules::default(), &socket)
            .before(|line| {
                let ops: Vec<_> = changes.get(&line).cloned().into_iter().collect();
                let handle = &handle;
                async move {
                    if !ops.is_empty() {
                        commit(handle, ops).await;
                    }
                }
            })
            .play()
            .await
            .assert_equal();
        handle.close();
        instance.sweep(|topic| topic.starts_with("kvs-watch.")).await;
        instance.stop().await;
    });
}

/// Other clients changed the values that were watched, and are not in the file: the change to make
/// before each line, as the responses tell.
fn changes(vector: &Vector) -> BTreeMap<usize, kvs::Op> {
    let mut changes = BTreeMap::new();
    let mut values: BTreeMap<String, Treeobj> = BTreeMap::new();
    let mut asked = BTreeMap::new();
    for row in vector.runs.iter().flat_map(|run| &run.rows) {
        let What::Message(message) = &row.what else { continue };
        if let Ok(request) = kvs::LookupRequest::decode(message.payload.as_ref()) {
            // Where the key is waited for it is put later.
            let line =
                if request.flags & kvs::lookup::WAITCREATE == 0 { Some(row.line) } else { None };
            asked.insert(row.conn, (request.key, line));
        }
        if let (Ok(response), Some((key, line))) =
            (kvs::LookupResponse::decode(message.payload.as_ref()), asked.get_mut(&row.conn))
        {
            let line = line.take().unwrap_or(row.line);
            if values.get(key) != Some(&response.val) {
                let op = kvs::Op { key: key.clone(), flags: 0, dirent: Some(response.val.clone()) };
                changes.insert(line, op);
                values.insert(key.clone(), response.val);
            }
        }
    }
    assert!(changes.len() > 5);
    changes
}

async fn commit(handle: &Handle, ops: Vec<kvs::Op>) {
    let request = kvs::CommitRequest { namespace: kvs::PRIMARY.to_owned(), flags: 0, ops };
    handle.rpc::<kvs::Commit>(&request).await.unwrap();
}

/// What other services of the captured instance had put into the tree: directories `admin` and
/// `resource`, at version 3.
async fn put_tree_before(instance: &Instance, vector: &Vector) {
    let handle = Handle::new(instance.broker.router().clone());
    let mut ops = Vec::new();
    for message in messages(vector).filter(|m| m.topic.as_str() == "kvs.lookup" && is_response(m)) {
        let Ok(response) = kvs::LookupResponse::decode(message.payload.as_ref()) else { continue };
        // Whatever a lookup shows is a blob of some tree, and it does no harm to have more.
        let blob = match &response.val {
            Treeobj::Val(data) => data.decode().unwrap(),
            dir => dir.encode().unwrap().into_bytes(),
        };
        handle.rpc::<content::Store>(&Raw(blob.into())).await.unwrap();
        if let (Treeobj::Dir(entries), true) = (&response.val, ops.is_empty()) {
            for key in ["admin", "resource"] {
                let dirent = entries.get(key).cloned();
                ops.push(kvs::Op { key: key.to_owned(), flags: 0, dirent });
            }
        }
    }
    for _ in 0..3 {
        let request =
            kvs::CommitRequest { namespace: kvs::PRIMARY.to_owned(), flags: 0, ops: ops.clone() };
        handle.rpc::<kvs::Commit>(&request).await.unwrap();
    }
    handle.close();
}

/// `flux kvs put big=xxx...`, which was cut when the file was made.
fn mend_long_value(vector: &mut Vector) {
    let rows = vector.runs.iter_mut().flat_map(|run| &mut run.rows);
    for row in rows {
        let What::Message(message) = &mut row.what else { continue };
        let text = message.payload.as_ref().map(|payload| String::from_utf8_lossy(payload));
        if message.topic.as_str() == "kvs.commit" && text.is_some_and(|t| t.contains("TRIMMED")) {
            let dirent = Some(Treeobj::val(&[b'x'; 3000]));
            let request = kvs::CommitRequest {
                namespace: kvs::PRIMARY.to_owned(),
                flags: 0,
                ops: vec![kvs::Op { key: "big".to_owned(), flags: 0, dirent }],
            };
            message.payload = request.encode().unwrap();
        }
    }
}

fn is_response(message: &Message) -> bool {
    matches!(message.kind, Kind::Response { .. })
}

fn messages(vector: &Vector) -> impl Iterator<Item = &Message> {
    vector.runs.iter().flat_map(|run| &run.rows).filter_map(|row| match &row.what {
        What::Message(message) => Some(&**message),
        _ => None,
    })
}
