//! The codec against frames that a real Flux wrote, byte for byte.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use flux_protocol::frame;
use flux_protocol::message::{Flags, Kind, Message};
use proptest::prelude::*;
use serde_json::Value;

const LIMIT: usize = 1 << 30;

fn rows(file: &str) -> Vec<Value> {
    let path = format!("{}/../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn check_fields(message: &Message, row: &Value) {
    let (kind, word): (&str, Option<(&str, u32)>) = match message.kind {
        Kind::Request { nodeid, .. } => ("request", Some(("nodeid", nodeid.0))),
        Kind::Response { errnum, .. } => ("response", Some(("errnum", errnum))),
        Kind::Event { seq } => ("event", Some(("seq", seq))),
        Kind::Control { .. } => ("control", None),
    };
    assert_eq!(row["type"], kind);
    if let Some((name, value)) = word {
        assert_eq!(row[name], value, "{row}");
    }
    if let Some(tag) = row["matchtag"].as_u64() {
        assert_eq!(u64::from(message.matchtag().0), tag);
    }
    assert_eq!(row["userid"], message.cred.userid.0);
    assert_eq!(row["rolemask"], message.cred.rolemask.0);
    assert_eq!(row["flags_raw"], message.flags.0);
    if let Some(topic) = row["topic"].as_str() {
        assert_eq!(message.topic.as_str(), topic);
    }
    let routes: Vec<String> = message
        .routes
        .iter()
        .rev()
        .map(|route| String::from_utf8(route.to_vec()).unwrap())
        .collect();
    match row.get("routes") {
        Some(expected) => assert_eq!(*expected, serde_json::json!(routes)),
        None => assert!(!message.flags.contains(Flags::ROUTE), "{row}"),
    }
}

#[test]
fn captured_frames_decode_to_their_fields_and_encode_to_the_same_bytes() {
    let mut checked = 0;
    for row in rows("frames.jsonl") {
        let Some(raw) = row["raw"].as_str() else { continue };
        let raw = unhex(raw);
        let mut buf = BytesMut::from(raw.as_slice());
        let message = frame::decode(&mut buf, LIMIT).unwrap().unwrap();
        assert!(buf.is_empty());
        check_fields(&message, &row);
        let mut out = BytesMut::new();
        frame::encode(&message, &mut out);
        assert_eq!(out, raw, "{row}");
        checked += 1;
    }
    assert_eq!(checked, 148);
}

#[test]
fn malformed_bodies_get_the_verdict_of_the_real_decoder() {
    let mut checked = 0;
    for row in rows("frames-bad.jsonl") {
        let Some(body) = row["body"].as_str() else { continue };
        let note = &row["note"];
        match frame::decode_body(Bytes::from(unhex(body))) {
            Ok(message) => {
                assert_eq!(row["decoded"], true, "{note}");
                let mut out = BytesMut::new();
                frame::encode(&message, &mut out);
                let expected = unhex(row["reencoded"].as_str().unwrap());
                assert_eq!(out[frame::PREFIX_LEN..], expected[..], "{note}");
            }
            Err(error) => {
                assert_eq!(row["decoded"], false, "{note}: {error}");
                // The real decoder aborts on the empty body, for which no errno was recorded.
                let errno = row["errno"].as_u64().unwrap_or(71);
                assert_eq!(u64::from(error.errno().0), errno, "{note}");
            }
        }
        checked += 1;
    }
    assert_eq!(checked, 32);
}

#[test]
fn overlay_parts_decode_to_their_fields_and_encode_to_the_same_parts() {
    let mut checked = 0;
    for row in rows("overlay-frames.jsonl") {
        let Some(parts) = row["parts_hex"].as_array() else { continue };
        let parts: Vec<Bytes> =
            parts.iter().map(|part| Bytes::from(unhex(part.as_str().unwrap()))).collect();
        let message = Message::from_parts(&parts).unwrap();
        check_fields(&message, &row);
        assert_eq!(message.to_parts(), parts);
        checked += 1;
    }
    assert!(checked > 50, "only {checked} rows have parts");
}

#[test]
fn a_frame_that_arrives_byte_by_byte_is_decoded_once_it_is_whole() {
    let row = &rows("frames.jsonl")[1];
    let raw = unhex(row["raw"].as_str().unwrap());
    let mut buf = BytesMut::new();
    let (last, head) = raw.split_last().unwrap();
    for byte in head {
        buf.extend_from_slice(&[*byte]);
        assert_eq!(frame::decode(&mut buf, LIMIT), Ok(None));
    }
    buf.extend_from_slice(&[*last]);
    assert!(frame::decode(&mut buf, LIMIT).unwrap().is_some());
}

#[test]
fn an_announced_length_over_the_limit_is_refused_before_it_is_read() {
    let mut buf = BytesMut::from(&[0x12, 0x00, 0xee, 0xff, 0xff, 0xff, 0xff, 0xff][..]);
    assert!(frame::decode(&mut buf, 1 << 20).is_err());
}

fn any_message() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![
        (any::<u32>(), any::<u32>()).prop_map(|(n, m)| Kind::Request {
            nodeid: flux_protocol::message::Nodeid(n),
            matchtag: flux_protocol::message::Matchtag(m),
        }),
        (any::<u32>(), any::<u32>()).prop_map(|(errnum, m)| Kind::Response {
            errnum,
            matchtag: flux_protocol::message::Matchtag(m),
        }),
        any::<u32>().prop_map(|seq| Kind::Event { seq }),
        (any::<u32>(), any::<u32>()).prop_map(|(kind, status)| Kind::Control { kind, status }),
    ];
    let route = proptest::collection::vec(any::<u8>(), 1..300).prop_map(Bytes::from);
    (
        kind,
        any::<u8>(),
        proptest::collection::vec(route, 0..4),
        "[a-z.-]{0,300}",
        proptest::collection::vec(any::<u8>(), 0..600),
    )
        .prop_map(|(kind, flags, routes, topic, payload)| {
            let mut message = Message::event(topic);
            message.kind = kind;
            message.flags = Flags(flags);
            if message.flags.contains(Flags::ROUTE) {
                message.routes = routes;
            }
            if !message.flags.contains(Flags::TOPIC) {
                message.topic = Default::default();
            }
            if message.flags.contains(Flags::PAYLOAD) {
                message.payload = Some(Bytes::from(payload));
            }
            message
        })
}

proptest! {
    #[test]
    fn every_message_survives_encoding(message in any_message()) {
        let mut buf = BytesMut::new();
        frame::encode(&message, &mut buf);
        let decoded = frame::decode(&mut buf, LIMIT).unwrap();
        prop_assert_eq!(decoded.as_ref(), Some(&message));
        prop_assert_eq!(Message::from_parts(&message.to_parts()).unwrap(), message);
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = frame::decode_body(Bytes::from(bytes.clone()));
        let _ = frame::decode(&mut BytesMut::from(bytes.as_slice()), LIMIT);
    }
}
