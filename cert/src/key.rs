//! Keys of 32 bytes, and Z85 (ZeroMQ RFC 32), the text they travel as.

use std::fmt;
use std::str::FromStr;

const KEY_LEN: usize = 32;
const TEXT_LEN: usize = zmq_sys::CURVE_KEY_TEXT_LEN;

/// The 85 digits of Z85, in the order of their value.
const DIGITS: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// A CURVE public key. Displays as 40 characters of Z85.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

/// A CURVE secret key. It can be read out, but neither displayed nor logged.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; KEY_LEN]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key has {TEXT_LEN} characters, not {0}")]
    Length(usize),
    #[error("a key is Z85 text")]
    NotZ85,
}

// === impl PublicKey ===

impl PublicKey {
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

// === impl SecretKey ===

impl SecretKey {
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// 40 characters of Z85, for the certificate file alone.
    pub fn to_z85(&self) -> String {
        encode(&self.0)
    }

    /// The public key that belongs to this secret key.
    pub fn public_key(&self) -> Option<PublicKey> {
        zmq_sys::curve_public(&self.to_z85())?.parse().ok()
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

// === Z85 ===

/// Four bytes are a big-endian number, written as five digits of base 85.
fn encode(key: &[u8; KEY_LEN]) -> String {
    let (groups, _) = key.as_chunks::<4>();
    let mut text = String::with_capacity(TEXT_LEN);
    for group in groups {
        let mut number = u32::from_be_bytes(*group);
        let mut digits = ['0'; 5];
        for digit in digits.iter_mut().rev() {
            let value = (number % 85) as usize;
            *digit = DIGITS.get(value).map_or('0', |byte| char::from(*byte));
            number /= 85;
        }
        text.extend(digits);
    }
    text
}

fn decode(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    if text.len() != TEXT_LEN {
        return Err(KeyError::Length(text.chars().count()));
    }
    let (groups, _) = text.as_bytes().as_chunks::<5>();
    let mut key = [0; KEY_LEN];
    let (bytes, _) = key.as_chunks_mut::<4>();
    for (group, four) in groups.iter().zip(bytes) {
        let mut number: u32 = 0;
        for byte in group {
            let value = DIGITS.iter().position(|digit| digit == byte).ok_or(KeyError::NotZ85)?;
            number = number
                .checked_mul(85)
                .and_then(|n| n.checked_add(value as u32))
                .ok_or(KeyError::NotZ85)?;
        }
        *four = number.to_be_bytes();
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The server key pair of zmq_curve(7).
    const PUBLIC: &str = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
    const SECRET: &str = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6";
    const SECRET_HEX: &str = "8E0BDD697628B91D8F245587EE95C5B04D48963F79259877B49CD9063AEAD3B7";

    #[test]
    fn the_published_key_decodes_to_the_published_bytes() {
        let key: SecretKey = SECRET.parse().unwrap();
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(hex, SECRET_HEX);
        assert_eq!(key.to_z85(), SECRET);
    }

    #[test]
    fn the_public_key_follows_from_the_secret_key() {
        let secret: SecretKey = SECRET.parse().unwrap();
        assert_eq!(secret.public_key().unwrap().to_string(), PUBLIC);
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        assert_eq!("abc".parse::<PublicKey>(), Err(KeyError::Length(3)));
        let backquote = format!("{}`", &PUBLIC[..39]);
        assert_eq!(backquote.parse::<PublicKey>(), Err(KeyError::NotZ85));
        // Five times the highest digit is more than 32 bits hold.
        assert_eq!("#".repeat(40).parse::<PublicKey>(), Err(KeyError::NotZ85));
    }

    #[test]
    fn a_secret_key_does_not_show_itself() {
        let shown = format!("{:?}", SECRET.parse::<SecretKey>().unwrap());
        assert_eq!(shown, "SecretKey(..)");
    }

    proptest! {
        #[test]
        fn any_key_survives_its_text(bytes: [u8; 32]) {
            let key = PublicKey::from_bytes(bytes);
            let text = key.to_string();
            prop_assert_eq!(text.len(), 40);
            prop_assert_eq!(text.parse::<PublicKey>(), Ok(key));
            prop_assert_eq!(zmq::z85_encode(&bytes).unwrap(), text);
        }
    }
}
