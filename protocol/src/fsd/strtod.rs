//! The number at the start of a text, as C's `strtod` finds it.

/// The number and the text after it; 0 and the whole text when there is no number.
pub(super) fn strtod(text: &str) -> (f64, &str) {
    let start = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, unsigned) = match start.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, start.strip_prefix('+').unwrap_or(start)),
    };
    let (value, rest) = named(unsigned)
        .or_else(|| hex(unsigned))
        .or_else(|| decimal(unsigned))
        .unwrap_or((0.0, text));
    (if negative { -value } else { value }, rest)
}

fn named(text: &str) -> Option<(f64, &str)> {
    [("infinity", f64::INFINITY), ("inf", f64::INFINITY), ("nan", f64::NAN)]
        .into_iter()
        .find_map(|(name, value)| Some((value, strip_ignoring_case(text, name)?)))
}

fn decimal(text: &str) -> Option<(f64, &str)> {
    let (whole, rest) = span(text, |b| b.is_ascii_digit());
    let (fraction, rest) = fraction(rest, |b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let rest = exponent(rest, ['e', 'E']).map_or(rest, |(_, rest)| rest);
    let number = text.get(..text.len() - rest.len())?;
    Some((number.parse().ok()?, rest))
}

fn hex(text: &str) -> Option<(f64, &str)> {
    let digits = strip_ignoring_case(text, "0x")?;
    let (whole, rest) = span(digits, |b| b.is_ascii_hexdigit());
    let (fraction, rest) = fraction(rest, |b| b.is_ascii_hexdigit());
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mantissa = whole
        .chars()
        .chain(fraction.chars())
        .filter_map(|c| c.to_digit(16))
        .fold(0.0, |sum: f64, digit| sum * 16.0 + f64::from(digit));
    let point = i32::try_from(fraction.len()).unwrap_or(i32::MAX).saturating_mul(4);
    let (power, rest) = exponent(rest, ['p', 'P']).unwrap_or((0, rest));
    Some((mantissa * 2f64.powi(power.saturating_sub(point)), rest))
}

/// The digits after a point, which may be none.
fn fraction(text: &str, digit: fn(u8) -> bool) -> (&str, &str) {
    text.strip_prefix('.').map_or(("", text), |rest| span(rest, digit))
}

/// An exponent and the text after it; None when the mark has no digits after it.
fn exponent(text: &str, mark: [char; 2]) -> Option<(i32, &str)> {
    let signed = text.strip_prefix(mark)?;
    let unsigned = signed.strip_prefix(['+', '-']).unwrap_or(signed);
    let (digits, rest) = span(unsigned, |b| b.is_ascii_digit());
    if digits.is_empty() {
        return None;
    }
    let size = digits.parse().unwrap_or(i32::MAX);
    Some((if signed.starts_with('-') { -size } else { size }, rest))
}

/// Split after the leading bytes that satisfy `class`, all of them ASCII.
fn span(text: &str, class: fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|b| !class(b)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn strip_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}
