//! JSON (RFC 8259) as the caller writes it: read by the half without privilege, in full, and
//! refused where it is not exactly JSON or names a thing twice.

use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Numbers, booleans, null: nothing that the IMP takes.
    Plain,
    Str(String),
    Array(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

const MAX_DEPTH: usize = 64;

pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let value = parser.value(0)?;
    parser.skip_space();
    match parser.rest.is_empty() {
        true => Ok(value),
        false => Err("end of file expected".to_owned()),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn bad<T>(&self) -> Result<T, String> {
        match self.rest.chars().next() {
            None => Err("premature end of input".to_owned()),
            Some(c) => Err(format!("unexpected token near '{}'", c.escape_debug())),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("nested too deeply".to_owned());
        }
        self.skip_space();
        match self.rest.chars().next() {
            Some('{') => self.object(depth),
            Some('[') => self.array(depth),
            Some('"') => self.string().map(Value::Str),
            Some('-' | '0'..='9') => self.number(),
            _ if self.eat("true") || self.eat("false") || self.eat("null") => Ok(Value::Plain),
            _ => self.bad(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, String> {
        self.eat("{");
        let mut members = BTreeMap::new();
        self.skip_space();
        if self.eat("}") {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            if !self.rest.starts_with('"') {
                return self.bad();
            }
            let key = self.string()?;
            self.skip_space();
            if !self.eat(":") {
                return self.bad();
            }
            let value = self.value(depth + 1)?;
            if members.insert(key, value).is_some() {
                return Err("duplicate object key".to_owned());
            }
            self.skip_space();
            if self.eat("}") {
                return Ok(Value::Object(members));
            }
            if !self.eat(",") {
                return self.bad();
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, String> {
        self.eat("[");
        let mut values = Vec::new();
        self.skip_space();
        if self.eat("]") {
            return Ok(Value::Array(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.skip_space();
            if self.eat("]") {
                return Ok(Value::Array(values));
            }
            if !self.eat(",") {
                return self.bad();
            }
        }
    }

    fn digits(&mut self) -> Result<(), String> {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() == self.rest.len() {
            return self.bad();
        }
        self.rest = rest;
        Ok(())
    }

    fn number(&mut self) -> Result<Value, String> {
        self.eat("-");
        if !self.eat("0") {
            self.digits()?;
        }
        if self.eat(".") {
            self.digits()?;
        }
        if self.eat("e") || self.eat("E") {
            let _ = self.eat("+") || self.eat("-");
            self.digits()?;
        }
        Ok(Value::Plain)
    }

    fn string(&mut self) -> Result<String, String> {
        self.eat("\"");
        let mut text = String::new();
        loop {
            // Nothing but these ends a run of plain characters.
            let special = |c: char| c == '"' || c == '\\' || c < ' ';
            let end = self.rest.find(special).ok_or("premature end of input")?;
            let (plain, rest) = self.rest.split_at(end);
            text.push_str(plain);
            self.rest = rest;
            if self.eat("\"") {
                return Ok(text);
            }
            if !self.eat("\\") {
                return Err("control character in a string".to_owned());
            }
            text.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = self.rest.chars().next().ok_or("premature end of input")?;
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '"' | '\\' | '/' => Ok(c),
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'u' => self.unicode(),
            _ => Err("invalid escape".to_owned()),
        }
    }

    fn unicode(&mut self) -> Result<char, String> {
        let first = self.hex()?;
        let code = match first {
            0xd800..=0xdbff if self.eat("\\u") => match self.hex()? {
                second @ 0xdc00..=0xdfff => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                _ => return Err("invalid Unicode".to_owned()),
            },
            first => first,
        };
        match char::from_u32(code) {
            None | Some('\0') => Err("invalid Unicode".to_owned()),
            Some(c) => Ok(c),
        }
    }

    fn hex(&mut self) -> Result<u32, String> {
        let bad = || "invalid escape".to_owned();
        let digits = self.rest.get(..4).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = u32::from_str_radix(digits.ok_or_else(bad)?, 16).map_err(|_| bad())?;
        self.rest = self.rest.get(4..).unwrap_or_default();
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_read() {
        let text = r#" {"J": "a.b.c", "options": {"x": [1, -2.5e3, true, null, "\u00e9\ud83d\ude00\n"]}} "#;
        let Ok(Value::Object(members)) = parse(text) else { panic!() };
        assert_eq!(members["J"], Value::Str("a.b.c".into()));
        let Value::Object(options) = &members["options"] else { panic!() };
        let Value::Array(x) = &options["x"] else { panic!() };
        assert_eq!(x[4], Value::Str("é😀\n".into()));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let cases = [
            "",
            "foo",
            "{",
            "{\"J\"}",
            "{\"J\":}",
            "{\"J\":\"a\"",
            "{\"J\":\"a\",}",
            "[1,]",
            "01",
            "1.",
            "-",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\u0000\"",
            "\"a\nb\"",
            "{} {}",
            "tru",
            "{J:1}",
            "{\"J\":1,\"J\":2}",
            "\u{feff}{}",
        ];
        for case in cases {
            assert!(parse(case).is_err(), "{case}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\",:\\\\ud8e0-9aé. -]{0,60}") {
            let _ = parse(&text);
        }
    }
}
