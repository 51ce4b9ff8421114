//! The spellings of a job id.

use super::JobId;
use super::emoji::EMOJI;
use super::words::WORDS;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const MAX_BASE58_LEN: usize = 12;
const MAX_EMOJI: usize = 7;

/// Of the whole program; see [`set_plain_f58`].
static PLAIN: AtomicBool = AtomicBool::new(false);

/// From now on [`JobId::f58`] is in ASCII, as it has to be where the locale is not of UTF-8.
pub fn set_plain_f58(plain: bool) {
    PLAIN.store(plain, Ordering::Relaxed);
}

/// A text with job ids, from where the locale is not known, as [`JobId::f58`] would have them.
pub fn with_local_f58(text: &str) -> Cow<'_, str> {
    match PLAIN.load(Ordering::Relaxed) && text.contains('ƒ') {
        true => Cow::Owned(text.replace('ƒ', "f")),
        false => Cow::Borrowed(text),
    }
}

/// The spellings that `flux job id --to=` and listings offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Dec,
    Hex,
    Dothex,
    Kvs,
    Words,
    F58,
    F58Plain,
    Emoji,
}

/// A string that is no job id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a valid Flux jobid")]
pub struct FluidError(pub String);

/// A name that is no [`Encoding`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown job id encoding '{0}'")]
pub struct UnknownEncoding(pub String);

// === impl Encoding ===

impl Encoding {
    pub const ALL: [Self; 8] = [
        Self::Dec,
        Self::Hex,
        Self::Dothex,
        Self::Kvs,
        Self::Words,
        Self::F58,
        Self::F58Plain,
        Self::Emoji,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Dec => "dec",
            Self::Hex => "hex",
            Self::Dothex => "dothex",
            Self::Kvs => "kvs",
            Self::Words => "words",
            Self::F58 => "f58",
            Self::F58Plain => "f58plain",
            Self::Emoji => "emoji",
        }
    }
}

impl FromStr for Encoding {
    type Err = UnknownEncoding;
    fn from_str(name: &str) -> Result<Self, UnknownEncoding> {
        let found = Self::ALL.into_iter().find(|e| e.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| UnknownEncoding(name.to_owned()))
    }
}

// === impl JobId ===

impl JobId {
    pub fn encode(self, encoding: Encoding) -> String {
        match encoding {
            Encoding::Dec => self.0.to_string(),
            Encoding::Hex => format!("{:#x}", self.0),
            Encoding::Dothex => self.dothex(),
            Encoding::Kvs => self.kvs(),
            Encoding::Words => self.words(),
            Encoding::F58 => self.f58(),
            Encoding::F58Plain => self.f58_plain(),
            Encoding::Emoji => self.emoji(),
        }
    }

    /// `ƒuZZybuNNy`, what people see; `fuZZybuNNy` where the locale has no such letter.
    pub fn f58(self) -> String {
        match PLAIN.load(Ordering::Relaxed) {
            true => self.f58_plain(),
            false => format!("ƒ{}", self.base58()),
        }
    }

    /// `fuZZybuNNy`, for terminals without UTF-8 and for names of services and files.
    pub fn f58_plain(self) -> String {
        format!("f{}", self.base58())
    }

    /// `0017.e9fb.8df1.6c2e`
    pub fn dothex(self) -> String {
        let [a, b, c, d] = [48, 32, 16, 0].map(|shift| self.0 >> shift & 0xffff);
        format!("{a:04x}.{b:04x}.{c:04x}.{d:04x}")
    }

    /// The job's directory in the KVS: `job.0017.e9fb.8df1.6c2e`
    pub fn kvs(self) -> String {
        format!("job.{}", self.dothex())
    }

    /// `reform-remote-galileo--heart-package-academy`
    pub fn words(self) -> String {
        let half = |n: u64| {
            let base = WORDS.len() as u64;
            [n % base, n / base % base, n / base / base].map(|n| digit(&WORDS, n)).join("-")
        };
        format!("{}--{}", half(self.0 & 0xffff_ffff), half(self.0 >> 32))
    }

    pub fn emoji(self) -> String {
        digits(self.0, EMOJI.len()).map(|n| digit(&EMOJI, n)).collect()
    }

    /// Read any spelling. As in Flux, base 58 and emoji beyond 64 bits wrap around.
    pub fn parse(text: &str) -> Result<Self, FluidError> {
        parse(text).map(Self).ok_or_else(|| FluidError(text.to_owned()))
    }

    fn base58(self) -> String {
        digits(self.0, BASE58.len()).map(|n| char::from(digit(BASE58, n))).collect()
    }
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim_start_matches(is_space);
    let text = text.strip_prefix("job.").unwrap_or(text).trim_start_matches(is_space);
    if text.contains('.') {
        parse_dothex(text)
    } else if text.contains('-') {
        parse_words(text)
    } else if let Some(digits) = text.strip_prefix(['ƒ', 'f']) {
        parse_base58(digits)
    } else if is_emoji(text) {
        parse_emoji(text)
    } else {
        parse_integer(text.trim_end_matches(is_space))
    }
}

fn parse_dothex(text: &str) -> Option<u64> {
    let mut parts = text.split('.');
    let mut id = 0;
    for _ in 0..4 {
        let part = parts.next()?;
        let plain = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        id = id << 16 | plain.then(|| u64::from_str_radix(part, 16).ok())??;
    }
    parts.next().is_none().then_some(id)
}

/// Six words, the low half first; anything but letters separates them.
fn parse_words(text: &str) -> Option<u64> {
    let mut numbers = text
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| !word.is_empty())
        .map(|word| WORDS.iter().position(|known| known.eq_ignore_ascii_case(word)));
    let mut half = || {
        let mut scale = 1;
        let mut half = 0;
        for _ in 0..3 {
            half += numbers.next()?? as u64 * scale;
            scale *= WORDS.len() as u64;
        }
        u32::try_from(half).ok().map(u64::from)
    };
    let (low, high) = (half()?, half()?);
    numbers.next().is_none().then_some(high << 32 | low)
}

fn parse_base58(digits: &str) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_BASE58_LEN {
        return None;
    }
    digits.bytes().try_fold(0u64, |id, byte| {
        let n = BASE58.iter().position(|&digit| digit == byte)?;
        Some(id.wrapping_mul(BASE58.len() as u64).wrapping_add(n as u64))
    })
}

fn is_emoji(text: &str) -> bool {
    text.as_bytes().starts_with(&[0xf0, 0x9f])
}

fn parse_emoji(text: &str) -> Option<u64> {
    if text.len() > MAX_EMOJI * 4 {
        return None;
    }
    text.chars().try_fold(0u64, |id, c| {
        let n = EMOJI.iter().position(|&emoji| emoji == c)?;
        Some(id.wrapping_mul(EMOJI.len() as u64).wrapping_add(n as u64))
    })
}

fn parse_integer(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text.strip_prefix('+').unwrap_or(text), 10),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, radix).ok())?
}

/// Digits of `n`, most significant first.
fn digits(n: u64, base: usize) -> impl Iterator<Item = u64> {
    let base = base as u64;
    let count = n.checked_ilog(base).map_or(1, |log| log + 1);
    (0..count).rev().map(move |exponent| n / base.pow(exponent) % base)
}

/// The digit for `n`, which is below the table's length.
fn digit<T: Copy + Default>(table: &[T], n: u64) -> T {
    usize::try_from(n).ok().and_then(|n| table.get(n)).copied().unwrap_or_default()
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.f58())
    }
}

impl FromStr for JobId {
    type Err = FluidError;
    fn from_str(text: &str) -> Result<Self, FluidError> {
        Self::parse(text)
    }
}
