//! References to content by digest, RFC 10: `sha1-<40 hex>` or `sha256-<64 hex>`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;

/// The digest of a blob, with the algorithm that made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Blobref {
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

/// The hash algorithms that content may be named by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashType {
    #[default]
    Sha1,
    Sha256,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobrefError {
    #[error("invalid blobref '{0}'")]
    Invalid(String),
    #[error("unknown hash type '{0}'")]
    HashType(String),
    #[error("a digest of {hash} has {expected} bytes, not {got}")]
    DigestLength { hash: HashType, expected: usize, got: usize },
}

// === impl HashType ===

impl HashType {
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// Size of a digest in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The reference to `data`.
    pub fn hash(self, data: &[u8]) -> Blobref {
        match self {
            Self::Sha1 => Blobref::Sha1(Sha1::digest(data).into()),
            Self::Sha256 => Blobref::Sha256(Sha256::digest(data).into()),
        }
    }
}

impl fmt::Display for HashType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashType {
    type Err = BlobrefError;
    fn from_str(name: &str) -> Result<Self, BlobrefError> {
        let found = Self::ALL.into_iter().find(|hash| hash.name() == name);
        found.ok_or_else(|| BlobrefError::HashType(name.to_owned()))
    }
}

// === impl Blobref ===

impl Blobref {
    /// A reference from a raw digest, as content requests carry it.
    pub fn from_digest(hash: HashType, digest: &[u8]) -> Result<Self, BlobrefError> {
        let wrong =
            |_| BlobrefError::DigestLength { hash, expected: hash.digest_len(), got: digest.len() };
        match hash {
            HashType::Sha1 => digest.try_into().map(Self::Sha1).map_err(wrong),
            HashType::Sha256 => digest.try_into().map(Self::Sha256).map_err(wrong),
        }
    }

    pub fn hash_type(&self) -> HashType {
        match self {
            Self::Sha1(_) => HashType::Sha1,
            Self::Sha256(_) => HashType::Sha256,
        }
    }

    pub fn digest(&self) -> &[u8] {
        match self {
            Self::Sha1(digest) => digest,
            Self::Sha256(digest) => digest,
        }
    }

    /// Whether this is the reference to `data`.
    pub fn matches(&self, data: &[u8]) -> bool {
        self.hash_type().hash(data) == *self
    }
}

impl fmt::Display for Blobref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(72);
        text.push_str(self.hash_type().name());
        text.push('-');
        for byte in self.digest() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(HEX.get(usize::from(nibble)).copied().unwrap_or_default()));
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Blobref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Blobref {
    type Err = BlobrefError;

    /// Exactly `<hash type>-<lower case hex>`.
    fn from_str(text: &str) -> Result<Self, BlobrefError> {
        let invalid = || BlobrefError::Invalid(text.to_owned());
        let (name, hex) = text.split_once('-').ok_or_else(invalid)?;
        let hash: HashType = name.parse().map_err(|_| invalid())?;
        let mut digest = [0; 32];
        let digest = digest.get_mut(..hash.digest_len()).ok_or_else(invalid)?;
        if hex.len() != digest.len() * 2 {
            return Err(invalid());
        }
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (high, low) = match pair {
                [high, low] => (nibble(*high), nibble(*low)),
                _ => (None, None),
            };
            *byte = high.zip(low).map(|(h, l)| h << 4 | l).ok_or_else(invalid)?;
        }
        Self::from_digest(hash, digest)
    }
}

fn nibble(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Blobref {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Blobref {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_blobs_have_known_references() {
        let empty = HashType::Sha1.hash(b"");
        assert_eq!(empty.to_string(), "sha1-da39a3ee5e6b4b0d3255bfef95601890afd80709");
        let abc = HashType::Sha256.hash(b"abc");
        assert_eq!(
            abc.to_string(),
            "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(abc.matches(b"abc") && !abc.matches(b"abd"));
    }

    #[test]
    fn anything_but_lower_case_hex_of_the_right_length_is_refused() {
        let good = HashType::Sha1.hash(b"x").to_string();
        assert!(good.parse::<Blobref>().is_ok());
        let cases = [
            good.to_uppercase(),
            good.replace("sha1-", "md5-"),
            good.replace("sha1-", "sha1"),
            good.replace("sha1-", "sha256-"),
            format!("{good}0"),
            format!("{good} "),
            "sha1-".into(),
            String::new(),
        ];
        for bad in cases {
            assert!(bad.parse::<Blobref>().is_err(), "{bad}");
        }
        assert!(Blobref::from_digest(HashType::Sha1, &[0; 32]).is_err());
    }

    proptest! {
        #[test]
        fn any_reference_survives_text(data: Vec<u8>, sha256: bool) {
            let hash = if sha256 { HashType::Sha256 } else { HashType::Sha1 };
            let blobref = hash.hash(&data);
            prop_assert_eq!(blobref.to_string().parse::<Blobref>().unwrap(), blobref);
            prop_assert_eq!(Blobref::from_digest(hash, blobref.digest()).unwrap(), blobref);
        }

        #[test]
        fn parsing_never_panics(text in "(sha1|sha256)-[0-9a-g]{38,66}|\\PC*") {
            if let Ok(blobref) = text.parse::<Blobref>() {
                prop_assert_eq!(blobref.to_string(), text);
            }
        }
    }
}
