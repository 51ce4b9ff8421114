#![no_main]

use flux_protocol::eventlog;

libfuzzer_sys::fuzz_target!(|log: &str| {
    // A name may be empty and a time negative when read, but neither is ever written.
    if let Ok(events) = eventlog::decode(log)
        && let Ok(text) = eventlog::encode(&events)
    {
        assert_eq!(eventlog::decode(&text).expect("what was encoded can be decoded"), events);
    }
});
