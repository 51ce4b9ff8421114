//! Listing and control of jobs in one real instance. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::process::Command;

/// What is asked of the instance: a name for the answer, and a command of the shell. The jobs are
/// `$good` (ended well), `$bad` (exit code 3), `$held` and `$long` (running).
const QUESTIONS: &[(&str, &str)] = &[
    ("status", "flux jobs -no '{id.f58} {status_abbrev}' $good $bad $held $long"),
    ("failed", "flux jobs -f failed -no '{id.f58} {returncode} {inactive_reason}'"),
    ("counts", "flux jobs --stats-only; echo $?"),
    ("unknown", "flux jobs 1234; echo $?"),
    ("field", "flux jobs -o '{nope}'; echo $?"),
    ("json", "flux jobs --json $bad"),
    ("words", "flux jobs -no '{name}' $(flux job id --to=words $long)"),
    ("events", "flux job eventlog $good | cut -d' ' -f2 | tr '\\n' ' '"),
    ("wait-event", "flux job wait-event -q -t 60 $good clean; echo $?"),
    ("wait-never", "flux job wait-event -t 60 $good nope; echo $?"),
    ("code", "flux job status -v $good $bad; echo $?"),
    ("why-held", "flux job why $held"),
    ("why-runs", "flux job why $long"),
    ("urgency", "flux job urgency -v $held 0; flux job urgency $held 40"),
    ("urgency-late", "flux job urgency $long 5"),
    ("info", "flux job info $good jobspec | head -c 1; flux job info $good nope"),
    ("taskmap", "flux job taskmap $good; flux job taskmap --to=pmi '[[0,1,4,1]]'"),
    ("memo", "flux job memo $long note=hello; soon hello flux jobs -no '{user.note}' $long"),
    (
        "raise",
        "flux job raise -s 7 -t test $long look; flux job wait-event -q -t 60 $long exception; \
         flux job eventlog $long | grep -c look; echo \"<$(flux jobs -no '{exception.note}' $long)>\"",
    ),
    ("update", "flux update -v $held duration=1h; soon 1h flux jobs -no '{duration!F}' $held"),
    ("pgrep", "flux pgrep slee; flux pgrep nothing; echo $?"),
    ("tree", "flux pstree --ascii -L0"),
    (
        "reload",
        "allocated() { flux module stats sched-simple | grep -o '\"allocated\": [0-9]*'; }; \
         allocated; flux module reload sched-simple; soon '\"allocated\": 1' allocated",
    ),
    ("count", "flux job cancelall; flux cancel --all --dry-run"),
    ("pending", "flux job cancelall -s PENDING -f"),
    (
        "cancel",
        "flux job cancel $long why not; \
         for job in $long $held; do flux job wait-event -q -t 60 $job clean; done; \
         flux job list-ids --wait-state=inactive $long $held",
    ),
    ("canceled", "flux jobs -no '{status} {inactive_reason}' $long $held"),
    ("inactive", "flux cancel $good; echo $?"),
    ("watch", "flux watch $bad; echo $?"),
    ("input-late", "echo more | flux job attach $good; echo $?"),
    ("no-input-late", "flux job attach $good </dev/null; echo $?"),
    ("top", "flux top </dev/null; echo $?"),
    ("purge", "flux job purge --num-limit=0; flux job purge -f --num-limit=0"),
    (
        "idle",
        "soon '0 running, 0 completed, 0 failed, 0 pending, 4 inactive purged' \
         flux jobs --stats-only; flux jobs --stats-only >/dev/null; echo $?",
    ),
    (
        "rc-file",
        "for rc in initrc=/nonexistent userrc=/dev/null; do \
         flux run -o $rc true 2>&1 | grep -o 'loading rc file.*' | sort -u; done",
    ),
];

/// `soon TEXT COMMAND` repeats a command until it prints that text: listings follow events.
const SETUP: &str = r#"
flux() { "$FLUX_PROGRAM" "$@"; }
soon() {
    wanted=$1; shift
    for try in $(seq 600); do
        out=$("$@")
        [ "$out" = "$wanted" ] && break
        sleep 0.1
    done
    echo "$out"
}
good=$(flux submit true)
bad=$(flux submit sh -c 'echo output; exit 3')
held=$(flux submit --urgency=hold true)
long=$(flux submit sleep 300)
flux job wait-event -q -t 60 $good clean
flux job wait-event -q -t 60 $bad clean
flux job wait-event -q -t 60 $long start
flux job list-ids --wait-state=inactive $good $bad >/dev/null
flux job list-ids --wait-state=run $long >/dev/null
echo "== jobs"; echo "$good $bad $held $long"
"#;

fn answers() -> HashMap<String, String> {
    let flux = env!("CARGO_BIN_EXE_flux");
    let mut script = SETUP.to_owned();
    for (name, command) in QUESTIONS {
        script.push_str(&format!("echo '== {name}'\n{{ {command}\n}} 2>&1\n"));
    }
    let output = Command::new(flux)
        .args(["start", &script])
        .stdin(std::process::Stdio::null())
        .env("FLUX_PROGRAM", flux)
        .env("SHELL", "/bin/sh")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("== idle"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.split("== ")
        .filter_map(|part| part.split_once('\n'))
        .map(|(name, answer)| (name.to_owned(), answer.trim_end().to_owned()))
        .collect()
}

#[test]
fn jobs_are_listed_explained_and_controlled() {
    let answers = answers();
    let answer = |name: &str| answers.get(name).unwrap().as_str();
    let ids: Vec<&str> = answer("jobs").split(' ').collect();
    let [good, bad, held, long] = ids[..] else { panic!("{ids:?}") };
    let expected = [
        ("status", format!("{good} CD\n{bad} F\n{held} S\n{long} R")),
        ("failed", format!("{bad} 3 Exit 3")),
        ("counts", "1 running, 1 completed, 1 failed, 1 pending, 0 inactive purged\n0".into()),
        ("unknown", "JobID 1234 unknown\n1".into()),
        ("field", "flux-jobs: ERROR: Error in user format: Unknown format field: nope\n1".into()),
        ("words", "sleep".into()),
        ("events", "submit validate depend priority alloc start finish release free clean".into()),
        ("wait-event", "0".into()),
        ("wait-never", "flux-job: event 'nope' never received\n1".into()),
        (
            "code",
            format!(
                "flux-job: fetching status for 2 jobs\nflux-job: all done.\n\
                 flux-job: {bad}: exited with exit code 3\n3"
            ),
        ),
        (
            "why-held",
            format!("{held}: held: its urgency is 0; `flux job urgency ID default' releases it"),
        ),
        (
            "urgency",
            format!("old urgency: job held\nflux-job: {held}: urgency value is out of range"),
        ),
        (
            "urgency-late",
            format!("flux-job: {long}: urgency cannot be changed once resources are allocated"),
        ),
        ("info", "{flux-job: nope: key not found".into()),
        ("taskmap", "[[0,1,1,1]]\n(vector,(0,1,4))".into()),
        ("memo", "hello".into()),
        // Listings tell of exceptions when the job has come to its end.
        ("raise", "1\n<>".into()),
        ("update", "flux-update: INFO: updated attributes.system.duration to 3600.0\n1h".into()),
        ("pgrep", format!("{long}\n1")),
        ("tree", ".\n`-- sleep".into()),
        ("reload", "\"allocated\": 1\n\"allocated\": 1".into()),
        (
            "count",
            "flux-job: Command matched 2 jobs (-f to confirm)\nflux-cancel: Would cancel 2 jobs"
                .into(),
        ),
        ("pending", "flux-job: Canceled 1 jobs (0 errors)".into()),
        ("canceled", "CANCELED Canceled: why not\nCANCELED Canceled".into()),
        ("inactive", format!("flux-cancel: ERROR: {good}: job is inactive\n1")),
        ("watch", "output\n3".into()),
        ("input-late", "flux-job: stdin not accepted by job\n1".into()),
        ("no-input-late", "0".into()),
        ("top", "flux-top: stdin is not a terminal\n1".into()),
        (
            "purge",
            "use --force to purge 4 of 4 inactive jobs\npurged 4 inactive jobs, 0 remaining".into(),
        ),
        ("idle", "0 running, 0 completed, 0 failed, 0 pending, 4 inactive purged\n1".into()),
        (
            "rc-file",
            "loading rc file /nonexistent: No such file or directory\nloading rc file /dev/null: \
             this shell reads no rc files; submit without -o userrc"
                .into(),
        ),
    ];
    let wrong: Vec<_> = expected
        .iter()
        .filter(|(name, text)| answer(name) != text)
        .map(|(name, text)| (name, text, answer(name)))
        .collect();
    assert!(wrong.is_empty(), "what, expected, found: {wrong:#?}");
    assert!(answer("why-runs").starts_with(&format!("{long}: runs on ")), "{answers:?}");
    let json: serde_json::Value = serde_json::from_str(answer("json")).unwrap();
    assert_eq!((&json["status"], &json["returncode"]), (&"FAILED".into(), &3.into()));
}
