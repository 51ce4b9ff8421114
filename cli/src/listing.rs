//! Tables that users lay out with format strings, as all listing commands of Flux have them.
//!
//! A format is a Python format string over the fields of a row: `{id.f58:>12} {name:<10.10+}`.
//! Flux adds to that notation:
//!
//! - Conversions: `!d` (time for strftime(3), a format for the result behind `::`), `!D` (ISO 8601),
//!   `!F` (Flux duration), `!H` (hours:minutes:seconds), `!P` (percent).
//! - At the end of a specification, `h` shows an empty value as `-`, and `+` marks what was cut off.
//! - In front of a field, `?:` leaves the column out where it is empty in every row, `+:` widens it to
//!   its longest value, and `?+:` does both.
//! - In front of all, `sort:KEY,-KEY` orders the rows.
//!
//! A command implements [`Row`] for what it lists and says which fields there are ([`Headings`]).
//! [`named`] has the formats that are called by name.

use std::borrow::Cow;

use crate::outln;

use self::sort::SortKey;
use self::spec::Spec;
use self::template::Piece;

pub(crate) mod named;
mod number;
mod sort;
mod spec;
mod template;
mod value;
mod yaml;

pub(crate) use self::spec::SpecError;
pub(crate) use self::value::{Value, local_time};

/// Something to list: a value for each field that [`Headings`] knows.
pub(crate) trait Row {
    fn field(&self, name: &str) -> Value;
}

/// The heading of a column by the name of its field; nothing where there is no such field.
pub(crate) type Headings = fn(&str) -> Option<Cow<'static, str>>;

/// Why there is no table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("{0}")]
    Template(&'static str),
    #[error("Unknown format field: {0}")]
    Field(String),
    #[error("Invalid sort key: {0}")]
    SortKey(String),
    #[error("field '{field}': {source}")]
    Value { field: String, source: SpecError },
}

/// A format, ready to lay out rows.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pieces: Vec<Piece>,
    sort: Vec<SortKey>,
    headings: Headings,
}

/// How a whole table is printed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Print {
    pub no_header: bool,
    /// Cut lines off at so many columns.
    pub width: Option<usize>,
}

// === impl Listing ===

impl Listing {
    pub(crate) fn parse(format: &str, headings: Headings) -> Result<Listing, FormatError> {
        let mut pieces = template::parse(format)?;
        let mut sort = Vec::new();
        if let Some(first) = pieces.first_mut()
            && let Some((keys, rest)) = sort::split_prefix(&first.text)
        {
            sort = sort::parse_keys(keys, headings)?;
            first.text = rest.to_owned();
        }
        let unknown =
            pieces.iter().find(|piece| !piece.field.is_empty() && headings(&piece.field).is_none());
        match unknown {
            Some(piece) => Err(FormatError::Field(piece.field.clone())),
            None => Ok(Listing { pieces, sort, headings }),
        }
    }

    /// The fields that are needed to print and sort.
    pub(crate) fn fields(&self) -> Vec<&str> {
        let printed = self.pieces.iter().map(|piece| piece.field.as_str());
        let sorted = self.sort.iter().map(|key| key.field.as_str());
        let mut fields: Vec<&str> =
            printed.chain(sorted).filter(|field| !field.is_empty()).collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// Sort by `keys` (`KEY,-KEY...`) instead of what the format says.
    pub(crate) fn set_sort(&mut self, keys: &str) -> Result<(), FormatError> {
        self.sort = sort::parse_keys(keys, self.headings)?;
        Ok(())
    }

    /// The same table without some columns, and without widening: rows whose lines are equal in it
    /// may be shown as one, with those columns summed up.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(crate) fn without(&self, fields: &[&str]) -> Listing {
        let mut pieces = self.pieces.clone();
        pieces.retain(|piece| !fields.contains(&piece.field.as_str()));
        for piece in &mut pieces {
            if piece.text.ends_with("+:") {
                piece.text.clear();
                piece.spec = Spec::default();
            }
        }
        Listing { pieces, ..self.clone() }
    }

    /// Leave out and widen columns as `?:`, `+:` and `?+:` ask for, for these rows.
    pub(crate) fn fit<R: Row>(&self, rows: &[R], no_header: bool) -> Result<Listing, FormatError> {
        let mut fitted = self.clone();
        fitted.pieces.clear();
        for piece in &self.pieces {
            let mut piece = piece.clone();
            let (may_go, widens) = piece.take_sentinel();
            if may_go || widens {
                let longest = self.longest(&piece, rows)?;
                if may_go && longest == 0 {
                    continue;
                }
                if widens {
                    let heading = if no_header { 0 } else { self.heading(&piece).chars().count() };
                    piece.spec.widen(longest.max(heading));
                }
            }
            fitted.pieces.push(piece);
        }
        Ok(fitted)
    }

    /// Rows in the order that the sort keys say.
    pub(crate) fn sort<R: Row>(&self, rows: &mut [R]) {
        sort::sort(&self.sort, rows);
    }

    /// The line of headings.
    pub(crate) fn header(&self) -> String {
        let mut line = String::new();
        for piece in &self.pieces {
            line.push_str(&piece.text);
            if !piece.field.is_empty() {
                line.push_str(&piece.spec.pad(&self.heading(piece)));
            }
        }
        line
    }

    /// The line of a row.
    pub(crate) fn line<R: Row>(&self, row: &R) -> Result<String, FormatError> {
        let mut line = String::new();
        for piece in &self.pieces {
            line.push_str(&piece.text);
            if !piece.field.is_empty() {
                line.push_str(&piece.render(row, &piece.spec)?);
            }
        }
        Ok(line)
    }

    /// The whole table, sorted and fitted. Lines of blanks only are left out.
    pub(crate) fn lines<R: Row>(
        &self,
        rows: &mut [R],
        print: Print,
    ) -> Result<Vec<String>, FormatError> {
        let fitted = self.fit(rows, print.no_header)?;
        self.sort(rows);
        let mut lines = Vec::with_capacity(rows.len() + 1);
        if !print.no_header {
            lines.push(cut_off(fitted.header(), print.width));
        }
        for row in rows {
            let line = fitted.line(row)?;
            if !line.trim().is_empty() {
                lines.push(cut_off(line, print.width));
            }
        }
        Ok(lines)
    }

    /// Print the whole table.
    pub(crate) fn print<R: Row>(&self, rows: &mut [R], print: Print) -> Result<(), FormatError> {
        for line in self.lines(rows, print)? {
            outln!("{line}");
        }
        Ok(())
    }

    fn heading(&self, piece: &Piece) -> Cow<'static, str> {
        (self.headings)(&piece.field).unwrap_or_default()
    }

    /// Length of the longest value of a column.
    fn longest<R: Row>(&self, piece: &Piece, rows: &[R]) -> Result<usize, FormatError> {
        let mut longest = 0;
        for row in rows {
            let text = piece.render(row, &Spec::default())?;
            if !value::is_blank(&text) {
                longest = longest.max(text.chars().count());
            }
        }
        Ok(longest)
    }
}

/// A line of at most `width` columns; `+` at its end tells that there was more.
pub(crate) fn cut_off(line: String, width: Option<usize>) -> String {
    match width {
        Some(width) if width > 0 && line.chars().count() > width => {
            line.chars().take(width - 1).chain(['+']).collect()
        }
        _ => line,
    }
}

/// Look a heading up in a list of fields.
pub(crate) fn heading(table: &[(&str, &'static str)], field: &str) -> Option<Cow<'static, str>> {
    table.iter().find(|(name, _)| *name == field).map(|(_, heading)| Cow::Borrowed(*heading))
}

#[cfg(test)]
mod tests;
