//! `flux-shell JOBID`: the job shell.
//!
//! The execution system starts one on every node of a job, as the job's user and with the broker's
//! `FLUX_URI`. It starts the tasks of that node and carries their input, output and signals.

use std::process::ExitCode;

use flux_protocol::fluid::JobId;

mod affinity;
mod batch;
mod clock;
mod doom;
mod environment;
mod fatal;
mod files;
mod input;
mod io;
mod job;
mod jobspec;
mod journal;
mod layout;
mod log;
mod mustache;
mod oom;
mod options;
mod output;
mod pmi;
mod rexec;
mod rlimit;
mod shell;
mod signals;
mod startup;
mod sys;
mod task;
mod terminus;
mod tmpdir;
mod topology;

const USAGE: &str = "Usage: flux-shell [OPTIONS] JOBID
Start the tasks of a job on this node; meant to be called by the execution system.

  -h, --help       Display this message
      --reconnect  Accepted, without effect: the shell ends when its broker does
      --terminus=SERVICE
                   No job: offer terminals to flux terminus
      --version    Display version";

enum Call {
    Run(JobId),
    Terminus(String),
    Print(String),
}

fn main() -> ExitCode {
    let call = match parse(std::env::args().skip(1)) {
        Ok(call @ (Call::Run(_) | Call::Terminus(_))) => call,
        Ok(Call::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(text) => {
            eprintln!("flux-shell: {text}");
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("flux-shell: FATAL: {e}");
            return ExitCode::FAILURE;
        }
    };
    let code = match call {
        Call::Run(id) => runtime.block_on(shell::run(id)),
        Call::Terminus(service) => runtime.block_on(terminus::server::run(&service)),
        Call::Print(_) => 0,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn parse(args: impl Iterator<Item = String>) -> Result<Call, String> {
    let mut id = None;
    for arg in args {
        match arg.as_str() {
            "-h" | "--help" => return Ok(Call::Print(USAGE.to_owned())),
            "--version" => {
                return Ok(Call::Print(format!("flux-shell {}", env!("CARGO_PKG_VERSION"))));
            }
            "--reconnect" => {}
            option if let Some(service) = option.strip_prefix("--terminus=") => {
                return Ok(Call::Terminus(service.to_owned()));
            }
            option if option.starts_with('-') => {
                return Err(format!("unrecognized option '{option}'"));
            }
            _ if id.is_some() => return Err(format!("unexpected argument '{arg}'")),
            _ => id = Some(arg),
        }
    }
    let id = id.ok_or_else(|| "a job id is required".to_owned())?;
    JobId::parse(&id).map(Call::Run).map_err(|_| format!("error parsing jobid: {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Call, String> {
        parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn the_job_is_named_in_any_encoding() {
        for id in ["33436991488", "ƒswiKeF", "fswiKeF"] {
            let Ok(Call::Run(parsed)) = parsed(&["--reconnect", id]) else { panic!("{id}") };
            assert_eq!(parsed.0, 33436991488);
        }
    }

    #[test]
    fn anything_else_is_a_usage_error() {
        for bad in [&[][..], &["--nonsense", "1"], &["1", "2"], &["x y"]] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }
}
