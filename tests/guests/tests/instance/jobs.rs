//! Guests' jobs: as the guests, and nobody else's to touch.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use flux_guests::{ALICE, BOB, FLUX, ROOT};
use flux_protocol::fluid::JobId;
use serde_json::{Value, json};

use super::host::{Answer, Instance};

#[test]
fn guests_run_jobs_as_themselves_and_leave_those_of_others_alone() {
    let Some(instance) = Instance::start("[access]\nallow-guest-user = true\n") else { return };
    let host = &instance.host;

    // As themselves, on every node, with their files.
    let outcome = instance.flux(ALICE, &["run", "-N2", "sh", "-c", "id -u; id -G"]);
    outcome.assert_success();
    let (uid, groups) = (ALICE.uid.to_string(), format!("{} {}", ALICE.uid, ALICE.extra));
    let mut lines: Vec<&str> = outcome.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, [&*uid, &*uid, &*groups, &*groups]);
    let file = host.home(ALICE).join("made");
    instance.flux(ALICE, &["run", "touch", file.to_str().unwrap()]).assert_success();
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), ALICE.uid);
    instance.flux(BOB, &["run", "touch", file.to_str().unwrap()]).assert_failure();

    // Their exit codes and input are passed on.
    assert_eq!(instance.flux(ALICE, &["run", "sh", "-c", "exit 3"]).code, Some(3));
    assert_eq!(instance.flux_with(ALICE, &["run", "cat"], "input").stdout, "input");

    // The owner's own jobs need no proof.
    let outcome = instance.flux(FLUX, &["run", "id", "-u"]);
    assert_eq!(outcome.stdout.trim(), FLUX.uid.to_string(), "{outcome:?}");

    the_imps_configuration_is_read_at_each_job(&instance);
    others_can_t_touch_a_job(&instance);
    only_the_owner_cancels_jobs_of_all_users(&instance);
    a_guest_has_plugins_in_an_instance_of_his_own_alone(&instance);
    forged_requests_are_not_taken(&instance);
    a_signed_request_counts_once(&instance);
    what_was_not_signed_is_not_run(&instance);
    without_an_imp_only_the_owners_jobs_run(&instance);
}

/// The brokers go on as they are.
fn the_imps_configuration_is_read_at_each_job(instance: &Instance) {
    let allow = |shell: &Path| {
        let shells = format!("allowed-shells = [\"{}\"]", shell.display());
        let text = format!("[exec]\nallowed-users = [\"flux\"]\n{shells}\n");
        instance.host.configure_imp(&text);
    };
    allow(Path::new("/usr/libexec/flux/another-shell"));
    let outcome = instance.flux(ALICE, &["run", "true"]);
    outcome.assert_failure();
    let log = instance.log() + &outcome.stderr + &outcome.stdout;
    assert!(log.contains("exec: shell not in allowed-shells list"), "{log}");
    allow(&instance.host.program("flux-shell"));
    instance.flux(ALICE, &["run", "true"]).assert_success();
}

/// A job of alice's that runs until it is told not to; its id, and the file that holds the id of
/// its process.
fn start(instance: &Instance) -> (JobId, String) {
    let file = instance.host.home(ALICE).join("pid");
    let _ = std::fs::remove_file(&file);
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display());
    let id = instance.submit(ALICE, &["sh", "-c", &script]);
    wait_until("the job runs", || file.exists());
    (id, std::fs::read_to_string(file).unwrap().trim().to_owned())
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < limit, "{what}: not yet");
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

#[track_caller]
fn assert_refused(answer: Answer, text: &str) {
    let (errno, why) = answer.unwrap_err();
    assert_eq!(errno, 1, "{why}");
    assert!(why.contains(text), "{why}");
}

fn others_can_t_touch_a_job(instance: &Instance) {
    let (id, pid) = start(instance);
    assert_eq!(std::fs::metadata(Path::new("/proc").join(&pid)).unwrap().uid(), ALICE.uid);
    let bob = |topic: &str, payload: Value| instance.ask(BOB, topic, payload);
    let i = id.0;

    let raise = json!({ "id": i, "severity": 0, "type": "cancel", "note": "" });
    assert_refused(
        bob("job-manager.raise", raise.clone()),
        "guests can only raise exceptions on their own jobs",
    );
    assert_refused(
        bob("job-manager.kill", json!({ "id": i, "signum": 9 })),
        "guests may only send signals to their own jobs",
    );
    assert_refused(
        bob("job-manager.urgency", json!({ "id": i, "urgency": 0 })),
        "guests can only reprioritize their own jobs",
    );
    let updates = json!({ "attributes.system.duration": 1.0 });
    assert_refused(bob("job-manager.update", json!({ "id": i, "updates": updates })), "");
    assert_refused(bob("job-manager.memo", json!({ "id": i, "memo": { "a": 1 } })), "");
    for userid in [ALICE.uid, u32::MAX] {
        let all = json!({
            "dry_run": false, "userid": userid, "states": 0xff, "severity": 0, "type": "cancel",
        });
        assert_refused(bob("job-manager.raiseall", all), "");
        let all = json!({ "dry_run": false, "userid": userid, "signum": 9 });
        assert_refused(bob("job-manager.killall", all), "");
    }

    // Nor read it.
    for key in ["J", "jobspec", "eventlog", "R", "guest.output"] {
        let lookup = json!({ "id": i, "keys": [key], "flags": 0 });
        assert_refused(bob("job-info.lookup", lookup), "");
    }
    let namespace = format!("job-{i}");
    let lookup = json!({ "key": "output", "namespace": namespace, "flags": 0 });
    assert_refused(bob("kvs.lookup", lookup), "");
    let op = json!({ "key": "x", "flags": 0, "dirent": null });
    let commit = json!({ "namespace": namespace, "flags": 0, "ops": [op] });
    assert_refused(bob("kvs.commit", commit.clone()), "");
    assert!(instance.ask(ALICE, "kvs.commit", commit).is_ok());

    // Nor talk to its shell, itself or as if by the instance.
    let service = format!("{}-shell-{}", ALICE.uid, id.f58_plain());
    let stdin = json!({ "stream": "stdin", "rank": "all", "eof": true });
    assert_refused(bob(&format!("{service}.stdin"), stdin), "");
    instance.publish(BOB, &format!("shell-{i}.kill"), json!({ "signum": 9 }));
    instance.publish(BOB, "job-exception", json!({ "id": i, "severity": 0, "type": "cancel" }));
    assert!(runs(&pid));

    // What is not his to say of his own.
    let own = |urgency: i64| {
        let j = instance.host.sign(BOB, "{}");
        bob("job-ingest.submit", json!({ "J": j, "urgency": urgency, "flags": 0 }))
    };
    assert_eq!(own(20).unwrap_err().0, 22);

    // The owner cancels it.
    instance.ask(FLUX, "job-manager.raise", raise).unwrap();
    let log = instance.eventlog_of_ended(id);
    assert!(log.contains(&format!("\"userid\":{}", FLUX.uid)), "{log}");
    wait_until("the process ends", || !runs(&pid));

    // And she signals her own, also one that does not want to end.
    let (id, pid) = start(instance);
    let kill = json!({ "id": id.0, "signum": 15 });
    instance.ask(ALICE, "job-manager.kill", kill).unwrap();
    instance.eventlog_of_ended(id);
    wait_until("the process ends", || !runs(&pid));
}

fn only_the_owner_cancels_jobs_of_all_users(instance: &Instance) {
    let held = |user| {
        let outcome = instance.flux(user, &["submit", "--urgency=hold", "true"]);
        outcome.assert_success();
        outcome.stdout.trim().to_owned()
    };
    let [alice, bob, owner] = [held(ALICE), held(BOB), held(FLUX)];
    let active = || {
        let listed = instance.flux(FLUX, &["jobs", "-A", "-no", "{id}"]);
        [&alice, &bob, &owner].map(|id| listed.stdout.lines().any(|line| line == id))
    };
    let all = instance.flux(BOB, &["job", "cancelall", "--user=all", "-f"]);
    all.assert_failure();
    assert!(all.stderr.contains("guests can only raise exceptions on their own jobs"), "{all:?}");
    assert_eq!(active(), [true, true, true]);
    let hers = instance.flux(FLUX, &["job", "cancelall", "-u", ALICE.name, "-f"]);
    assert!(hers.stderr.contains("Canceled 1 jobs (0 errors)"), "{hers:?}");
    wait_until("hers is gone", || active() == [false, true, true]);
    instance.flux(BOB, &["job", "cancelall", "-f"]).assert_success();
    wait_until("his is gone", || active() == [false, false, true]);
    instance.flux(FLUX, &["job", "cancelall", "--user=all", "-f"]).assert_success();
    wait_until("all are gone", || active() == [false, false, false]);
}

fn a_guest_has_plugins_in_an_instance_of_his_own_alone(instance: &Instance) {
    let load = ["jobtap", "load", "submit-hold.wasm"];
    let refused = instance.flux(ALICE, &load);
    refused.assert_failure();
    assert!(refused.stderr.contains("Request requires owner credentials"), "{refused:?}");
    let flux = instance.host.program("flux");
    let script = format!("{0} {1} && {0} jobtap list", flux.display(), load.join(" "));
    let own = instance.flux(ALICE, &["run", flux.to_str().unwrap(), "start", &script]);
    assert_eq!(own.stdout, "submit-hold.wasm\n", "{own:?}");
}

fn submit(instance: &Instance, user: flux_guests::User, j: &str) -> Answer {
    instance.ask(user, "job-ingest.submit", json!({ "J": j, "urgency": 16, "flags": 0 }))
}

fn forged_requests_are_not_taken(instance: &Instance) {
    let sign = |signer, claimed| instance.host.sign_as(signer, claimed, "{}");
    let refused = |user, j: &str, text: &str| {
        let (_, why) = submit(instance, user, j).unwrap_err();
        assert!(why.contains(text), "{why}");
    };
    let alices = sign(ALICE, ALICE);
    let answer = submit(instance, BOB, &alices);
    assert_refused(answer, &format!("signer={} != requestor={}", ALICE.uid, BOB.uid));
    refused(BOB, &sign(BOB, ALICE), "sign-munge-verify: uid mismatch");
    let none = flux_sign::wrap_none(ALICE.uid, b"{}");
    refused(ALICE, &none, "sign-unwrap: header mechanism=none not allowed");
    refused(ALICE, "bogus", "sign-unwrap: header decode error");
    // The same by the command: signed by another mechanism than the site's, or by somebody before.
    let refused_command = |user, args: &[&str], stdin: &str, text: &str| {
        let outcome = instance.flux_with(user, args, stdin);
        outcome.assert_failure();
        assert!(outcome.stderr.contains(text), "{args:?}: {}", outcome.stderr);
    };
    let not_allowed = "header mechanism=none not allowed";
    refused_command(ALICE, &["job", "submit", "--flags=signed"], &none, not_allowed);
    refused_command(ALICE, &["job", "submit", "--sign-type=none"], "{}", not_allowed);
    for user in [BOB, FLUX] {
        let text = format!("signer={} != requestor={}", ALICE.uid, user.uid);
        refused_command(user, &["job", "submit", "--flags=signed"], &alices, &text);
    }
    let (unsigned, _) = alices.rsplit_once('.').unwrap();
    refused(ALICE, &format!("{unsigned}.MUNGE:AAAA:"), "sign-munge-verify: munge_decode");
    let other = flux_sign::wrap_none(0, b"[]");
    let (header, signature) =
        (alices.split('.').next().unwrap(), alices.rsplit('.').next().unwrap());
    let tampered = format!("{header}.{}.{signature}", other.split('.').nth(1).unwrap());
    refused(ALICE, &tampered, "sign-munge-verify: SHA256 hash mismatch");

    // Root is a guest like any other here, and the IMP does not become root.
    let outcome = instance.flux(ROOT, &["run", "true"]);
    outcome.assert_failure();
}

/// At whichever broker it is handed in again, and by whomever.
fn a_signed_request_counts_once(instance: &Instance) {
    let ran = instance.host.home(ALICE).join("ran-once");
    let script = format!("echo ran >> {}", ran.display());
    let spec = instance.flux(ALICE, &["submit", "--dry-run", "sh", "-c", &script]);
    let j = instance.host.sign(ALICE, &spec.stdout);
    let at = |rank: u32, user| {
        let uri = instance.uri().replace("local-0", &format!("local-{rank}"));
        let mut command = instance.host.command(user, instance.host.program("flux"));
        command.args(["job", "submit", "--flags=signed"]).env("FLUX_URI", uri);
        instance.host.run(command, &j)
    };
    // What was refused for a reason that passes may come again.
    instance.flux(FLUX, &["queue", "disable", "-m", "closed"]).assert_success();
    assert!(at(1, ALICE).stderr.contains("closed"));
    instance.flux(FLUX, &["queue", "enable"]).assert_success();
    let first = at(1, ALICE);
    first.assert_success();
    for rank in [0, 1] {
        let again = at(rank, ALICE);
        again.assert_failure();
        assert!(again.stderr.contains("submitted before (replayed)"), "{again:?}");
        assert!(at(rank, BOB).stderr.contains("!= requestor="));
    }
    instance.eventlog_of_ended(JobId::parse(first.stdout.trim()).unwrap());
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "ran\n");
    // The same job, signed anew, is another one.
    let anew = instance.flux_with(ALICE, &["job", "submit"], &spec.stdout);
    anew.assert_success();
    instance.eventlog_of_ended(JobId::parse(anew.stdout.trim()).unwrap());
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "ran\nran\n");
}

/// A job that waits, until `meanwhile` was done to it.
fn held(instance: &Instance, meanwhile: impl FnOnce(JobId)) -> String {
    let ran = instance.host.home(ALICE).join("ran");
    let _ = std::fs::remove_file(&ran);
    let id = instance.submit(ALICE, &["--urgency=hold", "touch", ran.to_str().unwrap()]);
    meanwhile(id);
    instance.ask(FLUX, "job-manager.urgency", json!({ "id": id.0, "urgency": 16 })).unwrap();
    let log = instance.eventlog_of_ended(id);
    assert!(!ran.exists(), "it has run: {log}");
    assert!(log.contains("\"type\":\"exec\""), "{log}");
    log
}

fn what_was_not_signed_is_not_run(instance: &Instance) {
    // The owner of the instance changes what is stored.
    let log = held(instance, |id| {
        let key = format!("{}.J", id.kvs());
        let j = instance.flux(FLUX, &["kvs", "get", "--raw", &key]).stdout;
        let (unsigned, signature) = j.trim_end().rsplit_once('.').unwrap();
        let (header, _) = unsigned.split_once('.').unwrap();
        let other = flux_sign::wrap_none(0, b"{\"tasks\":[]}");
        let payload = other.split('.').nth(1).unwrap();
        let value = format!("{key}={header}.{payload}.{signature}");
        instance.flux(FLUX, &["kvs", "put", "--raw", &value]).assert_success();
    });
    assert!(log.contains("signature validation failed"), "{log}");
    assert!(log.contains("SHA256 hash mismatch"), "{log}");

    // It has become too old.
    let sign = |ttl: u32| {
        instance.host.configure_signing(&format!(
            "max-ttl = {ttl}\ndefault-type = \"munge\"\nallowed-types = [\"munge\"]"
        ));
    };
    let log = held(instance, |_| {
        sign(1);
        std::thread::sleep(Duration::from_millis(2500));
    });
    assert!(log.contains("signature validation failed"), "{log}");
    assert!(log.contains("the signature expired"), "{log}");
    sign(1_209_600);

    // There is no IMP to ask.
    instance
        .host
        .write("/etc/flux/system/conf.d/system.toml", "[access]\nallow-guest-user = true\n");
    instance.flux(FLUX, &["config", "reload"]).assert_success();
    let log = held(instance, |_| {});
    assert!(log.contains("no IMP configured"), "{log}");
    instance.flux(FLUX, &["run", "true"]).assert_success();
}

fn without_an_imp_only_the_owners_jobs_run(instance: &Instance) {
    let text = "[access]\nallow-guest-user = true\n[exec]\nmax-kill-count = 1\nkill-timeout = ";
    let text = format!("{text}\"0.1s\"\n");
    instance.host.write("/etc/flux/system/conf.d/system.toml", &text);
    instance.flux(FLUX, &["config", "reload"]).assert_success();
    let log = instance.eventlog_of_ended(instance.submit(ALICE, &["true"]));
    assert!(log.contains("\"type\":\"exec\",\"severity\":0"), "{log}");
    assert!(log.contains("no IMP configured: exec.imp is not set"), "{log}");
    assert!(!log.contains("\"name\":\"start\""), "{log}");
    instance.flux(FLUX, &["run", "true"]).assert_success();
    // What never ran is not waited for, let alone the node drained that it did not run on.
    std::thread::sleep(Duration::from_secs(1));
    let drained = instance.flux(FLUX, &["resource", "drain", "-no", "{reason}"]);
    assert_eq!(drained.stdout, "", "{drained:?}");
}
