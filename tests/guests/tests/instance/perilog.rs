//! Prolog and epilog as the administrator's guide has them: `flux perilog-run` on rank 0 as the
//! owner, and by the IMP as root on every node of the job.

use std::path::Path;
use std::time::{Duration, Instant};

use flux_guests::{ALICE, FLUX};
use flux_protocol::fluid::JobId;

use super::host::{Instance, SIZE};

const CONFIG: &str = r#"
[access]
allow-guest-user = true
[job-manager]
plugins = [{ load = "perilog.so" }]
[job-manager.prolog]
command = ["flux", "perilog-run", "prolog", "-e", "@IMP@,run,prolog"]
kill-timeout = 3.0
[job-manager.epilog]
command = ["flux", "perilog-run", "epilog", "-e", "@IMP@,run,epilog"]
"#;

/// The broker itself runs both on every node, through the IMP.
const PER_RANK: &str = r#"
[access]
allow-guest-user = true
[job-manager]
plugins = [{ load = "perilog.so" }]
perilog.log-ignore = ["^not worth"]
[job-manager.prolog]
per-rank = true
kill-timeout = 3.0
[job-manager.epilog]
per-rank = true
"#;

const CONFIG_OF_IMP: &str = r#"
[run.prolog]
allowed-users = ["flux"]
path = "/etc/flux/system/prolog"
[run.epilog]
allowed-users = ["flux"]
path = "/etc/flux/system/epilog"
"#;

/// Notes what it is, and does what files in its folder ask for. It fails on one node alone.
fn script(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    format!(
        "echo $(id -u) $FLUX_JOB_USERID $FLUX_JOB_ID $PATH >> {folder}/{name}
        if mv {folder}/{name}.fails {folder}/failed 2>/dev/null; then
            echo not worth a line; echo broken disk >&2; exit 3
        fi
        if [ -e {folder}/{name}.waits ]; then echo $$ >> {folder}/pids; exec sleep 1000; fi
        if [ -e {folder}/{name}.stays ]; then
            trap '' TERM
            sh -c 'echo $$ >> {folder}/pids; exec sleep 1000' &
            echo $$ >> {folder}/pids
            while :; do sleep 0.1; done
        fi"
    )
}

/// Lines that scripts have noted, and none of them any more after this.
fn noted(folder: &Path, name: &str) -> Vec<String> {
    let file = folder.join(name);
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(file);
    text.lines().map(str::to_owned).collect()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < limit, "{what}: not yet");
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn drained(instance: &Instance) -> String {
    let outcome = instance.flux(FLUX, &["resource", "drain", "-n", "-o", "{ranks} {reason}"]);
    outcome.assert_success();
    outcome.stdout
}

#[test]
fn prolog_and_epilog_run_as_root_on_every_node_of_the_job() {
    let Some(instance) = Instance::start_with_imp(CONFIG, CONFIG_OF_IMP) else { return };
    let host = &instance.host;
    let folder = host.path("noted");
    std::fs::create_dir(&folder).unwrap();
    for name in ["prolog", "epilog"] {
        host.script(&format!("etc/flux/system/{name}"), &script(&folder, name));
    }

    each_runs_once_per_node_and_sees_six_variables(&instance, &folder);
    scripts_of_the_site_run_once_as_the_owner(&instance, &folder);
    a_job_whose_prolog_fails_never_starts(&instance, &folder);
    who_cancels_a_job_in_its_prolog_drains_nothing(&instance, &folder);
    what_ignores_its_end_is_killed_on_every_node(&instance, &folder);
    assert_eq!(drained(&instance), "", "{}", instance.flux(FLUX, &["dmesg"]).stdout);
    an_epilog_that_fails_drains_too(&instance, &folder);
    what_it_is_for_has_to_be_said(&instance);
}

fn each_runs_once_per_node_and_sees_six_variables(instance: &Instance, folder: &Path) {
    let id = instance.submit(ALICE, &["-N2", "true"]);
    let log = instance.eventlog_of_ended(id);
    assert!(log.contains("\"name\":\"finish\",\"context\":{\"status\":0}"), "{log}");
    let line = format!("0 {} {} /usr/sbin:/usr/bin:/sbin:/bin", ALICE.uid, id.f58());
    for name in ["prolog", "epilog"] {
        assert_eq!(noted(folder, name), [&*line; SIZE as usize], "{name}: {log}");
    }
    // On the nodes of the job only.
    let id = instance.submit(ALICE, &["-N1", "true"]);
    instance.eventlog_of_ended(id);
    assert_eq!(noted(folder, "prolog").len(), 1);
    assert_eq!(noted(folder, "epilog").len(), 1);
}

fn scripts_of_the_site_run_once_as_the_owner(instance: &Instance, folder: &Path) {
    let host = &instance.host;
    let site = folder.join("site");
    std::fs::write(&site, "").unwrap();
    host.chown(&site, FLUX);
    let line = format!("echo $(id -u) $FLUX_JOB_ID >> {}", site.display());
    host.script("etc/flux/system/prolog.d/10-site", &line);
    host.write("/etc/flux/system/prolog.d/README", "not to be run");
    let id = instance.submit(ALICE, &["-N2", "true"]);
    instance.eventlog_of_ended(id);
    assert_eq!(noted(folder, "site"), [format!("{} {}", FLUX.uid, id.f58())]);
    std::fs::remove_dir_all("/etc/flux/system/prolog.d").unwrap();
    noted(folder, "prolog");
    noted(folder, "epilog");
}

fn a_job_whose_prolog_fails_never_starts(instance: &Instance, folder: &Path) {
    let id = fails_on_one_node(instance, folder);
    let reason = format!(" prolog failed for jobid {}\n", id.f58());
    let rank = the_one_drained(instance, &reason);
    let said = instance.flux(FLUX, &["dmesg"]).stdout;
    assert!(said.contains(&format!("(rank {rank}): broken disk")), "{said}");
}

/// A job of two nodes.
fn fails_on_one_node(instance: &Instance, folder: &Path) -> JobId {
    std::fs::write(folder.join("prolog.fails"), "").unwrap();
    let id = instance.submit(ALICE, &["-N2", "true"]);
    let log = instance.eventlog_of_ended(id);
    assert!(log.contains("\"type\":\"prolog\""), "{log}");
    assert!(!log.contains("\"name\":\"start\""), "{log}");
    noted(folder, "prolog");
    noted(folder, "epilog");
    id
}

/// The rank of the node that is drained for this reason, and that is in use again afterwards.
fn the_one_drained(instance: &Instance, reason: &str) -> String {
    let drained = drained(instance);
    assert!(drained.ends_with(reason) && drained.lines().count() == 1, "{drained}");
    let rank = drained.split(' ').next().unwrap();
    instance.flux(FLUX, &["resource", "undrain", rank]).assert_success();
    rank.to_owned()
}

fn who_cancels_a_job_in_its_prolog_drains_nothing(instance: &Instance, folder: &Path) {
    std::fs::write(folder.join("prolog.waits"), "").unwrap();
    let id = instance.submit(ALICE, &["-N2", "true"]);
    let pids = || noted(folder, "pids");
    wait_until("both run", || {
        std::fs::read_to_string(folder.join("pids")).unwrap_or_default().lines().count() == 2
    });
    let pids = pids();
    std::fs::remove_file(folder.join("prolog.waits")).unwrap();
    instance.flux(ALICE, &["cancel", &id.f58()]).assert_success();
    let log = instance.eventlog_of_ended(id);
    assert!(!log.contains("\"name\":\"start\""), "{log}");
    wait_until("roots processes end", || {
        pids.iter().all(|pid| !Path::new("/proc").join(pid).exists())
    });
    assert_eq!(drained(instance), "", "{}", instance.flux(FLUX, &["dmesg"]).stdout);
    noted(folder, "epilog");
}

/// What a prolog runs as root on any node is gone when the job is told that the prolog is.
fn what_ignores_its_end_is_killed_on_every_node(instance: &Instance, folder: &Path) -> JobId {
    std::fs::write(folder.join("prolog.stays"), "").unwrap();
    let id = instance.submit(ALICE, &["-N2", "true"]);
    wait_until("both run, with a process of theirs", || {
        std::fs::read_to_string(folder.join("pids")).unwrap_or_default().lines().count() == 4
    });
    let pids = noted(folder, "pids");
    std::fs::remove_file(folder.join("prolog.stays")).unwrap();
    instance.flux(ALICE, &["cancel", &id.f58()]).assert_success();
    let log = instance.eventlog_of_ended(id);
    let finish = log.lines().find(|line| line.contains("\"prolog-finish\"")).unwrap();
    assert!(finish.contains("\"status\":9}"), "{log}");
    wait_until("roots processes end", || {
        pids.iter().all(|pid| !Path::new("/proc").join(pid).exists())
    });
    noted(folder, "prolog");
    noted(folder, "epilog");
    id
}

#[test]
fn the_broker_itself_runs_a_prolog_as_root_on_every_node_and_ends_it_there() {
    let Some(instance) = Instance::start_with_imp(PER_RANK, CONFIG_OF_IMP) else { return };
    let host = &instance.host;
    let folder = host.path("noted");
    std::fs::create_dir(&folder).unwrap();
    for name in ["prolog", "epilog"] {
        host.script(&format!("etc/flux/system/{name}"), &script(&folder, name));
    }
    each_runs_once_per_node_and_sees_six_variables(&instance, &folder);
    let id = fails_on_one_node(&instance, &folder);
    let rank = the_one_drained(&instance, &format!(" prolog failed for job {}\n", id.f58()));
    let said = instance.flux(FLUX, &["dmesg"]).stdout;
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("broken disk")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    let place = format!("{}: prolog: ", id.f58());
    let (_, rest) = lines[0].split_once(&place).unwrap();
    assert!(rest.ends_with(&format!(" (rank {rank}): stderr: broken disk")), "{said}");
    assert!(!said.contains("not worth a line"), "{said}");
    who_cancels_a_job_in_its_prolog_drains_nothing(&instance, &folder);
    // Nodes where it had to be killed are not used before somebody has looked at them.
    let id = what_ignores_its_end_is_killed_on_every_node(&instance, &folder);
    let reason = format!(" prolog canceled then timed out for job {}\n", id.f58());
    assert_eq!(the_one_drained(&instance, &reason), "0-1");
}

fn an_epilog_that_fails_drains_too(instance: &Instance, folder: &Path) {
    std::fs::write(folder.join("epilog.fails"), "").unwrap();
    let id: JobId = instance.submit(ALICE, &["-N1", "true"]);
    let log = instance.eventlog_of_ended(id);
    assert!(log.contains("\"name\":\"finish\""), "{log}");
    let drained = drained(instance);
    assert!(drained.contains(&format!(" epilog failed for jobid {}", id.f58())), "{drained}");
    let rank = drained.split(' ').next().unwrap();
    instance.flux(FLUX, &["resource", "undrain", rank]).assert_success();
}

fn what_it_is_for_has_to_be_said(instance: &Instance) {
    let outcome = instance.flux(FLUX, &["perilog-run", "prolog"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("FLUX_JOB_ID not found in environment"), "{outcome:?}");
}
