//! What the job's tasks print, and the events that are shown.

use std::io::Write as _;

use flux_protocol::eventlog::Event;
use flux_protocol::rpc::job_info;

use super::{Heard, Session};
use crate::failure::Failure;
use crate::job_output::Entry;

impl Session<'_> {
    pub(super) fn follow_output(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.output_started, true) {
            return Ok(());
        }
        let flags = if self.tail.is_some() { job_info::watch::SENTINEL } else { 0 };
        self.listen("guest.output", flags, Heard::Output)
    }

    pub(super) fn output_entry(&mut self, line: &str) -> Result<(), Failure> {
        if line.trim().is_empty() {
            // All that there was.
            for (timestamp, entry) in self.tail.take().into_iter().flatten() {
                self.print(timestamp, entry)?;
            }
            return Ok(());
        }
        let event = Event::decode(line.trim_end()).map_err(Failure::new)?;
        let Some(entry) = Entry::decode(&event) else { return Ok(()) };
        match (&mut self.tail, &entry) {
            // The end of a stream is nothing to show.
            (Some(_), Entry::Data(data)) if data.bytes.is_empty() => Ok(()),
            (Some(tail), Entry::Data(_) | Entry::Log(_)) => {
                tail.push_back((event.timestamp, entry));
                if tail.len() > self.how.tail.unwrap_or_default() {
                    tail.pop_front();
                }
                Ok(())
            }
            _ => self.print(event.timestamp, entry),
        }
    }

    fn print(&self, timestamp: f64, entry: Entry) -> Result<(), Failure> {
        let mut text = match entry {
            // What has come over the terminal has been seen.
            Entry::Data(data) if self.terminal.is_some() && self.captured && data.rank == "0" => {
                return Ok(());
            }
            Entry::Data(data) => {
                let stderr = data.stderr;
                let mut text = data.text(self.how.label_io);
                if self.terminal.is_some() && !text.is_empty() {
                    text.push(b'\r');
                }
                return print_data(&text, stderr);
            }
            Entry::Redirect(_) | Entry::Log(_) if self.how.quiet => return Ok(()),
            Entry::Redirect(redirect) => format!("{redirect}\n"),
            Entry::Log(log) => {
                format!("{:.3}s: {}\n", self.since(timestamp), log.text(self.how.verbose > 0))
            }
        };
        if self.terminal.is_some() {
            text.push('\r');
        }
        crate::err!("{text}");
        Ok(())
    }

    pub(super) fn show(&self, event: &Event, prefix: &str) {
        let since = self.since(event.timestamp);
        match &event.context {
            Some(context) => {
                crate::errln!("{since:.3}s: {prefix}.{} {}", event.name, context.get())
            }
            None => crate::errln!("{since:.3}s: {prefix}.{}", event.name),
        }
    }
}

fn print_data(text: &[u8], stderr: bool) -> Result<(), Failure> {
    if stderr {
        return std::io::stderr().write_all(text).map_err(|e| Failure::of("stderr", e));
    }
    crate::output::emit_bytes(text);
    crate::output::flush();
    Ok(())
}
