#![no_main]

use flux_protocol::fsd;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(seconds) = fsd::parse(text) {
        assert!(fsd::format(seconds).is_ok_and(|text| fsd::parse(&text).is_ok()));
    }
    if let Ok(seconds) = fsd::python_parse(text) {
        assert!(seconds >= 0.0);
    }
});
