//! Patterns for names: shell globs, or regular expressions between slashes.

use regex_lite::Regex;

#[derive(Debug, Clone)]
pub(crate) struct Pattern(Regex);

#[derive(Debug, thiserror::Error)]
#[error("invalid pattern '{pattern}': {reason}")]
pub(crate) struct PatternError {
    pattern: String,
    reason: String,
}

impl Pattern {
    /// `/REGEX/` or `/REGEX` matches names that begin so, anything else is a glob for whole names.
    pub(crate) fn compile(text: &str) -> Result<Pattern, PatternError> {
        match text.strip_prefix('/') {
            Some(regex) => new(text, &format!("^(?:{})", regex.trim_end_matches('/'))),
            None => Pattern::glob(text),
        }
    }

    /// A glob for whole names, which may be paths.
    pub(crate) fn glob(text: &str) -> Result<Pattern, PatternError> {
        new(text, &translate(text))
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

fn new(text: &str, regex: &str) -> Result<Pattern, PatternError> {
    let error =
        |e: regex_lite::Error| PatternError { pattern: text.to_owned(), reason: e.to_string() };
    Regex::new(regex).map(Pattern).map_err(error)
}

/// A glob as a regular expression. A bracket that is not closed stands for itself.
fn translate(glob: &str) -> String {
    let mut regex = String::from("(?s)^(?:");
    let mut rest = glob;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => match set(rest) {
                Some((set, behind)) => {
                    regex.push_str(&set);
                    rest = behind;
                }
                None => regex.push_str(r"\["),
            },
            c => regex.push_str(&regex_lite::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push_str(")$");
    regex
}

/// The set that ends at the first `]` which is not its first character.
fn set(text: &str) -> Option<(String, &str)> {
    let (negated, inside) = match text.strip_prefix('!') {
        Some(inside) => (true, inside),
        None => (false, text),
    };
    let first = inside.chars().next()?.len_utf8();
    let end = first + inside.get(first..)?.find(']')?;
    let members: String = inside.get(..end)?.replace('\\', r"\\").replace('[', r"\[");
    let members = members.strip_prefix(']').map_or(members.clone(), |rest| format!(r"\]{rest}"));
    let members = members.strip_prefix('^').map_or(members.clone(), |rest| format!(r"\^{rest}"));
    let sign = if negated { "^" } else { "" };
    Some((format!("[{sign}{members}]"), inside.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::compile(pattern).unwrap().matches(name)
    }

    #[test]
    fn globs_match_whole_names() {
        for (glob, name) in [
            ("*", ""),
            ("A?C", "ABC"),
            ("[AB]x", "Bx"),
            ("[!A]", "B"),
            ("a.b", "a.b"),
            ("[x", "[x"),
        ] {
            assert!(matches(glob, name), "{glob} {name}");
        }
        for (glob, name) in [("A", "AB"), ("[!A]", "A"), ("a.b", "axb"), ("[]x]", "y"), ("?", "")] {
            assert!(!matches(glob, name), "{glob} {name}");
        }
        assert!(matches("[]x]", "]"));
    }

    #[test]
    fn regular_expressions_match_beginnings() {
        assert!(matches("/A|B/", "BC"));
        assert!(matches("/^A.", "AxC"));
        assert!(!matches("/B/", "AB"));
        assert!(Pattern::compile("/(/").is_err());
    }
}
