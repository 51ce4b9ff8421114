//! The KVS after an end and a new beginning.

use flux_broker::config::Config;
use flux_broker::services::content::Content;
use flux_broker::services::content_sqlite::ContentSqlite;
use flux_broker::services::kvs::Kvs;
use flux_protocol::errno::Errno;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::content;
use flux_protocol::rpc::kvs::lookup::TREEOBJ;
use rusqlite::Connection;
use serde_json::json;

use crate::instance::{Instance, append, put, run};

#[test]
fn a_clean_stop_keeps_tree_and_version() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::start(dir.path()).await;
        for number in 0..50 {
            instance.put(&format!("a.b{number}.c"), format!("{number}").as_bytes()).await;
        }
        instance.commit(0, vec![append("log", b"one\n")]).await.unwrap();
        let last = instance.commit(0, vec![append("log", b"two\n")]).await.unwrap();
        let root = instance.look_up(".", TREEOBJ).await.unwrap();
        instance.stop().await;
        // Closed, the database leaves no log behind.
        assert!(!dir.path().join("content.sqlite-wal").exists());

        let instance = Instance::start(dir.path()).await;
        assert_eq!(instance.look_up(".", TREEOBJ).await.unwrap(), root);
        assert_eq!(instance.get("a.b49.c").await.unwrap(), b"49");
        assert_eq!(instance.get("log").await.unwrap(), b"one\ntwo\n");
        let next = instance.put("x", b"1").await;
        assert_eq!(next.rootseq, last.rootseq + 1);
        instance.stop().await;
    });
}

#[test]
fn the_checkpoint_period_saves_the_root_without_being_asked() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"kvs": {"checkpoint-period": "0.02s"}});
        let config = Config::from_object(config.as_object().unwrap().clone());
        let instance = Instance::with_config(dir.path(), &[], config).all(&[]).await.unwrap();
        let committed = instance.put("a", b"1").await;
        loop {
            let list = instance.handle.rpc::<content::CheckpointGet>(&Empty).await;
            if list.is_ok_and(|list| list.value[0].rootref == committed.rootref) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        instance.stop().await;
    });
}

#[test]
fn a_period_that_is_no_duration_is_refused_by_name() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"kvs": {"checkpoint-period": "soon"}});
        let config = Config::from_object(config.as_object().unwrap().clone());
        let failure = match Instance::with_config(dir.path(), &[], config).all(&[]).await {
            Ok(_) => panic!("it has started"),
            Err(failure) => failure,
        };
        assert_eq!(failure.errno, Errno::EINVAL);
        assert_eq!(failure.to_string(), "invalid checkpoint-period config: soon");
    });
}

#[test]
fn an_older_checkpoint_serves_in_recovery_mode_alone_when_the_newest_root_is_gone() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::start(dir.path()).await;
        instance.put_synced("a", b"1").await.unwrap();
        instance.stop().await;
        let file = dir.path().join("content.sqlite");
        let db = Connection::open(&file).unwrap();
        let bad = json!({
            "version": 1,
            "rootref": "sha1-0123456789012345678901234567890123456789",
            "sequence": 99,
            "timestamp": 1.0,
        });
        let insert = "INSERT INTO checkpt_v2 (value) VALUES (?1)";
        db.execute(insert, [bad.to_string()]).unwrap();
        let checkpoints = |db: &Connection| -> i64 {
            db.query_row("SELECT COUNT(1) FROM checkpt_v2", [], |row| row.get(0)).unwrap()
        };
        let before = checkpoints(&db);
        drop(db);
        // What was stored last may have been answered for.
        let mut instance = Instance::bare(dir.path(), &[]);
        instance.load::<Content>(&[]).await.unwrap();
        instance.load::<ContentSqlite>(&[]).await.unwrap();
        let failure = instance.load::<Kvs>(&[]).await.unwrap_err().to_string();
        instance.stop().await;
        for word in ["the newest checkpoint on 1970-01-01T00:00:01Z", "--recovery=", "flux fsck"] {
            assert!(failure.contains(word), "{failure}");
        }
        let db = Connection::open(&file).unwrap();
        assert_eq!(checkpoints(&db), before);
        drop(db);
        let recovery = [("broker.recovery-mode", "1")];
        let instance = Instance::bare(dir.path(), &recovery).all(&[]).await.unwrap();
        assert_eq!(instance.get("a").await.unwrap(), b"1");
        instance.stop().await;
        // Its own checkpoint is the newest now.
        let instance = Instance::start(dir.path()).await;
        assert_eq!(instance.get("a").await.unwrap(), b"1");
        instance.stop().await;

        // But an instance whose roots are all gone must not begin with an empty tree.
        let db = Connection::open(dir.path().join("content.sqlite")).unwrap();
        db.execute("DELETE FROM checkpt_v2", []).unwrap();
        db.execute(insert, [bad.to_string()]).unwrap();
        drop(db);
        let failure = match Instance::bare(dir.path(), &[]).all(&[]).await {
            Ok(_) => panic!("it has started"),
            Err(failure) => failure,
        };
        assert!(failure.to_string().contains("can be restored"), "{failure}");
    });
}

#[test]
fn without_a_backing_store_the_kvs_works_and_sync_says_why_it_can_not() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut instance = Instance::bare(dir.path(), &[]);
        instance.load::<Content>(&[]).await.unwrap();
        instance.load::<Kvs>(&[]).await.unwrap();
        instance.put("a", b"1").await;
        let failure = instance.put_synced("b", b"2").await.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOSYS);
        assert_eq!(instance.get("a").await.unwrap(), b"1");
        // Loaded later, it gets all that came before.
        instance.load::<ContentSqlite>(&[]).await.unwrap();
        instance.put_synced("c", b"3").await.unwrap();
        instance.unload_last().await;
        instance.stop().await;
        let instance = Instance::start(dir.path()).await;
        assert_eq!(instance.get("a").await.unwrap(), b"1");
        assert_eq!(instance.get("c").await.unwrap(), b"3");
        instance.stop().await;
    });
}

#[test]
fn a_full_disk_fails_synced_commits_with_its_name_and_recovers() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::start(dir.path()).await;
        instance.put_synced("before", b"1").await.unwrap();
        instance.stop().await;

        // The limit of pages stands for the size of the disk: SQLite reports both alike.
        let small = Instance::bare(dir.path(), &[]).all(&["max-pages=40"]).await.unwrap();
        let large: Vec<u8> =
            (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let failure = small.put_synced("large", &large).await.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOSPC);
        assert!(failure.to_string().contains("No space left on device"), "{failure}");
        // It lives, and what is there can be read.
        assert_eq!(small.get("before").await.unwrap(), b"1");
        assert_eq!(small.get("large").await.unwrap(), large);
        small.stop().await;

        let instance = Instance::start(dir.path()).await;
        assert_eq!(instance.get("before").await.unwrap(), b"1");
        assert_eq!(instance.get("large").await.unwrap_err().errno, Errno::ENOENT);
        instance.commit(0, vec![put("after", b"2")]).await.unwrap();
        instance.stop().await;
    });
}
