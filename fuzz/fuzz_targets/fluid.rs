#![no_main]

use flux_protocol::fluid::{Encoding, JobId};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(id) = JobId::parse(text) {
        for encoding in Encoding::ALL {
            assert_eq!(JobId::parse(&id.encode(encoding)), Ok(id));
        }
    }
});
