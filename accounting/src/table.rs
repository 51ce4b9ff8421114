//! Rows of the database as text.

use std::fmt::Write as _;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params};

use crate::error::Result;

/// What a query yields: headers and fields, all of them left-justified in columns of `width`, each
/// followed by a space. Returns whether there were any; without, there are no headers either.
pub(crate) fn print(
    db: &Connection,
    query: &str,
    params: impl Params,
    width: usize,
    out: &mut String,
) -> Result<bool> {
    let mut stmt = db.prepare(query)?;
    let headers: Vec<String> = stmt.column_names().map(str::to_owned).collect();
    let mut rows = stmt.query(params)?;
    let mut any = false;
    while let Some(row) = rows.next()? {
        if !any {
            line(out, width, headers.iter().map(String::as_str));
            any = true;
        }
        let mut fields = Vec::with_capacity(headers.len());
        for column in 0..headers.len() {
            fields.push(text(row.get_ref(column)?));
        }
        line(out, width, fields.iter().map(String::as_str));
    }
    Ok(any)
}

fn line<'a>(out: &mut String, width: usize, fields: impl Iterator<Item = &'a str>) {
    for field in fields {
        // A String takes all that is written to it.
        let _ = write!(out, "{field:<width$} ");
    }
    out.push('\n');
}

/// A field as flux-accounting prints it.
pub(crate) fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "None".to_owned(),
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Real(value) => real(value),
        ValueRef::Text(value) => String::from_utf8_lossy(value).into_owned(),
        ValueRef::Blob(value) => format!("{} bytes", value.len()),
    }
}

/// The shortest text that reads back as `value`, always recognizable as a real.
pub(crate) fn real(value: f64) -> String {
    // Rust's own choice between notations is the same, but for the exponent's sign and width.
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((mantissa, exponent)) => {
            let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
            match exponent.strip_prefix('-') {
                Some(digits) => format!("{mantissa}e-{digits:0>2}"),
                None => format!("{mantissa}e+{exponent:0>2}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::real;

    #[test]
    fn reals_are_recognizable_as_such() {
        for (value, text) in [
            (0.0, "0.0"),
            (0.5, "0.5"),
            (24000.0, "24000.0"),
            (0.285714, "0.285714"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (1795361680.75291, "1795361680.75291"),
        ] {
            assert_eq!(real(value), text);
        }
    }
}
