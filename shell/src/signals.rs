//! Signals: those that the shell passes on to its tasks, and the one that warns a job of its end.

use std::ffi::CStr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::clock;
use crate::fatal::Fatal;
use crate::job::Job;
use crate::log::Log;
use crate::options::{is_on, seconds};

const COMPONENT: &str = "signal";

/// SIGINT, SIGTERM and SIGALRM of this process.
#[derive(Debug)]
pub(crate) struct Trapped {
    interrupt: Signal,
    terminate: Signal,
    alarm: Signal,
}

/// A signal to the job some time before its end.
#[derive(Debug)]
pub(crate) struct Warning {
    signum: i32,
    timeleft: f64,
    deadline: Option<Instant>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    signum: Option<i32>,
    timeleft: Option<Value>,
}

// === impl Trapped ===

impl Trapped {
    pub(crate) fn new() -> std::io::Result<Trapped> {
        Ok(Trapped {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            alarm: signal(SignalKind::alarm())?,
        })
    }

    /// The number of the next signal.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.alarm.recv() => libc::SIGALRM,
        }
    }
}

// === impl Warning ===

impl Warning {
    /// Read the `signal` option; only the leader acts on it.
    pub(crate) fn new(job: &Job) -> Result<Option<Warning>, Fatal> {
        let Some(value) = job.jobspec.options.get("signal") else { return Ok(None) };
        if !job.is_leader() || !is_on(value) {
            return Ok(None);
        }
        let bad = |e: &dyn std::fmt::Display| {
            Fatal::new(COMPONENT, format!("error in shell `signal' option: {e}"))
        };
        let raw = match value {
            Value::Number(_) | Value::Bool(_) => Raw::default(),
            value => Raw::deserialize(value).map_err(|e| bad(&e))?,
        };
        let timeleft = match &raw.timeleft {
            None => 60.0,
            Some(value) => seconds(value).ok_or_else(|| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Fatal::new(COMPONENT, format!("signal.timeleft={text} is invalid"))
            })?,
        };
        if timeleft == 0.0 {
            return Ok(None);
        }
        Ok(Some(Warning { signum: raw.signum.unwrap_or(libc::SIGUSR1), timeleft, deadline: None }))
    }

    /// The job ends at `expiration`, in seconds since 1970; 0 is never.
    pub(crate) fn set_expiration(&mut self, expiration: f64, log: &Log) {
        self.deadline = None;
        let name = name(self.signum);
        if expiration == 0.0 {
            log.notice(COMPONENT, format_args!("job has no expiration, {name} will not be sent"));
            return;
        }
        let remaining = (expiration - self.timeleft - clock::now()).max(0.0);
        log.debug(COMPONENT, format_args!("Will send {name} to job in {remaining:.2}s"));
        self.deadline = Duration::try_from_secs_f64(remaining)
            .ok()
            .and_then(|remaining| Instant::now().checked_add(remaining));
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The deadline has passed. Returns the signal to send.
    pub(crate) fn expire(&mut self, log: &Log) -> i32 {
        self.deadline = None;
        let (left, name) = (self.timeleft, name(self.signum));
        log.notice(COMPONENT, format_args!("job will expire in {left:.1}s, sending {name} to job"));
        self.signum
    }
}

/// `SIGUSR1`, or the number of one without a name.
pub(crate) fn name(signum: i32) -> String {
    match nix::sys::signal::Signal::try_from(signum) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => signum.to_string(),
    }
}

/// `Segmentation fault`, as strsignal(3) has it.
pub(crate) fn describe(signum: i32) -> String {
    crate::sys::signal_description(signum)
        .map(CStr::to_string_lossy)
        .map_or_else(|| format!("Unknown signal {signum}"), |text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use serde_json::json;

    #[test]
    fn a_bare_option_warns_with_usr1_a_minute_before_the_end() {
        let job = job(0, json!({"signal": 1}));
        let mut warning = Warning::new(&job).unwrap().unwrap();
        assert_eq!((warning.signum, warning.timeleft), (libc::SIGUSR1, 60.0));
        let log = Log::new();
        warning.set_expiration(clock::now() + 70.0, &log);
        assert!(warning.deadline().is_some());
        warning.set_expiration(0.0, &log);
        assert_eq!(warning.deadline(), None);
        assert_eq!(warning.expire(&log), libc::SIGUSR1);
        let texts: Vec<_> = log.take().into_iter().map(|entry| entry.message).collect();
        assert_eq!(
            texts,
            [
                "job has no expiration, SIGUSR1 will not be sent",
                "job will expire in 60.0s, sending SIGUSR1 to job"
            ]
        );
    }

    #[test]
    fn only_the_leader_warns_and_zero_is_off() {
        assert!(Warning::new(&job(1, json!({"signal": 1}))).unwrap().is_none());
        assert!(Warning::new(&job(0, json!({"signal": 0}))).unwrap().is_none());
        assert!(Warning::new(&job(0, json!({"signal": "x"}))).is_err());
        let options = json!({"signal": {"timeleft": "x"}});
        assert!(Warning::new(&job(0, options)).is_err());
    }

    #[test]
    fn signals_have_names_and_descriptions() {
        assert_eq!(name(11), "SIGSEGV");
        assert_eq!(name(40), "40");
        assert_eq!(describe(11), "Segmentation fault");
    }
}
