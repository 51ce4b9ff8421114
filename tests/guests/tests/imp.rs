//! The setuid IMP, and attacks on it: one test each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod imp {
    mod cgroup;
    mod configuration;
    mod exec;
    mod forgery;
    mod hostile;
    mod inherited;
    mod kill;
    mod pam;
    mod run;
}

use flux_guests::{FLUX, Outcome, Sandbox, sandbox};

/// What stands for the job shell: it shows what it was given.
const PROBE: &str = "echo ran\n\
    echo uid=$(id -u)\n\
    echo gid=$(id -g)\n\
    echo groups=$(id -G)\n\
    echo pwd=$(pwd)\n\
    echo umask=$(umask)\n\
    echo ids=$(grep Uid: /proc/self/status)\n\
    ls -l /proc/$$/fd | sed s/^/fd:/\n\
    echo args=$*\n\
    env | sed s/^/env:/";

/// A host where flux may start the probe, as the guide configures it.
fn host() -> Option<Sandbox> {
    let mut host = sandbox()?;
    if let Err(reason) = host.start_munged() {
        println!("skipped: {reason}");
        return None;
    }
    let probe = host.script("probe", PROBE);
    host.configure_imp(&format!(
        "[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"{probe}\"]\n"
    ));
    Some(host)
}

fn probe(host: &Sandbox) -> String {
    host.path("probe").to_str().unwrap().to_owned()
}

fn input(j: &str) -> String {
    serde_json::json!({ "J": j }).to_string()
}

/// What becomes of a job request that the owner hands to the IMP.
fn exec(host: &Sandbox, j: &str) -> Outcome {
    host.imp(FLUX, &["exec", &probe(host), "1234"], &input(j))
}
