#![no_main]

use flux_cert::Certificate;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(certificate) = Certificate::parse(text) {
        let again = Certificate::parse(&certificate.to_text()).expect("what was read can be written");
        assert_eq!(again.to_text(), certificate.to_text());
    }
});
