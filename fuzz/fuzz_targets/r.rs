#![no_main]

use flux_protocol::r::ResourceSet;

libfuzzer_sys::fuzz_target!(|json: &str| {
    let Ok(set) = ResourceSet::decode(json) else { return };
    if set.nnodes() > 1000 {
        return;
    }
    let text = set.encode().expect("what was decoded can be encoded");
    let again = ResourceSet::decode(&text).expect("and decoded again");
    assert_eq!(again.dumps(), set.dumps());
    assert!(set.diff(&again).is_empty());
    assert!(set.contains(&again));
});
