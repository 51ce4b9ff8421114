//! What the jobs of guests cost: figures to be looked at, not a test that can fail for them.
//!
//! ```text
//! cargo test --workspace --release --test instance cost -- --ignored --nocapture
//! ```
//!
//! Both kinds take turns, so that what else the machine does is the same to both, and the median
//! of the rounds counts.

use flux_guests::{ALICE, FLUX, User};

use super::host::Instance;

const ROUNDS: usize = 5;

/// The number in the line of `flux bench jobs` that begins so, which is jobs per second.
fn rate(instance: &Instance, line: &str, user: User, args: &[&str]) -> f64 {
    let outcome = instance.flux(user, &[&["bench", "jobs"], args].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let rate = outcome.stdout.lines().find_map(|text| text.strip_prefix(line));
    let rate = rate.and_then(|rest| rest.split_whitespace().next()).map(str::parse);
    rate.unwrap_or_else(|| panic!("{outcome:?}")).unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(plain: (&str, Vec<f64>), costly: (&str, Vec<f64>)) {
    let (a, b) = (median(plain.1), median(costly.1));
    println!("{}: {a:.0} jobs/s\n{}: {b:.0} jobs/s\nratio: {:.2}", plain.0, costly.0, a / b);
}

#[test]
#[ignore = "a benchmark"]
fn signed_and_unsigned_requests() {
    let Some(instance) = Instance::start("[access]\nallow-guest-user = true\n") else { return };
    instance.flux(FLUX, &["queue", "stop", "--all"]).assert_success();
    let (mut unsigned, mut signed) = (Vec::new(), Vec::new());
    let args = ["-n", "500", "--submit-only"];
    for _ in 0..ROUNDS {
        unsigned.push(rate(&instance, "submitted", FLUX, &args));
        signed.push(rate(&instance, "submitted", ALICE, &args));
    }
    report(("owner, unsigned", unsigned), ("guest, signed by munge", signed));
}

#[test]
#[ignore = "a benchmark"]
fn jobs_with_and_without_prolog_and_epilog() {
    let configure = |instance: &Instance, tables: &str| {
        let text = format!("[job-manager]\nplugins = [{{ load = \"perilog.so\" }}]\n{tables}");
        instance.host.write("/etc/flux/system/conf.d/system.toml", &text);
        instance.flux(FLUX, &["config", "reload"]).assert_success();
    };
    let plugin = "[job-manager]\nplugins = [{ load = \"perilog.so\" }]\n";
    let Some(instance) = Instance::start(plugin) else { return };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        configure(&instance, "");
        without.push(rate(&instance, "submit to inactive", FLUX, &["-n", "50"]));
        configure(&instance, "prolog.command = [\"true\"]\nepilog.command = [\"true\"]\n");
        with.push(rate(&instance, "submit to inactive", FLUX, &["-n", "50"]));
    }
    report(("without", without), ("with prolog and epilog", with));
}
