//! Commands that look after an instance: its processes, its store. The programs are those of the
//! same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};

const FLUX: &str = env!("CARGO_BIN_EXE_flux");

/// What a script prints on either stream that is the initial program of an instance of two
/// brokers. Each line `flux` in it is this build's.
fn run(script: &str) -> String {
    let broker = Path::new(FLUX).with_file_name("flux-broker");
    assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script.sh");
    std::fs::write(&path, format!("exec 2>&1\n{script}")).unwrap();
    let programs = Path::new(FLUX).parent().unwrap().display().to_string();
    let search = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout")
        .args(["120", FLUX, "start", "-s2", "sh"])
        .arg(&path)
        .current_dir(dir.path())
        .env("PATH", search)
        .env_remove("FLUX_URI")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn processes_of_a_broker_are_listed_signalled_and_waited_for() {
    let said = run("
flux exec --bg --waitable --label=sleeper -r 1 sleep 3600 >/dev/null
flux exec --bg --waitable --label=speaker -r 1 sh -c 'echo said; exit 3' >/dev/null
until flux sproc ps -r 1 | grep -q ' Z '; do sleep 0.1; done
flux sproc ps -r 1 | tr -s ' ' | cut -d' ' -f3-
flux sproc ps -r 1 -n -o '{rank}:{label}:{state}'
flux sproc wait -r 1 -o speaker
echo $?
flux sproc kill -r 1 -w 15 sleeper
echo $?
flux sproc ps -r 1 -n
flux sproc kill -r 1 15 sleeper
echo $?
");
    assert_eq!(
        said,
        "ST LABEL COMMAND\nR sleeper sleep\nZ speaker sh\n1:sleeper:R\n1:speaker:Z\n\
         said\n3\n143\nflux-sproc: kill: label sleeper does not \
         belong to any subprocess\n1\n"
    );
}

#[test]
fn what_is_missing_in_the_store_is_found() {
    let missing = "sha1-0123456789012345678901234567890123456789";
    let said = run(&format!(
        "
flux kvs put --sync a.b=1 a.c=$(printf %0999d 7)
flux fsck | cut -c1-36
flux fsck -v -q
flux fsck -v 2>&1 | grep -c 'a.[bc]$'
root=$(echo '{{\"ver\":1,\"type\":\"dir\",\"data\":{{\"bad\":{{\"ver\":1,\"type\":\"valref\",\
         \"data\":[\"{missing}\"]}},\"good\":{{\"ver\":1,\"type\":\"val\",\"data\":\"\"}}}}}}' \
         | flux content store)
flux content flush
flux fsck --rootref=$root
echo $?
flux fsck --rootref=none
echo $?
"
    ));
    assert_eq!(
        said,
        "Checking integrity of checkpoint fro\nflux-fsck: Total errors: 0\n2\n\
         flux-fsck: bad: missing blobref 0: No such file or directory\n\
         flux-fsck: Total errors: 1\n1\nflux-fsck: none: invalid blobref specified\n1\n"
    );
}
