//! The text form of an idset: `1-3,5` or `[1-3,5]`.

use super::{Idset, MAX_ID, Style};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::{self, Write};
use std::str::FromStr;

/// Why a string is not an idset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdsetError {
    #[error("error parsing range '{0}'")]
    Range(String),
    #[error("range '{0}' is out of order")]
    Order(String),
    #[error("mismatched or nested brackets")]
    Brackets,
    #[error("error appending '{0}': set universe size would exceed maximum")]
    TooLarge(String),
}

impl Idset {
    /// Read RFC 22 text. Brackets are optional, empty elements are skipped, elements must ascend.
    ///
    /// As in Flux, a number is read as 64 bits and kept as 32: `4294967296` is id 0.
    pub fn decode(text: &str) -> Result<Self, IdsetError> {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if inner.contains(['[', ']']) {
            return Err(IdsetError::Brackets);
        }
        let mut set = Self::new();
        for element in inner.split(',').filter(|element| !element.is_empty()) {
            let (lo, hi) =
                parse_range(element).ok_or_else(|| IdsetError::Range(element.to_owned()))?;
            if set.last().is_some_and(|last| lo <= last) {
                return Err(IdsetError::Order(element.to_owned()));
            }
            if hi > MAX_ID {
                return Err(IdsetError::TooLarge(element.to_owned()));
            }
            Self::push_range(&mut set.ranges, lo, hi);
        }
        Ok(set)
    }

    /// The usual text: ranges, no brackets.
    pub fn encode(&self) -> String {
        self.to_string()
    }

    /// Text in the given style. Without `range` its length follows the number of members.
    pub fn encode_with(&self, style: Style) -> String {
        let mut text = String::new();
        for (lo, hi) in self.ranges() {
            if style.range {
                push_range(&mut text, lo, hi);
            } else {
                (lo..=hi).for_each(|id| push_range(&mut text, id, id));
            }
        }
        if style.brackets && self.count() > 1 { format!("[{text}]") } else { text }
    }
}

fn push_range(text: &mut String, lo: u32, hi: u32) {
    if !text.is_empty() {
        text.push(',');
    }
    // Writing to a String cannot fail.
    let _ = if lo == hi { write!(text, "{lo}") } else { write!(text, "{lo}-{hi}") };
}

/// `n` or `lo-hi` with lo < hi.
fn parse_range(element: &str) -> Option<(u32, u32)> {
    match element.split_once('-') {
        None => {
            let id = parse_id(element)? as u32;
            Some((id, id))
        }
        Some((lo, hi)) => {
            let (lo, hi) = (parse_id(lo)? as u32, parse_id(hi)?);
            (hi > u64::from(lo) && hi as u32 >= lo).then_some((lo, hi as u32))
        }
    }
}

/// Decimal digits without a leading zero.
fn parse_id(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let padded = digits.len() > 1 && digits.starts_with('0');
    (plain && !padded).then(|| digits.parse().ok())?
}

impl fmt::Display for Idset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode_with(Style { range: true, brackets: false }))
    }
}

impl FromStr for Idset {
    type Err = IdsetError;
    fn from_str(text: &str) -> Result<Self, IdsetError> {
        Self::decode(text)
    }
}

impl Serialize for Idset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Idset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::decode(&text).map_err(serde::de::Error::custom)
    }
}
