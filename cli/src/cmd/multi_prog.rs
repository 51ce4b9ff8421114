//! `flux multi-prog`: a job whose tasks run different programs, as lines of a file have it.
//!
//! ```text
//! 0       server --port=80
//! 1-3     worker %t of the job, %o of this line
//! *       true
//! ```

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use flux_protocol::idset::Idset;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::outln;
use crate::submission::shell_words::{self, quote};

#[derive(Debug, Args)]
#[command(override_usage = "flux multi-prog [OPTIONS] CONFIG")]
pub(crate) struct MultiProg {
    /// Do not run anything. Instead, print what would be run for each rank in IDS
    #[arg(short = 'n', long, alias = "dry", value_name = "IDS")]
    dry_run: Option<Idset>,
    /// multi-prog configuration file
    #[arg(required = true, value_name = "CONFIG")]
    config: String,
}

/// What tasks run, by the lines of a file.
#[derive(Debug, Default, PartialEq)]
struct Programs {
    lines: Vec<Line>,
    /// What all the others run.
    others: Option<Vec<String>>,
}

#[derive(Debug, PartialEq)]
struct Line {
    tasks: Idset,
    words: Vec<String>,
}

impl MultiProg {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let path = &self.config;
        let text = std::fs::read_to_string(path)
            .map_err(|e| error(format_args!("{path}: {}", strerror(&e))))?;
        let programs = Programs::parse(&text).map_err(|e| error(format_args!("{path}: {e}")))?;
        let command = |task: u32| {
            let none = || error(format_args!("{path}: No matching line for rank {task}"));
            programs.command(task).ok_or_else(none)
        };
        if let Some(tasks) = &self.dry_run {
            for task in tasks.iter() {
                let words: Vec<String> = command(task)?.iter().map(|word| quote(word)).collect();
                outln!("{task}: {}", words.join(" "));
            }
            return Ok(0);
        }
        let task = context.env.get("FLUX_TASK_RANK").and_then(|rank| rank.parse().ok());
        let task = task.ok_or_else(|| error("FLUX_TASK_RANK not found or invalid"))?;
        let words = command(task)?;
        let Some((program, args)) = words.split_first() else { return Ok(0) };
        let failed = Command::new(program).args(args).exec();
        Err(error(format_args!("{program}: {}", strerror(&failed))))
    }
}

fn error(text: impl std::fmt::Display) -> Failure {
    Failure::of("ERROR", text)
}

impl Programs {
    fn parse(text: &str) -> Result<Programs, String> {
        let mut programs = Programs::default();
        for (line, at) in text.lines().zip(1..) {
            let words = shell_words::split(line)
                .map_err(|e| format!("line {at}: '{}': {e}", line.trim_end()))?;
            match words.split_first() {
                // Of no line, or of one without a program, nothing is run.
                None | Some((_, [])) => {}
                Some((tasks, words)) if tasks == "*" => programs.others = Some(words.to_vec()),
                Some((tasks, words)) => {
                    let tasks =
                        tasks.parse().map_err(|_| format!("line {at}: invalid idset: {tasks}"))?;
                    programs.lines.push(Line { tasks, words: words.to_vec() });
                }
            }
        }
        Ok(programs)
    }

    /// The first line that names the task counts.
    fn command(&self, task: u32) -> Option<Vec<String>> {
        match self.lines.iter().find(|line| line.tasks.contains(task)) {
            Some(line) => {
                let offset = line.tasks.iter().take_while(|id| *id < task).count();
                Some(substitute(&line.words, task, offset))
            }
            None => self.others.as_ref().map(|words| substitute(words, task, 0)),
        }
    }
}

/// `%t` is the task, `%o` which of its line's tasks it is.
fn substitute(words: &[String], task: u32, offset: usize) -> Vec<String> {
    let (task, offset) = (task.to_string(), offset.to_string());
    words.iter().map(|word| word.replace("%t", &task).replace("%o", &offset)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_run_what_their_line_says() {
        let text = "# two programs\n0 server --port=%t\n\n3-4,7 'a worker' %o of %t\n* true %o\n";
        let programs = Programs::parse(text).unwrap();
        let command = |task| programs.command(task).unwrap().join("|");
        assert_eq!(command(0), "server|--port=0");
        assert_eq!(command(3), "a worker|0|of|3");
        assert_eq!(command(7), "a worker|2|of|7");
        assert_eq!(command(5), "true|0");
        assert_eq!(Programs::parse("0 a\n").unwrap().command(1), None);
    }

    #[test]
    fn lines_that_are_wrong_are_named() {
        assert_eq!(Programs::parse("0 a\nx b\n").unwrap_err(), "line 2: invalid idset: x");
        let unclosed = Programs::parse("0 'a\n").unwrap_err();
        assert_eq!(unclosed, "line 1: '0 'a': No closing quotation");
    }
}
