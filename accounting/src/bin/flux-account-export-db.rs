//! `flux account-export-db`
#![forbid(unsafe_code)]

#[path = "../forward.rs"]
mod forward;

fn main() -> std::process::ExitCode {
    forward::to("export-db")
}
