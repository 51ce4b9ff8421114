//! How far a dump or a restore has come: on standard error, and for systemd.

use flux_client::Client;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::state_machine;

/// What is told as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Every key.
    Keys,
    /// How many.
    Count,
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Progress {
    flux: Client,
    /// `flux-dump`
    command: &'static str,
    /// `archived`
    done: &'static str,
    tell: Tell,
    /// The broker passes it on to systemd, which thereby sees that something goes on.
    systemd: bool,
    keys: u64,
}

impl Progress {
    pub(crate) fn new(
        flux: &Client,
        command: &'static str,
        done: &'static str,
        tell: Tell,
        systemd: bool,
    ) -> Progress {
        Progress { flux: flux.clone(), command, done, tell, systemd, keys: 0 }
    }

    /// One more key; `blobs` is for restores.
    pub(crate) fn key(&mut self, line: std::fmt::Arguments<'_>, blobs: Option<u64>) {
        self.keys += 1;
        if self.tell == Tell::Keys {
            eprintln!("{line}");
        }
        if self.keys < 10 || self.keys.is_multiple_of(100) {
            self.show(blobs, "");
        }
    }

    pub(crate) fn end(&self, blobs: Option<u64>) {
        self.show(blobs, "\n");
    }

    fn show(&self, blobs: Option<u64>, end: &str) {
        let Progress { command, done, keys, .. } = self;
        if self.tell == Tell::Count {
            let blobs = blobs.map(|blobs| format!(" ({blobs} blobs)")).unwrap_or_default();
            eprint!("\r{command}: {done} {keys} keys{blobs}{end}");
        }
        if self.systemd {
            let status = Some(format!("{command}(1) has {done} {keys} keys"));
            let request = state_machine::SdNotifyRequest { status };
            let _ = self.flux.notify::<state_machine::SdNotify>(Nodeid::ANY, &request);
        }
    }
}

/// From the options `--verbose` and `--quiet`.
pub(crate) fn tell(verbose: bool, quiet: bool) -> Tell {
    match (verbose, quiet) {
        (true, _) => Tell::Keys,
        (false, true) => Tell::Nothing,
        (false, false) => Tell::Count,
    }
}
