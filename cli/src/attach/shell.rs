//! What the job's shell tells in the execution log: where its input goes, its terminal and the
//! processes that a debugger wants to see.

use flux_protocol::eventlog::Event;
use flux_protocol::message::Nodeid;
use flux_protocol::proctable::Row;
use serde::Deserialize;

use super::input::{self, Input};
use super::terminal::Terminal;
use super::{Heard, Session, debugger};
use crate::failure::Failure;
use crate::mpir;

/// What the job's shell says of itself.
#[derive(Deserialize)]
struct ShellInit {
    service: String,
    #[serde(rename = "leader-rank")]
    leader_rank: u32,
    pty: Option<String>,
    capture: Option<i64>,
}

#[derive(Default, Deserialize)]
struct ShellStart {
    /// Tasks are stopped, for a debugger to let them go.
    #[serde(default)]
    sync: bool,
}

/// Output of the execution system itself.
#[derive(Deserialize)]
struct ExecLog {
    rank: String,
    stream: String,
    component: String,
    data: String,
}

impl Session<'_> {
    pub(super) fn exec_event(&mut self, line: &str) -> Result<(), Failure> {
        let event = Event::decode(line.trim_end()).map_err(Failure::new)?;
        match event.name.as_str() {
            "shell.init" => self.shell_init(event.context_as().map_err(Failure::new)?)?,
            "shell.start" => {
                if mpir::is_debugged() {
                    self.ask_processes(&event);
                }
                if let Some(input) = &mut self.input {
                    input.tasks_start(&event)?;
                }
            }
            "log" => {
                if let Ok(log) = event.context_as::<ExecLog>() {
                    let since = self.since(event.timestamp);
                    if !self.how.quiet {
                        crate::err!(
                            "{since:.3}s: {}[{}]: {}: ",
                            log.component,
                            log.rank,
                            log.stream
                        );
                    }
                    crate::err!("{}", log.data);
                }
            }
            // The shell may not have got as far as that.
            "complete" => self.follow_output()?,
            _ => {}
        }
        if self.how.show_exec && event.name != "log" {
            self.show(&event, "exec");
        }
        Ok(())
    }

    fn shell_init(&mut self, shell: ShellInit) -> Result<(), Failure> {
        self.captured = shell.capture.is_some_and(|capture| capture != 0);
        self.follow_output()?;
        let leader = Nodeid(shell.leader_rank);
        self.shell = Some((shell.service.clone(), leader));
        match shell.pty {
            Some(_) if self.how.read_only => {
                Err(Failure::new("Cannot connect to pty in readonly mode"))
            }
            Some(_) if self.finished => Ok(()),
            Some(name) => {
                let topic = format!("{}.{name}", shell.service);
                let heard = self.heard.clone();
                let tell = move |said| heard.send(Heard::Terminal(said)).is_ok();
                self.input = self.input(&shell.service, leader)?;
                self.terminal = Some(Terminal::attach(self.flux, topic, leader, tell)?);
                Ok(())
            }
            None if self.was_over => match self.how.read_only || !input::is_given() {
                true => Ok(()),
                false => Err(Failure::new("stdin not accepted by job")),
            },
            None => {
                self.input = self.input(&shell.service, leader)?;
                self.start_input();
                Ok(())
            }
        }
    }

    fn ask_processes(&mut self, start: &Event) {
        let Some((service, leader)) = self.shell.clone() else { return };
        let start: ShellStart = start.context_as().unwrap_or_default();
        self.stopped = start.sync;
        let (flux, heard) = (self.flux.clone(), self.heard.clone());
        tokio::spawn(async move {
            let rows = debugger::processes(&flux, &service, leader).await;
            // Who has gone does not care.
            let _ = heard.send(Heard::Processes(rows));
        });
    }

    /// Tasks that the debugger has not attached to by then are let go, too.
    pub(super) fn show_processes(&self, rows: &[Row]) -> Result<(), Failure> {
        mpir::show(rows);
        if self.stopped || self.how.debug_emulate {
            self.kill(nix::libc::SIGCONT)?;
        }
        Ok(())
    }

    fn input(&self, service: &str, leader: Nodeid) -> Result<Option<Input>, Failure> {
        if self.how.read_only {
            return Ok(None);
        }
        let ranks = self.how.stdin_ranks.as_deref();
        Input::new(self.flux, service, leader, ranks).map(Some)
    }

    pub(super) fn start_input(&mut self) {
        let heard = self.heard.clone();
        if let Some(input) = &mut self.input {
            // Who has gone does not care.
            input.start(move |error| drop(heard.send(Heard::Refused(error))));
        }
    }
}
