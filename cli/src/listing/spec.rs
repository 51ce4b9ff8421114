//! What stands behind the colon of a field: fill, alignment, width, precision, notation.

use super::number::{float_digits, int_digits};
use super::value::{self, Value, local_time};

/// No column is wider than this.
const MAX_WIDTH: usize = 100_000;

/// Why a value can't be shown that way.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("Invalid format specifier '{0}'")]
    Invalid(String),
    #[error("Unknown format code '{0}' for object of type '{1}'")]
    Code(char, &'static str),
    #[error("Precision not allowed in integer format specifier")]
    Precision,
    #[error("Sign not allowed in string format specifier")]
    Sign,
    #[error("'=' alignment not allowed in string format specifier")]
    Alignment,
    #[error("Too many decimal digits in format string")]
    Width,
    #[error("Unknown conversion specifier {0}")]
    Conversion(char),
    #[error("'{0}' is not a number")]
    NoNumber(String),
    #[error("{0} is not a time")]
    Time(String),
    #[error("bad time format: {0}")]
    TimeFormat(String),
}

/// `[[fill]align][sign][z][#][0][width][grouping][.precision][type][h][+]`, behind `::` where a time
/// format is in front.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spec {
    /// For times: what is in front of `::`, or all where there is none.
    time_format: String,
    usage: Usage,
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    pub(super) alternate: bool,
    zero: bool,
    width: Option<usize>,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
    /// Show an empty value as `-`.
    hyphen: bool,
    /// Mark what was cut off.
    truncation: bool,
}

/// What a specification is good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Usage {
    /// Anything; for times it is a format of strftime(3) without width.
    #[default]
    Plain,
    /// Times only: it would not make sense for other values.
    TimeFormat,
    /// Times only: `FORMAT::LAYOUT`.
    TimeAndLayout,
}

/// Reads a specification from left to right.
struct Reader<'a>(&'a str);

// === impl Spec ===

impl Spec {
    pub(super) fn parse(text: &str) -> Result<Spec, SpecError> {
        if let Some((time, layout)) = text.split_once("::") {
            let invalid = || SpecError::Invalid(layout.to_owned());
            let spec = Spec::parse_layout(layout)?.ok_or_else(invalid)?;
            return Ok(Spec { time_format: time.to_owned(), usage: Usage::TimeAndLayout, ..spec });
        }
        let spec = Spec::parse_layout(text)?;
        let usage = if spec.is_some() { Usage::Plain } else { Usage::TimeFormat };
        Ok(Spec { time_format: text.to_owned(), usage, ..spec.unwrap_or_default() })
    }

    /// Nothing where there is more than a specification.
    fn parse_layout(text: &str) -> Result<Option<Spec>, SpecError> {
        let mut spec = Spec::default();
        let (text, truncation) = without_suffix(text, '+');
        let (text, hyphen) = without_suffix(text, 'h');
        (spec.truncation, spec.hyphen) = (truncation, hyphen);
        let mut reader = Reader(text);
        (spec.fill, spec.align) = reader.alignment();
        spec.sign = reader.one_of("-+ ");
        reader.one_of("z");
        spec.alternate = reader.one_of("#").is_some();
        spec.zero = reader.one_of("0").is_some();
        spec.width = reader.number()?;
        spec.grouping = reader.one_of("_,");
        if reader.one_of(".").is_some() {
            spec.precision = reader.number()?;
            if spec.precision.is_none() {
                return Ok(None);
            }
        }
        spec.kind = reader.one_of("bcdeEfFgGnosxX%");
        Ok(reader.0.is_empty().then_some(spec))
    }

    /// Make the column at least `width` wide.
    pub(super) fn widen(&mut self, width: usize) {
        if self.usage == Usage::TimeFormat {
            self.usage = Usage::TimeAndLayout;
        }
        let width = width.max(self.width.unwrap_or_default());
        self.width = Some(width);
        let is_text = matches!(self.kind, None | Some('s'));
        if let Some(precision) = self.precision.as_mut().filter(|_| is_text) {
            *precision = width.max(*precision);
        }
    }

    /// A heading in the width and alignment of the column.
    pub(super) fn pad(&self, heading: &str) -> String {
        pad(heading, self.width, self.align.filter(|align| *align != '=').unwrap_or('<'), ' ')
    }

    pub(super) fn apply(&self, value: &Value) -> Result<String, SpecError> {
        if let Value::Time(seconds) = value {
            return self.time(*seconds);
        }
        if self.usage != Usage::Plain {
            return Err(SpecError::Invalid(self.time_format.clone()));
        }
        let whole = value.text();
        let shown = if self.hyphen {
            let text = if value::is_blank(&whole) { "-" } else { &whole };
            self.text(text)?
        } else {
            self.value(value)?
        };
        Ok(if self.truncation { mark(shown, &whole) } else { shown })
    }

    fn value(&self, value: &Value) -> Result<String, SpecError> {
        if *self == Spec::default() {
            return Ok(value.text());
        }
        match value {
            Value::None => {
                let spec = Spec { kind: None, sign: None, ..self.clone() };
                spec.text("")
            }
            Value::Text(text) => self.text(text),
            Value::Int(number) => Ok(self.number(*number < 0, &int_digits(*number, self)?)),
            Value::Bool(flag) => Ok(self.number(false, &int_digits(i64::from(*flag), self)?)),
            Value::Id(id) => match i64::try_from(id.0) {
                Ok(number) => Ok(self.number(false, &int_digits(number, self)?)),
                Err(_) => self.text(&id.0.to_string()),
            },
            Value::Float(number) => {
                let negative = number.is_sign_negative() && !number.is_nan();
                Ok(self.number(negative, &float_digits(number.abs(), self)?))
            }
            Value::Time(seconds) => self.time(*seconds),
        }
    }

    fn time(&self, seconds: f64) -> Result<String, SpecError> {
        let format = match self.time_format.as_str() {
            "" => "%FT%T",
            format => format,
        };
        let text = if seconds == 0.0 { String::new() } else { local_time(seconds, format)? };
        if self.usage != Usage::TimeAndLayout {
            return Ok(text);
        }
        let text = if self.hyphen && text.is_empty() { "-".to_owned() } else { text };
        let shown = self.text(&text)?;
        Ok(if self.truncation { mark(shown, &text) } else { shown })
    }

    fn text(&self, text: &str) -> Result<String, SpecError> {
        match self.kind {
            None | Some('s') => {}
            Some(_) if self.hyphen => {}
            Some(kind) => return Err(SpecError::Code(kind, "str")),
        }
        if self.sign.is_some() {
            return Err(SpecError::Sign);
        }
        if self.align == Some('=') {
            return Err(SpecError::Alignment);
        }
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let text: String = match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        Ok(pad(&text, self.width, self.align.unwrap_or('<'), fill))
    }

    fn number(&self, negative: bool, digits: &str) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            (false, _) => "",
        };
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let align = self.align.unwrap_or(if self.zero { '=' } else { '>' });
        if align == '=' {
            let width = self.width.map(|width| width.saturating_sub(sign.len()));
            return format!("{sign}{}", pad(digits, width, '>', fill));
        }
        pad(&format!("{sign}{digits}"), self.width, align, fill)
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn one_of(&mut self, set: &str) -> Option<char> {
        let c = self.0.chars().next().filter(|c| set.contains(*c))?;
        self.0 = self.0.get(c.len_utf8()..).unwrap_or_default();
        Some(c)
    }

    /// Fill and alignment; a fill needs an alignment behind it.
    fn alignment(&mut self) -> (Option<char>, Option<char>) {
        const ALIGNMENTS: &str = "<>=^";
        let mut chars = self.0.chars();
        if let (Some(fill), Some(align)) = (chars.next(), chars.next())
            && ALIGNMENTS.contains(align)
        {
            self.0 = chars.as_str();
            return (Some(fill), Some(align));
        }
        (None, self.one_of(ALIGNMENTS))
    }

    fn number(&mut self) -> Result<Option<usize>, SpecError> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        if digits.is_empty() {
            return Ok(None);
        }
        let number = digits.parse().ok().filter(|number| *number <= MAX_WIDTH);
        number.map(Some).ok_or(SpecError::Width)
    }
}

/// The text in front of a last letter, and whether it was there.
fn without_suffix(text: &str, suffix: char) -> (&str, bool) {
    match text.strip_suffix(suffix) {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

fn pad(text: &str, width: Option<usize>, align: char, fill: char) -> String {
    let missing = width.unwrap_or_default().saturating_sub(text.chars().count());
    let left = match align {
        '>' => missing,
        '^' => missing / 2,
        _ => 0,
    };
    let fill = |count| std::iter::repeat_n(fill, count);
    fill(left).chain(text.chars()).chain(fill(missing - left)).collect()
}

/// Put `+` at the end of what is shorter than the whole.
fn mark(shown: String, whole: &str) -> String {
    let count = shown.chars().count();
    if count > 0 && count < whole.chars().count() {
        shown.chars().take(count - 1).chain(['+']).collect()
    } else {
        shown
    }
}
