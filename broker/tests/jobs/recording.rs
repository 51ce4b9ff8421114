//! A scheduler's calls are recorded while jobs come and go; replayed without a broker, the same
//! module decides the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{job_info, job_manager as rpc};
use serde_json::json;

use crate::instance::{Instance, Options, jobspec_of, run};

fn replay(recording: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flux-broker"))
        .args(["plugin", "test", "--replay"])
        .arg(recording)
        .arg("sched-fifo")
        .output()
        .unwrap()
}

#[test]
fn what_a_scheduler_decided_is_decided_again_from_its_recording() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let recording = folder.path().join("calls");
        let plugin = json!({ "load": "sched-fifo.wasm", "record": recording });
        let config = json!({ "sched": { "plugin": plugin } });
        let instance = Instance::with(Options { config, ..Options::default() }).await.unwrap();
        let exec = json!({ "exec": { "test": { "run_duration": "0.01s" } } });
        let mut ids = Vec::new();
        for number in 0..40_u64 {
            // The ninth core of eight: some are denied.
            let slots = 1 + number * 7 % 9;
            let urgency = 10 + i64::try_from(number % 5).unwrap();
            let jobspec = jobspec_of(&["simulated"], slots, exec.clone());
            ids.push(instance.submit_with(&jobspec, urgency, 0).await.unwrap());
            if number % 11 == 3 {
                // It may have ended already.
                let _ = instance.raise(ids[ids.len() - 1], "cancel", 0).await;
            }
        }
        instance.handle.rpc::<rpc::Drain>(&Empty).await.unwrap();
        let mut given = BTreeMap::new();
        for id in ids {
            let request = job_info::LookupRequest { id, keys: vec!["R".to_owned()], flags: 0 };
            if let Ok(object) = instance.handle.rpc::<job_info::Lookup>(&request).await {
                let r = ResourceSet::decode(object["R"].as_str().unwrap()).unwrap();
                given.insert(id.f58(), r.dumps());
            }
        }
        instance.stop().await;
        assert!(given.len() > 20, "{given:?}");

        let first = replay(&recording);
        let said = String::from_utf8(first.stdout.clone()).unwrap();
        assert!(first.status.success(), "{first:?}");
        assert!(said.contains(" 0 calls decided otherwise"), "{said}");
        let words = said.lines().map(|line| line.split_once(' ').unwrap().1);
        let replayed: BTreeMap<String, String> = words
            .filter_map(|line| line.split_once(" allocate "))
            .map(|(id, resources)| (id.to_owned(), resources.to_owned()))
            .collect();
        // The scheduler is given jobs that are canceled before they have what it found for them.
        for (id, resources) in &given {
            assert_eq!(replayed.get(id), Some(resources), "{id}: {said}");
        }
        assert!(said.contains(" deny unsatisfiable request"), "{said}");
        assert_eq!(replay(&recording).stdout, first.stdout);

        // Another inventory, other decisions.
        let text = std::fs::read_to_string(&recording).unwrap();
        std::fs::write(&recording, text.replace(r#"[["core","0-1"]]"#, r#"[["core","4-5"]]"#))
            .unwrap();
        let changed = replay(&recording);
        assert_eq!(changed.status.code(), Some(1), "{changed:?}");
        let said = String::from_utf8(changed.stdout).unwrap();
        assert!(said.contains("recorded: ") && said.contains("core4"), "{said}");
    });
}
