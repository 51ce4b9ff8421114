//! Eventlogs of real jobs, and lines as a real Flux wrote them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::eventlog::{self, Event, EventlogError};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Lines as they stand in a real KVS: some timestamps have more digits than the shortest text that
/// gives the same number.
const REAL_LINES: [&str; 8] = [
    r#"{"timestamp":1795361674.9575689,"name":"starting"}"#,
    r#"{"timestamp":1795360691.2624979,"name":"resource-define","context":{"method":"dynamic-discovery"}}"#,
    r#"{"timestamp":1795361686.5879011,"name":"release","context":{"ranks":"all","final":true}}"#,
    r#"{"timestamp":1795360879.2677619,"name":"data","context":{"stream":"stdin","rank":"all","data":"a\nb\n"}}"#,
    r#"{"timestamp":1795360878.1060531,"name":"shell.start","context":{"taskmap":{"version":1,"map":[[0,4,1,1]]}}}"#,
    r#"{"timestamp":1795361688.1158209,"name":"priority","context":{"priority":16}}"#,
    r#"{"timestamp":1795360690.3189058,"name":"init"}"#,
    r#"{"timestamp":1795361682.8105509,"name":"clean"}"#,
];

#[test]
fn real_lines_come_out_as_they_went_in() {
    for line in REAL_LINES {
        assert_eq!(Event::decode(line).unwrap().encode().unwrap(), format!("{line}\n"));
    }
    let log: String = REAL_LINES.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(eventlog::encode(&eventlog::decode(&log).unwrap()).unwrap(), log);
}

#[test]
fn contexts_built_here_are_written_as_the_real_ones() {
    #[derive(serde::Serialize)]
    struct Release {
        ranks: &'static str,
        r#final: bool,
    }
    let event = Event::new(1795361686.587_901, "release")
        .with_context(&Release { ranks: "all", r#final: true })
        .unwrap();
    assert_eq!(event.encode().unwrap().trim_end(), REAL_LINES[2]);
}

#[test]
fn eventlogs_of_real_jobs_survive() {
    let mut seen = 0;
    for (name, job) in table::jobs() {
        let kvs = job["kvs"].as_object().unwrap();
        for log in kvs.values().filter_map(Value::as_array) {
            let events: Vec<Event> =
                log.iter().map(|e| serde_json::from_value(e.clone()).unwrap()).collect();
            let text = eventlog::encode(&events).unwrap();
            let again = eventlog::decode(&text).unwrap();
            assert_eq!(again, events, "{name}");
            let values: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(&values, log, "{name}");
            seen += events.len();
        }
    }
    assert!(seen > 500, "only {seen} events");
}

#[test]
fn context_is_read_into_the_type_that_the_name_calls_for() {
    #[derive(serde::Deserialize)]
    struct Priority {
        priority: i64,
    }
    let event = Event::decode(REAL_LINES[5]).unwrap();
    assert_eq!(event.context_as::<Priority>().unwrap().priority, 16);
    assert!(Event::new(1.0, "x").context_as::<Priority>().is_err());
    assert_eq!(event.context.unwrap().members().unwrap()["priority"].get(), "16");
}

#[test]
fn what_is_no_event_is_refused() {
    for bad in [
        "",
        "\n",
        "{}",
        "[]",
        r#"{"timestamp":1,"name":"a"}{}"#,
        r#"{"timestamp":"1","name":"a"}"#,
        r#"{"timestamp":1}"#,
        r#"{"name":"a"}"#,
        r#"{"timestamp":1,"name":7}"#,
        r#"{"timestamp":1,"name":"a","context":null}"#,
        r#"{"timestamp":1,"name":"a","context":"b"}"#,
        r#"{"timestamp":1,"name":"a","context":[]}"#,
        "{\"timestamp\":1,\n\"name\":\"a\"}",
        "{\"timestamp\":1,\"name\":\"a\"}\n\n",
    ] {
        assert!(Event::decode(bad).is_err(), "{bad}");
    }
    assert!(matches!(Event::new(1.0, "").encode(), Err(EventlogError::NoName)));
    assert!(matches!(Event::new(-1.0, "a").encode(), Err(EventlogError::Timestamp(_))));
    assert!(matches!(Event::new(f64::NAN, "a").encode(), Err(EventlogError::Timestamp(_))));
    assert!(matches!(
        Event::new(1.0, "a").with_context(&json!([1])),
        Err(EventlogError::NotAnObject)
    ));
}

#[test]
fn a_log_is_its_complete_lines() {
    assert_eq!(eventlog::decode("").unwrap(), []);
    assert!(matches!(eventlog::decode(REAL_LINES[0]), Err(EventlogError::NoNewline)));
    let cut = format!("{}\n{}", REAL_LINES[0], r#"{"timest"#);
    assert_eq!(eventlog::decode(&cut).unwrap().len(), 1);
    let error = eventlog::decode(&format!("{}\n\n", REAL_LINES[0])).unwrap_err();
    assert!(error.to_string().starts_with("event 2: "), "{error}");
}

#[test]
fn integer_timestamps_are_read_and_unknown_keys_ignored() {
    let event = Event::decode(r#"{"name":"a","more":[1],"timestamp":12}"#).unwrap();
    assert_eq!(event.encode().unwrap(), "{\"timestamp\":12.0,\"name\":\"a\"}\n");
}

fn json_object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        (0.0..2e9f64).prop_map(Value::from),
        "\\PC{0,8}|[\n\t\u{1b}]{0,3}".prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null)
    ];
    let any = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("\\PC{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        ]
    });
    prop::collection::hash_map("\\PC{0,6}", any, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #[test]
    fn any_event_survives(timestamp in 0.0..1e11f64, name in "\\PC{1,12}", context in prop::option::of(json_object())) {
        let mut event = Event::new(timestamp, name);
        if let Some(context) = &context {
            event = event.with_context(context).unwrap();
        }
        let line = event.encode().unwrap();
        prop_assert_eq!(&Event::decode(&line).unwrap(), &event);
        prop_assert_eq!(Event::decode(&line).unwrap().context.map(|c| serde_json::from_str::<Value>(c.get()).unwrap()), context);
        prop_assert_eq!(eventlog::decode(&line).unwrap(), [event]);
    }

    #[test]
    fn decoding_never_panics(text in "\\PC*|[{}\":,a-z0-9\n]{0,40}") {
        let _ = Event::decode(&text);
        let _ = eventlog::decode(&text);
    }
}
