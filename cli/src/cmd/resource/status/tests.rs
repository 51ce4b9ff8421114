use flux_protocol::rpc::resource as rpc;
use serde_json::json;

use super::*;

/// Rank 1 is offline, 2 excluded, 3 drained and idle, 4 drained and busy, 5 drained and offline.
fn sets() -> Sets {
    let drained =
        |reason: &str, timestamp: f64| rpc::DrainInfo { timestamp, reason: reason.into() };
    let status = rpc::StatusResponse {
        r: json!({"version": 1, "execution": {
            "R_lite": [{"rank": "0-5", "children": {"core": "0-3"}}],
            "starttime": 0.0, "expiration": 0.0, "nodelist": ["fluke[25-30]"],
        }}),
        drain: [
            ("3,5".to_owned(), drained("node is fubar", 1_608_109_225.0)),
            ("4".to_owned(), drained("other", 1_608_109_226.0)),
        ]
        .into(),
        online: "0,2-4".to_owned(),
        offline: "1,5".to_owned(),
        exclude: "2".to_owned(),
        torpid: String::new(),
    };
    Sets::new(&status, "4".parse().unwrap(), Idset::new()).unwrap()
}

fn table(format: &str, headings: Headings, states: Option<&str>, later: bool) -> Vec<String> {
    let listing = Listing::parse(&uncolored(format), headings).unwrap();
    let default = if later { LATER_STATES } else { GUIDE_STATES };
    let parsed = parse_states(states, default, later).unwrap();
    let query = Query { states: &parsed, later, skip_empty: states.is_none() };
    let mut lines = lines(&sets(), query, &listing.without(&SUMS)).unwrap();
    listing.lines(&mut lines, Print::default()).unwrap()
}

fn guide(states: Option<&str>) -> Vec<String> {
    table(GUIDE, guide_heading, states, false)
}

#[test]
fn rows_are_the_guides() {
    assert_eq!(
        guide(None),
        [
            "    STATUS NNODES RANKS           NODELIST",
            "     avail      1 0               fluke25",
            "   offline      2 1,5             fluke[26,30]",
            "   exclude      1 2               fluke27",
            "  draining      1 4               fluke29",
            "   drained      2 3,5             fluke[28,30]",
        ]
    );
}

#[test]
fn states_that_are_asked_for_are_shown_when_they_are_empty() {
    assert_eq!(
        guide(Some("torpid,housekeeping")),
        [
            "    STATUS NNODES RANKS           NODELIST",
            "    torpid      0                 ",
            "housekeeping      0                 ",
        ]
    );
    assert_eq!(
        guide(Some("all")).last().unwrap(),
        "       all      6 0-5             fluke[25-30]"
    );
    assert_eq!(
        guide(Some("drain")).last().unwrap(),
        "     drain      3 3-5             fluke[28-30]"
    );
    assert!(parse_states(Some("bogus"), GUIDE_STATES, false).is_err());
}

#[test]
fn reasons_make_rows_where_they_are_shown() {
    let rows = table(GUIDE_WITH_REASON, guide_heading, Some("drain"), false);
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().any(|row| row.contains("3,5             node is fubar")), "{rows:?}");
}

#[test]
fn later_formats_mark_offline_nodes_with_a_star() {
    let default = FORMATS.builtin.first().unwrap().format;
    let rows = table(default, later_heading, None, true);
    let words: Vec<Vec<&str>> =
        rows.iter().skip(1).map(|row| row.split_whitespace().collect()).collect();
    let states: Vec<&str> = words.iter().map(|words| words[0]).collect();
    assert_eq!(states, ["avail", "avail*", "exclude", "draining", "drained", "drained*"]);
    assert_eq!(words[1].last(), Some(&"fluke26"));
    let offline = table("{state} {up.ascii} {ranks}", later_heading, Some("offline"), true);
    assert!(offline.contains(&"avail* n 1".to_owned()), "{offline:?}");
    assert!(offline.contains(&"drained* n 5".to_owned()), "{offline:?}");
}

#[test]
fn drained_nodes_are_listed_with_time_and_reason() {
    let rows = table(GUIDE_DRAIN, guide_drain_heading, Some("drain"), true);
    assert_eq!(
        rows.first().unwrap(),
        "TIMESTAMP            STATE    RANK     REASON                         NODELIST"
    );
    let row = rows.iter().find(|row| row.contains("fluke28")).unwrap();
    assert!(row.contains("drained  3        node is fubar                  fluke28"), "{row}");
    assert_eq!(row.find(" drained"), Some(20), "{row}");
}
