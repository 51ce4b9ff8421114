//! `job-archive`: jobs that have ended are rows of an SQLite file.

use std::path::Path;
use std::time::Duration;

use flux_broker::services::job_archive::JobArchive;
use flux_protocol::fluid::JobId;
use flux_protocol::rpc::{job_info, job_manager as rpc};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Value, json};

use crate::instance::{Instance, Options, PATIENCE, run, simulated};

const FILE: &str = "job-archive.sqlite";

async fn instance(statedir: &Path, archive: Value) -> Instance {
    let config = json!({ "archive": archive });
    let options = Options { config, statedir: Some(statedir), ..Options::default() };
    Instance::with(options).await.unwrap()
}

fn row<T: rusqlite::types::FromSql>(db: &Connection, id: JobId, column: &str) -> Option<T> {
    let sql = format!("SELECT {column} FROM jobs WHERE id = ?1");
    db.query_row(&sql, [id.0.to_string()], |row| row.get(0)).optional().unwrap()
}

/// The file, once it has a row of the job.
async fn archived(path: &Path, id: JobId) -> Connection {
    let found = async {
        loop {
            let db = Connection::open(path).unwrap();
            db.busy_timeout(PATIENCE).unwrap();
            if row::<i64>(&db, id, "userid").is_some() {
                return db;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap()
}

fn count(db: &Connection) -> i64 {
    db.query_row("SELECT COUNT(*) FROM jobs", [], |row| row.get(0)).unwrap()
}

async fn value(instance: &Instance, id: JobId, key: &str) -> String {
    let request = job_info::LookupRequest { id, keys: vec![key.to_owned()], flags: 0 };
    let values = instance.handle.rpc::<job_info::Lookup>(&request).await.unwrap();
    values[key].as_str().unwrap().to_owned()
}

#[test]
fn a_job_that_has_ended_has_a_row_with_what_the_store_has_of_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut instance = instance(dir.path(), json!({ "period": "0.05s" })).await;
        instance.load::<JobArchive>().await.unwrap();
        let running = instance.submit(&simulated("1h")).await.unwrap();
        let ran = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(ran, "clean").await;
        let never_ran = instance.submit_with(&simulated("0.001s"), 0, 0).await.unwrap();
        instance.wait_event(never_ran, "priority").await;
        let raise = json!({ "id": never_ran, "type": "cancel", "severity": 0 });
        let raise = serde_json::from_value(raise).unwrap();
        instance.handle.rpc::<rpc::Raise>(&raise).await.unwrap();
        instance.wait_event(never_ran, "clean").await;

        let db = archived(&dir.path().join(FILE), never_ran).await;
        assert_eq!(count(&db), 2);
        assert_eq!(row::<i64>(&db, running, "userid"), None);
        for (column, key) in [("eventlog", "eventlog"), ("jobspec", "jobspec"), ("R", "R")] {
            let stored = value(&instance, ran, key).await;
            assert_eq!(row::<String>(&db, ran, column).unwrap(), stored, "{column}");
        }
        let me = i64::from(nix::unistd::getuid().as_raw());
        assert_eq!(row::<i64>(&db, ran, "userid"), Some(me));
        assert!(!row::<String>(&db, ran, "ranks").unwrap().is_empty());
        let times = ["t_submit", "t_run", "t_cleanup", "t_inactive"];
        let times = times.map(|column| row::<f64>(&db, ran, column).unwrap());
        assert!(times[0] > 1e9 && times.is_sorted(), "{times:?}");
        assert_eq!(row::<String>(&db, never_ran, "R || ranks").unwrap(), "");
        assert_eq!(row::<f64>(&db, never_ran, "t_run"), Some(0.0));
        assert!(row::<f64>(&db, never_ran, "t_inactive").unwrap() > 1e9);
        instance.stop().await;
    });
}

#[test]
fn the_archive_goes_on_where_it_ended() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut instance = instance(dir.path(), json!({ "period": "0.05s" })).await;
        instance.load::<JobArchive>().await.unwrap();
        let first = instance.submit(&simulated("0.001s")).await.unwrap();
        archived(&dir.path().join(FILE), first).await;
        instance.unload("job-archive").await;
        let second = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(second, "clean").await;
        instance.load::<JobArchive>().await.unwrap();
        let db = archived(&dir.path().join(FILE), second).await;
        assert_eq!(count(&db), 2);
        instance.stop().await;
    });
}

#[test]
fn what_can_not_be_written_is_written_later() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("elsewhere.sqlite");
        let archive = json!({ "period": "0.05s", "dbpath": path, "busytimeout": "10ms" });
        let mut instance = instance(dir.path(), archive).await;
        instance.load::<JobArchive>().await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let ids = [
            instance.submit(&simulated("0.001s")).await.unwrap(),
            instance.submit(&simulated("0.001s")).await.unwrap(),
        ];
        instance.wait_log("database is locked; it is tried again in 50ms").await;
        assert_eq!(count(&other), 0);
        other.execute_batch("ROLLBACK").unwrap();
        for id in ids {
            archived(&path, id).await;
        }
        assert!(!dir.path().join(FILE).exists());
        instance.stop().await;
    });
}

#[test]
fn an_archive_that_has_no_place_or_is_no_archive_is_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let bad = dir.path().join("bad.sqlite");
        std::fs::write(&bad, "This is a text, and none of a database's.").unwrap();
        let nowhere = dir.path().join("no/where.sqlite");
        for (statedir, archive, text) in [
            (Some(dir.path()), json!(null), "period not set"),
            (None, json!({ "period": "1m" }), "statedir not set"),
            (None, json!({ "period": "1m", "dbpath": bad }), "file is not a database"),
            (None, json!({ "period": "1m", "dbpath": nowhere }), "No such file or directory"),
        ] {
            let config = match &archive {
                Value::Null => json!({}),
                archive => json!({ "archive": archive }),
            };
            let options = Options { config, statedir, ..Options::default() };
            let mut instance = Instance::with(options).await.unwrap();
            let failure = instance.load::<JobArchive>().await.unwrap_err();
            assert!(failure.to_string().contains(text), "{archive}: {failure}");
            instance.stop().await;
        }
    });
}
