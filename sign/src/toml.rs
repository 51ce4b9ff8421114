//! The part of TOML that the configuration of signing and of the IMP is written in: tables,
//! strings, integers, booleans, arrays of these. All else is an error with its line, never
//! passed over: a configuration that grants privileges is understood or refused.
//!
//! A parser for all of TOML would be the IMP's largest dependency by far.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub type Table = BTreeMap<String, Value>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Str(String),
    Int(i64),
    Bool(bool),
    Array(Vec<Value>),
    Table(Table),
}

/// What is wrong, in which line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub line: usize,
    pub text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

impl Value {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_table(&self) -> Option<&Table> {
        match self {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// What it is, with an article.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Str(_) => "a string",
            Value::Int(_) => "an integer",
            Value::Bool(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

/// The strings of an array, if it is one of strings alone.
pub fn strings(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Parse a file into `root`, which may have tables of files before it. A key that is there
/// already is an error, in the same file or not.
pub fn parse_into(root: &mut Table, text: &str) -> Result<(), Error> {
    let mut parser = Parser { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut path: Vec<String> = Vec::new();
    let mut headers = BTreeSet::new();
    loop {
        parser.skip_blank();
        match parser.peek() {
            None => return Ok(()),
            Some('[') => {
                path = parser.header()?;
                if !headers.insert(path.clone()) {
                    let name = path.join(".");
                    return Err(parser.error(format!("table '{name}' begins a second time")));
                }
            }
            Some(_) => {
                let mut keys = path.clone();
                keys.extend(parser.key()?);
                parser.expect('=')?;
                let value = parser.value(0)?;
                insert(root, &keys, value).map_err(|text| parser.error(text))?;
            }
        }
        parser.end_of_line()?;
        if !path.is_empty() {
            table_at(root, &path).map_err(|text| parser.error(text))?;
        }
    }
}

pub fn parse(text: &str) -> Result<Table, Error> {
    let mut root = Table::new();
    parse_into(&mut root, text)?;
    Ok(root)
}

fn table_at<'a>(root: &'a mut Table, path: &[String]) -> Result<&'a mut Table, String> {
    let mut table = root;
    for key in path {
        let entry = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
        match entry {
            Value::Table(inner) => table = inner,
            other => return Err(format!("key '{key}' is {}, not a table", other.kind())),
        }
    }
    Ok(table)
}

fn insert(root: &mut Table, keys: &[String], value: Value) -> Result<(), String> {
    let Some((last, path)) = keys.split_last() else { return Err("missing key".to_owned()) };
    match table_at(root, path)?.insert(last.clone(), value) {
        None => Ok(()),
        Some(_) => Err(format!("key '{last}' is set twice")),
    }
}

/// How deep arrays may be nested.
const MAX_DEPTH: usize = 8;

struct Parser<'a> {
    rest: &'a str,
    line: usize,
}

impl Parser<'_> {
    fn error(&self, text: impl Into<String>) -> Error {
        Error { line: self.line, text: text.into() }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.bump();
        }
    }

    /// Spaces, comments, ends of lines. Control characters that TOML has no place for, not even in
    /// a comment, are left to be refused.
    fn skip_blank(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n') => {
                    self.bump();
                }
                Some('\r') if self.rest.starts_with("\r\n") => {
                    self.bump();
                }
                Some('#') => {
                    while self.peek().is_some_and(|c| c == '\t' || !c.is_ascii_control()) {
                        self.bump();
                    }
                }
                _ => return,
            }
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), Error> {
        self.skip_spaces();
        match self.peek() {
            Some(c) if c == wanted => {
                self.bump();
                self.skip_spaces();
                Ok(())
            }
            Some(c) => Err(self.error(format!("expected '{wanted}', got '{}'", c.escape_debug()))),
            None => Err(self.error(format!("expected '{wanted}', got the end of the file"))),
        }
    }

    /// Nothing but a comment may follow.
    fn end_of_line(&mut self) -> Result<(), Error> {
        self.skip_spaces();
        match self.peek() {
            None | Some('\n' | '#') => Ok(()),
            Some('\r') if self.rest.starts_with("\r\n") => Ok(()),
            Some(c) => Err(self.error(format!("unexpected '{}' after a value", c.escape_debug()))),
        }
    }

    fn header(&mut self) -> Result<Vec<String>, Error> {
        self.expect('[')?;
        if self.peek() == Some('[') {
            return Err(self.error("arrays of tables are not supported here"));
        }
        let path = self.key()?;
        self.expect(']')?;
        Ok(path)
    }

    /// A key, dotted or not.
    fn key(&mut self) -> Result<Vec<String>, Error> {
        let mut path = vec![self.key_part()?];
        loop {
            self.skip_spaces();
            if self.peek() != Some('.') {
                return Ok(path);
            }
            self.bump();
            self.skip_spaces();
            path.push(self.key_part()?);
            if path.len() > MAX_DEPTH {
                return Err(self.error("too many tables in each other"));
            }
        }
    }

    fn key_part(&mut self) -> Result<String, Error> {
        match self.peek() {
            Some('"') => self.basic_string(),
            Some('\'') => self.literal_string(),
            _ => {
                let bare = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
                let end = self.rest.find(bare).unwrap_or(self.rest.len());
                let (key, rest) = self.rest.split_at(end);
                if key.is_empty() {
                    return Err(self.error("invalid key"));
                }
                self.rest = rest;
                Ok(key.to_owned())
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        match self.peek() {
            Some('"') => self.basic_string().map(Value::Str),
            Some('\'') => self.literal_string().map(Value::Str),
            Some('[') if depth < MAX_DEPTH => self.array(depth),
            Some(c) if c.is_ascii_alphanumeric() || c == '-' || c == '+' => self.word(),
            _ => Err(self.error("invalid value")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Error> {
        self.bump();
        let mut values = Vec::new();
        loop {
            self.skip_blank();
            if self.peek() == Some(']') {
                self.bump();
                return Ok(Value::Array(values));
            }
            values.push(self.value(depth + 1)?);
            self.skip_blank();
            match self.bump() {
                Some(',') => {}
                Some(']') => return Ok(Value::Array(values)),
                _ => return Err(self.error("array is not closed")),
            }
        }
    }

    /// An integer or a boolean.
    fn word(&mut self) -> Result<Value, Error> {
        let part =
            |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '_' | '.' | ':'));
        let end = self.rest.find(part).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let value = match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => {
                let number = integer(word);
                Value::Int(number.ok_or_else(|| self.error(format!("invalid value '{word}'")))?)
            }
        };
        self.rest = rest;
        Ok(value)
    }

    fn literal_string(&mut self) -> Result<String, Error> {
        self.bump();
        let closed = |end: &usize| self.rest.get(*end..).is_some_and(|rest| rest.starts_with('\''));
        let end = self.rest.find(['\'', '\n']).filter(closed);
        let Some(end) = end else { return Err(self.error("string is not closed")) };
        let (text, rest) = self.rest.split_at(end);
        let text = text.to_owned();
        self.rest = rest;
        self.bump();
        if text.is_empty() && self.peek() == Some('\'') {
            return Err(self.error("strings of several lines are not supported here"));
        }
        self.printable(text)
    }

    fn basic_string(&mut self) -> Result<String, Error> {
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('"') => break,
                Some('\\') => text.push(self.escape()?),
                None | Some('\n') => return Err(self.error("string is not closed")),
                Some(c) => text.push(c),
            }
        }
        if text.is_empty() && self.peek() == Some('"') {
            return Err(self.error("strings of several lines are not supported here"));
        }
        self.printable(text)
    }

    /// No path or name has control characters in it.
    fn printable(&self, text: String) -> Result<String, Error> {
        match text.chars().any(|c| c.is_control() && c != '\t') {
            true => Err(self.error("control character in a string")),
            false => Ok(text),
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let digits = match self.bump() {
            Some('"') => return Ok('"'),
            Some('\\') => return Ok('\\'),
            Some('t') => return Ok('\t'),
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.error("invalid escape in a string")),
        };
        let hex = self.rest.get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        let c = code.ok_or_else(|| self.error("invalid escape in a string"))?;
        self.rest = self.rest.get(digits..).unwrap_or_default();
        Ok(c)
    }
}

/// Decimal, with underscores between digits.
fn integer(word: &str) -> Option<i64> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    let grouped =
        digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let leading = digits.len() > 1 && digits.starts_with('0');
    (grouped && !leading).then(|| word.replace('_', "").parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_of_the_guide_is_understood() {
        let text = "# Only the 'flux' user\n[exec]\nallowed-users = [ \"flux\" ]\n\
            allowed-shells = [\n  \"/usr/libexec/flux/flux-shell\", # installed\n]\n\
            [run.prolog]\nallowed-environment = [\"FLUX_*\"]\npath = '/etc/flux/prolog'\n";
        let root = parse(text).unwrap();
        let exec = root["exec"].as_table().unwrap();
        assert_eq!(strings(&exec["allowed-users"]), Some(vec!["flux"]));
        let shells = strings(&exec["allowed-shells"]);
        assert_eq!(shells, Some(vec!["/usr/libexec/flux/flux-shell"]));
        let prolog = root["run"].as_table().unwrap()["prolog"].as_table().unwrap();
        assert_eq!(prolog["path"].as_str(), Some("/etc/flux/prolog"));
    }

    #[test]
    fn scalars_and_dotted_keys_are_understood() {
        let root =
            parse("max-ttl = 1_209_600\na.b = true\n\"q k\" = \"x\\\"\\u0041\"\r\n").unwrap();
        assert_eq!(root["max-ttl"], Value::Int(1_209_600));
        assert_eq!(root["a"].as_table().unwrap()["b"], Value::Bool(true));
        assert_eq!(root["q k"].as_str(), Some("x\"A"));
    }

    #[test]
    fn files_add_to_each_other_but_set_nothing_twice() {
        let mut root = parse("[exec]\nallowed-users = []\n").unwrap();
        parse_into(&mut root, "[exec]\nallowed-shells = []\n").unwrap();
        assert_eq!(root["exec"].as_table().unwrap().len(), 2);
        let again = parse_into(&mut root, "[exec]\n\nallowed-users = [\"eve\"]\n").unwrap_err();
        assert_eq!(again.to_string(), "3: key 'allowed-users' is set twice");
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        assert_eq!(error("\n\n[[run]]\n"), "3: arrays of tables are not supported here");
        assert_eq!(error("a = 1 2\n"), "1: unexpected '2' after a value");
        assert_eq!(error("a = 1.5\n"), "1: invalid value '1.5'");
        assert_eq!(error("a = {b = 1}\n"), "1: invalid value");
        assert_eq!(error("a\n"), "1: expected '=', got '\\n'");
        assert_eq!(error("a = \"b\n"), "2: string is not closed");
        assert_eq!(error("a = 'b\n"), "1: string is not closed");
        assert_eq!(
            error("a = \"\"\"b\"\"\"\n"),
            "1: strings of several lines are not supported here"
        );
        assert_eq!(error("a = [1, 2\n"), "2: array is not closed");
        assert_eq!(error("a = 1\n[a]\n"), "2: key 'a' is an integer, not a table");
        assert_eq!(error("[a\n"), "1: expected ']', got '\\n'");
        assert_eq!(error("= 1\n"), "1: invalid key");
        assert_eq!(error("a = 1 # \u{1}\n"), "1: invalid key");
        assert_eq!(error("[a]\n[b]\n[a]\n"), "3: table 'a' begins a second time");
        assert_eq!(
            error(&format!("a{} = 1\n", ".a".repeat(50))),
            "1: too many tables in each other"
        );
        assert_eq!(error("a = 010\n"), "1: invalid value '010'");
        assert_eq!(error("a = \"\\u0000\"\n"), "1: control character in a string");
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a\\[\\]='\"\\\\#.,{}u0-9 \n\r\u{feff}é-]{0,60}") {
            let _ = parse(&text);
        }
    }
}
