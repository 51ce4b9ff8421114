//! Who sees which jobs, and whose jobs are taken.

use flux_guests::{ALICE, BOB, FLUX, User};
use flux_protocol::fluid::JobId;
use serde_json::json;

use super::host::Instance;

const PRIVATE: &str = "private-mode = true\nroles.admin.groups = [\"bob-extra\"]\n";

/// Ids of the jobs that `flux jobs` shows of all users, in order.
fn listed(instance: &Instance, user: User) -> Vec<JobId> {
    let outcome = instance.flux(user, &["jobs", "-a", "-A", "-n", "-o", "{id.f58}"]);
    outcome.assert_success();
    let mut ids: Vec<_> = outcome.stdout.lines().map(|id| JobId::parse(id).unwrap()).collect();
    ids.sort_unstable();
    ids
}

fn configure(instance: &Instance, text: &str) {
    let text = format!("[access]\nallow-guest-user = true\n{text}");
    instance.host.write("/etc/flux/system/conf.d/system.toml", &text);
    instance.flux(FLUX, &["config", "reload"]).assert_success();
}

fn errno(instance: &Instance, user: User, topic: &str, payload: serde_json::Value) -> i32 {
    instance.ask(user, topic, payload).err().map_or(0, |(errno, _)| errno)
}

#[test]
fn guests_see_and_submit_what_the_configuration_allows() {
    let config = format!("[access]\nallow-guest-user = true\n{PRIVATE}");
    let Some(instance) = Instance::start(&config) else { return };
    let held = &["--urgency=hold", "true"];
    let alices = instance.submit(ALICE, held);
    let owners = instance.submit(FLUX, held);

    private_mode_hides_the_jobs_of_others(&instance, alices, owners);
    configure(&instance, "");
    assert_eq!(listed(&instance, ALICE), [alices, owners]);
    assert_eq!(errno(&instance, ALICE, "job-list.job-stats", json!({})), 0);
    policy_says_whose_jobs_are_taken(&instance);
}

fn private_mode_hides_the_jobs_of_others(instance: &Instance, alices: JobId, owners: JobId) {
    assert_eq!(listed(instance, ALICE), [alices]);
    assert_eq!(listed(instance, BOB), [alices, owners], "he has the role of an administrator");
    assert_eq!(listed(instance, FLUX), [alices, owners]);
    instance.flux(ALICE, &["jobs", &alices.f58()]).assert_success();
    instance.flux(ALICE, &["jobs", &owners.f58()]).assert_failure();

    // One by one they are as if they were not there.
    let by_id = |id: JobId| json!({ "id": id.0, "attrs": ["all"] });
    assert_eq!(errno(instance, ALICE, "job-list.list-id", by_id(alices)), 0);
    assert_eq!(errno(instance, ALICE, "job-list.list-id", by_id(owners)), 2);
    assert_eq!(errno(instance, BOB, "job-list.list-id", by_id(owners)), 0);
    // Nor does it tell him more to wait for a state of the job.
    let later = json!({ "id": owners.0, "attrs": ["all"], "state": 64 });
    assert_eq!(errno(instance, ALICE, "job-list.list-id", later), 2);

    // Numbers say something of the others, too.
    for topic in
        ["job-list.job-stats", "job-list.stats-get", "job-manager.stats-get", "job-manager.getinfo"]
    {
        assert_eq!(errno(instance, ALICE, topic, json!({})), 1, "{topic}");
        assert_eq!(errno(instance, BOB, topic, json!({})), 0, "{topic}");
    }

    // To see that a job is there is not to read it.
    let lookup = |id: JobId| json!({ "id": id.0, "keys": ["eventlog"], "flags": 0 });
    for user in [ALICE, BOB] {
        assert_eq!(errno(instance, user, "job-info.lookup", lookup(owners)), 1);
        instance.flux(user, &["job", "eventlog", &owners.f58()]).assert_failure();
        instance.flux(user, &["job", "wait-event", &owners.f58(), "submit"]).assert_failure();
    }
    assert_eq!(errno(instance, ALICE, "job-info.lookup", lookup(alices)), 0);
}

fn policy_says_whose_jobs_are_taken(instance: &Instance) {
    configure(instance, "[policy.access]\nallow-user = [\"alice\"]\n");
    let held = &["--urgency=hold", "true"];
    instance.submit(ALICE, held);
    instance.submit(FLUX, held);
    let outcome = instance.flux(BOB, &["submit", "true"]);
    outcome.assert_failure();
    let text = "user bob is not among those whose jobs policy.access allows";
    assert!(outcome.stderr.contains(text), "{outcome:?}");

    // A queue has a list of its own, and a job does not come in by another one.
    configure(
        instance,
        "[policy.jobspec.defaults.system]\nqueue = \"open\"\n[queues.open]\n\
         [queues.few.policy.access]\nallow-group = [\"alice-extra\"]\n",
    );
    instance.submit(ALICE, &["-q", "few", "--urgency=hold", "true"]);
    let refused = instance.flux(BOB, &["submit", "-q", "few", "true"]);
    refused.assert_failure();
    let text = "user bob is not among those whose jobs queue few allows";
    assert!(refused.stderr.contains(text), "{refused:?}");
    let id = instance.submit(BOB, held);
    let refused = instance.flux(BOB, &["update", &id.f58(), "queue=few"]);
    refused.assert_failure();
    assert!(refused.stderr.contains(text), "{refused:?}");
}
