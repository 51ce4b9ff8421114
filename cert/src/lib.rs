//! CURVE certificates of the overlay network: a key pair and some metadata.
//!
//! The broker and `flux keygen` share this crate, so that neither depends on the other. The file
//! format is the one of `zcert` in CZMQ and of flux-core, see [`Certificate::parse`].
#![forbid(unsafe_code)]

mod file;
mod key;
mod text;

pub use file::{LoadError, SaveError};
pub use key::{KeyError, PublicKey, SecretKey};
pub use text::{MetaError, ParseError};

/// A key pair, with metadata in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    public: PublicKey,
    secret: SecretKey,
    metadata: Vec<(String, String)>,
}

/// The system has no random numbers to make a key from, or libzmq was built without CURVE.
#[derive(Debug, thiserror::Error)]
#[error("generating a CURVE key pair: {0}")]
pub struct GenerateError(#[from] zmq::Error);

impl Certificate {
    /// A certificate with a new random key pair and no metadata.
    pub fn generate() -> Result<Self, GenerateError> {
        let pair = zmq::CurveKeyPair::new()?;
        Ok(Self {
            public: PublicKey::from_bytes(pair.public_key),
            secret: SecretKey::from_bytes(pair.secret_key),
            metadata: Vec::new(),
        })
    }

    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    pub fn secret_key(&self) -> &SecretKey {
        &self.secret
    }

    /// Metadata `name`: what the overlay calls a peer with this certificate in its log.
    pub fn name(&self) -> Option<&str> {
        self.meta("name")
    }

    pub fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// All metadata, in the order of the file.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Adds `key = "value"` unless the key has a value already: the first one given stays.
    ///
    /// Only what flux-core can read back is accepted: keys of letters, digits, `-` and `.`; values
    /// of letters, digits, blanks and `.-:+=^!/*?&<>()[]{}@%$#`.
    pub fn set_meta_default(&mut self, key: &str, value: &str) -> Result<(), MetaError> {
        text::check_meta(key, value)?;
        if self.meta(key).is_none() {
            self.metadata.push((key.to_owned(), value.to_owned()));
        }
        Ok(())
    }
}
