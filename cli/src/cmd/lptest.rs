//! `flux lptest`: lines of a ripple pattern, for whoever tests how output travels.

use clap::Args;

use crate::context::Context;
use crate::failure::Outcome;
use crate::outln;

/// Printable characters but the blank.
const FIRST: u8 = b'!';
const COUNT: usize = 94;

#[derive(Debug, Args)]
#[command(override_usage = "flux lptest [length] [count]")]
pub(crate) struct Lptest {
    /// Characters per line
    #[arg(default_value_t = 79)]
    length: usize,
    /// Lines
    #[arg(default_value_t = 200)]
    count: usize,
}

impl Lptest {
    #[expect(clippy::unused_async, reason = "as all commands")]
    pub(crate) async fn run(self, _: Context) -> Outcome {
        for line in 0..self.count {
            outln!("{}", ripple(line, self.length));
        }
        Ok(0)
    }
}

/// Each line begins one character later than the one before.
fn ripple(line: usize, length: usize) -> String {
    (line..line + length).map(|at| char::from(FIRST + (at % COUNT) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_round_the_printable_characters() {
        assert_eq!(ripple(0, 4), "!\"#$");
        assert_eq!(ripple(93, 3), "~!\"");
        assert_eq!(ripple(94, 3), ripple(0, 3));
    }
}
