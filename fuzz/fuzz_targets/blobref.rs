#![no_main]

use flux_protocol::blobref::Blobref;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(blobref) = text.parse::<Blobref>() {
        assert_eq!(blobref.to_string(), text);
    }
});
