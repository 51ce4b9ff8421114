#![no_main]

use bytes::Bytes;
use flux_protocol::message::Message;

// The parts of a message of the overlay, as a peer sends them over ZeroMQ.
libfuzzer_sys::fuzz_target!(|parts: Vec<Vec<u8>>| {
    let parts: Vec<Bytes> = parts.into_iter().map(Bytes::from).collect();
    if let Ok(message) = Message::from_parts(&parts) {
        assert!(message.weight() >= message.topic.as_str().len());
    }
});
