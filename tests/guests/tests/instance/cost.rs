//! What the jobs of guests cost: figures to be looked at, not a test that can fail for them.
//!
//! ```text
//! cargo test --workspace --release --test instance cost -- --ignored --nocapture
//! ```

use flux_guests::{ALICE, FLUX, User};

use super::host::Instance;

fn figures(instance: &Instance, title: &str, user: User, args: &[&str]) {
    let outcome = instance.flux(user, &[&["bench", "jobs"], args].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    println!("{title}\n{}", outcome.stdout);
}

#[test]
#[ignore = "a benchmark"]
fn signed_and_unsigned_requests() {
    let Some(instance) = Instance::start("[access]\nallow-guest-user = true\n") else { return };
    assert_eq!(instance.flux(FLUX, &["queue", "stop", "--all"]).code, Some(0));
    for round in ["first", "second"] {
        let args = ["-n", "1000", "--submit-only"];
        figures(&instance, &format!("owner, unsigned, {round}"), FLUX, &args);
        figures(&instance, &format!("guest, signed by munge, {round}"), ALICE, &args);
    }
}

#[test]
#[ignore = "a benchmark"]
fn jobs_with_and_without_prolog_and_epilog() {
    let plain = "[access]\nallow-guest-user = true\n";
    let perilog = "[job-manager]\nplugins = [{ load = \"perilog\" }]\n\
        prolog.command = [\"/bin/true\"]\nepilog.command = [\"/bin/true\"]\n";
    for (title, config) in [("without", plain.to_owned()), ("with", format!("{plain}{perilog}"))] {
        let Some(instance) = Instance::start(&config) else { return };
        figures(&instance, title, FLUX, &["-n", "200"]);
        figures(&instance, title, FLUX, &["-n", "200"]);
    }
}
