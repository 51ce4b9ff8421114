//! Framing of messages on a local socket (RFC 3, as the real system does it).
//!
//! ```text
//! frame = magic(4) length(4) body(length)
//! body  = part*          part = size(1: 0..254) data | 0xff size(4, big endian) data
//! ```
//!
//! The magic is in host order, the length is big endian and counts the body alone.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::message::{DecodeError, Flags, Message};

/// First four bytes of every frame, in host order.
pub const MAGIC: u32 = 0xffee_0012;
/// Bytes before the body.
pub const PREFIX_LEN: usize = 8;
const LONG: u8 = 0xff;

/// Take one message off the front of `buf`, or nothing when it does not hold a whole frame yet.
///
/// `limit` bounds the body: a peer that announces more is malformed. Nothing is allocated by the
/// announced length, so a peer pays for what it makes us hold.
///
/// After an error the stream has lost its framing and is to be closed.
pub fn decode(buf: &mut BytesMut, limit: usize) -> Result<Option<Message>, DecodeError> {
    let Some(prefix) = buf.first_chunk::<PREFIX_LEN>() else {
        return Ok(None);
    };
    let [m0, m1, m2, m3, l0, l1, l2, l3] = *prefix;
    let magic = u32::from_ne_bytes([m0, m1, m2, m3]);
    if magic != MAGIC {
        return Err(DecodeError::FrameMagic(magic));
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length > limit {
        return Err(DecodeError::FrameSize(length, limit));
    }
    if buf.len() < PREFIX_LEN + length {
        return Ok(None);
    }
    buf.advance(PREFIX_LEN);
    decode_body(buf.split_to(length).freeze()).map(Some)
}

/// Decode the body of a frame.
pub fn decode_body(mut body: Bytes) -> Result<Message, DecodeError> {
    let mut parts = Vec::with_capacity(6);
    while body.has_remaining() {
        let mut size = usize::from(body.get_u8());
        if size == usize::from(LONG) {
            size = body.try_get_u32().map_err(|_| DecodeError::Truncated)? as usize;
        }
        if size > body.len() {
            return Err(DecodeError::Truncated);
        }
        parts.push(body.split_to(size));
    }
    Message::from_parts(&parts)
}

/// Append the frame of `message` to `out`.
pub fn encode(message: &Message, out: &mut BytesMut) {
    let body_len = encoded_body_len(message);
    out.reserve(PREFIX_LEN + body_len);
    out.put_slice(&MAGIC.to_ne_bytes());
    // Payloads are bounded far below 4 GiB by the queues that they pass through.
    out.put_u32(u32::try_from(body_len).unwrap_or(u32::MAX));
    if message.flags.contains(Flags::ROUTE) {
        for route in message.routes.iter().rev() {
            put_part(out, route);
        }
        put_part(out, &[]);
    }
    if message.flags.contains(Flags::TOPIC) {
        put_part(out, message.topic.as_bytes());
    }
    if message.flags.contains(Flags::PAYLOAD) {
        put_part(out, message.payload.as_deref().unwrap_or_default());
    }
    put_part(out, &message.header());
}

fn encoded_body_len(message: &Message) -> usize {
    let mut len = part_len(crate::message::HEADER_LEN);
    if message.flags.contains(Flags::ROUTE) {
        len += 1 + message.routes.iter().map(|route| part_len(route.len())).sum::<usize>();
    }
    if message.flags.contains(Flags::TOPIC) {
        len += part_len(message.topic.len());
    }
    if message.flags.contains(Flags::PAYLOAD) {
        len += part_len(message.payload.as_ref().map_or(0, Bytes::len));
    }
    len
}

fn part_len(size: usize) -> usize {
    size + if size < usize::from(LONG) { 1 } else { 5 }
}

fn put_part(out: &mut BytesMut, part: &[u8]) {
    match u8::try_from(part.len()) {
        Ok(size) if size < LONG => out.put_u8(size),
        _ => {
            out.put_u8(LONG);
            out.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
        }
    }
    out.put_slice(part);
}
