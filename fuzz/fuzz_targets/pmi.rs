#![no_main]

use flux_pmi::{Action, Server};

// Lines that tasks send to the PMI-1 server of their shell or of `flux start`.
libfuzzer_sys::fuzz_target!(|lines: &str| {
    let mut server = Server::new("kvs", 4, 2);
    for line in lines.lines() {
        match server.request(line) {
            Ok(Action::Complete) => {
                let puts = server.take_puts();
                server.release(puts);
            }
            Ok(Action::Reply(reply)) => assert!(!reply.contains('\n')),
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
