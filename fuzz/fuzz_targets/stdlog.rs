#![no_main]

use flux_protocol::stdlog::Line;

libfuzzer_sys::fuzz_target!(|line: &str| {
    if let Some(parsed) = Line::parse(line) {
        let _ = parsed.rank();
        let text = parsed.to_string();
        assert!(Line::parse(&text).is_some(), "what was read is written so that it can be read");
    }
});
