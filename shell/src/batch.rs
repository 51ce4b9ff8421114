//! Jobs of an old `flux batch`, whose script is in `attributes.system.batch`: each task becomes
//! a broker of the instance that the script runs in.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::fatal::{Fatal, reason};
use crate::job::Job;

/// Write the script, and return the commands' common part, if the job has one.
pub(crate) fn prepare(job: &Job, tmpdir: &Path) -> Result<Option<BatchCommand>, Fatal> {
    let Some(batch) = &job.jobspec.batch else { return Ok(None) };
    let script = tmpdir.join("script");
    if job.is_leader() {
        let mut options = std::fs::File::options();
        options.write(true).create_new(true).mode(0o700);
        let written =
            options.open(&script).and_then(|mut file| file.write_all(batch.script.as_bytes()));
        written
            .map_err(|e| Fatal::new("batch", format!("{}: {}", script.display(), reason(&e))))?;
    }
    let script = script.to_string_lossy().into_owned();
    Ok(Some(BatchCommand { script, broker_opts: batch.broker_opts.clone() }))
}

#[derive(Debug)]
pub(crate) struct BatchCommand {
    script: String,
    broker_opts: Vec<String>,
}

impl BatchCommand {
    /// The command of a task: a broker, the first of which runs the script.
    pub(crate) fn rewrite(&self, rank: u32, command: &[String]) -> Vec<String> {
        let words = |text: &str| text.to_owned();
        let is_broker = match command {
            [first, second, ..] => {
                first.rsplit('/').next() == Some("flux")
                    && (second == "broker" || second == "start")
            }
            _ => false,
        };
        if is_broker {
            return command.to_vec();
        }
        let mut argv = vec![words("flux"), words("broker")];
        argv.extend(self.broker_opts.iter().cloned());
        if rank == 0 {
            argv.push(self.script.clone());
            argv.extend(command.iter().skip(1).cloned());
        }
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_becomes_a_broker() {
        let batch =
            BatchCommand { script: "/t/script".to_owned(), broker_opts: vec!["-v".to_owned()] };
        let command = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let job = command(&["job.sh", "arg"]);
        assert_eq!(batch.rewrite(0, &job), command(&["flux", "broker", "-v", "/t/script", "arg"]));
        assert_eq!(batch.rewrite(1, &job), command(&["flux", "broker", "-v"]));
        let broker = command(&["/usr/bin/flux", "broker", "x"]);
        assert_eq!(batch.rewrite(0, &broker), broker);
    }
}
