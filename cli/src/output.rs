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

/// Print to standard error in one piece, so that what others write does not get in between.
#[macro_export]
macro_rules! err {
    ($($arg:tt)*) => { $crate::output::complain(&format!($($arg)*)) };
}

/// [`err!`] and a newline.
#[macro_export]
macro_rules! errln {
    () => { $crate::output::complain("\n") };
    ($($arg:tt)*) => { $crate::output::complain(&format!("{}\n", format_args!($($arg)*))) };
}

pub(crate) fn complain(text: &str) {
    // There is nowhere left to say that it could not be said.
    let _ = std::io::stderr().write_all(text.as_bytes());
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
