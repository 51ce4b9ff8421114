//! Housekeeping: a job ends, and its nodes are cleaned before they are free.

use flux_protocol::payload::Empty;
use flux_protocol::rpc::job_manager as rpc;
use serde_json::{Value, json};

use crate::instance::{Instance, Options, PATIENCE, run, simulated};

async fn housekeeping(instance: &Instance) -> Value {
    instance.stats("job-manager").await["housekeeping"].clone()
}

#[test]
fn nodes_go_back_when_housekeeping_is_done_and_the_job_does_not_wait_for_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (done, go) = (dir.path().join("done"), dir.path().join("go"));
        let script = format!(
            "echo $FLUX_JOB_ID $FLUX_JOB_RANKS > {}; until [ -e {} ]; do sleep 0.05; done",
            done.display(),
            go.display(),
        );
        let command = json!({ "command": ["sh", "-c", script] });
        let config = json!({ "job-manager": { "housekeeping": command } });
        let options = Options { config, ..Options::default() };
        let instance = Instance::with(options).await.unwrap();
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(id, "clean").await;
        let running = housekeeping(&instance).await["running"].clone();
        assert_eq!(running[id.f58()]["pending"], json!("0"), "{running}");
        assert_eq!(running[id.f58()]["allocated"], json!("0"), "{running}");
        let status = instance.handle.rpc::<rpc::ResourceStatus>(&Empty).await.unwrap();
        assert_eq!(status.allocated["execution"]["R_lite"][0]["rank"], json!("0"));
        std::fs::write(go, "").unwrap();
        let ended = async {
            while housekeeping(&instance).await["running"] != json!({}) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
        let told = std::fs::read_to_string(done).unwrap();
        assert_eq!(told.trim(), format!("{} 0", id.0));
        let status = instance.handle.rpc::<rpc::ResourceStatus>(&Empty).await.unwrap();
        assert_eq!(status.allocated, Value::Null);
        instance.stop().await;
    });
}
