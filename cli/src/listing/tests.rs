use std::borrow::Cow;

use flux_protocol::fluid::JobId;

use super::{FormatError, Headings, Listing, Print, Row, SpecError, Value};

const FIELDS: Headings = |field| {
    let known = ["id", "name", "count", "share", "ok", "none", "time", "span", "note.text"];
    known.contains(&field).then(|| Cow::Owned(field.to_uppercase()))
};

#[derive(Clone)]
struct Item(Vec<(&'static str, Value)>);

impl Row for Item {
    fn field(&self, name: &str) -> Value {
        self.0.iter().find(|(field, _)| *field == name).map_or(Value::None, |(_, v)| v.clone())
    }
}

fn item() -> Item {
    Item(vec![
        ("id", Value::Id(JobId(1_234_567_890))),
        ("name", Value::from("a long name")),
        ("count", Value::Int(1234)),
        ("share", Value::Float(0.25)),
        ("ok", Value::Bool(true)),
        ("time", Value::Float(1_700_000_000.25)),
        ("span", Value::Float(5405.0)),
        ("note.text", Value::from("it's")),
    ])
}

fn line(format: &str) -> String {
    Listing::parse(format, FIELDS).unwrap().line(&item()).unwrap()
}

fn error(format: &str) -> String {
    match Listing::parse(format, FIELDS) {
        Err(error) => error.to_string(),
        Ok(listing) => listing.line(&item()).unwrap_err().to_string(),
    }
}

#[test]
fn text_is_filled_aligned_and_cut_off() {
    assert_eq!(
        line("[{name:>13}] [{name:.6}] [{name:<6.6+}]"),
        "[  a long name] [a long] [a lon+]"
    );
    assert_eq!(line("[{name:*^15}] [{name:<15}]"), "[**a long name**] [a long name    ]");
    assert_eq!(line("{{{name}}}"), "{a long name}");
    assert_eq!(line("{note.text!r} {name!r}"), "\"it's\" 'a long name'");
}

#[test]
fn numbers_follow_pythons_rules() {
    assert_eq!(line("{count:6}|{count:<6}|{count:+5}|{count:,}"), "  1234|1234  |+1234|1,234");
    assert_eq!(line("{count:x} {count:#o} {count:08b}"), "4d2 0o2322 10011010010");
    assert_eq!(line("{count:07} {count:.1f} {count:e}"), "0001234 1234.0 1.234000e+03");
    assert_eq!(line("{share} {share:.1f} {share:8.3f}| {share:.0%}"), "0.25 0.2    0.250| 25%");
    assert_eq!(line("{time:.3} {share:.3} {span:g}"), "1.7e+09 0.25 5405");
    assert_eq!(line("{ok} {ok:>3}"), "True   1");
}

#[test]
fn nothing_is_blank_in_any_notation() {
    assert_eq!(line("[{none}] [{none:>4d}] [{none!F}] [{none!d:%F}]"), "[] [    ] [] []");
    assert_eq!(line("[{none:>4h}] [{none!d:%F::>4h}] [{none!F:>3h}]"), "[   -] [   -] [  -]");
}

#[test]
fn conversions_show_times_and_durations() {
    assert_eq!(line("{span!F} {share!F} {count!F}"), "1.501h 0.250s 20.57m");
    assert_eq!(line("{span!H} {share!H} {time!H}"), "1:30:05 0:00:01 19675 days, 22:13:20");
    assert_eq!(line("{share!P} {count!P}"), "25% 1.23e+05%");
    let year = line("{time!d:%Y} {time!D:.4} [{time!d:%Y::>6}]");
    assert_eq!(year, "2023 2023 [  2023]");
}

#[test]
fn job_ids_are_text_until_a_width_makes_them_numbers() {
    let f58 = crate::jobid::f58(JobId(1_234_567_890));
    assert_eq!(line("{id} {id:>12}"), format!("{f58}   1234567890"));
}

#[test]
fn errors_name_what_is_wrong() {
    assert_eq!(error("{nope}"), "Unknown format field: nope");
    assert_eq!(error("{name"), "expected '}' before end of string");
    assert_eq!(error("name}"), "Single '}' encountered in format string");
    assert_eq!(error("{"), "Single '{' encountered in format string");
    assert_eq!(error("{name!}"), "end of string while looking for conversion specifier");
    assert_eq!(error("{name!dd}"), "expected ':' after conversion specifier");
    assert_eq!(error("{name!q}"), "field 'name': Unknown conversion specifier q");
    assert_eq!(error("{name:d}"), "field 'name': Unknown format code 'd' for object of type 'str'");
    assert_eq!(error("{count:?}"), "field 'count': Invalid format specifier '?'");
    assert_eq!(error("{name!F}"), "field 'name': 'a long name' is not a number");
    assert_eq!(error("{name:>999999}"), "field 'name': Too many decimal digits in format string");
    assert_eq!(
        Listing::parse("sort:bad {name}", FIELDS).unwrap_err(),
        FormatError::SortKey("bad".to_owned())
    );
    assert_eq!(
        Listing::parse("{name:+5}", FIELDS).unwrap().line(&item()).unwrap_err(),
        FormatError::Value { field: "name".to_owned(), source: SpecError::Sign }
    );
}

fn named(name: &'static str, count: Value) -> Item {
    Item(vec![("name", Value::from(name)), ("count", count)])
}

#[test]
fn columns_go_and_grow_as_the_rows_need() {
    let listing =
        Listing::parse("{count:>3} ?:{none:<8} +:{name:<2.2}| ?+:{id:>9}", FIELDS).unwrap();
    let mut rows = [named("abc", Value::Int(1)), named("abcdef", Value::Int(2))];
    let lines = listing.lines(&mut rows, Print::default()).unwrap();
    assert_eq!(lines, ["COUNT NAME  ", "  1 abc   ", "  2 abcdef"]);
    let print = Print { no_header: true, width: Some(8) };
    assert_eq!(listing.lines(&mut rows, print).unwrap(), ["  1 abc+", "  2 abc+"]);
}

#[test]
fn rows_are_sorted_by_all_keys_with_blanks_and_numbers_first() {
    let mut listing = Listing::parse("sort:count,-name {name}", FIELDS).unwrap();
    assert_eq!(listing.fields(), ["count", "name"]);
    let mut rows = vec![
        named("a", Value::Int(10)),
        named("b", Value::from("x")),
        named("c", Value::from("9")),
        named("d", Value::Int(10)),
        named("e", Value::from("-")),
    ];
    let print = Print { no_header: true, width: None };
    assert_eq!(listing.lines(&mut rows, print).unwrap(), ["e", "c", "d", "a", "b"]);
    listing.set_sort("name").unwrap();
    assert_eq!(listing.lines(&mut rows, print).unwrap(), ["a", "b", "c", "d", "e"]);
    assert!(listing.set_sort("-nope").is_err());
}

#[test]
fn lines_without_some_columns_tell_which_rows_belong_together() {
    let listing = Listing::parse("+:{name:<10} {count:>5} {id}", FIELDS).unwrap();
    let key = listing.without(&["id", "count"]);
    assert_eq!(key.line(&named("abc", Value::Int(1))).unwrap(), "abc");
}

#[test]
fn blank_lines_are_not_printed() {
    let listing = Listing::parse("{none:>9}", FIELDS).unwrap();
    let print = Print { no_header: true, width: None };
    assert!(listing.lines(&mut [item()], print).unwrap().is_empty());
}
