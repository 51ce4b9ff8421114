//! `flux startlog`: when the instance was started and stopped, and when it crashed.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use flux_client::Client;
use flux_client::kvs::{self, Root, Transaction};
use flux_protocol::eventlog::{self, Event};
use flux_protocol::fsd;
use flux_protocol::rpc::kvs::{PRIMARY, commit};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::eventlog::local;
use crate::failure::{Failure, Outcome};
use crate::outln;

const KEY: &str = "admin.eventlog";
const VERSION: u32 = 1;

#[derive(Debug, Args)]
#[command(override_usage = "flux startlog [OPTIONS]")]
pub(crate) struct Startlog {
    /// Check if instance was properly shut down
    #[arg(long)]
    check: bool,
    /// Suppress listing, useful with --check
    #[arg(long)]
    quiet: bool,
    /// Show the flux-core version string in output
    #[arg(short = 'v', long)]
    show_version: bool,
    /// Post start event to eventlog (for rc use only)
    #[arg(long, hide = true)]
    post_start_event: bool,
    /// Post finish event to eventlog (for rc use only)
    #[arg(long, hide = true)]
    post_finish_event: bool,
    /// override startlog key (test only)
    #[arg(long, value_name = "PATH", hide = true, default_value = KEY)]
    test_startlog_key: String,
    /// override startlog version (test only)
    #[arg(long, value_name = "VERSION", hide = true, default_value_t = VERSION)]
    test_startlog_version: u32,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    core_version: Option<String>,
}

impl Startlog {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let flux = context.connect().await?;
        if self.post_start_event {
            let version = Some(env!("CARGO_PKG_VERSION").to_owned());
            // The record of a start must survive whatever comes next.
            self.post(&flux, "start", version, commit::SYNC).await
        } else if self.post_finish_event {
            self.post(&flux, "finish", None, 0).await
        } else {
            self.list(&flux).await
        }
    }

    async fn post(
        &self,
        flux: &Client,
        name: &str,
        core_version: Option<String>,
        flags: u32,
    ) -> Outcome {
        if flux.attr("rank").await.map_err(|e| Failure::of("Error fetching rank", e))? != "0" {
            return Err(Failure::new("Startlog events may only be posted from rank 0"));
        }
        let entry = Entry { version: self.test_startlog_version, core_version };
        let line = Event::new(now(), name)
            .with_context(&entry)
            .and_then(|event| event.encode())
            .map_err(|e| Failure::of(format_args!("Error creating {name} event"), e))?;
        Transaction::new()
            .append(&self.test_startlog_key, line.as_bytes())
            .commit(flux, PRIMARY, flags)
            .await
            .map_err(|e| Failure::of(format_args!("Error committing {name} event"), e))?;
        Ok(0)
    }

    async fn list(&self, flux: &Client) -> Outcome {
        let log = kvs::get(flux, Root::Namespace(PRIMARY), &self.test_startlog_key)
            .await
            .map_err(|e| Failure::of("Error fetching eventlog", e))?;
        let log = String::from_utf8_lossy(&log);
        let events =
            eventlog::decode(&log).map_err(|e| Failure::of("Error decoding eventlog", e))?;
        // A start without an end so far: its line, and its time.
        let mut open: Option<(String, f64)> = None;
        let mut crashed = false;
        for event in events {
            // Entries of a later version are for later commands.
            let Ok(entry) = event.context_as::<Entry>() else { continue };
            if entry.version > self.test_startlog_version {
                continue;
            }
            let time = local(event.timestamp, "%Y-%m-%d %H:%M");
            match event.name.as_str() {
                "start" => {
                    if let Some((line, _)) = open.take() {
                        self.print(&format!("{line}crashed"));
                        crashed = true;
                    }
                    let version = match self.show_version {
                        true => format!("{:>25}  ", entry.core_version.unwrap_or_default()),
                        false => String::new(),
                    };
                    open = Some((format!("{version}{time} - "), event.timestamp));
                }
                "finish" => {
                    if let Some((line, start)) = open.take() {
                        let duration = duration(event.timestamp - start);
                        self.print(&format!("{line}{time} ({duration})"));
                        crashed = false;
                    }
                }
                _ => {}
            }
        }
        if let Some((line, start)) = open {
            self.print(&format!("{line}running ({})", duration(now() - start)));
        }
        if self.check && crashed { Err(Failure::silent(1)) } else { Ok(0) }
    }

    fn print(&self, line: &str) {
        if !self.quiet {
            outln!("{line}");
        }
    }
}

fn duration(seconds: f64) -> String {
    fsd::format_with_precision(seconds.max(0.0), 2).unwrap_or_default()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
