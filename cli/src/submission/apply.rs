//! What is said about a job in general, put into its jobspec.

use flux_protocol::jobspec::Jobspec;
use serde_json::{Map, Value, json};

use super::env::{self, Variables};
use super::options::{Common, Dependency};
use super::{constraint, files, refuse, rlimit, uri};
use crate::failure::Failure;
use crate::mpir;
use crate::when;

/// When a job is told that its time is nearly up, unless it says otherwise.
const SIGNAL_TIMELEFT: u32 = 60;

impl Common {
    /// Everything but what [`super::build`] and [`super::nest`] see to.
    pub(crate) fn apply(
        &self,
        jobspec: &mut Jobspec,
        own: &Variables,
        taskmap: Option<&str>,
    ) -> Result<(), Failure> {
        let exported = env::export(&self.env.0, own)?;
        jobspec.set_attribute("environment", text_object(exported.variables));
        if !exported.templates.is_empty() {
            jobspec.set_shell_option("env-expand", text_object(exported.templates));
        }
        let limits = rlimit::propagate(&self.rlimit)?;
        if !limits.is_empty() {
            jobspec.set_shell_option("rlimit", Value::Object(limits));
        }
        if let Some(signal) = self.signal.as_deref().filter(|signal| !signal.is_empty()) {
            jobspec.set_shell_option("signal", parse_signal(signal)?);
        }
        if let Some(taskmap) = taskmap {
            jobspec.set_shell_option("taskmap", uri::parse(taskmap, "taskmap")?);
        }
        if !self.dependencies.0.is_empty() {
            let all: Result<Vec<Value>, Failure> =
                self.dependencies.0.iter().map(Dependency::entry).collect();
            jobspec.set_attribute("system.dependencies", Value::Array(all?));
        }
        if !self.requires.is_empty() {
            let constraint = constraint::parse(&self.requires.join(" "))?;
            jobspec.set_attribute("system.constraints", constraint);
        }
        for text in &self.setopt {
            let (key, value) = files::key_value("--setopt", text)?;
            jobspec.set_shell_option(&key, value);
        }
        for text in &self.setattr {
            let (key, value) = files::key_value("--setattr", text)?;
            jobspec.set_attribute(&attribute_key(&key), value);
        }
        for file in &self.add_file {
            files::add_file(jobspec, file)?;
        }
        if self.debug_emulate {
            mpir::emulate();
        }
        if mpir::is_debugged() {
            jobspec.set_shell_option("stop-tasks-in-exec", json!(1));
        }
        Ok(())
    }

    /// The time limit in seconds.
    pub(crate) fn duration(&self) -> Result<Option<f64>, Failure> {
        let Some(text) = &self.time_limit else { return Ok(None) };
        if let Ok(number) = text.trim().parse::<f64>() {
            let unit = if self.as_mini { 1.0 } else { 60.0 };
            return Ok(Some(number * unit));
        }
        let seconds = flux_protocol::fsd::parse(text).ok();
        // Text without a number is 0 to C; here it is a variable that was empty.
        let seconds = seconds.filter(|_| !text.trim().is_empty());
        seconds.map(Some).ok_or_else(|| refuse("invalid Flux standard duration"))
    }

    /// Where the job runs: `--cwd`, else where this process is.
    pub(crate) fn directory(&self) -> Option<String> {
        let here = || std::env::current_dir().ok().map(|dir| dir.to_string_lossy().into_owned());
        self.cwd.clone().or_else(here)
    }
}

impl Dependency {
    fn entry(&self) -> Result<Value, Failure> {
        match self {
            Dependency::Uri(uri) => uri::parse(uri, "dependency"),
            Dependency::BeginTime(text) => {
                let time = when::parse(text, when::now()).map_err(refuse)?;
                Ok(json!({"scheme": "begin-time", "value": python_float(time)}))
            }
        }
    }
}

/// A float as Python writes it: `5.0`, not `5`.
fn python_float(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.1}") } else { number.to_string() }
}

/// `user.x` and `system.x` are below `attributes`, `.x` too, and anything else below `system`.
fn attribute_key(key: &str) -> String {
    match key.strip_prefix('.') {
        Some(rest) => format!("attributes.{rest}"),
        None => key.to_owned(),
    }
}

/// `[SIG][@TIME]`
fn parse_signal(text: &str) -> Result<Value, Failure> {
    let refused = |reason: String| refuse(format_args!("--signal={text}: {reason}"));
    let (signal, time) = text.split_once('@').unwrap_or((text, ""));
    let signum = match signal {
        "" => nix::libc::SIGUSR1,
        signal => {
            signal_number(signal).ok_or_else(|| refused(format!("signal '{signal}' is invalid")))?
        }
    };
    if signum <= 0 {
        return Err(refused("signal must be > 0".to_owned()));
    }
    let timeleft = match (time, time.parse::<f64>()) {
        ("", _) => json!(SIGNAL_TIMELEFT),
        (_, Ok(seconds)) => json!(seconds),
        (fsd, Err(_)) => json!(
            flux_protocol::fsd::parse(fsd)
                .map_err(|_| refused("invalid Flux standard duration".to_owned()))?
        ),
    };
    Ok(json!({"signum": signum, "timeleft": timeleft}))
}

fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let name = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

fn text_object(variables: Variables) -> Value {
    let members = variables.into_iter().map(|(name, value)| (name, Value::String(value)));
    Value::Object(members.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_numbers_and_times() {
        for (text, expected) in [
            ("USR2", json!({"signum": 12, "timeleft": 60})),
            ("SIGTERM@2m", json!({"signum": 15, "timeleft": 120.0})),
            ("@30", json!({"signum": 10, "timeleft": 30.0})),
            ("9@1.5s", json!({"signum": 9, "timeleft": 1.5})),
        ] {
            assert_eq!(parse_signal(text).unwrap(), expected, "{text}");
        }
        for bad in ["NOPE", "0", "-1", "USR1@x"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_floats() {
        assert_eq!(python_float(5.0), "5.0");
        assert_eq!(python_float(1795531234.25), "1795531234.25");
    }
}
