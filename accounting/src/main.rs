//! `flux account`: who may run jobs, in whose name, and how large a share each is due.
//!
//! All of it lives in one SQLite database, the layout of which is flux-accounting 0.18's.
#![forbid(unsafe_code)]

mod banks;
mod cli;
mod database;
mod error;
mod exchange;
mod fairshare;
mod priority_update;
mod queues;
mod records;
mod schema;
mod shares;
mod simulate;
mod table;
mod update_db;
mod usage;
mod users;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let mut out = String::new();
    let outcome = cli::run(cli::Cli::parse(), &mut out);
    // What was found before an error is printed all the same. Whoever closed the pipe had enough.
    let _ = std::io::stdout().write_all(out.as_bytes());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flux-account: {error}");
            ExitCode::from(error.code())
        }
    }
}
