//! The text form of a hostlist.

use super::Hostlist;
use super::run::{Numbers, Run};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

/// Most hosts in one range, as in Flux.
const MAX_RANGE: u64 = 1 << 20;
/// Most ranges in one pair of brackets, as in Flux.
const MAX_RANGES: usize = 10240;
/// Most hosts that names with text after the brackets (`n[1-9].x`) may expand to, since each of
/// them is stored on its own.
const MAX_EXPANDED: u64 = 1 << 17;

/// Why a string is not a hostlist, or a host is not in one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostlistError {
    #[error("Invalid hostlist: '{0}'")]
    Invalid(String),
    #[error("invalid host name: '{0}'")]
    HostName(String),
    #[error("host '{0}' not found")]
    NotFound(String),
    #[error("hosts '{0}' not found")]
    NotFoundMany(String),
}

impl Hostlist {
    /// Read RFC 29 text. Commas, blanks and tabs separate hosts; empty elements are skipped.
    pub fn decode(text: &str) -> Result<Self, HostlistError> {
        Self::decode_after(text, 0)
    }

    /// Append the hosts of RFC 29 text. What one list may be expanded to is limited in all, however
    /// many texts it is made of.
    pub fn append(&mut self, text: &str) -> Result<(), HostlistError> {
        self.append_list(&Self::decode_after(text, self.runs.len() as u64)?);
        Ok(())
    }

    /// Read text after so many hosts were expanded from others.
    fn decode_after(text: &str, mut expanded: u64) -> Result<Self, HostlistError> {
        let mut list = Self::new();
        for token in tokens(text) {
            decode_token(token, &mut list, &mut expanded)
                .ok_or_else(|| HostlistError::Invalid(text.to_owned()))?;
        }
        Ok(list)
    }

    /// The shortest text for this list in its order.
    pub fn encode(&self) -> String {
        self.to_string()
    }
}

/// A single host name: no separators or brackets.
pub(crate) fn check_host(host: &str) -> Result<(), HostlistError> {
    if host.contains([',', '[', ']', '\t', ' ']) {
        return Err(HostlistError::HostName(host.to_owned()));
    }
    Ok(())
}

/// Split at separators that stand outside of brackets.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut level = 0i64;
    text.split(move |c| {
        match c {
            '[' => level += 1,
            ']' => level -= 1,
            _ => {}
        }
        level == 0 && matches!(c, '\t' | ',' | ' ')
    })
    .filter(|token| !token.is_empty())
}

/// Append the hosts of one token; None when it is malformed.
fn decode_token(token: &str, list: &mut Hostlist, expanded: &mut u64) -> Option<()> {
    let Some((prefix, rest)) = token.split_once('[') else {
        if token.contains(']') {
            return None;
        }
        list.push_host(token);
        return Some(());
    };
    let (ranges, suffix) = rest.split_once(']')?;
    let prefix: Arc<str> = Arc::from(prefix);
    for (n, range) in ranges.split(',').enumerate() {
        if n >= MAX_RANGES {
            return None;
        }
        let run = Run { prefix: prefix.clone(), numbers: Some(parse_range(range)?) };
        if suffix.is_empty() {
            list.push_run(run);
            continue;
        }
        *expanded += run.count();
        if *expanded > MAX_EXPANDED {
            return None;
        }
        for host in 0..run.count() {
            list.push_run(Run::single(&(run.host(host) + suffix)));
        }
    }
    Some(())
}

/// `n`, `lo-hi`, or `lo-` which means `lo`. The width is that of the text before the dash, blanks
/// included.
fn parse_range(range: &str) -> Option<Numbers> {
    let (low, high) = match range.split_once('-') {
        None => (range, None),
        Some((_, high)) if high.starts_with('-') => return None,
        Some((low, high)) => (low, Some(high).filter(|high| !high.is_empty())),
    };
    let (lo, rest) = leading_number(low)?;
    let hi = match high {
        Some(high) => match leading_number(high)? {
            (hi, "") => hi,
            _ => return None,
        },
        None if rest.is_empty() => lo,
        None => return None,
    };
    let fits = lo <= hi && hi - lo < MAX_RANGE && low.len() <= MAX_WIDTH;
    fits.then_some(Numbers { lo, hi, width: low.len() })
}

/// Longest number text: keeps a short hostlist from printing gigabytes of zeros.
const MAX_WIDTH: usize = 64;

/// A number at the start of `text`, blanks and one plus sign allowed before it, saturating at 64
/// bits, and what follows it.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let blank = |c| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let text = text.trim_start_matches(blank);
    let text = text.strip_prefix('+').unwrap_or(text);
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.get(..text.len() - rest.len()).filter(|digits| !digits.is_empty())?;
    Some((digits.parse().unwrap_or(u64::MAX), rest))
}

impl fmt::Display for Hostlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, group) in self.runs.chunk_by(Run::shares_brackets).enumerate() {
            if n > 0 {
                f.write_char(',')?;
            }
            write_group(group, f)?;
        }
        Ok(())
    }
}

/// Runs that share one prefix: `prefix`, `prefix7` or `prefix[1-3,5]`.
fn write_group(group: &[Run], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(first) = group.first() else { return Ok(()) };
    f.write_str(&first.prefix)?;
    let brackets = group.len() > 1 || first.count() > 1;
    if brackets {
        f.write_char('[')?;
    }
    for (n, numbers) in group.iter().filter_map(|run| run.numbers).enumerate() {
        if n > 0 {
            f.write_char(',')?;
        }
        numbers.write_number(f, numbers.lo)?;
        if numbers.lo < numbers.hi {
            f.write_char('-')?;
            numbers.write_number(f, numbers.hi)?;
        }
    }
    if brackets {
        f.write_char(']')?;
    }
    Ok(())
}

impl FromStr for Hostlist {
    type Err = HostlistError;
    fn from_str(text: &str) -> Result<Self, HostlistError> {
        Self::decode(text)
    }
}

impl Serialize for Hostlist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hostlist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::decode(&text).map_err(serde::de::Error::custom)
    }
}
