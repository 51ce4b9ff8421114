//! `flux relay`: a broker's socket by way of standard input and output, for the ssh connector.

use std::path::PathBuf;

use clap::Args;
use tokio::io::{AsyncWriteExt, copy, stdin, stdout};
use tokio::net::UnixStream;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};

#[derive(Debug, Args)]
#[command(override_usage = "flux relay [OPTIONS] path")]
pub(crate) struct Relay {
    path: PathBuf,
}

impl Relay {
    /// The broker's handshake passes through like everything else.
    pub(crate) async fn run(self, _context: Context) -> Outcome {
        // The user sees this on another host, and wants to know on which.
        let host = nix::unistd::gethostname().unwrap_or_default();
        let failed = |e: std::io::Error| {
            Failure::of(format_args!("local://{}", self.path.display()), strerror(&e))
                .prefix(host.to_string_lossy())
        };
        let broker = UnixStream::connect(&self.path).await.map_err(failed)?;
        let (mut from_broker, mut to_broker) = broker.into_split();
        let up = async {
            copy(&mut stdin(), &mut to_broker).await?;
            to_broker.shutdown().await
        };
        let down = async {
            let mut stdout = stdout();
            copy(&mut from_broker, &mut stdout).await?;
            stdout.flush().await
        };
        // Whichever side leaves first ends it.
        tokio::select! {
            result = up => result,
            result = down => result,
        }
        .map_err(failed)?;
        Ok(0)
    }
}
