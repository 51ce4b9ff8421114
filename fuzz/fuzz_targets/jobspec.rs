#![no_main]

use flux_protocol::jobspec::Jobspec;

libfuzzer_sys::fuzz_target!(|json: &str| {
    if let Ok(jobspec) = Jobspec::decode(json) {
        let _ = (jobspec.counts(), jobspec.ntasks(), jobspec.command(), jobspec.duration());
        let text = jobspec.encode().expect("what was decoded can be encoded");
        assert_eq!(Jobspec::decode(&text).expect("and decoded again"), jobspec);
    }
});
