//! `content-sqlite`: what it refuses, what it notices, and other versions' files.

use std::path::Path;

use flux_broker::services::content::Content;
use flux_broker::services::content_sqlite::ContentSqlite;
use flux_protocol::blobref::HashType;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::payload::{Empty, Raw};
use flux_protocol::rpc::{content, content_backing};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::instance::{Instance, run};

/// Load the backing store on a fresh broker.
async fn open(statedir: &Path, attrs: &[(&str, &str)]) -> Result<Instance, Failure> {
    let mut instance = Instance::bare(statedir, attrs);
    instance.load::<Content>(&[]).await?;
    instance.load::<ContentSqlite>(&[]).await?;
    Ok(instance)
}

async fn refusal(statedir: &Path, attrs: &[(&str, &str)]) -> Failure {
    match open(statedir, attrs).await {
        Ok(_) => panic!("the database was opened"),
        Err(failure) => failure,
    }
}

async fn store(instance: &Instance, data: &[u8]) -> Raw {
    let data = Raw(data.to_vec().into());
    instance.handle.rpc::<content_backing::Store>(&data).await.unwrap()
}

async fn load(instance: &Instance, digest: &Raw) -> Result<Raw, Failure> {
    instance.handle.rpc::<content_backing::Load>(digest).await
}

#[test]
fn a_second_broker_on_the_same_file_is_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[]).await.unwrap();
        let failure = refusal(dir.path(), &[]).await;
        assert_eq!(failure.errno, Errno::EBUSY);
        let text = failure.to_string();
        assert!(text.contains("content.sqlite is in use by another broker"), "{text}");
        first.stop().await;
        open(dir.path(), &[]).await.unwrap().stop().await;
    });
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.sqlite");
        std::fs::write(&path, "this is not a database, but a letter").unwrap();
        let failure = refusal(dir.path(), &[]).await;
        assert!(failure.to_string().contains("is not a content database"), "{failure}");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("a letter"));
    });
}

#[test]
fn a_damaged_database_is_refused_at_start() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let instance = open(dir.path(), &[]).await.unwrap();
        for number in 0..2000u32 {
            store(&instance, format!("blob {number}").repeat(20).as_bytes()).await;
        }
        instance.stop().await;
        let path = dir.path().join("content.sqlite");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 4096 / 2 * 4096;
        bytes[middle..middle + 4096].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let failure = refusal(dir.path(), &[]).await;
        assert_eq!(failure.errno, Errno::EINVAL);
        assert!(failure.to_string().contains("content.sqlite"), "{failure}");
        assert!(failure.to_string().contains("restore it from a dump"), "{failure}");
    });
}

#[test]
fn a_damaged_blob_is_noticed_when_it_is_loaded() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let instance = open(dir.path(), &[]).await.unwrap();
        let small = store(&instance, b"small").await;
        let large = store(&instance, &[7; 5000]).await;
        instance.stop().await;
        let db = Connection::open(dir.path().join("content.sqlite")).unwrap();
        db.execute("UPDATE objects SET object = x'00112233' WHERE size = -1", []).unwrap();
        db.execute("UPDATE objects SET size = 1000000000 WHERE size = 5000", []).unwrap();
        drop(db);
        let instance = open(dir.path(), &[]).await.unwrap();
        for digest in [small, large] {
            let failure = load(&instance, &digest).await.unwrap_err();
            assert_eq!(failure.errno, Errno::EIO);
            assert!(failure.to_string().contains("is damaged"), "{failure}");
        }
        instance.stop().await;
    });
}

#[test]
fn another_hash_type_than_the_files_is_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let sha256 = [("content.hash", "sha256")];
        let instance = open(dir.path(), &sha256).await.unwrap();
        let digest = store(&instance, b"abc").await;
        assert_eq!(digest.0, HashType::Sha256.hash(b"abc").digest());
        instance.stop().await;
        let failure = refusal(dir.path(), &[]).await;
        let text = failure.to_string();
        assert!(text.contains("holds sha256 content, but content.hash is sha1"), "{text}");
        open(dir.path(), &sha256).await.unwrap().stop().await;
    });
}

/// A file as flux-core before 0.88 wrote it: no epochs, one checkpoint by key, digests as text.
#[test]
fn an_older_flux_core_file_is_taken_over() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join("content.sqlite")).unwrap();
        db.execute_batch(
            "CREATE TABLE objects(hash BLOB PRIMARY KEY, size INT, object BLOB);\
             CREATE TABLE checkpt(key TEXT UNIQUE, value TEXT);",
        )
        .unwrap();
        let plain = b"plain".to_vec();
        let long = b"compressed ".repeat(100);
        for (size, data, object) in [
            (-1, &plain, plain.clone()),
            (long.len() as i64, &long, lz4_flex::block::compress(&long)),
        ] {
            let blobref = HashType::Sha1.hash(data);
            let digest = ValueRef::Text(blobref.digest());
            let digest = rusqlite::types::ToSqlOutput::Borrowed(digest);
            db.execute(
                "INSERT INTO objects (hash, size, object) VALUES (?1, ?2, ?3)",
                rusqlite::params![digest, size, object],
            )
            .unwrap();
        }
        let checkpoint = r#"{"version":1,"rootref":"sha1-x","timestamp":5.0}"#;
        db.execute("INSERT INTO checkpt VALUES ('kvs-primary', ?1)", [checkpoint]).unwrap();
        drop(db);

        let instance = open(dir.path(), &[]).await.unwrap();
        for data in [plain, long] {
            let digest = Raw(HashType::Sha1.hash(&data).digest().to_vec().into());
            assert_eq!(load(&instance, &digest).await.unwrap().0, data);
        }
        let list = instance.handle.rpc::<content::CheckpointGet>(&Empty).await.unwrap().value;
        assert_eq!(list.len(), 1);
        assert_eq!((&*list[0].rootref, list[0].sequence, list[0].timestamp), ("sha1-x", 0, 5.0));
        instance.stop().await;
    });
}

#[test]
fn a_file_with_checkpoints_of_a_newer_version_is_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), &[]).await.unwrap().stop().await;
        let db = Connection::open(dir.path().join("content.sqlite")).unwrap();
        db.execute_batch("ALTER TABLE checkpt_v2 RENAME TO checkpt_v3").unwrap();
        drop(db);
        let failure = refusal(dir.path(), &[]).await;
        assert_eq!(failure.errno, Errno::EINVAL);
        assert!(failure.to_string().contains("has a table checkpt_v3"), "{failure}");
    });
}

#[test]
fn the_database_may_be_elsewhere_behind_a_link() {
    run(async {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        open(dir.path(), &[]).await.unwrap().stop().await;
        let (file, moved) = (dir.path().join("content.sqlite"), elsewhere.path().join("moved"));
        std::fs::rename(&file, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &file).unwrap();
        let instance = open(dir.path(), &[]).await.unwrap();
        let digest = store(&instance, b"abc").await;
        // The log is beside the file, and is looked at there.
        assert!(elsewhere.path().join("moved-wal").exists());
        assert_eq!(load(&instance, &digest).await.unwrap().0, &b"abc"[..]);
        instance.stop().await;
        std::fs::remove_file(&moved).unwrap();
        let failure = refusal(dir.path(), &[]).await;
        assert!(failure.to_string().contains("is a link to"), "{failure}");
    });
}

#[test]
fn only_the_newest_checkpoints_are_kept_newest_first() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let instance = open(dir.path(), &[]).await.unwrap();
        for sequence in 1..=8 {
            let value = content::Checkpoint {
                version: 1,
                rootref: HashType::Sha1.hash(b"root").to_string(),
                sequence,
                timestamp: 1.5,
            };
            let request = content::CheckpointPutRequest { value };
            instance.handle.rpc::<content::CheckpointPut>(&request).await.unwrap();
        }
        let list = instance.handle.rpc::<content::CheckpointGet>(&Empty).await.unwrap().value;
        let sequences: Vec<i64> = list.iter().map(|checkpoint| checkpoint.sequence).collect();
        assert_eq!(sequences, [8, 7, 6, 5, 4]);
        instance.stop().await;
    });
}

#[test]
fn the_file_is_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let instance = open(dir.path(), &[]).await.unwrap();
        store(&instance, b"secret").await;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        instance.stop().await;
    });
}
