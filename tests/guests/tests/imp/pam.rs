//! An IMP that was built with PAM: the site's session around each job. The test builds that IMP
//! itself, beside the others.

use std::path::{Path, PathBuf};
use std::process::Command;

use flux_guests::{ALICE, FLUX, Sandbox};

use crate::{exec, host, probe};

/// An IMP with the feature; nothing where the test is to be skipped.
fn build() -> Option<PathBuf> {
    let folders =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    if !folders.iter().any(|folder| Path::new(folder).join("libpam.so").exists()) {
        println!("skipped: libpam0g-dev is not installed");
        return None;
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let target = workspace.join("target/pam");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--quiet", "-p", "flux-imp", "--features", "pam"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(workspace)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(target.join("debug/flux-imp"))
}

/// What the service does, beside noting its calls.
fn configure(host: &Sandbox, session: &str) {
    let note = host.path("note");
    let service = format!(
        "auth required pam_localuser.so\nsession required pam_exec.so {}\n{session}\n",
        note.display()
    );
    host.write("/etc/pam.d/flux", &service);
    host.configure_imp(&format!(
        "[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"{}\"]\npam-support = true\n",
        probe(host)
    ));
}

/// Calls of the session since the last time.
fn noted(host: &Sandbox) -> Vec<String> {
    let file = host.home(FLUX).join("noted");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(file);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_session_of_pam_is_around_each_job_and_sets_its_limits() {
    let Some(imp) = build() else { return };
    let Some(host) = host() else { return };
    let mut install = Command::new("/usr/bin/install");
    install.args(["-o", "root", "-g", "root", "-m", "4755"]).arg(imp).arg(host.imp_path());
    assert!(install.status().unwrap().success());
    let file = host.home(FLUX).join("noted");
    let line = format!("echo $PAM_TYPE $PAM_SERVICE $PAM_USER $PAM_RUSER >> {}", file.display());
    host.script("note", &line);
    host.write("/etc/limits", "alice - nofile 123\n");
    let around = ["open_session flux alice alice", "close_session flux alice alice"];

    configure(&host, "session required pam_limits.so conf=/etc/limits");
    host.script("probe", "echo limit=$(ulimit -n) uid=$(id -u)");
    let outcome = exec(&host, &host.sign(ALICE, "{}"));
    outcome.assert_success();
    assert_eq!(outcome.stdout, format!("limit=123 uid={}\n", ALICE.uid), "{outcome:?}");
    assert_eq!(noted(&host), around);

    // However the shell ends.
    host.script("probe", "kill -9 $$");
    let outcome = exec(&host, &host.sign(ALICE, "{}"));
    assert_eq!((outcome.code, outcome.signal), (None, Some(9)), "{outcome:?}");
    assert_eq!(noted(&host), around);

    // Without a session there is no job.
    configure(&host, "session required pam_deny.so");
    host.script("probe", "echo ran");
    let outcome = exec(&host, &host.sign(ALICE, "{}"));
    outcome.assert_refused("exec: PAM stack failure");
    assert!(outcome.stderr.contains("Warning: pam_open_session: "), "{outcome:?}");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn an_imp_without_pam_does_not_go_on_as_if_it_had_it() {
    let Some(host) = host() else { return };
    configure(&host, "");
    let outcome = exec(&host, &host.sign(ALICE, "{}"));
    outcome.assert_refused("exec: pam-support=true, but IMP was built without PAM");
    assert_eq!(noted(&host), Vec::<String>::new());
}
