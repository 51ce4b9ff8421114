//! The three parts of a signed request, taken apart. Nothing here says whether to believe it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::SignError;
use crate::kv::{self, Value};

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

/// `HEADER.PAYLOAD`, which is what a signature is over.
pub(crate) fn encode_unsigned(mechanism: &str, userid: u32, payload: &[u8]) -> String {
    let header = kv::encode(&[
        ("version", Value::Int(1)),
        ("mechanism", Value::Str(mechanism.as_bytes())),
        ("userid", Value::Int(i64::from(userid))),
    ]);
    format!("{}.{}", STANDARD.encode(header), STANDARD.encode(payload))
}

fn decode_header(bytes: &[u8]) -> Result<Header, SignError> {
    let (mut version, mut mechanism, mut userid) = (None, None, None);
    for (key, value) in kv::decode(bytes).map_err(|_| SignError::Header)? {
        match (key, value) {
            ("version", Value::Int(n)) => version = Some(n),
            ("userid", Value::Int(n)) => userid = Some(n),
            ("mechanism", Value::Str(name)) => {
                let name = std::str::from_utf8(name).map_err(|_| SignError::Header)?;
                mechanism = Some(name.to_owned());
            }
            ("version" | "userid" | "mechanism", _) => return Err(SignError::Header),
            // Each mechanism may have more of its own.
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
    fn what_is_not_an_envelope_is_refused() {
        assert_eq!(decode("bogus"), Err(SignError::Header));
        assert_eq!(decode(""), Err(SignError::Header));
        assert_eq!(decode("AAAA.e30=.none"), Err(SignError::Header));
        assert_eq!(decode(".e30=.none"), Err(SignError::Missing("version")));
        let valid = STANDARD.encode("version\0i1\0mechanism\0snone\0userid\0i0\0");
        assert_eq!(decode(&format!("{valid}.e30=")), Err(SignError::Payload));
        assert_eq!(decode(&format!("{valid}.e30.none")), Err(SignError::Payload));
    }

    #[test]
    fn a_header_that_says_a_thing_twice_is_refused() {
        let twice = "version\0i1\0mechanism\0snone\0userid\0i0\0userid\0i1000\0";
        let text = format!("{}.e30=.none", STANDARD.encode(twice));
        assert_eq!(decode(&text), Err(SignError::Header));
    }

    #[test]
    fn a_header_is_refused_by_what_it_lacks() {
        let text = |header: &str| decode(&format!("{}.e30=.none", STANDARD.encode(header)));
        assert_eq!(text("version\0i2\0"), Err(SignError::Version(2)));
        assert_eq!(text("version\0i1\0"), Err(SignError::Missing("mechanism")));
        let unsigned = "version\0i1\0mechanism\0snone\0";
        assert_eq!(text(unsigned), Err(SignError::Missing("userid")));
        assert_eq!(text("version\0s1\0"), Err(SignError::Header));
        let word = "version\0i1\0mechanism\0snone\0userid\0sroot\0";
        assert_eq!(text(word), Err(SignError::Header));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = decode(&text);
        }
    }
}
