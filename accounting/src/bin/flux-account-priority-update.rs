//! `flux account-priority-update`
#![forbid(unsafe_code)]

#[path = "../forward.rs"]
mod forward;

fn main() -> std::process::ExitCode {
    forward::to("priority-update")
}
