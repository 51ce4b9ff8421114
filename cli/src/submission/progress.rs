//! A progress bar on the last line of the terminal, with output scrolling above it.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// From empty to full.
const STEPS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of submission alone.
    Submission,
    /// Of the jobs.
    Jobs,
}

/// How many jobs there are, and what has become of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub total: usize,
    pub done: usize,
    pub pending: usize,
    pub running: usize,
    pub complete: usize,
    pub failed: usize,
}

#[derive(Debug)]
pub(crate) struct Progress {
    kind: Kind,
    /// Jobs per second rather than the time that has passed.
    jps: bool,
    start: Instant,
    /// Columns and lines of the terminal at the last drawing.
    size: Option<(u16, u16)>,
}

// === impl Progress ===

impl Progress {
    /// Nothing, and a warning, where standard output is no terminal.
    pub(crate) fn start(command: &str, kind: Kind, jps: bool) -> Option<Progress> {
        if !std::io::stdout().is_terminal() {
            eprintln!("{command}: WARNING: stdout is not a tty. Ignoring --progress option");
            return None;
        }
        Some(Progress { kind, jps, start: Instant::now(), size: None })
    }

    pub(crate) fn draw(&mut self, counts: &Counts) {
        let size = terminal();
        let mut text = String::new();
        if self.size != Some(size) {
            // Output scrolls in all lines but the last.
            text.push_str(&format!("\x1b7\x1b[r\x1b8\x1bD\x1bM\x1b7\x1b[1;{}r\x1b8", size.1 - 1));
            self.size = Some(size);
        }
        let line = self.line(counts, usize::from(size.0));
        text.push_str(&format!("\x1b7\x1b[{};1H\x1b[2K\x1b[?7l\x1b[0m{line}\x1b[?7h\x1b8", size.1));
        print(&text);
    }

    /// Leave the bar as an ordinary line.
    pub(crate) fn finish(self, counts: &Counts) {
        let (columns, lines) = self.size.unwrap_or_else(terminal);
        let line = self.line(counts, usize::from(columns));
        print(&format!("\x1b7\x1b[{lines};1H\x1b[K\x1b[r\x1b8{line}\n"));
    }

    fn line(&self, counts: &Counts, width: usize) -> String {
        let fraction = match counts.total {
            0 => 0.0,
            total => (counts.done as f64 / total as f64).min(1.0),
        };
        let before = match self.kind {
            Kind::Submission => format!("Submitting {} jobs: ", counts.total),
            Kind::Jobs => format!(
                "PD:{:<3} R:{:<3} CD:{:<3} F:{:<3} ",
                counts.pending, counts.running, counts.complete, counts.failed
            ),
        };
        let elapsed = self.start.elapsed().as_secs_f64();
        let after = if self.jps {
            format!("{:5.1}% {:4.1} job/s", 100.0 * fraction, counts.done as f64 / elapsed)
        } else {
            let seconds = elapsed.round() as u64;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            format!("{:5.1}% {hours}:{minutes:02}:{:02}", 100.0 * fraction, seconds % 60)
        };
        let taken = before.chars().count() + after.chars().count() + 2;
        format!("{before}│{}│{after}", bar(width.saturating_sub(taken), fraction))
    }
}

/// `fraction` of `length` columns, in eighths of a column.
fn bar(length: usize, fraction: f64) -> String {
    let most = STEPS.len() - 1;
    let filled = (length as f64 * most as f64 * fraction) as usize;
    (0..length)
        .map(|column| {
            let step = filled.saturating_sub(column * most).min(most);
            STEPS.get(step).copied().unwrap_or(' ')
        })
        .collect()
}

fn terminal() -> (u16, u16) {
    let size = terminal_size::terminal_size();
    size.map_or((80, 24), |(columns, lines)| (columns.0.max(1), lines.0.max(2)))
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A terminal that has gone away needs no bar.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_by_eighths() {
        assert_eq!(bar(4, 0.0), "    ");
        assert_eq!(bar(4, 0.5), "██  ");
        assert_eq!(bar(2, 0.5625), "█▏");
        assert_eq!(bar(3, 1.0), "███");
    }

    #[test]
    fn lines_are_as_wide_as_the_terminal() {
        for (kind, start) in [(Kind::Submission, "Submitting 4 jobs: │"), (Kind::Jobs, "PD:0 ")] {
            let progress = Progress { kind, jps: false, start: Instant::now(), size: None };
            let counts = Counts { total: 4, done: 2, ..Counts::default() };
            let line = progress.line(&counts, 72);
            assert_eq!(line.chars().count(), 72, "{line}");
            assert!(line.starts_with(start) && line.contains(" 50.0% 0:00:0"), "{line}");
        }
    }
}
