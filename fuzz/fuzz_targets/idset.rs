#![no_main]

use flux_protocol::idset::Idset;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(set) = Idset::decode(text) {
        assert_eq!(Idset::decode(&set.encode()), Ok(set));
    }
});
