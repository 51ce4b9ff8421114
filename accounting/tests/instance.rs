//! The commands and the priority plugin, in an instance of one broker. Programs are those of the
//! same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};

/// What a script prints on either stream, as the initial program of an instance that loads the
/// plugin. `$DB` is a database that is made already.
fn run(script: &str) -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_flux-account")).parent().unwrap();
    let flux = programs.join("flux");
    for program in ["flux", "flux-broker", "flux-shell"] {
        let path = programs.join(program);
        assert!(path.is_file(), "{} is missing: build the workspace first", path.display());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let plugin = "[job-manager]\nplugins = [{ load = \"mf_priority.so\" }]\n";
    std::fs::create_dir(path("conf.d")).unwrap();
    std::fs::write(path("conf.d/plugins.toml"), plugin).unwrap();
    let begin = "exec 2>&1\nexport DB=$PWD/accounting.db\nflux account -p $DB create-db\n";
    std::fs::write(path("script.sh"), format!("{begin}{script}")).unwrap();
    let search = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout")
        .arg("120")
        .arg(flux)
        .args(["start", "-s1", "--config-path=conf.d", "sh", "script.sh"])
        .current_dir(dir.path())
        .env("PATH", search)
        .env_remove("FLUX_URI")
        .env_remove("FLUX_KVS_NAMESPACE")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn users_run_jobs_while_they_are_in_a_bank() {
    let said = run(r#"
me=$(id -un)
flux jobtap list
flux account -p $DB add-bank root 1
flux account -p $DB add-bank --parent-bank=root A 1
id=$(flux submit -n1 hostname)
flux job wait-event -t 30 $id depend >/dev/null
flux jobs -no '{state} {contextual_info}' $id
flux account -p $DB add-user --username=$me --userid=$(id -u) --bank=A
flux account-priority-update -p $DB
flux job wait-event -t 30 $id clean >/dev/null
flux jobs -no '{state} {priority}' $id
echo == disabled
flux account -p $DB delete-user $me A
flux account-priority-update -p $DB
flux submit -n1 hostname || echo $?
echo == again
flux account -p $DB add-user --username=$me --bank=A
flux account-priority-update -p $DB
flux run -n1 echo runs
"#);
    let (held, rest) = said.split_once("== disabled\n").unwrap();
    let (disabled, again) = rest.split_once("== again\n").unwrap();
    let lines: Vec<&str> = held.lines().collect();
    assert_eq!(lines.first(), Some(&"mf_priority.wasm"), "{held}");
    assert!(lines.get(1).unwrap().starts_with("PRIORITY"), "{held}");
    // A fair share of a half, and nothing else that counts.
    assert_eq!(lines.get(2..), Some(&["INACTIVE 50000"][..]), "{held}");
    assert!(disabled.contains("user/bank entry has been disabled"), "{disabled}");
    assert!(disabled.ends_with("1\n"), "{disabled}");
    assert_eq!(again, "runs\n");
}

#[test]
fn pending_jobs_follow_the_fair_share() {
    let said = run(r#"
flux account -p $DB add-bank root 1
flux account -p $DB add-bank --parent-bank=root A 1
flux account -p $DB add-user --username=$(id -un) --userid=$(id -u) --bank=A
flux account-priority-update -p $DB
flux queue stop >/dev/null 2>&1
id=$(flux submit -n1 true)
flux job wait-event -t 30 -m priority=50000 $id priority >/dev/null && echo half
flux account-update-fshare -p $DB
flux account-priority-update -p $DB
flux job wait-event -t 30 -m priority=100000 $id priority >/dev/null && echo whole
flux job urgency $id hold >/dev/null
flux account-priority-update -p $DB
flux jobs -no '{priority}' $id
flux cancel $id
flux jobtap remove mf_priority.wasm
flux account-priority-update -p $DB; echo $?
"#);
    assert_eq!(
        said,
        "half\nwhole\n0\nflux-account: the plugin mf_priority is not loaded: see flux jobtap list, \
         and plugins in [job-manager] of the configuration\n1\n"
    );
}

#[test]
fn without_an_instance_there_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let account = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_flux-account"))
            .args(["-p", "a.db"])
            .args(words)
            .env("FLUX_URI", "local:///nowhere/local")
            .env("FLUX_LOCAL_CONNECTOR_RETRY_COUNT", "0")
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    assert!(account(&["create-db"]).status.success());
    let output = account(&["priority-update"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text,
        "flux-account: cannot reach the Flux instance: broker socket /nowhere/local was not found\n"
    );
}
