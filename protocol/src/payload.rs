//! What requests and responses carry: JSON objects, raw bytes, text, or nothing (RFC 6).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::errno::Errno;
use crate::message::text_payload;

/// A payload that can't be decoded; EPROTO with this text.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("message has no payload")]
    Missing,
    #[error("text payload is not NUL terminated")]
    NotTerminated,
    #[error("text payload is not UTF-8")]
    Utf8,
    #[error("payload is not a JSON object")]
    NotObject,
    #[error("payload ends within a byte string")]
    Truncated,
    #[error("byte string of more than 4 GiB")]
    TooLong,
    #[error("malformed payload: {0}")]
    Json(#[from] serde_json::Error),
}

impl PayloadError {
    pub fn errno(&self) -> Errno {
        Errno::EPROTO
    }
}

/// A type that travels as the payload of one kind of request or response.
pub trait Payload: Sized {
    fn decode(payload: Option<&Bytes>) -> Result<Self, PayloadError>;
    /// `None` is a message without payload.
    fn encode(&self) -> Result<Option<Bytes>, PayloadError>;
}

/// No payload. One that is sent all the same is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Empty;

impl Payload for Empty {
    fn decode(_: Option<&Bytes>) -> Result<Empty, PayloadError> {
        Ok(Empty)
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        Ok(None)
    }
}

/// Raw bytes; a message without payload is the empty string of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Raw(pub Bytes);

impl Payload for Raw {
    fn decode(payload: Option<&Bytes>) -> Result<Raw, PayloadError> {
        Ok(Raw(payload.cloned().unwrap_or_default()))
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        Ok((!self.0.is_empty()).then(|| self.0.clone()))
    }
}

/// Several byte strings, each behind its length as a big-endian `u32`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Raws(pub Vec<Bytes>);

impl Payload for Raws {
    fn decode(payload: Option<&Bytes>) -> Result<Raws, PayloadError> {
        let mut rest = payload.cloned().unwrap_or_default();
        let mut raws = Vec::new();
        while !rest.is_empty() {
            let len = rest.try_get_u32().map_err(|_| PayloadError::Truncated)? as usize;
            if len > rest.len() {
                return Err(PayloadError::Truncated);
            }
            raws.push(rest.split_to(len));
        }
        Ok(Raws(raws))
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        let size = self.0.iter().map(|raw| raw.len() + size_of::<u32>()).sum();
        let mut all = BytesMut::with_capacity(size);
        for raw in &self.0 {
            all.put_u32(u32::try_from(raw.len()).map_err(|_| PayloadError::TooLong)?);
            all.extend_from_slice(raw);
        }
        Ok((!all.is_empty()).then(|| all.freeze()))
    }
}

/// NUL-terminated text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(pub String);

impl Payload for Text {
    fn decode(payload: Option<&Bytes>) -> Result<Text, PayloadError> {
        Ok(Text(text(payload)?.to_owned()))
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        Ok(Some(text_payload(&self.0)))
    }
}

/// Any JSON object.
pub type Object = serde_json::Map<String, serde_json::Value>;

impl Payload for Object {
    fn decode(payload: Option<&Bytes>) -> Result<Object, PayloadError> {
        decode_json(payload)
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        encode_json(self)
    }
}

/// Any JSON value, for the few responses that are not objects.
impl Payload for serde_json::Value {
    fn decode(payload: Option<&Bytes>) -> Result<serde_json::Value, PayloadError> {
        Ok(serde_json::from_str(text(payload)?)?)
    }
    fn encode(&self) -> Result<Option<Bytes>, PayloadError> {
        encode_json(self)
    }
}

/// The text of a NUL-terminated payload.
pub fn text(payload: Option<&Bytes>) -> Result<&str, PayloadError> {
    let bytes = payload.ok_or(PayloadError::Missing)?;
    let (nul, text) = bytes.split_last().ok_or(PayloadError::NotTerminated)?;
    if *nul != 0 {
        return Err(PayloadError::NotTerminated);
    }
    std::str::from_utf8(text).map_err(|_| PayloadError::Utf8)
}

/// Decode a JSON object; the type says which keys it must have.
pub fn decode_json<T: DeserializeOwned>(payload: Option<&Bytes>) -> Result<T, PayloadError> {
    let text = text(payload)?;
    // serde would take an array for a struct.
    if !text.trim_start().starts_with('{') {
        return Err(PayloadError::NotObject);
    }
    Ok(serde_json::from_str(text)?)
}

/// Encode as compact JSON with its NUL.
pub fn encode_json<T: Serialize>(value: &T) -> Result<Option<Bytes>, PayloadError> {
    let mut json = serde_json::to_vec(value)?;
    json.push(0);
    Ok(Some(Bytes::from(json)))
}

/// Make structs with serde implementations payloads of their own JSON form.
#[macro_export]
macro_rules! json_payload {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::payload::Payload for $type {
            fn decode(
                payload: Option<&bytes::Bytes>,
            ) -> Result<Self, $crate::payload::PayloadError> {
                $crate::payload::decode_json(payload)
            }
            fn encode(&self) -> Result<Option<bytes::Bytes>, $crate::payload::PayloadError> {
                $crate::payload::encode_json(self)
            }
        }
    )*};
}
