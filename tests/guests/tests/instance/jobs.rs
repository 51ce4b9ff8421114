//! Guests' jobs: as the guests, and nobody else's to touch.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use flux_guests::{ALICE, BOB, FLUX};

use super::host::Instance;

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
}
