//! Writing to standard output, which may be a pipe that somebody has closed.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// What a shell reports for a program that died of SIGPIPE.
const DIED_OF_PIPE: i32 = 141;

/// Print to standard output; a reader that has gone ends the program quietly.
#[macro_export]
macro_rules! out {
    ($($arg:tt)*) => { $crate::output::emit(format_args!($($arg)*)) };
}

/// [`out!`] and a newline.
#[macro_export]
macro_rules! outln {
    () => { $crate::output::emit(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::output::emit(format_args!("{}\n", format_args!($($arg)*))) };
}

pub(crate) fn emit(text: Arguments<'_>) {
    settle(std::io::stdout().lock().write_fmt(text));
}

/// Print bytes as they are.
pub(crate) fn emit_bytes(bytes: &[u8]) {
    settle(std::io::stdout().lock().write_all(bytes));
}

/// Write out what is buffered.
pub(crate) fn flush() {
    settle(std::io::stdout().lock().flush());
}

fn settle(result: std::io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(DIED_OF_PIPE),
        Err(e) => {
            eprintln!("flux: standard output: {e}");
            std::process::exit(1);
        }
    }
}
