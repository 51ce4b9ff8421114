//! The order of rows.

use std::cmp::Ordering;

use super::{FormatError, Headings, Row, Value};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SortKey {
    pub(super) field: String,
    reverse: bool,
}

/// What a value is compared by: nothing comes first, then numbers, then text.
#[derive(Debug)]
enum Rank {
    Empty,
    Number(f64),
    Text(String),
}

/// The keys of `sort:KEYS`, and what is behind them.
pub(super) fn split_prefix(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("sort:")?;
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (keys, rest) = rest.split_at(end);
    (!keys.is_empty()).then(|| (keys, rest.strip_prefix(' ').unwrap_or(rest)))
}

/// `KEY,-KEY...`; a minus turns the order around.
pub(super) fn parse_keys(keys: &str, headings: Headings) -> Result<Vec<SortKey>, FormatError> {
    let keys = keys.split(',').map(str::trim).filter(|key| !key.is_empty());
    keys.map(|key| {
        let (field, reverse) = match key.strip_prefix('-') {
            Some(field) => (field, true),
            None => (key, false),
        };
        match headings(field) {
            Some(_) => Ok(SortKey { field: field.to_owned(), reverse }),
            None => Err(FormatError::SortKey(field.to_owned())),
        }
    })
    .collect()
}

/// The first key counts most; rows that are equal stay as they are.
pub(super) fn sort<R: Row>(keys: &[SortKey], rows: &mut [R]) {
    for key in keys.iter().rev() {
        let mut order: Vec<(usize, Rank)> = rows
            .iter()
            .enumerate()
            .map(|(index, row)| (index, Rank::of(&row.field(&key.field))))
            .collect();
        order.sort_by(|(_, a), (_, b)| {
            let order = a.compare(b);
            if key.reverse { order.reverse() } else { order }
        });
        let mut target = vec![0; rows.len()];
        for (to, (from, _)) in order.into_iter().enumerate() {
            if let Some(slot) = target.get_mut(from) {
                *slot = to;
            }
        }
        arrange(rows, target);
    }
}

/// Move the row at `n` to `target[n]`.
fn arrange<R>(rows: &mut [R], mut target: Vec<usize>) {
    for n in 0..rows.len() {
        while let Some(&to) = target.get(n)
            && to != n
        {
            rows.swap(n, to);
            target.swap(n, to);
        }
    }
}

// === impl Rank ===

impl Rank {
    fn of(value: &Value) -> Rank {
        if let Some(number) = value.number() {
            return Rank::Number(number);
        }
        match value.text() {
            text if text.is_empty() || text == "-" => Rank::Empty,
            text => match text.trim().parse() {
                Ok(number) => Rank::Number(number),
                Err(_) => Rank::Text(text),
            },
        }
    }

    fn compare(&self, other: &Rank) -> Ordering {
        match (self, other) {
            (Rank::Empty, Rank::Empty) => Ordering::Equal,
            (Rank::Number(a), Rank::Number(b)) => a.total_cmp(b),
            (Rank::Text(a), Rank::Text(b)) => a.cmp(b),
            (a, b) => a.class().cmp(&b.class()),
        }
    }

    fn class(&self) -> u8 {
        match self {
            Rank::Empty => 0,
            Rank::Number(_) => 1,
            Rank::Text(_) => 2,
        }
    }
}
