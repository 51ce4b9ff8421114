#![no_main]

use flux_protocol::taskmap::{Form, Taskmap};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(map) = Taskmap::decode(text) else { return };
    if map.total_ntasks().is_some_and(|tasks| tasks > 100_000) {
        return;
    }
    let json = map.encode(Form::Json).expect("the JSON form cannot fail");
    assert_eq!(Taskmap::decode(&json).expect("what was encoded can be decoded"), map);
    if let Ok(raw) = map.encode(Form::Raw) {
        let again = Taskmap::decode(&raw).expect("what was encoded can be decoded");
        assert_eq!(again.total_ntasks(), map.total_ntasks());
    }
});
