#![no_main]

use flux_protocol::constraint::Constraint;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::{ResourceSet, Resources};

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    let Ok(value) = serde_json::from_slice(json) else { return };
    if let Ok(constraint) = Constraint::decode(&value) {
        let hosts = Hostlist::decode("n[0-3]").expect("a valid list");
        let set = ResourceSet::uniform(&Idset::first_n(4), Resources::default(), &hosts);
        let set = set.expect("a valid set");
        let matching = constraint.matching(&set);
        let others = Constraint::Not(vec![constraint]).matching(&set);
        assert!(!matching.intersects(&others));
        assert_eq!(matching.union(&others), set.ranks());
    }
});
