#![no_main]

use bytes::BytesMut;
use flux_protocol::frame;

// A stream of frames as a client sends it: what is read and written again is read the same.
libfuzzer_sys::fuzz_target!(|stream: &[u8]| {
    let mut rest = BytesMut::from(stream);
    while let Ok(Some(message)) = frame::decode(&mut rest, 1 << 20) {
        let mut again = BytesMut::new();
        frame::encode(&message, &mut again);
        let decoded = frame::decode(&mut again, 2 << 20).expect("what was decoded can be encoded");
        assert_eq!(decoded.expect("and is whole"), message);
        assert!(again.is_empty());
    }
});
