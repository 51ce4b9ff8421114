//! Online garbage collection.

use std::collections::BTreeSet;

use flux_protocol::payload::{Empty, Raw};
use flux_protocol::rpc::{content, content_backing as rpc};
use flux_protocol::treeobj::Treeobj;

use crate::instance::{Instance, append, run, unlink};

#[test]
fn a_sweep_takes_what_no_root_reaches_and_nothing_else() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::start(dir.path()).await;
        for number in 0..40 {
            instance.put(&format!("a.b{number}"), &[number; 300]).await;
            instance.commit(0, vec![append("log", &[number; 100])]).await.unwrap();
        }
        instance.commit(0, vec![unlink("a.b1"), unlink("a.b2")]).await.unwrap();
        let root = instance.put_synced("last", b"1").await.unwrap();

        let info = rpc::GcInfoRequest { epoch: 1, get_count: true };
        let info = instance.handle.rpc::<rpc::GcInfo>(&info).await.unwrap();
        let epoch = info.current_epoch;
        assert!(info.candidates.is_some());
        let hashes: Vec<String> = reachable(&instance, &root.rootref).await.into_iter().collect();
        let mark = rpc::MarkRequest { epoch, hashes: hashes.clone() };
        let marked = instance.handle.rpc::<rpc::Mark>(&mark).await.unwrap().marked;
        assert_eq!(marked, hashes.len() as u64);

        // Stored while the sweep runs, so not to be touched by it.
        instance.put("meanwhile", &[200; 300]).await;
        let before = objects(&instance).await;
        let (mut cursor, mut deleted) = (0, 0);
        while cursor < info.high_water {
            let sweep = rpc::SweepRequest {
                epoch,
                cursor,
                high_water: info.high_water,
                delete_cap: 7,
                window: 50,
            };
            let swept = instance.handle.rpc::<rpc::Sweep>(&sweep).await.unwrap();
            assert!(swept.cursor > cursor);
            (cursor, deleted) = (swept.cursor, deleted + swept.deleted);
        }
        assert!(deleted > 80, "{deleted}");
        assert_eq!(objects(&instance).await, before - deleted);
        instance.stop().await;

        let instance = Instance::start(dir.path()).await;
        for number in (0..40).filter(|number| ![1, 2].contains(number)) {
            let value = instance.get(&format!("a.b{number}")).await.unwrap();
            assert_eq!(value, [number; 300]);
        }
        assert_eq!(instance.get("log").await.unwrap().len(), 4000);
        assert_eq!(instance.get("meanwhile").await.unwrap(), [200; 300]);
        instance.stop().await;
    });
}

/// Blobs below a root, the root included.
async fn reachable(instance: &Instance, rootref: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![rootref.to_owned()];
    while let Some(dir) = dirs.pop() {
        let digest = dir.parse::<flux_protocol::blobref::Blobref>().unwrap();
        let digest = Raw(digest.digest().to_vec().into());
        let blob = instance.handle.rpc::<content::Load>(&digest).await.unwrap();
        found.insert(dir);
        let Ok(Treeobj::Dir(entries)) = Treeobj::decode(&blob.0) else { panic!("no directory") };
        for entry in entries.into_values() {
            match &entry {
                Treeobj::Dirref(refs) => dirs.extend(refs.iter().map(ToString::to_string)),
                _ => found.extend(entry.blobrefs().iter().map(ToString::to_string)),
            }
        }
    }
    found
}

async fn objects(instance: &Instance) -> i64 {
    // So that the count holds still.
    instance.handle.rpc::<content::Flush>(&Empty).await.unwrap();
    let topic = "content-sqlite.stats-get";
    let nodeid = flux_protocol::message::Nodeid::ANY;
    let flags = flux_protocol::message::Flags::default();
    let mut stats = instance.handle.send_raw::<()>(topic, nodeid, flags, None);
    let payload = stats.next_raw().await.unwrap();
    let stats: serde_json::Value =
        serde_json::from_str(flux_protocol::payload::text(payload.as_ref()).unwrap()).unwrap();
    stats["object_count"].as_i64().unwrap()
}
