//! Options of `flux batch` in the script itself (RFC 36).
//!
//! ```text
//! #!/bin/sh
//! # flux: -N4 --exclusive
//! # flux: --setattr=user.conf="""
//! # flux: [config]
//! # flux: """
//! ```
//! What is in front of `flux:` must be the same on all lines; the first line that does not begin
//! with it ends the directives.

use super::shell_words::{self, WordsError};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    pub line: usize,
    pub args: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DirectiveError {
    #[error("line {line}: {text}: {error}")]
    Words { line: usize, text: String, error: WordsError },
    #[error("line {line}: Unknown directive: {text}")]
    Unknown { line: usize, text: String },
    #[error("line {line}: unterminated multi-line quote at line {start}: `{text}'")]
    Unterminated { line: usize, start: usize, text: String },
    #[error("line {line}: orphan '{tag}' detected: directives disabled after line {last}")]
    Orphan { line: usize, tag: String, last: usize },
    #[error("line {line}: unclosed triple quote: {text}")]
    TripleQuote { line: usize, text: String },
    #[error("improperly terminated triple quoted string at: `{0}'")]
    Improper(String),
    #[error(
        "line {line}: sentinel changed from '{old}' to '{new}'\n\n\
         All directives in a file must use the same sentinel.\n\n\
         If you're trying to disable this directive, place a comment\n\
         character AFTER the sentinel, not in the prefix:\n\n  {old} # {text}\n\n\
         The '#' character comments out the rest of the line, making\n\
         this directive a no-op while maintaining the same sentinel."
    )]
    Sentinel { line: usize, old: String, new: String, text: String },
}

const TRIPLES: [&str; 2] = ["\"\"\"", "'''"];

/// A text over several lines, up to the same triple quote that it began with.
#[derive(Debug)]
struct Multiline {
    quotes: &'static str,
    /// Taken off the beginning of all lines.
    indent: String,
    start: String,
    line: usize,
    lines: Vec<String>,
}

#[derive(Debug, Default)]
struct Parser {
    directives: Vec<Directive>,
    /// What is in front of the tag, and the tag.
    sentinel: Option<(String, String)>,
    multiline: Option<Multiline>,
    /// The last line before that which ended the directives.
    disabled: Option<usize>,
}

pub(crate) fn parse(script: &str) -> Result<Vec<Directive>, DirectiveError> {
    let mut parser = Parser::default();
    for (at, line) in script.lines().enumerate() {
        parser.line(at + 1, line)?;
    }
    Ok(parser.directives)
}

// === impl Parser ===

impl Parser {
    fn line(&mut self, number: usize, line: &str) -> Result<(), DirectiveError> {
        let Some((prefix, tag, rest)) = sentinel(line) else {
            return self.other_line(number, line);
        };
        if let Some(last) = self.disabled {
            return Err(DirectiveError::Orphan { line: number, tag: tag.to_owned(), last });
        }
        let value = quote_triples(rest).ok_or_else(|| DirectiveError::TripleQuote {
            line: number,
            text: rest.trim().to_owned(),
        })?;
        match &self.sentinel {
            None => self.sentinel = Some((prefix.to_owned(), tag.to_owned())),
            Some((old, known)) if (old.as_str(), known.as_str()) != (prefix, tag) => {
                return Err(DirectiveError::Sentinel {
                    line: number,
                    old: format!("{old}{known}"),
                    new: format!("{prefix}{tag}"),
                    text: value.trim_start().to_owned(),
                });
            }
            Some(_) => {}
        }
        if let Some(quotes) = TRIPLES.into_iter().find(|quotes| value.ends_with(quotes)) {
            self.triple(number, &value, quotes)
        } else if let Some(multiline) = &mut self.multiline {
            multiline.push(&value);
            Ok(())
        } else {
            self.directive(number, &value)
        }
    }

    fn other_line(&mut self, number: usize, line: &str) -> Result<(), DirectiveError> {
        if let Some(Multiline { line: start, start: text, .. }) = &self.multiline {
            let (start, text) = (*start, text.clone());
            return Err(DirectiveError::Unterminated { line: number, start, text });
        }
        if let Some((prefix, _)) = &self.sentinel
            && self.disabled.is_none()
            && !line.starts_with(prefix.trim_end())
            && !line.trim().is_empty()
        {
            self.disabled = Some(number - 1);
        }
        Ok(())
    }

    /// A line that ends with a triple quote.
    fn triple(
        &mut self,
        number: usize,
        value: &str,
        quotes: &'static str,
    ) -> Result<(), DirectiveError> {
        let text = value.strip_suffix(quotes).unwrap_or(value);
        match &mut self.multiline {
            Some(multiline) if multiline.quotes != quotes => {
                multiline.push(value);
                Ok(())
            }
            Some(multiline) => {
                multiline.push(text);
                let line = multiline.line;
                let Some(multiline) = self.multiline.take() else { return Ok(()) };
                self.directive(line, &multiline.finish()?)
            }
            None => {
                let start = value.trim_start().to_owned();
                let indent = value.strip_suffix(start.as_str()).unwrap_or_default().to_owned();
                let mut multiline =
                    Multiline { quotes, indent, start, line: number, lines: Vec::new() };
                multiline.push(text);
                self.multiline = Some(multiline);
                Ok(())
            }
        }
    }

    fn directive(&mut self, line: usize, text: &str) -> Result<(), DirectiveError> {
        let args = shell_words::split(text).map_err(|error| DirectiveError::Words {
            line,
            text: text.to_owned(),
            error,
        })?;
        match args.first() {
            None => Ok(()),
            Some(first) if first.starts_with('-') => {
                self.directives.push(Directive { line, args });
                Ok(())
            }
            Some(_) => Err(DirectiveError::Unknown { line, text: text.to_owned() }),
        }
    }
}

// === impl Multiline ===

impl Multiline {
    fn push(&mut self, value: &str) {
        self.lines.push(value.strip_prefix(self.indent.as_str()).unwrap_or(value).to_owned());
    }

    fn finish(self) -> Result<String, DirectiveError> {
        let (first, rest) =
            self.lines.split_first().map_or(("", &[][..]), |(f, r)| (f.as_str(), r));
        let text = format!("{first}{}", shell_words::quote(&rest.join("\n")));
        if text.contains(self.quotes) {
            return Err(DirectiveError::Improper(self.start));
        }
        Ok(text)
    }
}

/// What is in front of the tag, the tag, and what is behind it.
fn sentinel(line: &str) -> Option<(&str, &str, &str)> {
    let at = line.find(|c: char| c.is_alphanumeric() || c == '_')?;
    let (prefix, rest) = line.split_at_checked(at)?;
    let (tag, value) = rest.split_at_checked("flux:".len())?;
    matches!(tag, "flux:" | "FLUX:").then_some((prefix, tag, value))
}

/// Texts between triple quotes on one line become words; nothing for one that is not at the end.
fn quote_triples(value: &str) -> Option<String> {
    let count = |quotes: &str| value.matches(quotes).count();
    let paired = |count: usize| count > 0 && count.is_multiple_of(2);
    if TRIPLES.iter().any(|quotes| paired(count(quotes))) {
        let mut text = String::new();
        let mut rest = value;
        let first = |rest: &str| {
            TRIPLES.into_iter().filter_map(|q| Some((rest.find(q)?, q))).min_by_key(|(at, _)| *at)
        };
        while let Some((at, quotes)) = first(rest) {
            let (before, behind) = rest.split_at(at);
            let inside = behind.get(quotes.len()..).unwrap_or_default();
            let Some((inside, behind)) = inside.rsplit_once(quotes) else { break };
            text.push_str(before);
            text.push_str(&shell_words::quote(inside));
            rest = behind;
        }
        text.push_str(rest);
        return Some(text);
    }
    let unclosed = TRIPLES
        .iter()
        .any(|quotes| value.find(quotes).is_some_and(|at| at + quotes.len() < value.len()));
    (!unclosed).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(script: &str) -> Vec<Vec<String>> {
        parse(script).unwrap().into_iter().map(|directive| directive.args).collect()
    }

    #[test]
    fn directives_of_any_comment_style_are_found() {
        assert_eq!(
            args("#!/bin/sh\n# flux: -N4 -n 4\n# flux: # off\necho\n"),
            [["-N4", "-n", "4"]]
        );
        assert_eq!(args("-- FLUX: --output='a b'\n--\n"), [["--output=a b"]]);
        assert!(args("#!/bin/sh\necho flux: -N4\n").is_empty());
    }

    #[test]
    fn triple_quotes_hold_lines() {
        let script = "# flux: -S user.x=\"\"\"\n# flux: a 'b'\n# flux:   c\n# flux: \"\"\"\n";
        assert_eq!(args(script), [["-S", "user.x=a 'b'\n  c\n"]]);
        assert_eq!(args("#flux: -S a='''x \"y\"'''\n"), [["-S", "a=x \"y\""]]);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (script, error) in [
            (
                "# flux: -N1\necho\n# flux: -n1\n",
                "line 3: orphan 'flux:' detected: directives disabled after line 1",
            ),
            ("# flux: nonsense\n", "line 1: Unknown directive:  nonsense"),
            ("# flux: -S 'a\n", "line 1:  -S 'a: No closing quotation"),
            (
                "# flux: -S x=\"\"\"\necho\n",
                "line 2: unterminated multi-line quote at line 1: `-S x=\"\"\"'",
            ),
            ("# flux: -S x=\"\"\"a\n", "line 1: unclosed triple quote: -S x=\"\"\"a"),
        ] {
            assert_eq!(parse(script).unwrap_err().to_string(), error, "{script}");
        }
        let changed = parse("# flux: -N1\n## flux: -n1\n").unwrap_err().to_string();
        assert!(changed.starts_with("line 2: sentinel changed from '# flux:' to '## flux:'"));
    }
}
