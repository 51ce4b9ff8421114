//! Formats in YAML: as much of the language as a file of formats needs, which is mappings of
//! mappings and text. What is beyond that is refused with its line.

use std::iter::Peekable;

use flux_protocol::payload::Object;
use serde_json::Value;

/// What is wrong, in which line.
type Fault = (usize, String);

/// The mapping that the text is.
pub(super) fn parse(text: &str) -> Result<Object, Fault> {
    let lines: Vec<Line<'_>> = text.lines().enumerate().map(Line::new).collect();
    let mut reader = Reader { lines: lines.into_iter().peekable() };
    if reader.peek().is_some_and(|line| line.text == "---") {
        reader.lines.next();
    }
    let Some(first) = reader.peek() else { return Ok(Object::new()) };
    let object = reader.mapping(first.indent)?;
    match reader.peek() {
        Some(line) if line.text != "..." => Err(line.fault("is indented less than the first line")),
        _ => Ok(object),
    }
}

#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    /// Behind the indentation.
    text: &'a str,
}

impl<'a> Line<'a> {
    fn new((index, line): (usize, &'a str)) -> Line<'a> {
        let text = line.trim_start_matches(' ');
        Line { number: index + 1, indent: line.len() - text.len(), text: text.trim_end() }
    }

    fn fault(&self, what: &str) -> Fault {
        (self.number, what.to_owned())
    }
}

struct Reader<'a, I: Iterator<Item = Line<'a>>> {
    lines: Peekable<I>,
}

impl<'a, I: Iterator<Item = Line<'a>>> Reader<'a, I> {
    /// The next line that says something.
    fn peek(&mut self) -> Option<Line<'a>> {
        while self
            .lines
            .next_if(|line| line.text.is_empty() || line.text.starts_with('#'))
            .is_some()
        {}
        self.lines.peek().copied()
    }

    fn mapping(&mut self, indent: usize) -> Result<Object, Fault> {
        let mut object = Object::new();
        while let Some(line) = self.peek().filter(|line| line.indent >= indent) {
            if line.indent > indent {
                return Err(line.fault("is indented more than the line above"));
            }
            if line.text == "..." {
                break;
            }
            self.lines.next();
            let (key, rest) = key(&line)?;
            let value = self.value(&line, rest)?;
            object.insert(key, value);
        }
        Ok(object)
    }

    /// What stands behind a key, and on lines below that are further in.
    fn value(&mut self, line: &Line<'a>, rest: &'a str) -> Result<Value, Fault> {
        match rest.chars().next() {
            None | Some('#') => match self.peek().filter(|next| next.indent > line.indent) {
                Some(next) => self.mapping(next.indent).map(Value::Object),
                None => Ok(Value::Null),
            },
            Some('|' | '>') => self.block(line, rest).map(Value::String),
            Some('"' | '\'') => {
                let (text, rest) =
                    quoted(rest).ok_or_else(|| line.fault("a quote is not closed"))?;
                match rest.is_empty() || rest.starts_with('#') {
                    true => Ok(Value::String(text)),
                    false => Err(line.fault("there is more behind the quoted text")),
                }
            }
            Some('{' | '[') => serde_json::from_str(rest)
                .map_err(|_| line.fault("text that begins with a bracket has to be quoted")),
            Some('&' | '*' | '!' | '%' | '@' | '`') => {
                Err(line.fault("anchors, tags and directives are not read: quote text"))
            }
            Some(_) => self.plain(line, rest),
        }
    }

    fn plain(&mut self, line: &Line<'a>, rest: &'a str) -> Result<Value, Fault> {
        let mut text = without_comment(rest).to_owned();
        while let Some(next) = self.peek().filter(|next| next.indent > line.indent) {
            self.lines.next();
            text.push(' ');
            text.push_str(without_comment(next.text));
        }
        if text.contains(": ") || text.ends_with(':') {
            return Err(line.fault("text with a colon has to be quoted"));
        }
        Ok(match text.as_str() {
            "~" => Value::Null,
            _ => match serde_json::from_str(&text) {
                Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
                _ => Value::String(text),
            },
        })
    }

    /// Lines that are text, ends of lines and all (`|`) or folded (`>`).
    fn block(&mut self, line: &Line<'a>, header: &str) -> Result<String, Fault> {
        let header = without_comment(header);
        let (folded, keep) = match header {
            "|" => (false, None),
            "|-" => (false, Some(false)),
            "|+" => (false, Some(true)),
            ">" => (true, None),
            ">-" => (true, Some(false)),
            ">+" => (true, Some(true)),
            _ => return Err(line.fault("a block of text begins with | or >, and + or -")),
        };
        let mut base = None;
        let mut text = String::new();
        // Whether the last line with text is one that the next is joined to, and how many empty
        // lines have come since: as many ends of lines are kept.
        let (mut joined, mut empty) = (false, 0);
        let inside = |next: &Line<'_>| next.text.is_empty() || next.indent > line.indent;
        while let Some(next) = self.lines.next_if(inside) {
            let base = match (base, next.text.is_empty()) {
                (Some(base), _) => base,
                (None, true) => 0,
                (None, false) => *base.insert(next.indent),
            };
            let deeper = next.indent.saturating_sub(base);
            let flows = folded && deeper == 0 && !next.text.is_empty();
            if joined && flows {
                text.pop();
                if empty == 0 {
                    text.push(' ');
                }
            }
            if next.text.is_empty() {
                empty += 1;
            } else {
                text.push_str(&" ".repeat(deeper));
                text.push_str(next.text);
                (joined, empty) = (flows, 0);
            }
            text.push('\n');
        }
        match keep {
            Some(true) => Ok(text),
            Some(false) => Ok(text.trim_end_matches('\n').to_owned()),
            None => Ok(format!("{}\n", text.trim_end_matches('\n'))),
        }
    }
}

/// The key of a line, and what stands behind its colon.
fn key<'a>(line: &Line<'a>) -> Result<(String, &'a str), Fault> {
    let no_key = || line.fault("there is no `key:'");
    if line.text.starts_with('\t') {
        return Err(line.fault("lines are indented with spaces"));
    }
    if line.text.starts_with("- ") || line.text == "-" {
        return Err(line.fault("lists are not read"));
    }
    if line.text.starts_with(['"', '\'']) {
        let (key, rest) = quoted(line.text).ok_or_else(no_key)?;
        return Ok((key, rest.strip_prefix(':').ok_or_else(no_key)?.trim_start()));
    }
    let (key, rest) = match line.text.split_once(": ") {
        Some((key, rest)) => (key, rest.trim_start()),
        None => (line.text.strip_suffix(':').ok_or_else(no_key)?, ""),
    };
    Ok((key.trim_end().to_owned(), rest))
}

/// Text in quotes, and what stands behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    let (_, quote) = chars.next()?;
    while let Some((at, c)) = chars.next() {
        let behind = text.get(at + 1..).unwrap_or_default();
        match c {
            // Two single quotes stand for one.
            '\'' if quote == '\'' && behind.starts_with('\'') => {
                chars.next();
                out.push('\'');
            }
            '\\' if quote == '"' => out.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'e' => '\u{1b}',
                '0' => '\0',
                'u' => {
                    let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
                }
                other @ ('"' | '\\' | '/' | ' ') => other,
                _ => return None,
            }),
            _ if c == quote => return Some((out, behind.trim_start())),
            _ => out.push(c),
        }
    }
    None
}

fn without_comment(text: &str) -> &str {
    text.split_once(" #").map_or(text, |(text, _)| text).trim_end()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        Value::Object(parse(text).unwrap())
    }

    #[test]
    fn formats_are_read_however_text_is_written() {
        let text = "---\n# mine\nformats:\n  a:   # short\n    description: It's mine # really\n    \
                    format: \"{id.f58} \\\"{name}\\\" \\u0192\"\n\n  'b c':\n    format: '{id} it''s #1'\n  \
                    c:\n    description: of\n      two lines\n    format: >-\n      {id.f58:>12}\n      \
                    {name}\n\n      {x}\n  d:\n    format: |\n      {id}\n        {name}\n  e: {\"format\": \
                    \"x\"}\n...\n";
        assert_eq!(
            read(text),
            json!({ "formats": {
                "a": { "description": "It's mine", "format": "{id.f58} \"{name}\" ƒ" },
                "b c": { "format": "{id} it's #1" },
                "c": { "description": "of two lines", "format": "{id.f58:>12} {name}\n{x}" },
                "d": { "format": "{id}\n  {name}\n" },
                "e": { "format": "x" },
            } })
        );
        assert_eq!(
            read("formats: 42\nx:\ny: ~\nz: true\n"),
            json!({
                "formats": 42, "x": null, "y": null, "z": true,
            })
        );
        assert_eq!(read("# nothing\n"), json!({}));
    }

    #[test]
    fn what_is_not_read_is_told_with_its_line() {
        for (text, line) in [
            ("formats:\n- a\n", 2),
            ("formats:\n  a: \"x\n", 2),
            ("formats:\n  a: x: y\n", 2),
            ("formats:\n  a: &x y\n", 2),
            ("formats:\n  a: 'x' y\n", 2),
            ("formats:\n\ta: x\n", 2),
            ("formats:\n  a: x\n b: y\n", 3),
            ("  formats:\na: x\n", 2),
            ("formats:\n  a: {format: x}\n", 2),
            ("formats:\n  a: >2\n", 2),
            ("words\n", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
