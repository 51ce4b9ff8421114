//! Terminals that outlive who started them, on two brokers. The programs are those of the same
//! build: run `cargo build --workspace` first.
#![allow(clippy::unwrap_used, reason = "a test")]

mod script;

/// The user is `UID` in what it says, whoever that is.
fn run(script: &str) -> String {
    let uid = nix::unistd::getuid().to_string();
    let said = script::run(script);
    said.replace(&format!("{uid}-terminus"), "UID-terminus").replace('\r', "")
}

#[test]
fn sessions_are_started_listed_and_killed_on_any_rank() {
    let said = run("
sessions() { flux terminus list \"$@\" | sed 's/ since .*//; s/ (created .*//'; }
flux terminus list
flux terminus start -d sleep 3600
flux terminus start -d -n second
sessions
flux terminus kill 0
sessions
flux terminus kill-server
flux exec -r 1 flux terminus start -d
flux terminus start -d -r 1 -n more
sessions -r 1
flux terminus kill-server -r 1
flux terminus list -r 1
flux terminus start -d -r 1
flux terminus start -d -s other cat
sessions -s other
flux terminus kill-server -s other
flux terminus list
flux terminus start -d -s a.b
flux terminus attach x
flux terminus start -d /no/such/program
FLUX_TERMINUS_SESSION=0 flux terminus start true || true
");
    assert_eq!(
        said,
        "flux-terminus: no server running at UID-terminus
server at UID-terminus running on rank 0
2 current sessions:
0: [sleep] 0 clients
1: [second] 0 clients
server at UID-terminus running on rank 0
1 current session:
1: [second] 0 clients
server at UID-terminus running on rank 1
2 current sessions:
0: [/bin/sh] 0 clients
1: [more] 0 clients
flux-terminus: no server running at UID-terminus
flux-terminus: Unable to start a new server with --rank option
server at other running on rank 0
1 current session:
0: [cat] 0 clients
flux-terminus: no server running at UID-terminus
flux-terminus: Failed to start a new server: a.b: Invalid argument
flux-terminus: session ID must be an integer
flux-terminus: Failed to start new session: failed to run /no/such/program: No such file or \
         directory
flux-terminus: Nesting flux-terminus sessions not supported
"
    );
}

#[test]
fn who_attaches_sees_what_a_session_shows_and_how_it_ends() {
    let said = run("
attach() { flux terminus attach \"$@\" | sed 's/\\x1b\\[[0-9]*[A-Za-z]//g' | grep -v '^$'; }
flux terminus start -w -d sh -c 'echo shown; exit 7'
flux terminus list | grep -o 'sh.*clients'
flux terminus attach 0 >out </dev/null
echo $? $(head -n 1 out)
flux terminus start -w -d sh -c 'kill -INT $$'
flux terminus attach 0 >/dev/null </dev/null
echo $?
until ! flux terminus list >/dev/null 2>&1; do sleep 0.1; done
flux terminus start -d sh -c 'read line; echo \"got $line\"; read line; exit 3'
flux terminus attach 0 >out </dev/null &
until flux terminus list | grep -q ' 1 clients'; do sleep 0.1; done
echo hello | flux terminus attach -p 0
until grep -q 'got hello' out; do sleep 0.1; done
kill -USR1 $!
wait $!
echo detached $? $(grep -c 'Client requested detach' out)
echo end | flux terminus attach -p 0
until ! flux terminus list >/dev/null 2>&1; do sleep 0.1; done
flux terminus attach 0
flux terminus start -d sleep 3600
printf '\\034' | flux terminus attach 0 | grep -o 'Client requested detach'
flux terminus kill-server
true
");
    assert_eq!(
        said,
        "sh] (exited) 0 clients
7 shown
130
detached 0 1
flux-terminus: Invalid session or server at UID-terminus.0
Client requested detach
"
    );
}
