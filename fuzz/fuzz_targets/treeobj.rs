#![no_main]

use flux_protocol::treeobj::Treeobj;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Ok(tree) = Treeobj::decode(json) {
        let text = tree.encode().expect("what was decoded can be encoded");
        assert_eq!(Treeobj::decode(text.as_bytes()).expect("and decoded again"), tree);
    }
});
