//! `flux account-pop-db`
#![forbid(unsafe_code)]

#[path = "../forward.rs"]
mod forward;

fn main() -> std::process::ExitCode {
    forward::to("pop-db")
}
