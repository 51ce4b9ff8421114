//! Commands for tools, integrations and administrators, in one real instance. The programs are
//! those of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};

const SCRIPT: &str = r#"
exec 2>&1
tasks() { flux job wait-event -q -t 60 -p exec $1 shell.start; }
id=$(flux submit -n2 sh -c 'echo $$ >pid.$FLUX_TASK_RANK; exec sleep 300'); tasks $id
until [ -s pid.0 ] && [ -s pid.1 ]; do sleep 0.1; done
echo "== pids"
cat pid.0 pid.1 | tr '\n' ' '
echo; flux job hostpids -d ' ' $id | tr ' ' '\n' | sed 's/.*://' | tr '\n' ' '
echo; flux job hostpids -r 1 $id | grep -c ,
echo "== event"
flux post-job-event $id hello a=1 b.c=x
flux job wait-event -t 60 $id hello | cut -d' ' -f2-
flux post-job-event 1 hello
flux cancel $id; flux job wait-event -q -t 60 $id clean
echo "== ended"
flux job hostpids $id; flux job attach --debug $id
echo "== debugged"
flux run --debug-emulate -n2 echo released
id=$(flux submit sh -c 'trap "echo continued; exit" CONT; echo ready; while :; do sleep 0.1; done')
flux job wait-event -q -W -t 60 -p output $id data
flux job attach -vv --debug-emulate $id 2>debugger | grep continued
test "$(grep totalview_jobid debugger)" = "flux-job: totalview_jobid=$(flux job id $id)" && echo named
echo "== tail"
id=$(flux submit --wait sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i; done')
flux job attach --tail $id | tr '\n' ' '
echo; flux job attach --tail=2 $id | tr '\n' ' '
echo; flux job attach --tail=0 $id
echo "== programs"
cat >programs <<'END'
0 echo first
1 echo %t %o   # the second
END
flux run -n2 flux multi-prog programs | sort
flux multi-prog --dry-run=0-2 programs
flux admin cleanup-push "echo one >cleaned"
printf 'echo two >>cleaned\necho three >>cleaned\n' | flux admin cleanup-push
"#;

#[test]
fn tools_find_tasks_post_events_and_run_what_they_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let flux = Path::new(env!("CARGO_BIN_EXE_flux"));
    let shell = flux.with_file_name("flux-shell");
    assert!(shell.is_file(), "{} is missing: build the workspace first", shell.display());
    let path = dir.path().join("script.sh");
    std::fs::write(&path, SCRIPT).unwrap();
    let output = Command::new(flux)
        .args(["start", "sh"])
        .arg(&path)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let section = |name: &str| -> Vec<&str> {
        let text = said.split("== ").find_map(|part| part.strip_prefix(name)?.strip_prefix('\n'));
        text.unwrap_or_default().lines().collect()
    };
    match section("pids").as_slice() {
        [tasks, shown, "0"] => assert_eq!(tasks, shown),
        _ => panic!("{said}"),
    }
    let none = "flux-post-job-event: ERROR: No such job 1";
    assert_eq!(section("event"), [r#"hello a=1 b={"c":"x"}"#, none]);
    match section("ended").as_slice() {
        [inactive, .., finished] => {
            assert!(
                inactive.starts_with("flux-job: hostpids: job ")
                    && inactive.ends_with("is inactive")
            );
            assert_eq!(*finished, "flux-job: cannot debug job that has finished running");
        }
        _ => panic!("{said}"),
    }
    assert_eq!(section("debugged"), ["released", "released", "continued", "named"]);
    assert_eq!(section("tail"), ["3 4 5 6 7 8 9 10 11 12 ", "11 12 "]);
    let programs = [
        "1 0",
        "first",
        "0: echo first",
        "1: echo 1 0",
        "flux-multi-prog: ERROR: programs: No matching line for rank 2",
    ];
    assert_eq!(section("programs"), programs);
    // Each push goes before what was pushed earlier.
    let cleaned = std::fs::read_to_string(dir.path().join("cleaned")).unwrap();
    assert_eq!(cleaned, "one\n", "{said}");
}
