//! Jobs of other users, through the IMP (RFC 15).
//!
//! `flux-imp exec SHELL ID` is given the job request as its user has signed it, and runs the shell
//! as that user. The broker may not signal that user's processes, but the IMP, which passes
//! signals on; SIGUSR1 stands for SIGKILL there.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::message::{Flags, Nodeid};
use flux_protocol::rpc::{job_info, rexec};
use serde_json::{Value, json};

use super::Context;
use super::run::Run;

/// How to start a shell.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) command: rexec::Command,
    /// What it reads on its standard input.
    pub(super) input: Option<String>,
}

/// Bytes of input that may be under way to a process, as long as nobody says otherwise.
const DEFAULT_BUFSIZE: usize = 4 << 20;

impl Run {
    /// Is it the job of somebody whom this broker can't become?
    pub(super) fn is_through_imp(&self, context: &Context) -> bool {
        self.userid() != context.broker().owner().0
    }

    /// The signal that has this one's effect on a shell.
    pub(super) fn signal_for_shell(&self, context: &Context, signum: i32) -> i32 {
        match signum {
            libc::SIGKILL if self.is_through_imp(context) => libc::SIGUSR1,
            _ => signum,
        }
    }

    pub(super) async fn launch_through_imp(
        &self,
        context: &Context,
        mut command: rexec::Command,
    ) -> Result<Launch, Failure> {
        let imp = self.settings().imp.as_ref().ok_or_else(|| {
            let text = "unable to run multiuser job with no IMP configured: exec.imp is not set";
            Failure::new(Errno::EINVAL, text)
        })?;
        command.cmdline.splice(0..0, [imp.clone(), "exec".to_owned()]);
        let input = json!({ "J": self.signed_request(context).await? }).to_string();
        if input.len() > DEFAULT_BUFSIZE {
            command.opts.insert("stdin_BUFSIZE".to_owned(), input.len().to_string());
        }
        Ok(Launch { command, input: Some(input) })
    }

    /// `J` of this job.
    async fn signed_request(&self, context: &Context) -> Result<String, Failure> {
        let keys = vec!["J".to_owned()];
        let request = job_info::LookupRequest { id: self.id(), keys, flags: 0 };
        let response = context.handle().rpc::<job_info::Lookup>(&request).await?;
        let j = response.get("J").and_then(Value::as_str).map(str::to_owned);
        j.ok_or_else(|| Failure::new(Errno::ENOENT, "job request is not in the KVS"))
    }
}

/// Write to the standard input of the process that an exec request of this tag has started.
pub(super) fn send(context: &Context, rank: u32, tag: u32, input: &str) -> Result<(), Failure> {
    let io = rexec::Io {
        stream: "stdin".to_owned(),
        rank: rank.to_string(),
        encoding: None,
        data: Some(input.to_owned()),
        eof: true,
    };
    let request = rexec::WriteRequest { matchtag: tag, io };
    context.handle().notify::<rexec::Write>(Nodeid(rank), Flags::default(), &request)
}

/// What the IMP says in this line why it can't go on, if it does.
pub(super) fn refusal(line: &str) -> Option<&str> {
    line.strip_prefix("flux-imp: Fatal: ")
}
