//! Guests that flood the broker's socket, or don't read what it says.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use flux_guests::{ALICE, BOB, FLUX, as_user};
use flux_protocol::message::{Matchtag, Message, Nodeid};
use flux_protocol::{frame, payload};
use serde_json::json;

use super::host::Instance;

/// What a client may have unread is bounded at 256 MiB; beside it there is the broker itself.
const MEMORY_LIMIT_KIB: u64 = 700 << 10;

fn request(topic: &str, matchtag: u32, body: &serde_json::Value) -> BytesMut {
    let payload = payload::encode_json(body).unwrap();
    let message = Message::request(topic, Nodeid::ANY, Matchtag(matchtag)).with_payload(payload);
    let mut out = BytesMut::new();
    frame::encode(&message, &mut out);
    out
}

/// Write requests and read nothing, until the broker takes no more or has done so for long.
fn flood(socket: &std::path::Path, bytes: &[u8], limit: Duration) -> (UnixStream, usize) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let (begin, mut written) = (Instant::now(), 0);
    while begin.elapsed() < limit {
        match stream.write(&bytes[written % bytes.len()..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // It was sent away.
            Err(_) => break,
        }
    }
    (stream, written)
}

/// KiB that the brokers of the instance have in memory, the largest of them.
fn memory(instance: &Instance) -> u64 {
    let outcome = instance.flux(FLUX, &["getattr", "broker.pid"]);
    outcome.assert_success();
    let status = std::fs::read_to_string(format!("/proc/{}/status", outcome.stdout.trim()));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn guests_that_flood_or_do_not_read_stop_nobody_else() {
    let Some(instance) = Instance::start("[access]\nallow-guest-user = true\n") else { return };
    let socket = instance.host.path("run/local-0");

    // Requests with answers of some size, none of which is read.
    let body = json!({ "pad": "x".repeat(1 << 16) });
    let big: Vec<u8> = (0..16).flat_map(|tag| request("broker.ping", tag + 1, &body)).collect();
    let path = socket.clone();
    let silent = as_user(ALICE, move || flood(&path, &big, Duration::from_secs(20)));
    assert!(silent.1 < 64 << 20, "{} bytes were taken from who never reads", silent.1);
    others_are_served(&instance);

    // Small ones, from several connections at a time, some of them refused.
    let mut small = Vec::new();
    for tag in 0..2000 {
        small.extend_from_slice(&request("attr.get", tag + 1, &json!({ "name": "size" })));
        small.extend_from_slice(&request("module.remove", tag + 1, &json!({ "name": "kvs" })));
        small.extend_from_slice(&request("nobody.knows", tag + 1, &json!({})));
    }
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let (path, small) = (socket.clone(), small.clone());
            std::thread::spawn(move || {
                as_user(BOB, move || flood(&path, &small, Duration::from_secs(10)))
            })
        })
        .collect();
    others_are_served(&instance);
    let streams: Vec<_> = floods.into_iter().map(|thread| thread.join().unwrap()).collect();
    others_are_served(&instance);
    drop((silent, streams));

    // No frame at all.
    for garbage in [vec![0xff; 1 << 20], b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 64]] {
        let path = socket.clone();
        as_user(ALICE, move || flood(&path, &garbage, Duration::from_millis(200)));
    }
    others_are_served(&instance);
}

#[track_caller]
fn others_are_served(instance: &Instance) {
    let outcome = instance.flux(BOB, &["run", "-n1", "id", "-u"]);
    assert_eq!(outcome.stdout.trim(), BOB.uid.to_string(), "{outcome:?} {}", instance.log());
    instance.flux(FLUX, &["module", "stats", "kvs"]).assert_success();
    let memory = memory(instance);
    assert!(memory < MEMORY_LIMIT_KIB, "the broker has {memory} KiB");
}
