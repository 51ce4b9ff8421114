//! The `[exec]` table, and arguments of the module, `KEY=VALUE`, which take the place of its keys.

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::layout::Layout;
use serde_json::json;

use crate::config::Config;
use crate::config::execution::Exec;

/// Keys of the table that arguments may give.
const ARGUMENTS: [&str; 11] = [
    "barrier-timeout",
    "imp",
    "job-shell",
    "kill-signal",
    "kill-timeout",
    "max-kill-count",
    "max-kill-timeout",
    "method",
    "service",
    "shell-exit-timeout",
    "term-signal",
];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Seconds from the first signal to the second, and so on.
    pub(super) kill_timeout: f64,
    pub(super) term_signal: i32,
    pub(super) kill_signal: i32,
    pub(super) max_kill_count: u32,
    /// Seconds after which a job's processes count as unkillable, however often they were killed.
    pub(super) max_kill_timeout: Option<f64>,
    /// How long the first shell waits for the last in their first barrier; 0 is for ever.
    pub(super) barrier_timeout: f64,
    /// How long shells may run on after the first has ended; 0 is for ever.
    pub(super) shell_exit_timeout: f64,
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
            kill_timeout: 5.0,
            term_signal: libc::SIGTERM,
            kill_signal: libc::SIGKILL,
            max_kill_count: 8,
            max_kill_timeout: None,
            barrier_timeout: 1800.0,
            shell_exit_timeout: 30.0,
            job_shell: None,
            imp: None,
            simulates_for_guests: false,
            max_start_delay_percent: 25.0,
        }
    }
}

impl Settings {
    pub(super) fn new(config: &Config, args: &[String]) -> Result<Settings, Failure> {
        let table = table(config, args)?;
        let default = Settings::default();
        Ok(Settings {
            kill_timeout: table.kill_timeout.unwrap_or(default.kill_timeout),
            term_signal: table.term_signal.unwrap_or(default.term_signal),
            kill_signal: table.kill_signal.unwrap_or(default.kill_signal),
            max_kill_count: table.max_kill_count.unwrap_or(default.max_kill_count),
            max_kill_timeout: table.max_kill_timeout,
            barrier_timeout: table.barrier_timeout.unwrap_or(default.barrier_timeout),
            shell_exit_timeout: table.shell_exit_timeout.unwrap_or(default.shell_exit_timeout),
            job_shell: table.job_shell,
            imp: table.imp,
            simulates_for_guests: table.testexec_allow_guests,
            max_start_delay_percent: table
                .max_start_delay_percent
                .unwrap_or(default.max_start_delay_percent),
        })
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

/// The table as it is with the arguments in it.
fn table(config: &Config, args: &[String]) -> Result<Exec, Failure> {
    // What is wrong with it is not said of the arguments.
    let table = Exec::parse(config)?;
    if args.is_empty() {
        return Ok(table);
    }
    let mut given = config.object().clone();
    let exec = given.entry("exec").or_insert_with(|| json!({}));
    for arg in args {
        let Some((key, value)) = arg.split_once('=') else {
            return Err(invalid(format!("{arg}: not an argument KEY=VALUE")));
        };
        if !ARGUMENTS.contains(&key) {
            return Err(invalid(format!("unknown argument {arg}")));
        }
        // The one key that is no text.
        let number = value.parse::<i64>().ok().filter(|_| key == "max-kill-count");
        exec[key] = number.map_or_else(|| json!(value), |number| json!(number));
    }
    Exec::parse(&Config::from_object(given))
        .map_err(|error| invalid(format!("arguments: {}", error.problem)))
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
    fn times_that_shells_have_can_be_set_or_be_without_end() {
        let times = |config: &str, args: &[&str]| {
            let settings = settings(config, args).unwrap();
            (settings.barrier_timeout, settings.shell_exit_timeout)
        };
        assert_eq!(times("{}", &[]), (1800.0, 30.0));
        let set = r#"{"exec": {"barrier-timeout": "1m", "shell-exit-timeout": "2s"}}"#;
        assert_eq!(times(set, &[]), (60.0, 2.0));
        let none = r#"{"exec": {"barrier-timeout": "0", "shell-exit-timeout": "none"}}"#;
        assert_eq!(times(none, &[]), (0.0, 0.0));
        assert_eq!(
            times(set, &["barrier-timeout=infinity", "shell-exit-timeout=none"]),
            (0.0, 0.0)
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for arg in [
            "kill-timeout=x",
            "kill-timeout=0s",
            "max-kill-timeout=0",
            "max-kill-count=0",
            "method=wrong",
            "method=bgexec",
            "service=sdexec",
            "shell-exit-timeout=soon",
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
            (r#"{"method": "wrong"}"#, "unknown exec.method 'wrong': expected bulk-exec"),
            (
                r#"{"method": "bgexec"}"#,
                "exec.method 'bgexec' is not there: jobs are run by bulk-exec alone",
            ),
            (
                r#"{"service": "sdexec"}"#,
                "exec.service 'sdexec' is not there: jobs are run by rexec alone",
            ),
            (r#"{"shell-exit-timeout": "foo"}"#, "'shell-exit-timeout' is not a valid FSD"),
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
        let known = settings(r#"{"exec": {"method": "bulk-exec", "max-kill-timeout": "2m"}}"#, &[]);
        assert_eq!(known.unwrap().max_kill_timeout, Some(120.0));
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
