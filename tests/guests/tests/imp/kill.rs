//! `flux-imp kill`: signals to what the caller has started, and to nothing else.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flux_guests::{ALICE, BOB, FLUX, ROOT, Sandbox, User};

use crate::{host, input, probe};

/// A shell of alice's, started by `owner` through the IMP, and its process id.
fn job(host: &Sandbox, owner: User) -> (Child, String) {
    let file = host.home(ALICE).join(owner.name);
    host.script(
        "probe",
        &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display()),
    );
    let mut command = host.command(owner, host.imp_path());
    command.args(["exec", &probe(host), "1"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let j = input(&host.sign(ALICE, "{}"));
    child.stdin.take().unwrap().write_all(j.as_bytes()).unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    while !file.exists() {
        assert!(Instant::now() < limit, "the shell does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = std::fs::read_to_string(file).unwrap().trim().to_owned();
    (child, pid)
}

#[test]
fn the_owner_signals_his_own_jobs_alone() {
    let Some(host) = host() else { return };
    host.configure_imp(&format!(
        "[exec]\nallowed-users = [\"flux\", \"bob\"]\nallowed-shells = [\"{}\"]\n",
        probe(&host)
    ));
    let (mut flux, flux_pid) = job(&host, FLUX);
    let (mut bob, bob_pid) = job(&host, BOB);
    let mut daemon = host.command(ALICE, "sleep").arg("1000").spawn().unwrap();
    let kill = |user: User, pid: &str| host.imp(user, &["kill", "9", pid], "");

    let refusal = "kill: refusing request from uid=";
    kill(FLUX, "1").assert_refused(refusal);
    kill(FLUX, "0").assert_refused(refusal);
    kill(FLUX, &bob_pid).assert_refused(refusal);
    kill(BOB, &flux_pid).assert_refused(refusal);
    kill(FLUX, &daemon.id().to_string()).assert_refused(refusal);
    // The IMP itself is root's.
    kill(FLUX, &flux.id().to_string()).assert_refused(refusal);
    kill(ALICE, &flux_pid).assert_refused("kill: user alice not in allowed-users list");
    for bad in ["-1", "x", "", "+5", "99999999999999"] {
        kill(FLUX, bad).assert_refused("kill: usage");
    }
    let outcome = host.imp(FLUX, &["kill", "99", &flux_pid], "");
    outcome.assert_refused("kill: invalid signal number 99");

    let outcome = kill(FLUX, &flux_pid);
    if outcome.code != Some(0) {
        println!("skipped the rest: /proc does not show the programs of others: {outcome:?}");
    } else {
        let status = flux.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
    for child in [&mut flux, &mut bob, &mut daemon] {
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[test]
fn root_can_t_be_told_to() {
    let Some(host) = host() else { return };
    host.imp(ROOT, &["kill", "9", "1"], "").assert_refused("Refusing to run as root");
}
