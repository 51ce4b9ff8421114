//! `flux shutdown`: end an instance in order, and show how it goes.

use std::io::{BufRead, IsTerminal};

use clap::{ArgAction, Args};
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{attr, config, kvs, shutdown};

use crate::cmd::uri;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{out, outln, output};

/// Severities (RFC 5424) up to which the log is shown.
const WARNING: u32 = 4;
const INFO: u32 = 6;
const DEBUG: u32 = 7;

#[derive(Debug, Args)]
#[command(override_usage = "flux shutdown [OPTIONS] [TARGET]")]
pub(crate) struct Shutdown {
    /// Skip KVS garbage collection this time, if already enabled
    #[arg(long)]
    skip_gc: bool,
    /// Garbage collect KVS (short for --dump=auto)
    #[arg(long)]
    gc: bool,
    /// Dump KVS content to specified archive file using flux-dump(1).
    #[arg(long, value_name = "PATH")]
    dump: Option<String>,
    /// Exit the command immediately after initiating shutdown
    #[arg(long)]
    background: bool,
    /// Show only log messages <= LOG_WARNING level
    #[arg(long)]
    quiet: bool,
    /// Show all log messages
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Answer yes to any yes/no questions
    #[arg(short, long)]
    yes: bool,
    /// Answer no to any yes/no questions
    #[arg(short, long)]
    no: bool,
    target: Option<String>,
}

impl Shutdown {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.gc && (self.skip_gc || self.dump.is_some()) {
            return Err(Failure::new("--gc is incompatible with --skip-gc or --dump"));
        }
        let flux = match &self.target {
            Some(target) => {
                let uri = uri::resolve(&context, target, false).await.map_err(|e| {
                    Failure::new(format_args!(
                        "failed to resolve target {target} to a Flux URI: {e}"
                    ))
                })?;
                context.connect_to(&uri).await?
            }
            None => context.connect().await?,
        };
        self.configure_dump(&flux).await?;
        // To the broker that we talk to, so that any but the leader refuses at once.
        let loglevel = match (self.quiet, self.verbose) {
            (true, _) => WARNING,
            (false, 0) => INFO,
            (false, _) => DEBUG,
        };
        let request = shutdown::StartRequest { loglevel: Some(loglevel) };
        if self.background {
            flux.rpc::<shutdown::StartOnly>(Nodeid::ANY, &request).await?;
            return Ok(0);
        }
        let mut log = flux.stream::<shutdown::Start>(Nodeid::ANY, &request)?;
        while let Some(lines) = log.next().await? {
            eprint!("{}", lines.log);
        }
        Ok(0)
    }

    /// rc3 dumps the store where the attribute `content.dump` says.
    async fn configure_dump(&self, flux: &Client) -> Result<(), Failure> {
        let mut dump = match flux.attr("content.dump").await {
            Ok(dump) => Some(dump),
            Err(e) if e.errno() == Errno::ENOENT => None,
            Err(e) => return Err(Failure::of("getattr content.dump", e)),
        };
        let wanted = if self.skip_gc {
            if dump.take().is_some() {
                let request = attr::RemoveRequest { name: "content.dump".to_owned() };
                flux.rpc::<attr::Remove>(Nodeid::ANY, &request)
                    .await
                    .map_err(|e| Failure::of("rmattr content.dump", e))?;
            }
            None
        } else if let Some(path) = &self.dump {
            Some(path.clone())
        } else if self.gc || self.gc_threshold_exceeded(flux).await? {
            Some("auto".to_owned())
        } else {
            None
        };
        if let Some(wanted) = wanted.filter(|wanted| dump.as_ref() != Some(wanted)) {
            let request = attr::SetRequest {
                name: "content.dump".to_owned(),
                value: wanted.clone(),
                force: false,
            };
            flux.rpc::<attr::Set>(Nodeid::ANY, &request)
                .await
                .map_err(|e| Failure::of("setattr content.dump", e))?;
            dump = Some(wanted);
        }
        if let Some(dump) = dump {
            let path = if dump == "auto" { dump_folder(flux).await } else { dump };
            eprintln!("flux-shutdown: shutdown will dump KVS to {path} (this may take some time)");
        }
        Ok(())
    }

    async fn gc_threshold_exceeded(&self, flux: &Client) -> Result<bool, Failure> {
        let request = kvs::GetrootRequest { namespace: kvs::PRIMARY.to_owned(), flags: None };
        let version = match flux.rpc::<kvs::Getroot>(Nodeid::ANY, &request).await {
            Ok(root) => root.rootseq,
            Err(e) if e.errno() == Errno::ENOSYS => 0,
            Err(e) => return Err(Failure::of("Error fetching KVS version", e.errno())),
        };
        let config = flux
            .rpc::<config::Get>(Nodeid::ANY, &Empty)
            .await
            .map_err(|e| Failure::of("Error fetching flux config", e))?;
        let threshold = config.get("kvs").and_then(|kvs| kvs.get("gc-threshold"));
        let threshold = threshold.and_then(serde_json::Value::as_i64).unwrap_or(0);
        if threshold <= 0 || version <= threshold {
            return Ok(false);
        }
        if self.yes || self.no {
            return Ok(self.yes);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new("gc threshold exceeded, specify -y or -n"));
        }
        ask("gc threshold exceeded, do you want to perform garbage collection")
    }
}

async fn dump_folder(flux: &Client) -> String {
    let keeps = flux.attr("statedir-cleanup").await.map_or(true, |cleanup| cleanup == "0");
    match flux.attr("statedir").await {
        Ok(dir) if keeps => format!("{dir}/dump/"),
        Ok(_) | Err(_) => "./dump/".to_owned(),
    }
}

/// A question whose answer is yes unless the user says no.
fn ask(question: &str) -> Result<bool, Failure> {
    loop {
        out!("{question} [Y/n]? ");
        output::flush();
        let mut answer = String::new();
        match std::io::stdin().lock().read_line(&mut answer) {
            Ok(n) if n > 0 => {}
            Ok(_) | Err(_) => return Err(Failure::new("error retrieving user input")),
        }
        match answer.chars().next() {
            Some('\n' | 'y' | 'Y') => return Ok(true),
            Some('n' | 'N') => return Ok(false),
            _ => outln!("Please answer y or n"),
        }
    }
}
