//! `flux account-COMMAND` is `flux account COMMAND`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Become `flux-account`, which is next to this program.
pub(crate) fn to(command: &str) -> ExitCode {
    let program = std::env::current_exe().map(|this| this.with_file_name("flux-account"));
    let (program, error) = match program {
        Ok(program) => {
            let error =
                Command::new(&program).arg(command).args(std::env::args_os().skip(1)).exec();
            (program.display().to_string(), error)
        }
        Err(error) => ("flux-account".to_owned(), error),
    };
    eprintln!("flux-account-{command}: {program}: {error}");
    ExitCode::FAILURE
}
