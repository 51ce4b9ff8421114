//! The `[exec]` table, and arguments of the module, which go before it.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;

use crate::config::Config;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Seconds from the first signal to the second, and so on.
    pub(super) kill_timeout: f64,
    pub(super) term_signal: i32,
    pub(super) kill_signal: i32,
    pub(super) max_kill_count: u32,
    pub(super) job_shell: Option<String>,
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
            kill_timeout: 5.0,
            term_signal: libc::SIGTERM,
            kill_signal: libc::SIGKILL,
            max_kill_count: 8,
            job_shell: None,
            imp: None,
            simulates_for_guests: false,
            max_start_delay_percent: 25.0,
        }
    }
}

impl Settings {
    pub(super) fn new(config: &Config, args: &[String]) -> Result<Settings, Failure> {
        let mut settings = Settings::default();
        if let Some(value) = config.get("exec.kill-timeout") {
            let text = value.as_str().unwrap_or_default();
            settings.kill_timeout = duration("[exec] kill-timeout", text)?;
        }
        for (key, slot) in [
            ("exec.term-signal", &mut settings.term_signal),
            ("exec.kill-signal", &mut settings.kill_signal),
        ] {
            if let Some(name) = config.get_str(key) {
                *slot = signal(key, name)?;
            }
        }
        let count = config.get("exec.max-kill-count").and_then(serde_json::Value::as_u64);
        if let Some(count) = count.and_then(|count| u32::try_from(count).ok()) {
            settings.max_kill_count = count;
        }
        settings.simulates_for_guests =
            config.get("exec.testexec.allow-guests").is_some_and(|value| *value == true);
        settings.job_shell = config.get_str("exec.job-shell").map(str::to_owned);
        settings.imp = config.get_str("exec.imp").map(str::to_owned);
        if let Some(value) = config.get("exec.max-start-delay-percent") {
            let percent = value.as_f64().filter(|percent| *percent >= 0.0);
            settings.max_start_delay_percent = percent.ok_or_else(|| {
                invalid("[exec] max-start-delay-percent is not a number from 0 on".to_owned())
            })?;
        }
        args.iter().try_for_each(|arg| settings.apply(arg))?;
        Ok(settings)
    }

    fn apply(&mut self, arg: &str) -> Result<(), Failure> {
        let Some((key, value)) = arg.split_once('=') else {
            return Err(invalid(format!("{arg}: not an argument KEY=VALUE")));
        };
        match key {
            "kill-timeout" => self.kill_timeout = duration(key, value)?,
            "term-signal" => self.term_signal = signal(key, value)?,
            "kill-signal" => self.kill_signal = signal(key, value)?,
            "max-kill-count" => {
                let count = value.parse();
                self.max_kill_count =
                    count.map_err(|_| invalid(format!("{key}: {value} is not a number")))?;
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
    flux_protocol::fsd::parse(text).map_err(|_| invalid(format!("{key} is not a valid FSD")))
}

/// By name, with or without SIG, or by number.
fn signal(key: &str, name: &str) -> Result<i32, Failure> {
    use nix::sys::signal::Signal;
    let by_name = || name.parse::<Signal>().or_else(|_| format!("SIG{name}").parse());
    let number = name.parse::<i32>().map(Signal::try_from);
    let signal = number.unwrap_or_else(|_| by_name());
    let signal = signal.map_err(|_| invalid(format!("{key}: {name} is not a signal")))?;
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
        for arg in ["kill-timeout=x", "term-signal=NONE", "kill-signal=0", "fast", "speed=1"] {
            let text = settings("{}", &[arg]).unwrap_err().text.unwrap();
            assert!(text.contains(arg.split('=').next().unwrap()), "{text}");
        }
        assert!(settings(r#"{"exec": {"max-start-delay-percent": "x"}}"#, &[]).is_err());
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
