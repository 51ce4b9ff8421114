#![no_main]

use flux_protocol::hostlist::{HostIndex, Hostlist};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(mut list) = Hostlist::decode(text) else { return };
    let count = list.count();
    if count > 10_000 {
        return;
    }
    let index = HostIndex::new(&list);
    for (position, host) in (0..).zip(list.iter()) {
        assert!(index.find(&host).is_some_and(|first| first <= position));
    }
    list.sort();
    assert_eq!(list.count(), count);
    list.uniq();
    assert!(list.count() <= count);
});
