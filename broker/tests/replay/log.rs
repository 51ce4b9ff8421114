//! `log.*`.

use std::time::Duration;

use flux_broker::attrs::Access;
use flux_broker::handle::Handle;
use flux_broker::services::attr::Attr;
use flux_broker::services::log::Log;
use flux_protocol::errno::Errno;
use flux_protocol::message::{Flags, Matchtag, Message, Nodeid, text_payload};
use flux_protocol::payload::{Payload, Text};
use flux_protocol::rpc::attr::{Set, SetRequest};
use flux_protocol::rpc::log::{CancelRequest, DmesgRequest};
use flux_protocol::stdlog::{Line, Severity};
use flux_replay::{Connection, Replay, Rules, Vector};

use crate::instance::{Instance, run};

const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn the_log_is_written_and_read_as_captured() {
    run(async {
        let instance = Instance::start().with::<Attr>().await.with::<Log>().await;
        let vector = Vector::load("dmesg-log").unwrap();
        let socket = instance.socket();
        let rules = Rules::default().any("count").any("local").any("remote");
        Replay::new(&vector, rules, &socket)
            .skip_run("flux dmesg | tail -5", "what the captured broker logged before")
            .play()
            .await
            .assert_equal();
        instance.sweep(|topic| topic.starts_with("log.")).await;
        instance.stop().await;
    });
}

#[test]
fn a_follower_gets_new_lines_and_is_ended_by_cancel() {
    run(async {
        let instance = Instance::start().with::<Log>().await;
        let log = instance.broker.log();
        log.append(Severity::Info, "early", "not wanted");
        let mut connection = instance.connect().await;
        let request = DmesgRequest { follow: true, nobacklog: true };
        connection.send(&streaming("log.dmesg", &request)).await.unwrap();
        ping(&mut connection).await;
        log.append(Severity::Info, "late", "first\nsecond");
        for expected in ["first", "second"] {
            let line = text_of(&mut connection).await;
            let line = Line::parse(&line).unwrap();
            assert_eq!((line.appname, line.text), ("late", expected));
        }
        let cancel = Message::request("log.cancel", Nodeid::ANY, Matchtag::NONE)
            .with_flags(Flags::NORESPONSE)
            .with_payload(CancelRequest { matchtag: 1 }.encode().unwrap());
        connection.send(&cancel).await.unwrap();
        let end = connection.next(TIMEOUT, |_| true).await.unwrap().unwrap();
        assert_eq!(end.errnum(), Errno::ENODATA.0);
        instance.stop().await;
    });
}

#[test]
fn a_reader_that_does_not_read_misses_lines_and_costs_no_memory() {
    run(async {
        let instance = Instance::start().with::<Log>().await;
        let log = instance.broker.log();
        let mut connection = instance.connect().await;
        let request = DmesgRequest { follow: true, nobacklog: true };
        connection.send(&streaming("log.dmesg", &request)).await.unwrap();
        ping(&mut connection).await;
        let text = "x".repeat(60_000);
        for _ in 0..300 {
            log.append(Severity::Info, "flood", &text);
            tokio::task::yield_now().await;
        }
        for number in 0..2000 {
            log.append(Severity::Info, "flood", &format!("line {number}"));
        }
        let mut lost = false;
        loop {
            let line = text_of(&mut connection).await;
            let line = Line::parse(&line).unwrap();
            lost |= line.text.ends_with("lines were lost to this reader, which is too slow");
            if line.text == "line 1999" {
                break;
            }
        }
        assert!(lost);
        instance.stop().await;
    });
}

#[test]
fn levels_and_ring_size_change_at_run_time() {
    run(async {
        let instance = Instance::start().with::<Attr>().await.with::<Log>().await;
        let file = instance.socket().with_file_name("flux.log");
        let set = async |name: &str, value: &str| {
            let request =
                SetRequest { name: name.to_owned(), value: value.to_owned(), force: false };
            let handle = Handle::new(instance.broker.router().clone());
            handle.rpc::<Set>(&request).await.unwrap();
        };
        instance.broker.attrs().put("log-filename", file.to_string_lossy(), Access::Runtime);
        set("log-ring-size", "3").await;
        set("log-level", "6").await;
        let beyond = SetRequest { name: "log-level".into(), value: "8".into(), force: true };
        let refused = Handle::new(instance.broker.router().clone()).rpc::<Set>(&beyond).await;
        assert!(refused.unwrap_err().to_string() == "invalid level");
        assert_eq!(instance.broker.attrs().get("log-level").as_deref(), Some("6"));
        let log = instance.broker.log();
        for number in 0..5 {
            log.append(Severity::Info, "app", &format!("info {number}"));
            log.append(Severity::Debug, "app", "not kept");
        }
        let mut connection = instance.connect().await;
        let request = DmesgRequest { follow: false, nobacklog: false };
        connection.send(&streaming("log.dmesg", &request)).await.unwrap();
        for number in 2..5 {
            let line = text_of(&mut connection).await;
            assert_eq!(Line::parse(&line).unwrap().text, format!("info {number}"));
        }
        let written = std::fs::read_to_string(&file).unwrap();
        assert_eq!(written.lines().count(), 10, "{written}");
        assert!(written.lines().all(|line| line.contains("Z app.")), "{written}");
        instance.stop().await;
    });
}

fn streaming(topic: &str, request: &impl Payload) -> Message {
    Message::request(topic, Nodeid::ANY, Matchtag(1))
        .with_flags(Flags::STREAMING)
        .with_payload(request.encode().unwrap())
}

async fn ping(connection: &mut Connection) {
    let ping = Message::request("log.ping", Nodeid::ANY, Matchtag(9))
        .with_payload(Some(text_payload("{}")));
    connection.send(&ping).await.unwrap();
    connection.next(TIMEOUT, |message| message.matchtag() == Matchtag(9)).await.unwrap().unwrap();
}

async fn text_of(connection: &mut Connection) -> String {
    let message = connection.next(TIMEOUT, |_| true).await.unwrap().unwrap();
    Text::decode(message.payload.as_ref()).unwrap().0
}
