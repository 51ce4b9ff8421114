//! Every row of tests/vectors/tables/fluid.json, captured from a real Flux, and the ids of jobs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/table.rs"]
mod table;

use flux_protocol::fluid::{Encoding, Exhausted, Generator, JobId};
use proptest::prelude::*;
use serde_json::json;

/// Here the real decoder looks up a byte above 127 in a table indexed by a signed char: it reads
/// whatever lies before that table. We refuse the string instead.
const READS_OUTSIDE_ITS_TABLE: &str = "ƒƒ";

#[test]
fn every_captured_row_gives_the_real_answer() {
    table::check("fluid.json", |row| match row.op() {
        "encode" => {
            let id = JobId(row.input().as_u64().unwrap());
            encodings(id, row.out().unwrap())
        }
        "decode" => {
            let input = row.input().as_str().unwrap();
            match (JobId::parse(input), row.out()) {
                (Err(_), Some(real)) if input == READS_OUTSIDE_ITS_TABLE => {
                    table::same("known difference", &json!(3190), real)
                }
                (Ok(ours), Some(real)) => table::same("out", &json!(ours.0), real),
                (Err(e), None) => table::same("errmsg", e.to_string().as_str(), row.errmsg()),
                (ours, real) => Err(format!("ours {ours:?}, real {real:?}")),
            }
        }
        op => Err(format!("unknown op {op}")),
    });
}

#[test]
fn ids_of_captured_jobs_are_spelled_as_flux_spells_them() {
    for (name, job) in table::jobs() {
        let spellings = &job["id"];
        let id = JobId::parse(spellings["dec"].as_str().unwrap()).unwrap();
        encodings(id, spellings).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// All given spellings of an id, written and read.
fn encodings(id: JobId, spellings: &serde_json::Value) -> Result<(), String> {
    for (name, real) in spellings.as_object().unwrap() {
        let real = real.as_str().unwrap();
        let encoding: Encoding = name.parse().map_err(|e| format!("{e}"))?;
        table::same(name, id.encode(encoding).as_str(), real)?;
        table::same(name, &JobId::parse(real).map_err(|e| e.to_string())?, &id)?;
    }
    Ok(())
}

#[test]
fn a_job_id_is_a_number_on_the_wire_and_f58_for_people() {
    let id = JobId(6731191091817518);
    assert_eq!(serde_json::to_string(&id).unwrap(), "6731191091817518");
    assert_eq!(id.to_string(), "ƒuZZybuNNy");
    assert!("base64".parse::<Encoding>().is_err());
    assert_eq!("DotHex".parse::<Encoding>().unwrap(), Encoding::Dothex);
}

#[test]
fn words_must_be_six_and_fit_their_halves() {
    let six = "academy-academy-academy--academy-academy-academy";
    assert!(JobId::parse(&format!("{six}-academy")).is_err());
    assert!(JobId::parse(&format!("{six}-nonsense")).is_err());
    assert_eq!(JobId::parse(&six.to_uppercase()).unwrap(), JobId(0));
    // Three times the highest digit is more than 32 bits.
    assert!(JobId::parse("amen-amen-amen--academy-academy-academy").is_err());
}

#[test]
fn generated_ids_ascend_and_survive_a_restart() {
    let mut generator = Generator::new(7, 100, 5_000).unwrap();
    let ids: Vec<JobId> =
        (0..5_000).map(|n| generator.generate(5_000 + n / 2_000).unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert!(ids.iter().all(|id| id.generator() == 7));
    assert_eq!((ids[0].timestamp_ms(), ids[0].sequence()), (100, 0));
    assert_eq!((ids[1024].timestamp_ms(), ids[1024].sequence()), (101, 0));

    let last = generator.timestamp_ms(5_002);
    let mut restarted = Generator::new(7, last + 1, 0).unwrap();
    assert!(restarted.generate(0).unwrap() > ids[4_999]);
}

#[test]
fn a_clock_that_stands_or_runs_back_never_repeats_an_id() {
    let mut generator = Generator::new(0, 0, 1_000).unwrap();
    let first = generator.generate(2_000).unwrap();
    let second = generator.generate(1_500).unwrap();
    let third = generator.generate(0).unwrap();
    assert!(first < second && second < third);
}

#[test]
fn a_generator_ends_with_its_bits() {
    assert_eq!(Generator::new(1 << 14, 0, 0).unwrap_err(), Exhausted::GeneratorId(1 << 14));
    let mut generator = Generator::new(0, (1 << 40) - 1, 0).unwrap();
    assert_eq!(generator.generate(0).unwrap().timestamp_ms(), (1 << 40) - 1);
    assert_eq!(generator.generate(1).unwrap_err(), Exhausted::Timestamp);
}

proptest! {
    #[test]
    fn every_spelling_of_every_id_reads_back(id: u64) {
        for encoding in Encoding::ALL {
            prop_assert_eq!(JobId::parse(&JobId(id).encode(encoding)).unwrap(), JobId(id));
        }
    }

    #[test]
    fn parsing_never_panics(text in "[ƒf0x][0-9a-zA-Z]{0,20}|[0-9a-f.]{0,24}|[a-z-]{0,60}|\\PC*|[😃😄🎉]{0,9}") {
        let _ = JobId::parse(&text);
    }
}
