#![no_main]

// A signed request (RFC 39), and the list of keys and values (RFC 38) that its header is.
libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(envelope) = flux_sign::decode(text) {
        assert!(envelope.payload.len() <= text.len());
    }
    if let Ok(pairs) = flux_sign::kv::decode(text.as_bytes()) {
        let again = flux_sign::kv::encode(&pairs);
        assert_eq!(flux_sign::kv::decode(&again), Ok(pairs));
    }
    let _ = flux_sign::unwrap_none(text);
});
