//! Why a request can't be signed, or is not believed. The texts are those of flux-security.

use std::fmt;

use crate::munge::MungeError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// The configuration can't be read, or is not to be trusted.
    Config(String),
    /// The `[sign]` table is wrong.
    Table(String),
    Header,
    Payload,
    Version(i64),
    Missing(&'static str),
    /// Bytes of an envelope that is not looked at.
    Size(usize),
    /// A mechanism that nobody knows.
    Unknown(String),
    /// A mechanism that is not in `allowed-types`.
    NotAllowed(String),
    /// No user has this id.
    Userid(i64),
    /// Mechanism `none`: the signature is not the word.
    Signature,
    /// Mechanism `none`, in somebody else's name.
    NotReal {
        userid: u32,
        real: u32,
    },
    MungeSign(MungeError),
    MungeVerify(MungeError),
    /// The credential is no digest at all.
    HashType,
    /// The credential was made for another header or payload.
    Digest,
    /// The header names somebody else than who signed.
    UidMismatch,
    /// Seconds since the signature was too old.
    Expired(u64),
    /// Made more seconds in the future than clocks may differ.
    Future(u64),
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignError::Config(text) => f.write_str(text),
            SignError::Table(text) => write!(f, "sign: {text}"),
            SignError::Header => f.write_str("sign-unwrap: header decode error: Invalid argument"),
            SignError::Payload => {
                f.write_str("sign-unwrap: payload decode error: Invalid argument")
            }
            SignError::Version(version) => {
                write!(f, "sign-unwrap: header version={version} unknown")
            }
            SignError::Missing(key) => write!(f, "sign-unwrap: header {key} missing"),
            SignError::Size(size) => {
                write!(f, "sign-unwrap: request of {size} bytes is too large")
            }
            SignError::Unknown(name) => {
                write!(f, "sign-unwrap: header mechanism={name} unknown")
            }
            SignError::NotAllowed(name) => {
                write!(f, "sign-unwrap: header mechanism={name} not allowed")
            }
            SignError::Userid(userid) => {
                write!(f, "sign-unwrap: header userid={userid} is not a user id")
            }
            SignError::Signature => f.write_str("sign-none-verify: signature invalid"),
            SignError::NotReal { userid, real } => {
                write!(f, "sign-none-verify: header userid {userid} != real {real}")
            }
            SignError::MungeSign(error) => write!(f, "sign-munge-sign: {error}"),
            SignError::MungeVerify(error) => {
                write!(f, "sign-munge-verify: munge_decode: {error}")
            }
            SignError::HashType => f.write_str("sign-munge-verify: unknown hash type"),
            SignError::Digest => f.write_str("sign-munge-verify: SHA256 hash mismatch"),
            SignError::UidMismatch => f.write_str("sign-munge-verify: uid mismatch"),
            SignError::Expired(seconds) => write!(
                f,
                "sign-munge-verify: max-ttl exceeded: the signature expired {seconds}s ago"
            ),
            SignError::Future(seconds) => {
                write!(f, "sign-munge-verify: the signature was made {seconds}s in the future")
            }
        }
    }
}

impl std::error::Error for SignError {}
