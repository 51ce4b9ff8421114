//! `flux pmi`: a client of the process management interface, to try what a launcher offers.

use std::time::{Duration, Instant};

use clap::{ArgAction, Args, Subcommand};
use flux_protocol::idset::Idset;

use self::client::{Options, Pmi, PmiError};
use crate::args::duration;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::{outln, output};
use flux_pmi::library;

mod client;

#[derive(Debug, Args)]
pub(crate) struct PmiArgs {
    /// Specify PMI method to use: config, simple, libpmi2[:PATH], libpmi[:PATH] or single
    #[arg(long, value_name = "URI")]
    method: Option<String>,
    /// Fail if libpmi method finds the Flux libpmi.so
    #[arg(long)]
    libpmi_noflux: bool,
    /// Force-enable libpmi2 cray workarounds for testing
    #[arg(long)]
    libpmi2_cray: bool,
    /// Trace PMI operations
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Time out after the specified time in RFC 23 Flux Standard Duration
    #[arg(short, long, value_name = "FSD", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Execute PMI barrier
    #[command(override_usage = "flux pmi barrier [OPTIONS]")]
    Barrier {
        /// For testing, execute N barrier operations (default 1)
        #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
        test_count: u32,
        /// For testing, RANK calls abort instead of barrier
        #[arg(long, value_name = "RANK")]
        test_abort: Option<u32>,
        /// For testing, synchronize then measure barrier time
        #[arg(long)]
        test_timing: bool,
    },
    /// Get PMI KVS key
    #[command(override_usage = "flux pmi get [OPTIONS] KEY...")]
    Get {
        /// Print value on specified ranks (default: 0)
        #[arg(long, value_name = "IDSET|all", default_value = "0", hide_default_value = true)]
        ranks: String,
        key: Vec<String>,
    },
    /// Perform an allgather style exchange
    #[command(override_usage = "flux pmi exchange [OPTIONS]")]
    Exchange {
        /// Execute N exchange operations (default 1)
        #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
        count: u32,
    },
}

impl PmiArgs {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if let Some(limit) = self.timeout {
            std::thread::spawn(move || {
                std::thread::sleep(limit);
                eprintln!("flux-pmi: timeout expired before PMI operation completed");
                std::process::exit(1);
            });
        }
        let env = |name: &str| context.env.get(name).map(str::to_owned);
        let options = Options {
            trace: self.verbose > 0,
            library: library::Options { noflux: self.libpmi_noflux, cray: self.libpmi2_cray },
        };
        let mut pmi = Pmi::open(self.method.as_deref(), env, options).map_err(Failure::new)?;
        let label = context.env.get("FLUX_JOB_CC").or_else(|| context.env.get("FLUX_JOB_ID"));
        let label = label.unwrap_or("0").to_owned();
        match self.command {
            Command::Barrier { test_count, test_abort, test_timing } => {
                if test_timing {
                    // Stragglers of the launch are not to be measured.
                    pmi.barrier().map_err(barrier_failed)?;
                }
                if test_abort == Some(pmi.rank()) {
                    let text = format!("flux-pmi: rank {} is aborting", pmi.rank());
                    pmi.abort(&text).map_err(|e| Failure::of("abort", e))?;
                }
                for _ in 0..test_count {
                    barrier(&mut pmi, &label, test_timing)?;
                }
            }
            Command::Get { ranks, key } => get(&mut pmi, &ranks, &key)?,
            Command::Exchange { count } => {
                pmi.barrier().map_err(barrier_failed)?;
                for _ in 0..count {
                    exchange(&mut pmi, &label)?;
                }
            }
        }
        pmi.finalize().map_err(|e| Failure::of("finalize", e))?;
        Ok(0)
    }
}

fn barrier(pmi: &mut Pmi, label: &str, timing: bool) -> Result<(), Failure> {
    let start = Instant::now();
    pmi.barrier().map_err(barrier_failed)?;
    if pmi.rank() == 0 {
        let time = match timing {
            true => format!(" in {:.3}s.", start.elapsed().as_secs_f64()),
            false => String::new(),
        };
        outln!("{label}: completed pmi barrier on {} tasks{time}", pmi.size());
        output::flush();
    }
    Ok(())
}

fn get(pmi: &mut Pmi, ranks: &str, keys: &[String]) -> Result<(), Failure> {
    let wanted = match ranks {
        "all" => true,
        ranks => Idset::decode(ranks)
            .map_err(|_| Failure::new("could not decode --ranks argument"))?
            .contains(pmi.rank()),
    };
    for key in keys.iter().filter(|_| wanted) {
        outln!("{}", pmi.get(key).map_err(|e| Failure::of(format_args!("get {key}"), e))?);
    }
    Ok(())
}

/// Put something on each rank, and look on each whether all of it is there.
fn exchange(pmi: &mut Pmi, label: &str) -> Result<(), Failure> {
    let start = Instant::now();
    let (name, rank, size) = (pmi.name().to_owned(), pmi.rank(), pmi.size());
    let pair = |rank: u32| (format!("key.{rank}"), format!("{name}-{rank}-{size}"));
    let (key, value) = pair(rank);
    pmi.put(&key, &value).map_err(|e| Failure::of(format_args!("put {key}"), e))?;
    pmi.barrier().map_err(barrier_failed)?;
    for rank in 0..size {
        let (key, value) = pair(rank);
        let got = pmi.get(&key).map_err(|e| Failure::of(format_args!("get {key}"), e))?;
        if got != value {
            return Err(Failure::new(format_args!("get {key}: returned unexpected value")));
        }
    }
    // The time is that of the slowest rank.
    pmi.barrier().map_err(barrier_failed)?;
    if rank == 0 {
        let seconds = start.elapsed().as_secs_f64();
        outln!("{label}: completed pmi exchange on {size} tasks in {seconds:.3}s.");
        output::flush();
    }
    Ok(())
}

fn barrier_failed(error: PmiError) -> Failure {
    Failure::of("barrier", error)
}
