//! Pairs of transports over real sockets of this machine.

use std::cell::Cell;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet};

use super::*;
use crate::log::Severity;

const UUID: &str = "11111111-2222-3333-4444-555555555555";
const PARENT_UUID: &str = "99999999-2222-3333-4444-555555555555";

/// One broker's end. A certificate of its own unless one is given.
struct End {
    transport: Transport,
    events: Events,
    certificate: Certificate,
}

impl End {
    fn new(uuid: &str) -> End {
        End::with(uuid, Certificate::generate().unwrap(), |_| {})
    }

    fn with(uuid: &str, certificate: Certificate, adjust: impl Fn(&mut Options)) -> End {
        let mut options = Options::new(uuid.to_owned(), certificate.clone());
        adjust(&mut options);
        let (transport, events) = Transport::new(options).unwrap();
        End { transport, events, certificate }
    }

    fn key(&self) -> PublicKey {
        self.certificate.public_key()
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(Duration::from_secs(60), self.events.recv());
        event.await.expect("no event came")
    }

    /// The next event that is not a notice.
    async fn message(&mut self) -> Event {
        loop {
            match self.next().await {
                Event::Notice(_) => {}
                event => return event,
            }
        }
    }

    async fn notice(&mut self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            match self.next().await {
                Event::Notice(notice) if wanted(&notice) => return notice,
                Event::Notice(_) => {}
                other => panic!("not a notice: {other:?}"),
            }
        }
    }

    /// Keeps receiving, which handshakes need, and stores what came.
    fn run(mut self) -> JoinHandle<End> {
        tokio::task::spawn_local(async move {
            loop {
                self.events.recv().await;
            }
        })
    }
}

fn parts(texts: &[&str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
}

fn from_child(texts: &[&str]) -> Event {
    Event::FromChild { peer: Bytes::from(UUID), parts: parts(texts) }
}

/// A parent bound to `endpoint` and a child that may connect to it but has not.
fn pair(endpoint: &str) -> (End, End, String) {
    let parent = End::new(PARENT_UUID);
    let child = End::new(UUID);
    parent.transport.authorize("child", child.key());
    let bound = parent.transport.bind(&[endpoint]).unwrap();
    (parent, child, bound[0].clone())
}

async fn exchange(endpoint: &str) {
    let (mut parent, mut child, bound) = pair(endpoint);
    child.transport.connect(&bound, parent.key()).unwrap();
    child.transport.send_parent(&parts(&["", "overlay.hello", "{}"])).unwrap();
    assert_eq!(message_at(&mut parent, &mut child).await, from_child(&["", "overlay.hello", "{}"]));

    let big = "x".repeat(3 << 20);
    parent.transport.send_child(UUID.as_bytes(), &parts(&["", &big])).unwrap();
    let reply = message_at(&mut child, &mut parent).await;
    assert_eq!(reply, Event::FromParent { parts: parts(&["", &big]) });
}

/// The next message at `end`, while `other` goes on as well.
async fn message_at(end: &mut End, other: &mut End) -> Event {
    tokio::select! {
        message = end.message() => message,
        event = async { loop { if !matches!(other.next().await, Event::Notice(_)) { break } } } =>
            panic!("the other end got a message: {event:?}"),
    }
}

fn local(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

#[test]
fn parent_and_child_exchange_messages_over_tcp() {
    local(async || exchange("tcp://127.0.0.1:*").await);
}

#[test]
fn parent_and_child_exchange_messages_over_a_local_socket() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("ipc://{}/tbon-0", dir.path().display());
    local(async || exchange(&endpoint).await);
}

#[test]
fn wildcard_port_is_resolved() {
    local(async || {
        let end = End::new(UUID);
        let dir = tempfile::tempdir().unwrap();
        let ipc = format!("ipc://{}/tbon-0", dir.path().display());
        let bound = end.transport.bind(&["tcp://127.0.0.1:*", &ipc]).unwrap();
        let port = bound[0].strip_prefix("tcp://127.0.0.1:").unwrap();
        assert!(port.parse::<u16>().unwrap() > 0);
        assert_eq!(bound[1], ipc);
    });
}

#[test]
fn error_of_binding_names_the_endpoint() {
    local(async || {
        let end = End::new(UUID);
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("tcp://{}", taken.local_addr().unwrap());
        let error = end.transport.bind(&[&endpoint]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "error binding to {endpoint}: Address already in use; does another broker run on \
                 this host?"
            )
        );
        // An error number that the zmq crate has no name for.
        let error = end.transport.bind(&["ipc:///dev/null/tbon-0"]).unwrap_err();
        assert!(error.to_string().starts_with("error binding to ipc:///dev/null/tbon-0: "));
    });
}

#[test]
fn ten_thousand_messages_arrive_in_order_both_ways() {
    const COUNT: usize = 10_000;
    local(async || {
        let (mut parent, mut child, bound) = pair("tcp://127.0.0.1:*");
        child.transport.connect(&bound, parent.key()).unwrap();
        for n in 0..COUNT {
            child.transport.send_parent(&parts(&["", &n.to_string()])).unwrap();
        }
        let echo = tokio::task::spawn_local(async move {
            for _ in 0..COUNT {
                let Event::FromChild { peer, parts } = parent.message().await else {
                    panic!("not from the child")
                };
                parent.transport.send_child(&peer, &parts).unwrap();
            }
            parent
        });
        for n in 0..COUNT {
            let expected = Event::FromParent { parts: parts(&["", &n.to_string()]) };
            assert_eq!(child.message().await, expected);
        }
        echo.await.unwrap();
    });
}

#[test]
fn sending_to_nobody_is_answered_ehostunreach() {
    local(async || {
        let (parent, child, bound) = pair("tcp://127.0.0.1:*");
        let message = parts(&["", "x"]);
        let unknown = parent.transport.send_child(UUID.as_bytes(), &message);
        assert_eq!(unknown, Err(SendError::Unreachable));
        assert_eq!(unknown.unwrap_err().errno(), Errno::EHOSTUNREACH);
        assert_eq!(unknown.unwrap_err().to_string(), "No route to host");
        assert_eq!(parent.transport.send_parent(&message), Err(SendError::Unreachable));
        let unbound = child.transport.send_child(PARENT_UUID.as_bytes(), &message);
        assert_eq!(unbound, Err(SendError::Unreachable));
        child.transport.connect(&bound, parent.key()).unwrap();
        assert_eq!(child.transport.send_parent(&[]), Err(SendError::Empty));
    });
}

#[test]
fn parent_learns_that_a_child_is_gone_behind_its_last_message() {
    local(async || {
        let (mut parent, mut child, bound) = pair("tcp://127.0.0.1:*");
        child.transport.connect(&bound, parent.key()).unwrap();
        child.transport.send_parent(&parts(&["", "last"])).unwrap();
        assert_eq!(message_at(&mut parent, &mut child).await, from_child(&["", "last"]));

        drop(child);
        assert_eq!(parent.message().await, Event::ChildGone { peer: Bytes::from(UUID) });
        let sent = parent.transport.send_child(UUID.as_bytes(), &parts(&["", "x"]));
        assert_eq!(sent, Err(SendError::Unreachable));
    });
}

#[test]
fn child_learns_that_its_parent_is_gone() {
    local(async || {
        let (mut parent, mut child, bound) = pair("tcp://127.0.0.1:*");
        child.transport.connect(&bound, parent.key()).unwrap();
        child.transport.send_parent(&parts(&["", "x"])).unwrap();
        message_at(&mut parent, &mut child).await;
        drop(parent);
        child.notice(|notice| matches!(notice, Notice::ParentDisconnected { .. })).await;
        child.notice(|notice| matches!(notice, Notice::ParentUnreachable { .. })).await;
    });
}

#[test]
fn child_with_an_unknown_key_is_refused_and_both_sides_say_so() {
    local(async || {
        let (mut parent, _, bound) = pair("tcp://127.0.0.1:*");
        let mut stranger = End::new(UUID);
        let key = stranger.key();
        stranger.transport.connect(&bound, parent.key()).unwrap();
        stranger.transport.send_parent(&parts(&["", "let me in"])).unwrap();

        let at_parent = parent.notice(|n| matches!(n, Notice::ChildRefused { .. })).await;
        assert_eq!(
            at_parent.to_string(),
            format!("authentication of 127.0.0.1 refused: unknown public key {key}")
        );
        let parent = parent.run();
        let at_child = stranger.notice(|n| matches!(n, Notice::ParentRefused { .. })).await;
        assert_eq!(
            at_child.to_string(),
            format!(
                "authentication refused by parent {bound}: it does not know this broker's public \
                 key"
            )
        );
        let more = stranger.transport.send_parent(&parts(&["", "please"]));
        assert_eq!(more, Err(SendError::Unreachable));
        parent.abort();
    });
}

#[test]
fn refused_child_tries_again_and_is_let_in_once_its_key_is_known() {
    local(async || {
        let (mut parent, _, bound) = pair("tcp://127.0.0.1:*");
        let certificate = Certificate::generate().unwrap();
        let mut child = End::with(UUID, certificate, |options| {
            options.retry_after_refusal = Duration::from_millis(10);
        });
        let key = child.key();
        child.transport.connect(&bound, parent.key()).unwrap();
        parent.notice(|n| matches!(n, Notice::ChildRefused { .. })).await;
        parent.transport.authorize("late", key);
        let parent = parent.run();
        child.notice(|n| matches!(n, Notice::ParentRefused { .. })).await;
        child.notice(|n| matches!(n, Notice::ParentConnected { .. })).await;
        parent.abort();
    });
}

#[test]
fn child_with_another_shared_certificate_is_refused_and_both_sides_say_so() {
    local(async || {
        let mut parent = End::new(PARENT_UUID);
        parent.transport.authorize("cluster", parent.key());
        let bound = parent.transport.bind(&["tcp://127.0.0.1:*"]).unwrap();
        let mut child = End::new(UUID);
        // With one certificate for all, a child takes its own key for that of its parent.
        child.transport.connect(&bound[0], child.key()).unwrap();
        child.transport.send_parent(&parts(&["", "x"])).unwrap();

        let failed = |n: &Notice| matches!(n, Notice::ChildHandshakeFailed { .. });
        let at_parent = parent.notice(failed).await.to_string();
        assert!(at_parent.starts_with("authentication of tcp://127.0.0.1:"), "{at_parent}");
        assert!(at_parent.ends_with("is the certificate the same?"), "{at_parent}");
        let failed = |n: &Notice| matches!(n, Notice::ParentHandshakeFailed { .. });
        let at_child = child.notice(failed).await.to_string();
        assert!(at_child.starts_with(&format!("authentication with parent {}", bound[0])));
        assert!(at_child.ends_with("is the certificate the same?"), "{at_child}");
    });
}

#[test]
fn brokers_of_one_shared_certificate_find_each_other_whoever_starts_first() {
    local(async || {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = format!("ipc://{}/tbon-0", dir.path().display());
        let shared = Certificate::generate().unwrap();
        let mut child = End::with(UUID, shared.clone(), |_| {});
        child.transport.connect(&endpoint, shared.public_key()).unwrap();
        child.transport.send_parent(&parts(&["", "early"])).unwrap();
        let late = child.notice(|n| matches!(n, Notice::ParentUnreachable { .. })).await;
        assert_eq!(late.to_string(), format!("parent {endpoint} is not reachable, trying again"));

        let mut parent = End::with(PARENT_UUID, shared.clone(), |_| {});
        parent.transport.authorize("cluster", shared.public_key());
        parent.transport.bind(&[&endpoint]).unwrap();
        assert_eq!(message_at(&mut parent, &mut child).await, from_child(&["", "early"]));
    });
}

#[test]
fn child_that_takes_nothing_is_congested_and_does_not_block_others() {
    local(async || {
        let mut parent = End::with(PARENT_UUID, Certificate::generate().unwrap(), |options| {
            options.child_send_queue = 16;
        });
        let bound = parent.transport.bind(&["tcp://127.0.0.1:*"]).unwrap();
        let relay = Relay::to(&bound[0]).await;
        let mut stalled = End::new(UUID);
        let mut lively = End::new("lively");
        for child in [&stalled, &lively] {
            parent.transport.authorize("child", child.key());
        }
        stalled.transport.connect(&relay.endpoint, parent.key()).unwrap();
        stalled.transport.send_parent(&parts(&["", "x"])).unwrap();
        message_at(&mut parent, &mut stalled).await;
        lively.transport.connect(&bound[0], parent.key()).unwrap();
        lively.transport.send_parent(&parts(&["", "x"])).unwrap();
        message_at(&mut parent, &mut lively).await;

        relay.stop();
        let chunk = parts(&["", &"x".repeat(1 << 20)]);
        let mut sent = 0;
        while parent.transport.send_child(UUID.as_bytes(), &chunk).is_ok() {
            sent += 1;
            assert!(sent < 10_000, "the queue has no end");
            tokio::task::yield_now().await;
        }
        let error = parent.transport.send_child(UUID.as_bytes(), &chunk).unwrap_err();
        assert_eq!((error, error.errno()), (SendError::Congested, Errno::EAGAIN));

        parent.transport.send_child(b"lively", &parts(&["", "hello"])).unwrap();
        let reply = message_at(&mut lively, &mut parent).await;
        assert_eq!(reply, Event::FromParent { parts: parts(&["", "hello"]) });
    });
}

#[test]
fn child_that_sends_too_long_a_part_is_cut_off() {
    local(async || {
        let mut parent = End::with(PARENT_UUID, Certificate::generate().unwrap(), |options| {
            options.max_part_len = Some(100_000);
        });
        let mut child = End::new(UUID);
        parent.transport.authorize("child", child.key());
        let bound = parent.transport.bind(&["tcp://127.0.0.1:*"]).unwrap();
        child.transport.connect(&bound[0], parent.key()).unwrap();
        child.transport.send_parent(&parts(&["", &"x".repeat(50_000)])).unwrap();
        assert!(matches!(message_at(&mut parent, &mut child).await, Event::FromChild { .. }));
        child.transport.send_parent(&parts(&["", &"x".repeat(200_000)])).unwrap();
        let gone = message_at(&mut parent, &mut child).await;
        assert_eq!(gone, Event::ChildGone { peer: Bytes::from(UUID) });
    });
}

#[test]
fn message_of_countless_parts_is_dropped_and_the_next_one_arrives() {
    local(async || {
        let (mut parent, mut child, bound) = pair("tcp://127.0.0.1:*");
        child.transport.connect(&bound, parent.key()).unwrap();
        child.transport.send_parent(&vec![Bytes::from("part"); 5000]).unwrap();
        child.transport.send_parent(&parts(&["", "next"])).unwrap();
        let dropped = parent.notice(|n| matches!(n, Notice::ChildMalformed)).await;
        assert_eq!(dropped.severity(), Severity::Err);
        assert_eq!(message_at(&mut parent, &mut child).await, from_child(&["", "next"]));
    });
}

#[test]
fn nothing_is_lost_when_receiving_is_given_up_again_and_again() {
    local(async || {
        let (mut parent, child, bound) = pair("tcp://127.0.0.1:*");
        child.transport.connect(&bound, parent.key()).unwrap();
        for n in 0..1000 {
            child.transport.send_parent(&parts(&["", &n.to_string()])).unwrap();
        }
        let child = child.run();
        let mut expected = 0;
        while expected < 1000 {
            let event = tokio::select! {
                biased;
                event = parent.events.recv() => event,
                () = tokio::task::yield_now() => continue,
            };
            if let Event::FromChild { parts: got, .. } = event {
                assert_eq!(got, parts(&["", &expected.to_string()]));
                expected += 1;
            }
        }
        child.abort();
    });
}

#[test]
fn traffic_is_encrypted_on_the_wire() {
    const MARKER: &str = "MARKERMARKERMARKER";
    local(async || {
        let (mut parent, mut child, bound) = pair("tcp://127.0.0.1:*");
        let relay = Relay::to(&bound).await;
        child.transport.connect(&relay.endpoint, parent.key()).unwrap();
        child.transport.send_parent(&parts(&["", "kvs.put", MARKER])).unwrap();
        let request = message_at(&mut parent, &mut child).await;
        assert_eq!(request, from_child(&["", "kvs.put", MARKER]));
        parent.transport.send_child(UUID.as_bytes(), &parts(&["", MARKER])).unwrap();
        message_at(&mut child, &mut parent).await;

        let seen = relay.seen.borrow();
        assert!(seen.len() > 200, "only {} bytes went through the relay", seen.len());
        for secret in [MARKER, "kvs.put", UUID] {
            let found = seen.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} was seen on the wire");
        }
        // The greeting is in the clear: the relay does see what passes.
        assert!(seen.windows(5).any(|window| window == b"CURVE"));
    });
}

/// Passes bytes on between one child and the parent, and keeps a copy.
struct Relay {
    endpoint: String,
    seen: Rc<RefCell<Vec<u8>>>,
    stopped: Rc<Cell<bool>>,
}

impl Relay {
    async fn to(parent: &str) -> Relay {
        let address = parent.strip_prefix("tcp://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let relay = Relay { endpoint, seen: Rc::default(), stopped: Rc::default() };
        let (seen, stopped) = (relay.seen.clone(), relay.stopped.clone());
        tokio::task::spawn_local(async move {
            let (child, _) = listener.accept().await.unwrap();
            let parent = TcpStream::connect(&address).await.unwrap();
            let (child_read, child_write) = child.into_split();
            let (parent_read, parent_write) = parent.into_split();
            tokio::join!(
                pass_on(child_read, parent_write, &seen, &stopped),
                pass_on(parent_read, child_write, &seen, &stopped)
            );
        });
        relay
    }

    /// From now on the connections stay open but nothing goes through.
    fn stop(&self) {
        self.stopped.set(true);
    }
}

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    seen: &RefCell<Vec<u8>>,
    stopped: &Cell<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if stopped.get() {
            std::future::pending::<()>().await;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        seen.borrow_mut().extend_from_slice(&buffer[..count]);
    }
}
