//! Signed job requests (RFC 39): `base64(header).base64(payload).signature`.
//!
//! The header is a list of keys and values ([`kv`], RFC 38). Who signs and who verifies read the
//! same `[sign]` table ([`Config`]), from a directory that is compiled in and trusted only when
//! nobody but root can write there ([`secure`]). Two mechanisms:
//!
//! - `munge`: the signature is a MUNGE credential over a digest of the rest ([`munge`]). It proves
//!   who signed, and when.
//! - `none`: the signature is the word `none`. It proves nothing, and is believed of the user
//!   alone that runs this process: the instance owner need not prove to himself who he is.
//!
//! The setuid IMP is built from this crate, hence no dependency but base64 and libc's constants,
//! and errors without a derive.
#![forbid(unsafe_code)]

mod config;
mod envelope;
mod error;
pub mod kv;
pub mod munge;
pub mod secure;
mod sha256;
pub mod toml;
mod verify;

pub use config::{CONF_DIR, Config, Mechanism};
pub use envelope::{Envelope, Header, MAX_LEN, decode};
pub use error::SignError;
pub use verify::{Request, sign_as_submitter, sign_with, unwrap, unwrap_none, wrap, wrap_none};
