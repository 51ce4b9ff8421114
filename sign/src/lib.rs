//! The envelope of a job request (RFC 38): `base64(header).base64(payload).signature`.
//!
//! The header is a key-value list (RFC 38, "kv" format): NUL-terminated keys and values in turn,
//! a value led by the letter of its type (`i` integer, `s` string, `t` time, `b` boolean):
//!
//! ```text
//! version\0i1\0mechanism\0snone\0userid\0i1000\0
//! ```
//!
//! Mechanism `none` has the signature `none`: it is for the instance owner, who need not prove to
//! himself who he is.
#![forbid(unsafe_code)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest envelope that is looked at.
pub const MAX_LEN: usize = 64 << 20;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub version: i64,
    pub mechanism: String,
    pub userid: i64,
}

/// A request whose envelope is well formed; whether to believe it is the mechanism's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub header: Header,
    pub payload: Vec<u8>,
    pub signature: String,
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("sign-unwrap: header decode error: Invalid argument")]
    Header,
    #[error("sign-unwrap: payload decode error: Invalid argument")]
    Payload,
    #[error("sign-unwrap: header version={0} unknown")]
    Version(i64),
    #[error("sign-unwrap: header {0} missing")]
    Missing(&'static str),
    #[error("sign-unwrap: request of {0} bytes is too large")]
    Size(usize),
    #[error("sign-unwrap: header mechanism={0} not allowed")]
    NotAllowed(String),
    #[error("sign-unwrap: signature invalid")]
    Signature,
}

/// Wrap `payload` with mechanism `none`.
pub fn wrap_none(userid: u32, payload: &[u8]) -> String {
    let header = format!("version\0i1\0mechanism\0snone\0userid\0i{userid}\0");
    format!("{}.{}.none", STANDARD.encode(header), STANDARD.encode(payload))
}

/// Take an envelope apart.
pub fn decode(text: &str) -> Result<Envelope, SignError> {
    if text.len() > MAX_LEN {
        return Err(SignError::Size(text.len()));
    }
    let (header, rest) = text.split_once('.').ok_or(SignError::Header)?;
    let (payload, signature) = rest.split_once('.').ok_or(SignError::Payload)?;
    let header = STANDARD.decode(header).map_err(|_| SignError::Header)?;
    let header = decode_header(&header)?;
    let payload = STANDARD.decode(payload).map_err(|_| SignError::Payload)?;
    Ok(Envelope { header, payload, signature: signature.to_owned() })
}

/// Take apart and verify an envelope of mechanism `none`.
pub fn unwrap_none(text: &str) -> Result<Envelope, SignError> {
    let envelope = decode(text)?;
    if envelope.header.mechanism != "none" {
        return Err(SignError::NotAllowed(envelope.header.mechanism));
    }
    if envelope.signature != "none" {
        return Err(SignError::Signature);
    }
    Ok(envelope)
}

fn decode_header(bytes: &[u8]) -> Result<Header, SignError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SignError::Header)?;
    let text = text.strip_suffix('\0').ok_or(SignError::Header)?;
    let mut words = text.split('\0');
    let (mut version, mut mechanism, mut userid) = (None, None, None);
    while let Some(key) = words.next() {
        let value = words.next().ok_or(SignError::Header)?;
        let (kind, value) = value.split_at_checked(1).ok_or(SignError::Header)?;
        let integer = || match kind {
            "i" => value.parse::<i64>().map_err(|_| SignError::Header),
            _ => Err(SignError::Header),
        };
        match key {
            "version" => version = Some(integer()?),
            "userid" => userid = Some(integer()?),
            "mechanism" if kind == "s" => mechanism = Some(value.to_owned()),
            "mechanism" => return Err(SignError::Header),
            // Each mechanism has more of its own.
            _ => {}
        }
    }
    let version = version.ok_or(SignError::Missing("version"))?;
    if version != 1 {
        return Err(SignError::Version(version));
    }
    Ok(Header {
        version,
        mechanism: mechanism.ok_or(SignError::Missing("mechanism"))?,
        userid: userid.ok_or(SignError::Missing("userid"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_envelope_of_a_real_flux_is_understood() {
        let text = "dmVyc2lvbgBpMQBtZWNoYW5pc20Ac25vbmUAdXNlcmlkAGkwAA==.e30=.none";
        let envelope = unwrap_none(text).unwrap();
        assert_eq!(envelope.header.userid, 0);
        assert_eq!(envelope.payload, b"{}");
        assert_eq!(wrap_none(0, b"{}"), text);
    }

    #[test]
    fn what_is_not_an_envelope_is_refused() {
        assert_eq!(decode("bogus"), Err(SignError::Header));
        assert_eq!(decode("AAAA.e30=.none"), Err(SignError::Header));
        let header = STANDARD.encode("version\0i1\0mechanism\0smunge\0userid\0i0\0");
        let foreign = format!("{header}.e30=.none");
        assert_eq!(unwrap_none(&foreign), Err(SignError::NotAllowed("munge".to_owned())));
        let tampered = wrap_none(0, b"{}").replace(".none", ".nope");
        assert_eq!(unwrap_none(&tampered), Err(SignError::Signature));
    }

    proptest! {
        #[test]
        fn what_is_wrapped_unwraps(userid: u32, payload: Vec<u8>) {
            let envelope = unwrap_none(&wrap_none(userid, &payload)).unwrap();
            prop_assert_eq!(envelope.header.userid, i64::from(userid));
            prop_assert_eq!(envelope.payload, payload);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = decode(&text);
        }
    }
}
