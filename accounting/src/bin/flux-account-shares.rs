//! `flux account-shares`
#![forbid(unsafe_code)]

#[path = "../forward.rs"]
mod forward;

fn main() -> std::process::ExitCode {
    forward::to("shares")
}
