//! Instances within instances: batch jobs, the loss of nodes under them, and how they end. The
//! programs are those of the same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};

const FLUX: &str = env!("CARGO_BIN_EXE_flux");

/// Common to all scripts: `until CONDITION` with a limit, and the process id of a broker.
const PRELUDE: &str = "set -e
export FLUX_URI_RESOLVE_LOCAL=t
until_true() {
    tries=0
    until \"$@\"; do
        tries=$((tries + 1))
        test $tries -lt 600 || { echo \"never: $*\" >&2; exit 1; }
        sleep 0.1
    done
}
broker_of() { flux exec -r $1 sh -c 'echo $PPID'; }
";

/// What a script prints that is the initial program of an instance of four nodes, all of them
/// below rank 0; it has a folder of its own.
fn run(script: &str) -> String {
    let broker = Path::new(FLUX).with_file_name("flux-broker");
    assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script.sh");
    std::fs::write(&path, format!("{PRELUDE}{script}")).unwrap();
    let programs = Path::new(FLUX).parent().unwrap().display().to_string();
    let search = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout")
        .args(["170", FLUX, "start", "-s4", "--test-exit-timeout=none", "--test-exit-mode=leader"])
        .args(["-o,-Stbon.topo=kary:0", "--test-pmi-clique=per-broker", "sh"])
        .arg(&path)
        .current_dir(dir.path())
        .env("PATH", search)
        .env("TMPDIR", dir.path())
        .env("LANG", "C.UTF-8")
        .env_remove("FLUX_URI")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    said.into_owned()
}

/// A batch script that says when it runs, and goes on until it is told.
const WAITING: &str = "cat >batch.sh <<'END'
#!/bin/sh
flux overlay status --wait=full --timeout=60s --summary >/dev/null
flux getattr broker.critical-ranks >critical
touch running
until test -e go; do sleep 0.1; done
END
";

#[test]
fn a_batch_instance_survives_the_loss_of_a_node_that_is_not_critical() {
    let said = run(&format!(
        "{WAITING}
id=$(flux batch -N4 -n4 -o exit-timeout=none -B-Stbon.topo=kary:2 batch.sh)
until_true test -e running
echo critical $(cat critical)
kill -9 $(broker_of 3)
flux job wait-event -t 60s -f text $id exception | cut -d' ' -f2-
flux jobs -no {{status_abbrev}} $id
touch go
flux job status $id && echo success
flux job eventlog $id | grep -c ' exception '
"
    ));
    let lines: Vec<&str> = said.lines().collect();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let note = format!(
        "exception type=\"node-failure\" severity=2 note=\"node failure on {} (shell rank 3)\" \
         userid={}",
        host.trim(),
        nix::unistd::getuid()
    );
    assert_eq!(lines, ["critical 0-1", &note, "R", "success", "1"]);
}

#[test]
fn a_batch_instance_ends_with_the_loss_of_a_critical_node() {
    let said = run(&format!(
        "{WAITING}
id=$(flux batch -N4 -n4 -B-Stbon.topo=kary:2 batch.sh)
until_true test -e running
kill -9 $(broker_of 1)
flux job wait-event -t 60s -m severity=0 $id exception | cut -d' ' -f2,3,4
flux job wait-event -t 60s $id clean >/dev/null
flux job status $id 2>/dev/null || echo failure
"
    ));
    assert_eq!(said, "exception type=\"node-failure\" severity=0\nfailure\n");
}

/// The shell of one node dies, and its node does not.
#[test]
fn a_job_hears_of_a_shell_that_was_killed() {
    let said = run("
id=$(flux submit -N4 -o exit-timeout=none sh -c \"
    flux pmi barrier
    test \\$FLUX_TASK_RANK = 2 && kill -9 \\$PPID
    while [ -d \\$PWD ]; do sleep 1; done\")
until_true sh -c \"flux job eventlog -p output $id | grep 'shell rank 2 (on .*): Killed' >lost\"
grep -o 'shell rank 2 (on .*): Killed' lost | sed 's/(on .*)/(on HOST)/'
flux cancel $id
flux job wait-event -t 60s $id clean >/dev/null
flux job eventlog -f text $id | grep -c ' exception '
");
    assert_eq!(said, "shell rank 2 (on HOST): Killed\n1\n");
}

/// The others may be waiting for it by then, or come to where they would wait for it later.
#[test]
fn a_job_ends_of_a_shell_that_dies_before_all_are_ready() {
    let said = run("
for wait in 0 1; do
    printf '#!/bin/sh\\ntest $(flux getattr rank) = 2 && { sleep '$wait'; kill -9 $$; }\\n' >shell
    printf 'exec %s \"$@\"\\n' $(command -v flux-shell) >>shell
    chmod +x shell
    id=$(flux submit -N4 --setattr=exec.job_shell=$PWD/shell true)
    flux job wait-event -t 60s $id clean >/dev/null && echo ended
    flux job status $id 2>/dev/null || echo failed
done
");
    assert_eq!(said, "ended\nfailed\nended\nfailed\n");
}

#[test]
fn a_batch_instance_that_is_shut_down_hangs_up_on_its_script_and_leaves_a_dump() {
    let said = run("
cat >batch.sh <<'END'
#!/bin/sh
flux kvs put here=yes
touch running
sleep 3600
END
id=$(flux batch -n1 -B-Scontent.dump=$PWD/dump.tar --conf=tbon.fanout=3 batch.sh)
until_true test -e running
flux proxy $id flux config get tbon.fanout
flux shutdown --quiet $id
flux job attach $id >/dev/null 2>&1 || echo $?
tar -tf dump.tar | grep here
");
    assert_eq!(said, "3\n129\nhere\n");
}

/// A client that comes to a proxy whose instance has gone is told, and does not wait.
#[test]
fn a_proxy_without_its_instance_refuses_clients() {
    let said = run("
id=$(flux batch -n1 --wrap sleep 3600)
flux uri --wait $id >/dev/null
cat >inside.sh <<'END'
flux --parent cancel $(flux getattr jobid)
while flux getattr jobid >/dev/null; do sleep 0.1; done
echo refused
END
flux proxy --nohup $id sh ./inside.sh 2>err
grep -c 'Lost connection' err
");
    assert_eq!(said, "refused\n1\n");
}

#[test]
fn instances_nest_and_know_their_level_their_resources_and_their_parent() {
    let said = run("
cat >inner.sh <<'END'
#!/bin/sh
echo level $(flux getattr instance-level) cores $(flux resource list -s all -no '{ncores}')
if test $(flux getattr instance-level) -lt 3; then
    level=$(flux getattr instance-level)
    id=$(flux batch -n1 --output=out-$level inner.sh)
    flux job wait-event -t 100s $id clean >/dev/null
    cat out-$level
fi
END
id=$(flux batch -n2 -N2 --output=first inner.sh)
flux job wait-event -t 100s $id clean >/dev/null
cat first
");
    assert_eq!(said, "level 1 cores 2\nlevel 2 cores 1\nlevel 3 cores 1\n");
}

#[test]
fn an_instance_that_looks_at_its_hardware_ends_with_its_job_all_the_same() {
    let said = run("
left='flux run flux job timeleft'
conf=--conf=resource.rediscover=true
limited=$(flux alloc -n1 -t 1h -o cpu-affinity=off $conf $left)
test $limited -gt 3000 && test $limited -le 3600 && echo limited
test $(flux alloc -n1 -o cpu-affinity=off $conf $left) -ge 4294967295 && echo unlimited
");
    assert_eq!(said, "limited\nunlimited\n");
}

/// Its node is given to others, so nothing of the job may be left there.
#[test]
fn tasks_end_with_the_broker_that_runs_them() {
    let said = run("
id=$(flux submit -N4 sh -c 'echo $$ >pid-$FLUX_TASK_RANK; exec sleep 3600')
until_true test -s pid-0 -a -s pid-1 -a -s pid-2 -a -s pid-3
kill -9 $(broker_of 2)
gone() { ! grep -q 'State:.[RSD]' /proc/$1/status 2>/dev/null; }
for rank in 0 1 2 3; do until_true gone $(cat pid-$rank); done
flux job wait-event -t 60s $id clean >/dev/null
flux job eventlog $id | grep -c 'type=\"node-failure\" severity=0'
");
    assert_eq!(said, "1\n");
}

/// Whoever got the nodes for a batch job is their master, and nobody else's.
#[test]
fn the_owner_of_a_batch_instance_changes_it_and_not_the_one_around_it() {
    let said = run("
cat >inner.sh <<'END'
#!/bin/sh
echo '[policy.limits]' >limits.toml
echo 'duration = \"1h\"' >>limits.toml
flux queue stop 2>/dev/null
flux resource drain 0 inside
flux config load limits.toml
flux queue status 2>&1 | grep -c disabled
flux resource status -s drain -no '{ranks}'
flux config get policy.limits.duration
END
id=$(flux batch -n2 -N2 --output=inside inner.sh)
flux job wait-event -t 60s $id clean >/dev/null
cat inside
echo around
flux queue status 2>&1 | grep -c disabled || true
flux resource status -s drain -no '{nnodes}'
flux config get --default=none policy.limits.duration
");
    assert_eq!(said, "1\n0\n1h\naround\n0\n0\nnone\n");
}

#[test]
fn jobs_of_batch_jobs_are_listed_with_theirs_and_drawn_as_a_tree() {
    let said = run("
cat >inner.sh <<'END'
#!/bin/sh
id=$(flux submit -n1 --job-name=inner sleep 1000)
flux job wait-event $id start >/dev/null
flux job list-ids --wait-state=run $id >/dev/null
touch running
until test -e go; do sleep 0.1; done
flux cancel $id
END
id=$(flux batch -n1 --job-name=outer inner.sh)
until_true test -e running
flux jobs -R -no '{name}' | sed \"s/$id/ID/\"
echo one level
flux jobs -R -L0 -no '{name}'
flux jobs -no '{instance.stats.running} {instance.resources.all.ncores}' $id
flux pstree
flux pstree --ascii -nx | sed 's/.* //'
flux pstree -nL0 -d stats | tr -s ' ' | cut -d' ' -f3-6
touch go
");
    assert_eq!(
        said,
        "outer\n\nID:\ninner\none level\nouter\n1 1\n.\n└── outer\n    └── inner\n\
         outer\ninner\nPD:0 R:1 CD:0 F:0\n",
        "{said}"
    );
}

/// With nobody's leave but the owner's, who has the user's.
#[test]
fn users_load_plugins_of_their_own_into_their_own_instances() {
    let plugin =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins-wasm/dist/submit-hold.wasm");
    let said = run(&format!(
        "
install -m 644 {} mine.wasm
cat >inner.sh <<'END'
#!/bin/sh
flux jobtap load $PWD/mine.wasm
flux jobtap list | grep mine
flux jobs -no '{{urgency}} {{state}}' $(flux submit true)
END
flux batch -n1 --output=inside inner.sh >/dev/null
flux job wait-event -t 60s $(flux job last) clean >/dev/null
cat inside
flux jobtap list | grep -c mine || true
",
        plugin.display()
    ));
    assert_eq!(said, "mine.wasm\n0 SCHED\n0\n");
}
