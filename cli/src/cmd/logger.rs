//! `flux logger`: put a line into the log.

use std::io::Read;

use clap::Args;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Raw;
use flux_protocol::rpc::log;
use jiff::Timestamp;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::stdlog::{Line, SEVERITIES};

#[derive(Debug, Args)]
#[command(override_usage = "flux-logger [--severity LEVEL] [--appname NAME] message ...")]
pub(crate) struct Logger {
    /// emerg, alert, crit, err, warning, notice, info or debug
    #[arg(short, long, value_name = "LEVEL", default_value = "notice")]
    severity: String,
    /// Name of the program that logs
    #[arg(short = 'n', long, value_name = "NAME", default_value = "logger")]
    appname: String,
    message: Vec<String>,
}

impl Logger {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let severity =
            SEVERITIES.iter().position(|name| *name == self.severity).ok_or_else(|| {
                Failure::new(format_args!("invalid severity: Use {}", SEVERITIES.join("|")))
            })?;
        let mut message = self.message.join(" ").into_bytes();
        if self.message.is_empty() {
            let read = std::io::stdin().lock().read_to_end(&mut message);
            read.map_err(|e| Failure::of("stdin", strerror(&e)))?;
        }
        let message = String::from_utf8_lossy(&message);
        let flux = context.connect().await?;
        let rank = flux.attr("rank").await.map_err(|e| Failure::of("rank", e))?;
        for message in message.split(['\n', '\0']).map(str::trim_end) {
            if message.is_empty() {
                continue;
            }
            let line = Line {
                severity,
                timestamp: &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
                host: &rank,
                app: &self.appname,
                message,
            };
            flux.rpc::<log::Append>(Nodeid::ANY, &Raw(line.encode().into()))
                .await
                .map_err(|e| Failure::of("flux_log", e))?;
        }
        Ok(0)
    }
}
