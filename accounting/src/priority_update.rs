//! Tell the multi-factor priority plugin of a running instance what is in the database.

use flux_client::{Client, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::payload;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::schema::UNLIMITED;

const SERVICE: &str = "job-manager.mf_priority";

/// `flux account-priority-update`: push all of it, and have the priorities of pending jobs
/// calculated anew.
pub(crate) fn run(db: &Connection) -> Result<()> {
    let requests = [
        ("rec_update", json!({ "data": associations(db)? })),
        ("rec_q_update", json!({ "data": queues(db)? })),
        ("reprioritize", json!({})),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::text(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let flux = Client::open(None)
            .await
            .map_err(|error| Error::text(format!("cannot reach the Flux instance: {error}")))?;
        for (method, data) in requests {
            let payload = payload::encode_json(&data)
                .map_err(|error| Error::text(format!("{SERVICE}.{method}: {error}")))?;
            let request = Request::new(format!("{SERVICE}.{method}")).payload(payload);
            flux.rpc_raw(request).await.map_err(|error| refused(method, &error))?;
        }
        Ok(())
    })
}

fn refused(method: &str, error: &RpcError) -> Error {
    if error.errno() == Errno::ENOSYS {
        return Error::text(
            "the plugin mf_priority is not loaded: see flux jobtap list, and plugins in \
             [job-manager] of the configuration",
        );
    }
    Error::text(format!("{SERVICE}.{method}: {error}"))
}

/// What flux-accounting 0.18 does not limit yet is unlimited to plugins that can.
fn associations(db: &Connection) -> Result<Vec<Value>> {
    let mut stmt = db.prepare(
        "SELECT userid, bank, default_bank, fairshare, max_running_jobs, max_active_jobs,
                max_nodes, queues, active
         FROM association_table",
    )?;
    let rows = stmt.query_map([], |row| {
        Ok(json!({
            "userid": row.get::<_, i64>(0)?,
            "bank": row.get::<_, String>(1)?,
            "def_bank": row.get::<_, String>(2)?,
            "fairshare": row.get::<_, f64>(3)?,
            "max_running_jobs": row.get::<_, i64>(4)?,
            "max_active_jobs": row.get::<_, i64>(5)?,
            "max_nodes": row.get::<_, i64>(6)?,
            "queues": row.get::<_, String>(7)?,
            "active": row.get::<_, i64>(8)?,
            "max_cores": UNLIMITED,
            "max_sched_jobs": UNLIMITED,
            "projects": "",
            "def_project": "",
        }))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn queues(db: &Connection) -> Result<Vec<Value>> {
    let mut stmt = db.prepare(
        "SELECT queue, min_nodes_per_job, max_nodes_per_job, max_time_per_job, priority
         FROM queue_table",
    )?;
    let rows = stmt.query_map([], |row| {
        Ok(json!({
            "queue": row.get::<_, String>(0)?,
            "min_nodes_per_job": row.get::<_, i64>(1)?,
            "max_nodes_per_job": row.get::<_, i64>(2)?,
            "max_time_per_job": row.get::<_, i64>(3)?,
            "priority": row.get::<_, i64>(4)?,
            "max_running_jobs": UNLIMITED,
            "max_nodes_per_assoc": UNLIMITED,
            "max_sched_jobs": UNLIMITED,
            "max_sched_nodes_per_assoc": UNLIMITED,
            "max_sched_cores_per_assoc": UNLIMITED,
        }))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
