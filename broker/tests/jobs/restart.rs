//! A job manager that is stopped and started again, in all states that a job may be in.

use flux_broker::services::job_exec::JobExec;
use flux_broker::services::job_list::JobList;
use flux_broker::services::job_manager::JobManager;
use flux_broker::services::sched::Sched;
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::decode_json;
use flux_protocol::rpc::job_info::{Lookup, LookupRequest};
use flux_protocol::rpc::{job_manager as rpc, kvs, sched};
use flux_protocol::treeobj::Treeobj;
use serde_json::json;

use crate::instance::{Instance, PATIENCE, jobspec_of, run, simulated};

/// As a restart of the broker does it, but for the KVS.
async fn restart(instance: &mut Instance) {
    for name in ["sched-simple", "job-exec", "job-list", "job-manager"] {
        instance.unload(name).await;
    }
    instance.load::<JobManager>().await.unwrap();
    instance.load::<JobList>().await.unwrap();
    instance.load::<JobExec>().await.unwrap();
    instance.load::<Sched>().await.unwrap();
}

#[test]
fn jobs_of_every_state_go_on_after_a_restart() {
    run(async {
        let mut instance = Instance::start().await;
        let ended = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(ended, "clean").await;
        let running = instance.submit(&simulated("1h")).await.unwrap();
        instance.wait_event(running, "start").await;
        let exec = json!({ "exec": { "test": { "run_duration": "0.001s" } } });
        // Seven of eight cores are free: it waits for the one that is not.
        let waiting = instance.submit(&jobspec_of(&["simulated"], 8, exec.clone())).await.unwrap();
        instance.wait_event(waiting, "priority").await;
        let held = instance.submit_with(&simulated("0.001s"), 0, 0).await.unwrap();
        instance.wait_event(held, "priority").await;
        let after = json!({ "scheme": "afterany", "value": held.f58() });
        let mut spec = jobspec_of(&["simulated"], 1, exec);
        spec["attributes"]["system"]["dependencies"] = json!([after]);
        let depends = instance.submit(&spec).await.unwrap();
        instance.wait_event(depends, "validate").await;

        restart(&mut instance).await;

        // Simulated, it has lost nothing by the restart, and goes on.
        let cancel = rpc::RaiseRequest {
            id: running,
            severity: 0,
            kind: "cancel".to_owned(),
            note: None,
            wait_status: None,
        };
        assert_eq!(instance.event_names(running).await.last().unwrap(), "start");
        instance.handle.rpc::<rpc::Raise>(&cancel).await.unwrap();
        instance.wait_event(running, "clean").await;
        let names = instance.event_names(running).await;
        let tail = ["start", "exception", "finish", "release", "free", "clean"];
        assert_eq!(names[names.len() - 6..], tail, "{names:?}");
        instance.wait_event(waiting, "clean").await;
        let names = instance.event_names(waiting).await;
        let sub = ["priority", "flux-restart", "priority", "alloc", "start", "finish"];
        assert_eq!(names[3..9], sub, "{names:?}");
        let release = rpc::UrgencyRequest { id: held, urgency: 16 };
        instance.handle.rpc::<rpc::Urgency>(&release).await.unwrap();
        instance.wait_event(held, "clean").await;
        instance.wait_event(depends, "clean").await;
        let names = instance.event_names(depends).await;
        assert_eq!(names.iter().filter(|name| *name == "dependency-add").count(), 1, "{names:?}");
        assert_eq!(instance.event_names(ended).await.last().unwrap(), "clean");
        let slice = rpc::HistoryRequest { slice: "[:]".to_owned() };
        let history = instance.handle.rpc::<rpc::History>(&slice).await.unwrap().jobs;
        assert_eq!(history, [depends, held, waiting, running, ended]);
        instance.stop().await;
    });
}

#[test]
fn queues_are_after_a_restart_what_an_administrator_made_of_them() {
    run(async {
        let mut instance = Instance::start().await;
        let stop = |nocheckpoint, reason: &str| rpc::QueueStartRequest {
            start: false,
            all: false,
            nocheckpoint,
            name: None,
            reason: Some(reason.to_owned()),
        };
        let handle = instance.handle.clone();
        let status = async || {
            let request = rpc::QueueStatusRequest::default();
            handle.rpc::<rpc::QueueStatus>(&request).await.unwrap()
        };
        // As a shutdown does it.
        handle.rpc::<rpc::QueueStart>(&stop(true, "shutdown")).await.unwrap();
        assert!(!status().await.start);
        restart(&mut instance).await;
        assert!(status().await.start);
        handle.rpc::<rpc::QueueStart>(&stop(false, "maintenance")).await.unwrap();
        let disable = rpc::QueueEnableRequest {
            enable: false,
            all: false,
            name: None,
            reason: Some("closed".to_owned()),
        };
        handle.rpc::<rpc::QueueEnable>(&disable).await.unwrap();
        restart(&mut instance).await;
        let now = status().await;
        assert_eq!((now.start, now.stop_reason.as_deref()), (false, Some("maintenance")));
        assert_eq!((now.enable, now.disable_reason.as_deref()), (false, Some("closed")));
        instance.stop().await;
    });
}

#[test]
fn inactive_jobs_are_purged_by_number_and_forgotten_everywhere() {
    run(async {
        let instance = Instance::start().await;
        let mut ids: Vec<JobId> = Vec::new();
        for _ in 0..4 {
            let id = instance.submit(&simulated("0.001s")).await.unwrap();
            instance.wait_event(id, "clean").await;
            ids.push(id);
        }
        let purge = |force| rpc::PurgeRequest { age_limit: -1.0, num_limit: 1, batch: 50, force };
        let handle = &instance.handle;
        assert_eq!(handle.rpc::<rpc::Purge>(&purge(false)).await.unwrap().count, 3);
        assert_eq!(handle.rpc::<rpc::Purge>(&purge(true)).await.unwrap().count, 3);
        assert_eq!(handle.rpc::<rpc::Purge>(&purge(false)).await.unwrap().count, 0);
        for (id, kept) in ids.iter().zip([false, false, false, true]) {
            let keys = vec!["eventlog".to_owned()];
            let found = handle.rpc::<Lookup>(&LookupRequest { id: *id, keys, flags: 0 }).await;
            match kept {
                true => assert!(found.is_ok(), "{found:?}"),
                false => assert_eq!(found.unwrap_err().to_string(), "eventlog: key not found"),
            }
        }
        let keys = vec!["eventlog".to_owned()];
        let never = LookupRequest { id: JobId(12345), keys, flags: 0 };
        let refused = handle.rpc::<Lookup>(&never).await.unwrap_err();
        assert_eq!(refused.to_string(), "invalid job id");
        instance.stop().await;
    });
}

#[test]
fn what_can_t_be_understood_of_a_job_is_set_aside_and_told() {
    run(async {
        let mut instance = Instance::start().await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            let id = instance.submit_with(&simulated("0.001s"), 0, 0).await.unwrap();
            instance.wait_event(id, "priority").await;
            ids.push(id);
        }
        let good = ids.pop().unwrap();
        let [no_jobspec, no_submit, torn] = ids[..].try_into().unwrap();
        let op = |id: JobId, name: &str, text: Option<&str>| kvs::Op {
            key: format!("{}.{name}", id.kvs()),
            flags: 0,
            dirent: text.map(|text| Treeobj::val(text.as_bytes())),
        };
        let validate = "{\"timestamp\":1.0,\"name\":\"validate\"}\n";
        let ops = vec![
            op(no_jobspec, "jobspec", None),
            op(no_submit, "eventlog", Some(validate)),
            op(torn, "eventlog", Some("{\"timestamp\":1.0,\"na")),
        ];
        let commit = kvs::CommitRequest { namespace: kvs::PRIMARY.to_owned(), flags: 0, ops };
        instance.handle.rpc::<kvs::Commit>(&commit).await.unwrap();
        restart(&mut instance).await;
        let log = instance.log_lines();
        let release = rpc::UrgencyRequest { id: good, urgency: 16 };
        instance.handle.rpc::<rpc::Urgency>(&release).await.unwrap();
        instance.wait_event(good, "clean").await;
        let lookup = async |key: String, flags: u32| {
            let namespace = Some(kvs::PRIMARY.to_owned());
            let request =
                kvs::LookupRequest { key, namespace, flags, rootdir: None, rootseq: None };
            instance.handle.rpc::<kvs::Lookup>(&request).await.map_err(|failure| failure.errno)
        };
        for (id, why) in [
            (no_jobspec, "there is no jobspec"),
            (no_submit, "eventlog begins with validate"),
            (torn, ""),
        ] {
            let told = format!("job {} not replayed: {why}", id.f58());
            assert!(log.iter().any(|line| line.contains(&told)), "{told}: {log:?}");
            let kept = format!("job-lost+found.job.{}.eventlog", id.f58());
            assert!(lookup(kept, 0).await.is_ok(), "{why}");
            let gone = lookup(id.kvs(), kvs::lookup::READDIR).await.map(drop);
            assert_eq!(gone, Err(Errno::ENOENT), "{why}");
        }
        instance.stop().await;
    });
}

#[test]
fn ids_of_jobs_that_were_purged_are_not_given_again() {
    run(async {
        let mut instance = Instance::start().await;
        let id = instance.submit(&simulated("0.001s")).await.unwrap();
        instance.wait_event(id, "clean").await;
        let all = rpc::PurgeRequest { age_limit: -1.0, num_limit: 0, batch: 50, force: true };
        assert_eq!(instance.handle.rpc::<rpc::Purge>(&all).await.unwrap().count, 1);
        restart(&mut instance).await;
        let info = instance.handle.rpc::<rpc::Getinfo>(&flux_protocol::payload::Empty);
        assert_eq!(info.await.unwrap().max_jobid, id.0);
        instance.stop().await;
    });
}

#[test]
fn what_ends_while_a_scheduler_introduces_itself_is_free_when_it_is_ready() {
    run(async {
        let mut instance = Instance::start().await;
        let id = instance.submit(&simulated("1h")).await.unwrap();
        instance.wait_event(id, "start").await;
        instance.unload("sched-simple").await;

        let uri = format!("local://{}", instance.socket().display());
        let flux = flux_client::Client::open(Some(&uri)).await.unwrap();
        let mut scheduler = flux.register("sched").await.unwrap();
        let hello = rpc::SchedHelloRequest { partial_ok: false };
        let mut told = flux.stream::<rpc::SchedHello>(Nodeid::ANY, &hello).unwrap();
        assert_eq!(told.next().await.unwrap().unwrap().id, id);
        assert!(told.next().await.unwrap().is_none());
        let cancel = rpc::RaiseRequest {
            id,
            kind: "cancel".to_owned(),
            severity: 0,
            note: Some(String::new()),
            wait_status: None,
        };
        instance.handle.rpc::<rpc::Raise>(&cancel).await.unwrap();
        instance.wait_event(id, "clean").await;
        let ready = rpc::SchedReadyRequest { mode: "unlimited".to_owned(), limit: None };
        flux.rpc::<rpc::SchedReady>(Nodeid::ANY, &ready).await.unwrap();

        let request = tokio::time::timeout(PATIENCE, scheduler.next()).await.unwrap().unwrap();
        assert_eq!(request.topic.as_str(), "sched.free");
        let freed: sched::FreeRequest = decode_json(request.payload.as_ref()).unwrap();
        assert!(freed.id == id && freed.is_final);
        scheduler.remove().await.unwrap();
        drop(flux);
        instance.stop().await;
    });
}
