//! Commands that look after an instance: its processes, its store. The programs are those of the
//! same build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod script;

use script::run;

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
         flux-fsck: bad: missing blobref(s)\n\
         flux-fsck: Total errors: 1\n1\nflux-fsck: none: invalid blobref specified\n1\n"
    );
}

/// What is missing is cut out, and what is left of a value is in lost+found.
#[test]
fn a_store_with_missing_blobs_is_repaired() {
    let said = run(r#"
missing=sha1-0123456789012345678901234567890123456789
job=job.0000.0000.0000
for key in a.value $job.0001.log; do
    for n in 1 2 3; do flux kvs put --append $key=$(printf %0500d $n); done
done
flux kvs put $job.0001.R=r $job.0001.guest.x=y $job.0002.R=r kept=yes
for key in a.value $job.0001.log; do
    bad=$(flux kvs get --treeobj $key | sed "s/sha1-[0-9a-f]*/$missing/2")
    flux kvs put --treeobj $key="$bad"
done
flux kvs put --treeobj gone='{"ver":1,"type":"dirref","data":["'$missing'"]}'
flux kvs sync
flux fsck --repair
for module in job-manager job-ingest job-info job-list job-exec sched-simple resource cron; do
    flux module remove -f $module
done
flux module remove -f kvs-watch
flux module remove kvs
flux fsck --repair --job-aware 2>err | cut -c1-36 >out
sed 's/ to sha1-.*//' err
cat out
flux fsck -q
echo $?
flux module load kvs
flux kvs get lost+found.a.value | tr -d 0
flux kvs get lost+found.$job.0001.log | tr -d 0
flux kvs get lost+found.$job.0001.R lost+found.$job.0001.guest.x kept $job.0002.R
flux kvs ls $job
flux kvs ls a
flux kvs ls gone
true
"#);
    assert_eq!(
        said,
        "flux-fsck: please unload kvs module before using --repair
flux-fsck: gone: missing dirref blobref
flux-fsck: gone unlinked due to missing blobref
flux-fsck: a.value: missing blobref(s)
flux-fsck: a.value repaired and moved to lost+found
flux-fsck: job.0000.0000.0000.0001.log: missing blobref(s)
flux-fsck: job.0000.0000.0000.0001.log repaired and moved to lost+found
flux-fsck: job.0000.0000.0000.0001 moved to lost+found
flux-fsck: Updated primary checkpoint
flux-fsck: Total errors: 3
flux-fsck: Total repairs: 2
flux-fsck: Total unlinked directories: 1
Checking integrity of checkpoint fro
0
13
13
r
y
yes
r
0002
gone: No such file or directory
"
    );
}

#[test]
fn the_instance_in_a_job_of_another_batch_system_is_found() {
    let said = run(r#"
bin=$PWD/bin
mkdir $bin
cat >$bin/scontrol <<END
#!/bin/sh
test -z "\$AWAY" || exit 1
echo PID JOBID STEPID LOCALID GLOBALID
echo 1 7 0 1 1
echo $$ 7 0 0 0
END
cat >$bin/squeue <<'END'
#!/bin/sh
echo $NODES
END
cat >$bin/srun <<'END'
#!/bin/sh
echo ssh://$4/run/x
END
cat >$bin/csm <<'END'
#!/bin/sh
printf 'compute_nodes:\n - n3\n - n2\n'
END
cat >$bin/ssh <<'END'
#!/bin/sh
echo ssh://$1/run/$(basename $2)/$3/$5
END
chmod +x $bin/*
export PATH=$bin:$PATH CSM_ALLOCATION_QUERY=$bin/csm FLUX_SSH=$bin/ssh FLUX_SSH_RCMD=/x/flux
test "$(flux uri --local slurm:7)" = "$FLUX_URI" && echo here
AWAY=1 NODES=n[4-5] flux uri slurm:7
AWAY=1 flux uri slurm:7
flux uri lsf:8
flux uri 'lsf:8?is_compute'
LSB_JOBID=8 flux start sh -c 'flux uri "lsf:8?is_compute"' | grep -c ssh://
flux uri 'slurm:7?local&remote'
true
"#);
    assert_eq!(
        said,
        "here
ssh://n4/run/x
flux-uri: ERROR: empty nodelist returned for Slurm job 7
ssh://n2/run/flux/uri/'lsf:8?is_compute'
flux-uri: ERROR: no Flux broker of LSF job 8 runs here
1
flux-uri: ERROR: only one of 'local' and 'remote' can be asked for
"
    );
}

/// A site's TMPDIR is often such a place, like /var/tmp.
#[test]
fn a_tmpdir_that_everybody_may_write_to_is_used_as_it_is() {
    let said = run(r#"
mkdir shared && chmod 1777 shared
TMPDIR=$PWD/shared flux run sh -c 'test "$TMPDIR" = '$PWD'/shared && echo the same'
"#);
    assert_eq!(said, "the same\n");
}

#[test]
fn what_names_a_process_may_be_a_number_too_big_for_one_but_not_empty() {
    let said = run("
flux exec --label= true
echo $?
flux exec -r 0 --bg --label=4294967297 true >/dev/null
flux exec -r 0 --attach 4294967298 2>&1 | grep -o 'label 4294967298 does not.*'
");
    assert_eq!(
        said,
        "flux-exec: failed to set label: Invalid argument\n1\n\
         label 4294967298 does not belong to any subprocess\n"
    );
}

#[test]
fn counters_of_a_module_are_cleared_on_one_rank_or_on_all() {
    let said = run("
count() { flux exec -r $1 flux module stats --parse rx.request config; }
for option in --clear --clear-all; do
    for rank in 0 1; do flux exec -r $rank flux ping --count=20 config >/dev/null; done
    flux module stats $option config
    tries=0
    until [ $(count 0) -lt 20 ] || [ $tries -gt 100 ]; do tries=$((tries + 1)); done
    [ $(count 0) -lt 20 ] && echo cleared on 0
    [ $(count 1) -lt 20 ] && echo cleared on 1
done
flux module stats -Rself config | grep -c maxrss
flux module load cron --no-such-option || true
");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..4], ["cleared on 0", "cleared on 0", "cleared on 1", "1"], "{said}");
    // What comes behind the name is the module's.
    assert!(!said.contains("unrecognized option"), "{said}");
}
