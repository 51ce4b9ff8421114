//! How long an instance takes to start, and to end.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use super::figures::percentiles;
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(override_usage = "flux-bench start [OPTIONS]")]
pub(crate) struct Start {
    /// Sizes of the instances
    #[arg(short, long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 16])]
    sizes: Vec<u32>,
    /// How many of each size
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5)]
    count: usize,
}

impl Start {
    pub(super) fn run(self) -> Result<(), Failure> {
        for size in self.sizes {
            let (mut first, mut whole) = (Vec::new(), Vec::new());
            for _ in 0..self.count {
                let (to_first, to_end) = start(size)?;
                first.push(to_first);
                whole.push(to_end);
            }
            percentiles(&format!("size {size}: to the program"), first);
            percentiles(&format!("size {size}: to the end"), whole);
        }
        Ok(())
    }
}

/// From the start of an instance to its initial program, and until all of it has ended.
fn start(size: u32) -> Result<(Duration, Duration), Failure> {
    let begin = Instant::now();
    let flux = std::env::current_exe().map_err(Failure::new)?;
    let size = format!("--test-size={size}");
    let mut instance = Command::new(flux)
        .args(["start", &size, "/bin/sh", "-c", "echo started"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Failure::new)?;
    let mut first = [0];
    let said = instance.stdout.take().map(|mut stdout| stdout.read_exact(&mut first));
    let to_first = begin.elapsed();
    let status = instance.wait().map_err(Failure::new)?;
    match said {
        Some(Ok(())) if status.success() => Ok((to_first, begin.elapsed())),
        _ => Err(Failure::new(format_args!("flux start {size} ended with {status}"))),
    }
}
