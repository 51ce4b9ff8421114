//! `rexec.*`.

use std::collections::BTreeMap;
use std::time::Duration;

use flux_broker::handle::Handle;
use flux_broker::services::attr::Attr;
use flux_broker::services::rexec::Rexec;
use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::payload::Empty;
use flux_protocol::rpc::rexec as rpc;
use flux_protocol::rpc::rexec::{ExecResponse, Io, flags};
use flux_replay::{Replay, Rules, Vector};

use crate::instance::{Instance, run};

#[test]
fn processes_are_run_as_captured() {
    run(async {
        let instance = Instance::start().with::<Attr>().await.with::<Rexec>().await;
        let vector = Vector::load("exec").unwrap();
        let socket = instance.socket();
        let hostname = nix::unistd::gethostname().unwrap().into_string().unwrap();
        let rules = Rules::default()
            .at_rank(0)
            .bind("pid")
            .any("rank")
            .any("state")
            .unordered("rexec.exec")
            .place("$PREFIX", "/usr")
            .text(move |text| match text.trim_end() {
                host if host == hostname || host == "vm" => "HOST".to_owned(),
                _ => text.to_owned(),
            });
        Replay::new(&vector, rules, &socket)
            // Whether a second signal still finds the process is a matter of luck.
            .ignore(|row, _| (row.line == 161) || (row.line == 167))
            .play()
            .await
            .assert_equal();
        instance.sweep(|topic| topic.starts_with("rexec.") && topic != "rexec.shutdown").await;
        instance.stop().await;
    });
}

#[test]
fn input_flows_by_credit_and_output_comes_back_whole() {
    run(async {
        let instance = Instance::start().with::<Rexec>().await;
        let handle = Handle::new(instance.broker.router().clone());
        let mut request = exec(&["cat"], flags::STDOUT | flags::WRITE_CREDIT);
        request.cmd.opts.insert("stdin_BUFSIZE".to_owned(), "1K".to_owned());
        let mut stream = handle.stream::<rpc::Exec>(Nodeid::ANY, &request).unwrap();
        assert!(matches!(stream.next().await.unwrap(), ExecResponse::Started { .. }));
        let (mut sent, mut received) = (0, String::new());
        let line = "x".repeat(99) + "\n";
        loop {
            match stream.next().await {
                Ok(ExecResponse::AddCredit { channels }) => {
                    let mut credit = channels["stdin"];
                    while credit >= 100 && sent < 500 {
                        let tag = stream.matchtag().0;
                        write(&handle, tag, "stdin", &line, sent == 499);
                        (credit, sent) = (credit - 100, sent + 1);
                    }
                }
                Ok(ExecResponse::Output { io, .. }) => {
                    received.push_str(io.data.as_deref().unwrap_or_default());
                }
                Ok(_) => {}
                Err(failure) => {
                    assert_eq!(failure.errno, Errno::ENODATA);
                    break;
                }
            }
        }
        assert_eq!(received, line.repeat(500));
        instance.stop().await;
    });
}

#[test]
fn more_input_than_credit_is_fatal() {
    run(async {
        let instance = Instance::start().with::<Rexec>().await;
        let handle = Handle::new(instance.broker.router().clone());
        let mut request = exec(&["sleep", "60"], 0);
        request.cmd.opts.insert("stdin_BUFSIZE".to_owned(), "10".to_owned());
        let mut stream = handle.stream::<rpc::Exec>(Nodeid::ANY, &request).unwrap();
        assert!(matches!(stream.next().await.unwrap(), ExecResponse::Started { .. }));
        write(&handle, stream.matchtag().0, "stdin", "more than ten bytes", false);
        let failure = stream.next().await.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOSPC);
        instance.stop().await;
    });
}

#[test]
fn channels_reach_the_process_and_nothing_else_of_the_broker_does() {
    run(async {
        let instance = Instance::start().with::<Rexec>().await;
        let handle = Handle::new(instance.broker.router().clone());
        let script =
            "read line <&$TEST_FD; echo \"got $line\" >&$TEST_FD; ls /proc/self/fd | wc -l";
        let mut request = exec(&["bash", "-c", script], flags::STDOUT | flags::CHANNEL);
        request.cmd.channels.push("TEST_FD".to_owned());
        let mut stream = handle.stream::<rpc::Exec>(Nodeid::ANY, &request).unwrap();
        assert!(matches!(stream.next().await.unwrap(), ExecResponse::Started { .. }));
        write(&handle, stream.matchtag().0, "TEST_FD", "hello\n", false);
        let mut output = BTreeMap::<String, String>::new();
        while let Ok(response) = stream.next().await {
            if let ExecResponse::Output { io, .. } = response {
                output.entry(io.stream).or_default().push_str(&io.data.unwrap_or_default());
            }
        }
        assert_eq!(output["TEST_FD"], "got hello\n");
        // The three standard ones, the channel, and the folder that ls reads.
        assert_eq!(output["stdout"].trim(), "5");
        instance.stop().await;
    });
}

#[test]
fn foreground_processes_end_with_their_client_and_background_ones_do_not() {
    run(async {
        let instance = Instance::start().with::<Rexec>().await;
        let handle = Handle::new(instance.broker.router().clone());
        let background = exec(&["sleep", "60"], 0);
        let started = handle.rpc::<rpc::Exec>(&background).await.unwrap();
        let ExecResponse::Started { pid: kept } = started else { panic!("{started:?}") };
        let owner = Handle::new(instance.broker.router().clone());
        let request = exec(&["sleep", "60"], 0);
        let mut stream = owner.stream::<rpc::Exec>(Nodeid::ANY, &request).unwrap();
        let started = stream.next().await.unwrap();
        let ExecResponse::Started { pid: killed } = started else { panic!("{started:?}") };
        assert_eq!(pids(&handle).await, [kept, killed]);
        owner.notify::<rpc::Disconnect>(Nodeid::ANY, Flags::default(), &Empty).unwrap();
        wait_until(async || pids(&handle).await == [kept]).await;
        let kill = rpc::KillRequest { pid: kept, label: None, signum: 15 };
        handle.rpc::<rpc::Kill>(&kill).await.unwrap();
        wait_until(async || pids(&handle).await.is_empty()).await;
        instance.stop().await;
    });
}

#[test]
fn a_client_attaches_to_a_background_process_and_reaps_it() {
    run(async {
        let instance = Instance::start().with::<Rexec>().await;
        let handle = Handle::new(instance.broker.router().clone());
        let fifo = instance.socket().with_file_name("go");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!("echo before; read x <{0}; echo after; exit 3", fifo.display());
        let mut request = exec(&["sh", "-c", &script], flags::WAITABLE);
        request.cmd.label = Some("bg".to_owned());
        handle.rpc::<rpc::Exec>(&request).await.unwrap();
        let twice = handle.rpc::<rpc::Exec>(&request).await.unwrap_err();
        assert_eq!(twice, Failure::new(Errno::EEXIST, "command label is not unique"));
        let attach = rpc::AttachRequest {
            pid: -1,
            flags: flags::STDOUT | flags::STDERR,
            label: Some("bg".to_owned()),
        };
        let mut stream = handle.stream::<rpc::Attach>(Nodeid::ANY, &attach).unwrap();
        let attached = stream.next().await.unwrap();
        assert!(matches!(attached, ExecResponse::Attached { .. }), "{attached:?}");
        let mut second = handle.stream::<rpc::Attach>(Nodeid::ANY, &attach).unwrap();
        assert_eq!(second.next().await.unwrap_err().errno, Errno::EBUSY);
        let wait = rpc::WaitRequest { pid: -1, label: Some("bg".to_owned()) };
        assert_eq!(handle.rpc::<rpc::Wait>(&wait).await.unwrap_err().errno, Errno::EBUSY);
        tokio::task::spawn_blocking(move || std::fs::write(fifo, "go\n").unwrap()).await.unwrap();
        let (mut output, mut ends, mut status) = (String::new(), 0, None);
        while let Ok(response) = stream.next().await {
            match response {
                ExecResponse::Output { io, .. } => {
                    output.push_str(&io.data.unwrap_or_default());
                    ends += u32::from(io.eof);
                }
                ExecResponse::Finished { status: finished } => status = Some(finished),
                _ => {}
            }
        }
        // What came before the client attached is not told again.
        assert!(output.ends_with("after\n"), "{output}");
        assert_eq!((ends, status), (2, Some(3 << 8)));
        assert!(pids(&handle).await.is_empty());
        instance.stop().await;
    });
}

#[test]
fn a_missing_program_or_label_is_told_in_the_words_of_flux() {
    run(async {
        let instance = Instance::start().with::<Rexec>().await;
        let handle = Handle::new(instance.broker.router().clone());
        let launch = handle.rpc::<rpc::Exec>(&exec(&["/etc/passwd"], 0)).await.unwrap_err();
        assert_eq!(
            launch,
            Failure::new(Errno::EACCES, "error launching process: Permission denied")
        );
        let bad = handle.rpc::<rpc::Exec>(&exec(&["true"], flags::WRITE_CREDIT)).await;
        assert_eq!(
            bad.unwrap_err().text.unwrap(),
            "write-credit flag is not allowed in background mode"
        );
        instance.stop().await;
    });
}

fn exec(argv: &[&str], flags: u32) -> rpc::ExecRequest {
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    rpc::ExecRequest {
        cmd: rpc::Command {
            cmdline: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            env,
            ..rpc::Command::default()
        },
        flags,
        local_flags: 0,
    }
}

fn write(handle: &Handle, matchtag: u32, stream: &str, data: &str, eof: bool) {
    let io = Io {
        stream: stream.to_owned(),
        rank: "0".to_owned(),
        data: Some(data.to_owned()),
        encoding: None,
        eof,
    };
    let request = rpc::WriteRequest { matchtag, io };
    handle.notify::<rpc::Write>(Nodeid::ANY, Flags::default(), &request).unwrap();
}

async fn pids(handle: &Handle) -> Vec<i64> {
    let list = handle.rpc::<rpc::List>(&Empty).await.unwrap();
    list.procs.into_iter().map(|process| process.pid).collect()
}

#[allow(clippy::panic)]
async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition did not come true");
}
