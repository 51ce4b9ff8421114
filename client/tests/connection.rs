//! A client against a broker that the test plays.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use flux_client::{Client, OpenError, Request, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::frame;
use flux_protocol::message::{Flags, Kind, Message, Nodeid, text_payload};
use flux_protocol::rpc::attr;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

struct Listener {
    dir: TempDir,
    listener: UnixListener,
}

/// The broker's end of one connection.
struct Peer {
    stream: UnixStream,
    inbox: BytesMut,
}

impl Listener {
    fn new() -> Listener {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("local-0")).unwrap();
        Listener { dir, listener }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("local-0")
    }

    fn uri(&self) -> String {
        format!("local://{}", self.socket().display())
    }

    async fn accept(&self, verdict: u8) -> Peer {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.write_u8(verdict).await.unwrap();
        Peer { stream, inbox: BytesMut::new() }
    }
}

impl Peer {
    async fn recv(&mut self) -> Message {
        loop {
            if let Some(message) = frame::decode(&mut self.inbox, 1 << 20).unwrap() {
                return message;
            }
            assert_ne!(self.stream.read_buf(&mut self.inbox).await.unwrap(), 0);
        }
    }

    async fn send(&mut self, message: &Message) {
        let mut out = BytesMut::new();
        frame::encode(message, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }
}

async fn connect() -> (Client, Peer) {
    let listener = Listener::new();
    let uri = listener.uri();
    let (client, peer) = tokio::join!(Client::open(Some(&uri)), listener.accept(0));
    (client.unwrap(), peer)
}

fn value(text: &str) -> Option<bytes::Bytes> {
    Some(text_payload(&format!(r#"{{"value":"{text}","flags":1}}"#)))
}

fn get(name: &str) -> attr::GetRequest {
    attr::GetRequest { name: name.to_owned() }
}

#[tokio::test]
async fn responses_reach_their_requests_in_any_order() {
    let (client, mut peer) = connect().await;
    let first = client.start::<attr::Get>(Nodeid::ANY, &get("a")).unwrap();
    let second = client.start::<attr::Get>(Nodeid(3), &get("b")).unwrap();
    let a = peer.recv().await;
    let b = peer.recv().await;
    assert_eq!((a.matchtag().0, b.matchtag().0), (1, 2));
    assert_eq!((a.nodeid(), b.nodeid()), (Nodeid::ANY, Nodeid(3)));
    peer.send(&Message::response(&b, 0, value("B"))).await;
    peer.send(&Message::response(&a, 0, value("A"))).await;
    assert_eq!(first.await.unwrap().value, "A");
    assert_eq!(second.await.unwrap().value, "B");
}

#[tokio::test]
async fn error_response_gives_errno_and_the_services_words() {
    let (client, mut peer) = connect().await;
    let calls = async {
        for text in [Some(text_payload("unknown attribute")), None] {
            let request = peer.recv().await;
            peer.send(&Message::response(&request, Errno::ENOENT.0, text)).await;
        }
    };
    let answers = async {
        let with_text = client.rpc::<attr::Get>(Nodeid::ANY, &get("a")).await.unwrap_err();
        let without = client.rpc::<attr::Get>(Nodeid::ANY, &get("a")).await.unwrap_err();
        (with_text, without)
    };
    let ((), (with_text, without)) = tokio::join!(calls, answers);
    assert_eq!(with_text.errno(), Errno::ENOENT);
    assert_eq!(with_text.to_string(), "unknown attribute");
    assert_eq!(without.to_string(), "No such file or directory");
}

#[tokio::test]
async fn tag_of_a_dropped_request_is_not_reused_before_its_response() {
    let (client, mut peer) = connect().await;
    drop(client.start::<attr::Get>(Nodeid::ANY, &get("a")).unwrap());
    let a = peer.recv().await;
    let second = client.start::<attr::Get>(Nodeid::ANY, &get("b")).unwrap();
    let b = peer.recv().await;
    assert_eq!((a.matchtag().0, b.matchtag().0), (1, 2));
    peer.send(&Message::response(&a, 0, value("A"))).await;
    peer.send(&Message::response(&b, 0, value("B"))).await;
    assert_eq!(second.await.unwrap().value, "B");
    let _third = client.start::<attr::Get>(Nodeid::ANY, &get("c")).unwrap();
    assert_eq!(peer.recv().await.matchtag().0, 1);
}

#[tokio::test]
async fn tag_of_an_answered_request_is_not_reused_before_the_answer_was_seen() {
    let (client, mut peer) = connect().await;
    let unseen = client.start::<attr::Get>(Nodeid::ANY, &get("unseen")).unwrap();
    let stream = client.stream_raw(Request::new("a.stream")).unwrap();
    let unseen_request = peer.recv().await;
    let stream_request = peer.recv().await;
    peer.send(&Message::response(&unseen_request, 0, value("unseen"))).await;
    peer.send(&Message::response(&stream_request, Errno::ENODATA.0, None)).await;
    // Its answer comes after both, so they have been delivered when it is there.
    let last = get("last");
    let ask = client.rpc::<attr::Get>(Nodeid::ANY, &last);
    let answer = async {
        let request = peer.recv().await;
        peer.send(&Message::response(&request, 0, value("last"))).await;
    };
    assert_eq!(tokio::join!(ask, answer).0.unwrap().value, "last");

    let next = client.start::<attr::Get>(Nodeid::ANY, &get("next")).unwrap();
    let after = client.start::<attr::Get>(Nodeid::ANY, &get("after")).unwrap();
    // To take leave of the old ones must not touch the new ones.
    drop((unseen, stream));
    let (next_request, after_request) = (peer.recv().await, peer.recv().await);
    let tags = [&unseen_request, &stream_request, &next_request, &after_request];
    assert_eq!(tags.map(|request| request.matchtag().0), [1, 2, 3, 4]);
    peer.send(&Message::response(&next_request, 0, value("next"))).await;
    peer.send(&Message::response(&after_request, 0, value("after"))).await;
    assert_eq!(next.await.unwrap().value, "next");
    assert_eq!(after.await.unwrap().value, "after");

    // What was left is free again.
    let lowest = client.start::<attr::Get>(Nodeid::ANY, &get("lowest")).unwrap();
    assert_eq!(peer.recv().await.matchtag().0, 1);
    drop(lowest);
}

#[tokio::test]
async fn stream_ends_with_enodata_and_its_tag_is_free_then() {
    let (client, mut peer) = connect().await;
    let mut stream = client.stream_raw(Request::new("log.dmesg")).unwrap();
    let request = peer.recv().await;
    assert!(request.is_streaming());
    peer.send(&Message::response(&request, 0, Some(text_payload("one")))).await;
    peer.send(&Message::response(&request, Errno::ENODATA.0, None)).await;
    assert!(stream.next().await.unwrap().is_some());
    assert!(stream.next().await.unwrap().is_none());
    assert!(stream.next().await.unwrap().is_none());
    let _again = client.stream_raw(Request::new("log.dmesg")).unwrap();
    assert_eq!(peer.recv().await.matchtag(), request.matchtag());
}

#[tokio::test]
async fn cancel_names_the_stream_and_wants_no_response() {
    let (client, mut peer) = connect().await;
    let stream = client.stream_raw(Request::new("kvs-watch.lookup").to(Nodeid(2))).unwrap();
    let request = peer.recv().await;
    stream.cancel("kvs-watch.cancel").unwrap();
    let cancel = peer.recv().await;
    assert_eq!(cancel.topic.as_str(), "kvs-watch.cancel");
    assert_eq!(cancel.nodeid(), Nodeid(2));
    assert!(!cancel.wants_response());
    assert_eq!(cancel.matchtag().0, 0);
    let expected = format!("{{\"matchtag\":{}}}\0", request.matchtag().0);
    assert_eq!(cancel.payload.unwrap(), expected.as_bytes());
}

#[tokio::test]
async fn closed_connection_fails_whoever_waits_in_clear_words() {
    let (client, mut peer) = connect().await;
    let pending = client.start::<attr::Get>(Nodeid::ANY, &get("a")).unwrap();
    let mut stream = client.stream_raw(Request::new("log.dmesg")).unwrap();
    peer.recv().await;
    peer.recv().await;
    drop(peer);
    let error = pending.await.unwrap_err();
    assert_eq!(error.errno(), Errno::ECONNRESET);
    assert_eq!(error.to_string(), "the Flux broker closed the connection");
    assert!(matches!(stream.next().await, Err(RpcError::Disconnected(_))));
    assert!(client.start::<attr::Get>(Nodeid::ANY, &get("a")).is_err());
}

#[tokio::test]
async fn garbage_from_the_broker_ends_the_connection() {
    let (client, mut peer) = connect().await;
    let pending = client.start::<attr::Get>(Nodeid::ANY, &get("a")).unwrap();
    peer.stream.write_all(b"this is no frame").await.unwrap();
    assert_eq!(pending.await.unwrap_err().errno(), Errno::EPROTO);
}

#[tokio::test]
async fn silent_service_is_given_up_after_the_limit() {
    let (client, _peer) = connect().await;
    let limit = Duration::from_millis(10);
    let error = client.rpc_within::<attr::Get>(limit, Nodeid::ANY, &get("a")).await.unwrap_err();
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
}

#[tokio::test]
async fn refused_user_gets_the_errno_of_the_handshake() {
    let listener = Listener::new();
    let uri = listener.uri();
    let (client, _peer) = tokio::join!(Client::open(Some(&uri)), listener.accept(1));
    assert!(matches!(client.unwrap_err(), OpenError::Refused(Errno::EPERM)));
}

#[tokio::test]
async fn socket_that_comes_a_little_late_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("local-0");
    let uri = format!("local://{}", socket.display());
    let late = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let listener = UnixListener::bind(&socket).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_u8(0).await.unwrap();
        stream
    };
    let (client, _stream) = tokio::join!(Client::open(Some(&uri)), late);
    client.unwrap();
}

#[tokio::test]
async fn events_go_to_subscriptions_with_a_matching_prefix() {
    let (client, mut peer) = connect().await;
    let broker = async {
        let request = peer.recv().await;
        assert_eq!(request.topic.as_str(), "event.subscribe");
        peer.send(&Message::response(&request, 0, None)).await;
        for topic in ["other", "heartbeat.pulse"] {
            peer.send(&Message::event(topic)).await;
        }
        peer
    };
    let (mut peer, events) = tokio::join!(broker, client.subscribe("heartbeat"));
    let mut events = events.unwrap();
    assert_eq!(events.next().await.unwrap().topic.as_str(), "heartbeat.pulse");
    drop(events);
    assert_eq!(peer.recv().await.topic.as_str(), "event.unsubscribe");
}

#[tokio::test]
async fn published_event_is_an_event_message() {
    let (client, mut peer) = connect().await;
    client.publish("a.b", Some(text_payload("{}")), Flags::PRIVATE).unwrap();
    let event = peer.recv().await;
    assert_eq!(event.kind, Kind::Event { seq: 0 });
    assert!(event.flags.contains(Flags::PRIVATE));
}

#[tokio::test]
async fn registered_service_answers_with_the_callers_route() {
    let (client, mut peer) = connect().await;
    let broker = async {
        let request = peer.recv().await;
        assert_eq!(request.topic.as_str(), "service.add");
        peer.send(&Message::response(&request, 0, None)).await;
        peer
    };
    let (mut peer, service) = tokio::join!(broker, client.register("mine"));
    let mut service = service.unwrap();
    let mut call = Message::request("mine.do", Nodeid::ANY, flux_protocol::message::Matchtag(7));
    call.routes.push("caller".into());
    peer.send(&call).await;
    let request = service.next().await.unwrap();
    service.refuse(&request, Errno::EINVAL, "no").unwrap();
    let response = peer.recv().await;
    assert_eq!(response.routes, call.routes);
    assert_eq!((response.matchtag().0, response.errnum()), (7, Errno::EINVAL.0));
}

#[tokio::test]
async fn untagged_answer_is_matched_by_topic() {
    let (client, mut peer) = connect().await;
    let broker = async {
        let request = peer.recv().await;
        assert!(!request.wants_response());
        peer.send(&Message::response(&request, 0, None)).await;
    };
    let call = client.rpc_untagged(Request::new("job-exec.shell-barrier"));
    let ((), answer) = tokio::join!(broker, call);
    answer.unwrap();
}

#[tokio::test]
async fn more_than_the_socket_takes_arrives_whole_and_in_order() {
    let (client, mut peer) = connect().await;
    let payload = vec![b'x'; 100_000];
    for n in 0..40 {
        let request = Request::new(format!("sink.{n}")).payload(Some(payload.clone().into()));
        client.notify_raw(request).unwrap();
    }
    for n in 0..40 {
        let message = peer.recv().await;
        assert_eq!(message.topic.as_str(), format!("sink.{n}"));
        assert_eq!(message.payload.unwrap().len(), payload.len());
    }
    client.flush().await.unwrap();
}
