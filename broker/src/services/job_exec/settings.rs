//! The `[exec]` table, and arguments of the module, which go before it.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::layout::Layout;

use crate::config::Config;
use crate::config::execution::{Exec, METHODS};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// What it is called: see [`METHODS`].
    pub(super) method: String,
    /// Seconds from the first signal to the second, and so on.
    pub(super) kill_timeout: f64,
    pub(super) term_signal: i32,
    pub(super) kill_signal: i32,
    pub(super) max_kill_count: u32,
    /// Seconds after which a job's processes count as unkillable, however often they were killed.
    pub(super) max_kill_timeout: Option<f64>,
    job_shell: Option<String>,
    /// The privileged helper; without it only the owner's jobs run.
    pub(super) imp: Option<String>,
    /// Guests may have the execution of their jobs simulated.
    pub(super) simulates_for_guests: bool,
    /// A job that starts later than this part of its duration, in percent, ends so much later.
    max_start_delay_percent: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            method: METHODS[0].to_owned(),
            kill_timeout: 5.0,
            term_signal: libc::SIGTERM,
            kill_signal: libc::SIGKILL,
            max_kill_count: 8,
            max_kill_timeout: None,
            job_shell: None,
            imp: None,
            simulates_for_guests: false,
            max_start_delay_percent: 25.0,
        }
    }
}

impl Settings {
    pub(super) fn new(config: &Config, args: &[String]) -> Result<Settings, Failure> {
        let table = Exec::parse(config)?;
        let default = Settings::default();
        let signal = |key, name: Option<&String>, default| {
            name.map_or(Ok(default), |name| signal(key, name))
        };
        let mut settings = Settings {
            method: table.method.unwrap_or(default.method),
            kill_timeout: table.kill_timeout.unwrap_or(default.kill_timeout),
            term_signal: signal("term-signal", table.term_signal.as_ref(), default.term_signal)?,
            kill_signal: signal("kill-signal", table.kill_signal.as_ref(), default.kill_signal)?,
            max_kill_count: table.max_kill_count.unwrap_or(default.max_kill_count),
            max_kill_timeout: table.max_kill_timeout,
            job_shell: table.job_shell,
            imp: table.imp,
            simulates_for_guests: table.testexec_allow_guests,
            max_start_delay_percent: table
                .max_start_delay_percent
                .unwrap_or(default.max_start_delay_percent),
        };
        args.iter().try_for_each(|arg| settings.apply(arg))?;
        Ok(settings)
    }

    /// By the configuration, or where this program was installed.
    pub(super) fn job_shell(&self) -> String {
        if let Some(path) = &self.job_shell {
            return path.clone();
        }
        let program = std::env::current_exe().unwrap_or_default();
        let installed = Layout::from_program(&program).libexecdir().join("flux-shell");
        installed.to_string_lossy().into_owned()
    }

    fn apply(&mut self, arg: &str) -> Result<(), Failure> {
        let Some((key, value)) = arg.split_once('=') else {
            return Err(invalid(format!("{arg}: not an argument KEY=VALUE")));
        };
        match key {
            "method" if METHODS.contains(&value) => self.method = value.to_owned(),
            "method" => return Err(invalid(format!("unknown exec.method '{value}'"))),
            "kill-timeout" => self.kill_timeout = duration(key, value)?,
            "max-kill-timeout" => self.max_kill_timeout = Some(duration(key, value)?),
            "term-signal" => self.term_signal = signal(key, value)?,
            "kill-signal" => self.kill_signal = signal(key, value)?,
            "max-kill-count" => {
                let count = value.parse().ok().filter(|count| *count > 0);
                self.max_kill_count =
                    count.ok_or_else(|| invalid(format!("invalid {key}={value}")))?;
            }
            "job-shell" => self.job_shell = Some(value.to_owned()),
            "imp" => self.imp = Some(value.to_owned()),
            _ => return Err(invalid(format!("unknown argument {arg}"))),
        }
        Ok(())
    }

    /// When a job is to end that was given its resources at `allocated`, until `expiration`, and
    /// started at `started`.
    pub(super) fn end(&self, allocated: f64, started: f64, expiration: f64) -> f64 {
        let (delay, duration) = (started - allocated, expiration - allocated);
        let is_late = duration > 0.0 && delay / duration * 100.0 > self.max_start_delay_percent;
        if allocated > 0.0 && is_late { expiration + delay } else { expiration }
    }
}

fn invalid(text: String) -> Failure {
    Failure::new(Errno::EINVAL, text)
}

fn duration(key: &str, text: &str) -> Result<f64, Failure> {
    let seconds = flux_protocol::fsd::parse(text).ok().filter(|seconds| *seconds > 0.0);
    seconds.ok_or_else(|| invalid(format!("invalid {key}: {text}")))
}

/// By name, with or without SIG, or by number.
fn signal(key: &str, name: &str) -> Result<i32, Failure> {
    use nix::sys::signal::Signal;
    let by_name = || name.parse::<Signal>().or_else(|_| format!("SIG{name}").parse());
    let number = name.parse::<i32>().map(Signal::try_from);
    let signal = number.unwrap_or_else(|_| by_name());
    let signal = signal.map_err(|_| invalid(format!("invalid {key}: {name}")))?;
    Ok(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &str, args: &[&str]) -> Result<Settings, Failure> {
        let mut table = Config::default();
        table.update(config).unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Settings::new(&table, &args)
    }

    #[test]
    fn patience_is_set_or_the_sum_of_the_waits() {
        // 1 s to the tasks' SIGKILL, 2 s and 4 s to those of the shells, 8 s more.
        let counted = settings("{}", &["kill-timeout=1", "max-kill-count=3"]).unwrap();
        assert_eq!(counted.patience(), 15.0);
        let set = settings("{}", &["max-kill-timeout=1m", "max-kill-count=3"]).unwrap();
        assert_eq!(set.patience(), 60.0);
    }

    #[test]
    fn arguments_go_before_the_configuration() {
        let config = r#"{"exec": {"kill-timeout": "1m", "term-signal": "SIGUSR1"}}"#;
        let configured = settings(config, &[]).unwrap();
        assert_eq!((configured.kill_timeout, configured.term_signal), (60.0, libc::SIGUSR1));
        let args = ["kill-timeout=120", "kill-signal=15", "term-signal=INT", "max-kill-count=3"];
        let given = settings(config, &args).unwrap();
        assert_eq!((given.kill_timeout, given.max_kill_count), (120.0, 3));
        assert_eq!((given.term_signal, given.kill_signal), (libc::SIGINT, libc::SIGTERM));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for arg in [
            "kill-timeout=x",
            "kill-timeout=0s",
            "max-kill-timeout=0",
            "max-kill-count=0",
            "method=wrong",
            "term-signal=NONE",
            "kill-signal=0",
            "fast",
            "speed=1",
        ] {
            let text = settings("{}", &[arg]).unwrap_err().text.unwrap();
            assert!(text.contains(arg.split('=').next().unwrap()), "{text}");
        }
        for (table, told) in [
            (r#"{"max-start-delay-percent": "x"}"#, "expected number, got string"),
            (r#"{"max-start-delay-percent": -1}"#, "max-start-delay-percent must not be negative"),
            (r#"{"method": "wrong"}"#, "unknown exec.method 'wrong': expected bulk-exec or bgexec"),
            (r#"{"kill-timeout": "0s"}"#, "invalid kill-timeout: 0s"),
            (r#"{"kill-timeout": "foo"}"#, "invalid kill-timeout: foo"),
            (r#"{"max-kill-timeout": "0s"}"#, "invalid max-kill-timeout: 0s"),
            (r#"{"max-kill-count": 0}"#, "invalid max-kill-count=0"),
            (r#"{"max-kill-count": 5000000000}"#, "invalid max-kill-count=5000000000"),
            (r#"{"kill-signal": "foo"}"#, "invalid kill-signal: foo"),
            (r#"{"imp": 42}"#, "imp: expected string, got integer"),
        ] {
            let failure = settings(&format!("{{\"exec\": {table}}}"), &[]).unwrap_err();
            let text = failure.text.unwrap();
            assert!(text.contains("[exec]") && text.contains(told), "{text}");
        }
        let known = settings(r#"{"exec": {"method": "bgexec", "max-kill-timeout": "2m"}}"#, &[]);
        let known = known.unwrap();
        assert_eq!((known.method.as_str(), known.max_kill_timeout), ("bgexec", Some(120.0)));
    }

    #[test]
    fn a_late_start_is_made_up_for_when_the_job_is_short() {
        let settings = Settings::default();
        // 30 s of a minute, and of an hour.
        assert_eq!(settings.end(1000.0, 1030.0, 1060.0), 1090.0);
        assert_eq!(settings.end(1000.0, 1030.0, 4600.0), 4600.0);
        assert_eq!(settings.end(0.0, 1030.0, 1060.0), 1060.0);
        let always = super::Settings { max_start_delay_percent: 0.0, ..settings };
        assert_eq!(always.end(1000.0, 1030.0, 4600.0), 4630.0);
    }
}
