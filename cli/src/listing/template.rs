//! Format strings taken apart: literal text, field, conversion, specification.

use super::spec::Spec;
use super::value::Conversion;
use super::{FormatError, Row};

/// Text, and the field behind it (none at the end of the format).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) field: String,
    pub(super) conversion: Option<Conversion>,
    pub(super) spec: Spec,
}

/// `{{` and `}}` stand for single braces.
pub(super) fn parse(format: &str) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        text.push_str(before);
        if brace.starts_with("{{") || brace.starts_with("}}") {
            text.extend(brace.chars().next());
            rest = brace.get(2..).unwrap_or_default();
            continue;
        }
        let Some(inside) = brace.strip_prefix('{') else {
            return Err(FormatError::Template("Single '}' encountered in format string"));
        };
        let end = closing_brace(inside)?;
        let (field, behind) = inside.split_at(end);
        pieces.push(piece(std::mem::take(&mut text), field)?);
        rest = behind.get(1..).unwrap_or_default();
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece { text, field: String::new(), conversion: None, spec: Spec::default() });
    }
    Ok(pieces)
}

/// Where the field that `inside` begins with ends; specifications may have braces of their own.
fn closing_brace(inside: &str) -> Result<usize, FormatError> {
    if inside.is_empty() {
        return Err(FormatError::Template("Single '{' encountered in format string"));
    }
    let mut depth = 1;
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(FormatError::Template("expected '}' before end of string"))
}

/// `NAME[!CONVERSION][:SPEC]`
fn piece(text: String, inside: &str) -> Result<Piece, FormatError> {
    let end = inside.find(['!', ':']).unwrap_or(inside.len());
    let (field, rest) = inside.split_at(end);
    let (conversion, spec) = match rest.strip_prefix('!') {
        None => (None, rest),
        Some(rest) => {
            let mut chars = rest.chars();
            let conversion = chars.next().ok_or(FormatError::Template(
                "end of string while looking for conversion specifier",
            ))?;
            let rest = chars.as_str();
            if !rest.is_empty() && !rest.starts_with(':') {
                return Err(FormatError::Template("expected ':' after conversion specifier"));
            }
            (Some(conversion), rest)
        }
    };
    let bad = |source| FormatError::Value { field: field.to_owned(), source };
    Ok(Piece {
        text,
        field: field.to_owned(),
        conversion: conversion.map(Conversion::of).transpose().map_err(bad)?,
        spec: Spec::parse(spec.strip_prefix(':').unwrap_or_default()).map_err(bad)?,
    })
}

// === impl Piece ===

impl Piece {
    /// The value of this field, converted and laid out.
    pub(super) fn render<R: Row>(&self, row: &R, spec: &Spec) -> Result<String, FormatError> {
        let bad = |source| FormatError::Value { field: self.field.clone(), source };
        let mut value = row.field(&self.field);
        if let Some(conversion) = self.conversion {
            value = conversion.apply(value).map_err(bad)?;
        }
        spec.apply(&value).map_err(bad)
    }

    /// Remove `?:`, `+:` and `?+:`. Tells whether the column may be left out, and whether it widens.
    pub(super) fn take_sentinel(&mut self) -> (bool, bool) {
        if self.field.is_empty() {
            return (false, false);
        }
        for (sentinel, may_go, widens) in
            [("?+:", true, true), ("?:", true, false), ("+:", false, true)]
        {
            if let Some(text) = self.text.strip_suffix(sentinel) {
                self.text = text.to_owned();
                return (may_go, widens);
            }
        }
        (false, false)
    }
}
