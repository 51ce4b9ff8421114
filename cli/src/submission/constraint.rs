//! `--requires`: constraints in the syntax of RFC 35, as the JSON of RFC 31.
//!
//! ```text
//! expr : expr expr | expr and expr | expr or expr | not expr | ( expr ) | -term | term
//! term : [operator:]operand
//! ```
//! `and` binds closer than `or`; terms side by side are joined as by `and`, but last.

use serde_json::{Map, Value, json};

use super::refuse;
use crate::failure::Failure;

/// A constraint of a job.
pub(crate) fn parse(text: &str) -> Result<Value, Failure> {
    parse_query(text).map_err(|error| refuse(format_args!("--requires='{text}': {error}")))
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum SyntaxError {
    #[error("Unexpected end of input in '{0}'")]
    End(String),
    #[error("Unclosed parenthesis in position {0}")]
    Unclosed(usize),
    #[error("Mismatched parentheses starting at position {0}.")]
    Mismatched(usize),
    #[error("Invalid token '{0}' at position {1}")]
    Token(String, usize),
    #[error("Unclosed quote '{0}' at position {1}")]
    Quote(char, usize),
    #[error("Missing argument to token '{0}'")]
    Argument(String),
    #[error("invalid character '{0}' in operator '{1}:'")]
    Operator(char, String),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Not(String),
    Negate,
    And(String),
    Or(String),
    Open,
    Close,
    Term(String),
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
    /// Where the parentheses that are open begin.
    open: Vec<usize>,
}

fn parse_query(text: &str) -> Result<Value, SyntaxError> {
    let mut parser = Parser { text, tokens: tokens(text)?, at: 0, open: Vec::new() };
    let constraint = parser.any()?;
    match parser.next() {
        None => Ok(constraint),
        Some((at, Token::Close)) => Err(SyntaxError::Mismatched(at)),
        Some((at, token)) => Err(SyntaxError::Token(token.text(), at)),
    }
}

// === impl Parser ===

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn next(&mut self) -> Option<(usize, Token)> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn any(&mut self) -> Result<Value, SyntaxError> {
        let mut left = self.all()?;
        loop {
            match self.peek() {
                None | Some(Token::Close) => return Ok(left),
                Some(Token::Or(_)) => {
                    self.at += 1;
                    left = either(left, self.all()?);
                }
                Some(Token::And(_)) => {
                    self.at += 1;
                    left = both(left, self.one()?);
                }
                Some(_) => left = both(left, self.one()?),
            }
        }
    }

    /// Terms with `and` between them.
    fn all(&mut self) -> Result<Value, SyntaxError> {
        let mut left = self.one()?;
        while let Some(Token::And(_)) = self.peek() {
            self.at += 1;
            left = both(left, self.one()?);
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Value, SyntaxError> {
        match self.next() {
            Some((_, Token::Not(_))) => Ok(json!({"not": [self.one()?]})),
            Some((_, Token::Negate)) => match self.next() {
                Some((_, Token::Term(text))) => Ok(json!({"not": [term(&text)?]})),
                Some((at, token)) => Err(SyntaxError::Token(token.text(), at)),
                None => Err(SyntaxError::End(self.text.to_owned())),
            },
            Some((at, Token::Open)) => {
                self.open.push(at);
                let inside = self.any()?;
                match self.next() {
                    Some((_, Token::Close)) => {
                        self.open.pop();
                        Ok(inside)
                    }
                    Some((at, token)) => Err(SyntaxError::Token(token.text(), at)),
                    None => Err(SyntaxError::Unclosed(at)),
                }
            }
            Some((_, Token::Term(text))) => term(&text),
            Some((at, Token::Close)) if self.open.is_empty() => Err(SyntaxError::Mismatched(at)),
            Some((at, token)) => Err(SyntaxError::Token(token.text(), at)),
            None => Err(match self.open.last() {
                Some(at) => SyntaxError::Unclosed(*at),
                None => SyntaxError::End(self.text.to_owned()),
            }),
        }
    }
}

// === impl Token ===

impl Token {
    fn text(&self) -> String {
        match self {
            Token::Not(text) | Token::And(text) | Token::Or(text) | Token::Term(text) => {
                text.clone()
            }
            Token::Negate => "-".to_owned(),
            Token::Open => "(".to_owned(),
            Token::Close => ")".to_owned(),
        }
    }
}

fn either(mut left: Value, right: Value) -> Value {
    match left.get_mut("or").and_then(Value::as_array_mut) {
        Some(list) => {
            list.push(right);
            left
        }
        None => json!({"or": [left, right]}),
    }
}

/// `left and right`; lists of properties become one.
fn both(left: Value, right: Value) -> Value {
    let mut terms = match left {
        Value::Object(mut object) if object.contains_key("and") => {
            let list = object.get_mut("and").and_then(Value::as_array_mut).map(std::mem::take);
            let mut list = list.unwrap_or_default();
            list.push(right);
            return json!({"and": list});
        }
        left => vec![left],
    };
    let properties = |value: &Value| value.get("properties").and_then(Value::as_array).cloned();
    if let Some(more) = properties(&right)
        && let Some(list) =
            terms.first_mut().and_then(|left| left.get_mut("properties")?.as_array_mut())
    {
        list.extend(more);
        return terms.remove(0);
    }
    terms.push(right);
    json!({"and": terms})
}

fn term(text: &str) -> Result<Value, SyntaxError> {
    let (operator, value) = match text.split_once(':') {
        None => ("properties", text),
        Some(("host" | "hosts", value)) => ("hostlist", value),
        Some(("rank", value)) => ("ranks", value),
        Some((operator, value)) => (operator, value),
    };
    let is_fine = |c: char| c.is_alphanumeric() || "_.+@-".contains(c);
    if let Some(bad) = operator.chars().find(|c| !is_fine(*c)) {
        return Err(SyntaxError::Operator(bad, operator.to_owned()));
    }
    let values: Vec<&str> = match operator {
        "properties" => value.split(',').collect(),
        _ => vec![value],
    };
    let mut object = Map::new();
    object.insert(operator.to_owned(), json!(values));
    Ok(Value::Object(object))
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut tokens = Vec::new();
    // A term that ends with a colon goes on with the next one, which may be in quotes.
    let mut pending: Option<(usize, String)> = None;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or_default();
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, len) = match first {
            '\'' | '"' => {
                let inside = rest.get(1..).unwrap_or_default();
                let end = inside.find(first).ok_or(SyntaxError::Quote(first, at + 1))?;
                (Token::Term(inside.get(..end).unwrap_or_default().to_owned()), end + 2)
            }
            _ => token(rest),
        };
        match (token, pending.take()) {
            (Token::Term(word), Some((start, operator))) => {
                tokens.push((start, Token::Term(operator + &word)));
            }
            (_, Some((_, operator))) => return Err(SyntaxError::Argument(operator)),
            (Token::Term(word), None) if word.ends_with(':') => pending = Some((at, word)),
            (token, None) => tokens.push((at, token)),
        }
        at += len;
    }
    match pending {
        Some((_, operator)) => Err(SyntaxError::Argument(operator)),
        None => Ok(tokens),
    }
}

/// The token that `rest` begins with, and its length.
fn token(rest: &str) -> (Token, usize) {
    let word = |word: &str| {
        rest.strip_prefix(word)
            .is_some_and(|behind| !behind.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let owned = |len: usize| rest.get(..len).unwrap_or_default().to_owned();
    let twice = |sign: char| if rest.get(1..).is_some_and(|b| b.starts_with(sign)) { 2 } else { 1 };
    match rest.chars().next() {
        Some('-') => (Token::Negate, 1),
        Some('(') => (Token::Open, 1),
        Some(')') => (Token::Close, 1),
        Some('&') => (Token::And(owned(twice('&'))), twice('&')),
        Some('|') => (Token::Or(owned(twice('|'))), twice('|')),
        _ if word("not") => (Token::Not(owned(3)), 3),
        _ if word("and") => (Token::And(owned(3)), 3),
        _ if word("or") => (Token::Or(owned(2)), 2),
        _ => {
            let ends = |c: char| "()|&'\"".contains(c) || c.is_whitespace();
            let len = rest.find(ends).unwrap_or(rest.len());
            (Token::Term(owned(len)), len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_those_of_the_rfc() {
        for (text, expected) in [
            ("a", json!({"properties": ["a"]})),
            ("a,b", json!({"properties": ["a", "b"]})),
            ("a b", json!({"properties": ["a", "b"]})),
            ("a&b", json!({"properties": ["a", "b"]})),
            ("a and host:h", json!({"and": [{"properties": ["a"]}, {"hostlist": ["h"]}]})),
            ("a|b", json!({"or": [{"properties": ["a"]}, {"properties": ["b"]}]})),
            ("-a", json!({"not": [{"properties": ["a"]}]})),
            (
                "not (a or b)",
                json!({"not": [{"or": [{"properties": ["a"]}, {"properties": ["b"]}]}]}),
            ),
            ("host:x[1-3] rank:0", json!({"and": [{"hostlist": ["x[1-3]"]}, {"ranks": ["0"]}]})),
            ("host:'a b'", json!({"hostlist": ["a b"]})),
            ("note", json!({"properties": ["note"]})),
            (
                "a|b rank:0",
                json!({"and": [
                    {"or": [{"properties": ["a"]}, {"properties": ["b"]}]}, {"ranks": ["0"]}]}),
            ),
            (
                "a|b&rank:0",
                json!({"or": [
                    {"properties": ["a"]}, {"and": [{"properties": ["b"]}, {"ranks": ["0"]}]}]}),
            ),
            (
                "-a b|c",
                json!({"or": [
                    {"and": [{"not": [{"properties": ["a"]}]}, {"properties": ["b"]}]},
                    {"properties": ["c"]}]}),
            ),
        ] {
            assert_eq!(parse_query(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn errors_say_where_they_are() {
        for (text, error) in [
            ("(a", "Unclosed parenthesis in position 0"),
            ("a)", "Mismatched parentheses starting at position 1."),
            ("a &", "Unexpected end of input in 'a &'"),
            ("host:", "Missing argument to token 'host:'"),
            ("'a", "Unclosed quote ''' at position 1"),
            ("a/b:c", "invalid character '/' in operator 'a/b:'"),
            ("-(a)", "Invalid token '(' at position 1"),
        ] {
            assert_eq!(parse_query(text).unwrap_err().to_string(), error, "{text}");
        }
    }
}
