//! `[job-manager.prolog]` and `[job-manager.epilog]`.
//!
//! The broker reads the command line from there by itself; here it is checked, and the settings
//! get their defaults.

use flux_protocol::fsd;
use serde_json::{Map, Value, json};

/// Seconds that a command may go on after SIGTERM.
const KILL_TIMEOUT: f64 = 60.0;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Prolog,
    Epilog,
}

impl Kind {
    /// Name of the table, and type of the exception.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Prolog => "prolog",
            Kind::Epilog => "epilog",
        }
    }

    /// What events call it.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Kind::Prolog => "job-manager.prolog",
            Kind::Epilog => "job-manager.epilog",
        }
    }
}

/// One of the two tables.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Procedure {
    command: Vec<String>,
    /// On each rank of the job, instead of on rank 0 alone.
    pub(crate) per_rank: bool,
    cancel_on_exception: bool,
    /// 0: none.
    timeout: f64,
    kill_timeout: f64,
    exit_on_first_error: bool,
}

/// Both.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) prolog: Option<Procedure>,
    pub(crate) epilog: Option<Procedure>,
}

impl Config {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let config: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let imp = match config.pointer("/exec/imp") {
            None => None,
            Some(Value::String(path)) => Some(path.as_str()),
            Some(_) => return Err("[exec]: imp must be a string".to_owned()),
        };
        check_ignored(config.pointer("/job-manager/perilog/log-ignore"))?;
        let table = |kind: Kind| {
            let table = config.pointer(&format!("/job-manager/{}", kind.name()));
            let table = table.map(|table| Procedure::parse(kind, table, imp));
            table.transpose().map_err(|error| format!("[job-manager.{}]: {error}", kind.name()))
        };
        Ok(Config { prolog: table(Kind::Prolog)?, epilog: table(Kind::Epilog)? })
    }

    pub(crate) fn of(&self, kind: Kind) -> Option<&Procedure> {
        match kind {
            Kind::Prolog => self.prolog.as_ref(),
            Kind::Epilog => self.epilog.as_ref(),
        }
    }

    /// As `flux jobtap query` shows it.
    pub(crate) fn report(&self) -> Value {
        let table = |table: &Option<Procedure>| table.as_ref().map_or(json!({}), Procedure::report);
        json!({ "prolog": table(&self.prolog), "epilog": table(&self.epilog) })
    }
}

impl Procedure {
    fn parse(kind: Kind, table: &Value, imp: Option<&str>) -> Result<Self, String> {
        let Value::Object(table) = table else { return Err("must be a table".to_owned()) };
        let known = [
            "command",
            "timeout",
            "kill-timeout",
            "per-rank",
            "cancel-on-exception",
            "exit-on-first-error",
        ];
        if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("unknown key '{key}'"));
        }
        let flag = |key: &str| match table.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(format!("{key} must be true or false")),
        };
        let kill_timeout = seconds(kind, "kill-timeout", table)?;
        Ok(Procedure {
            command: command(kind, table.get("command"), imp)?,
            per_rank: flag("per-rank")?.unwrap_or(false),
            cancel_on_exception: flag("cancel-on-exception")?.unwrap_or(kind == Kind::Prolog),
            timeout: timeout(kind, table)?,
            kill_timeout: kill_timeout.filter(|&seconds| seconds > 0.0).unwrap_or(KILL_TIMEOUT),
            exit_on_first_error: flag("exit-on-first-error")?.unwrap_or(false),
        })
    }

    /// For the broker, which runs it.
    pub(crate) fn options(&self) -> String {
        json!({
            "per-rank": self.per_rank,
            "timeout": self.timeout,
            "kill-timeout": self.kill_timeout,
            "cancel-on-exception": self.cancel_on_exception,
            "exit-on-first-error": self.exit_on_first_error,
        })
        .to_string()
    }

    fn report(&self) -> Value {
        json!({
            "command": self.command,
            "per_rank": self.per_rank,
            "cancel_on_exception": self.cancel_on_exception,
            "timeout": self.timeout,
            "kill-timeout": self.kill_timeout,
        })
    }
}

/// Without a command the IMP runs what the security policy has under the table's name.
fn command(kind: Kind, given: Option<&Value>, imp: Option<&str>) -> Result<Vec<String>, String> {
    let words = match (given, imp) {
        (Some(Value::Array(words)), _) => words,
        (Some(_), _) => return Err("command must be an array".to_owned()),
        (None, Some(imp)) => {
            return Ok(vec![imp.to_owned(), "run".to_owned(), kind.name().to_owned()]);
        }
        (None, None) => return Err("no command specified and exec.imp not defined".to_owned()),
    };
    let word = |word: &Value| word.as_str().map(str::to_owned);
    let words = words.iter().map(word).collect::<Option<Vec<_>>>();
    let words = words.filter(|words| !words.is_empty());
    words.ok_or_else(|| format!("malformed {} command", kind.name()))
}

/// 0 and infinity for none.
fn timeout(kind: Kind, table: &Map<String, Value>) -> Result<f64, String> {
    let default = if kind == Kind::Prolog { 1800.0 } else { 0.0 };
    let seconds = seconds(kind, "timeout", table)?.unwrap_or(default);
    Ok(if seconds.is_finite() { seconds } else { 0.0 })
}

/// A number of seconds or a Flux standard duration. flux-core takes the one for `kill-timeout` and
/// the other for `timeout`, and nobody remembers which.
fn seconds(kind: Kind, key: &str, table: &Map<String, Value>) -> Result<Option<f64>, String> {
    let seconds = match table.get(key) {
        None => return Ok(None),
        Some(Value::Number(seconds)) => seconds.as_f64().filter(|&seconds| seconds >= 0.0),
        Some(Value::String(text)) if !text.trim().is_empty() => fsd::parse(text).ok(),
        Some(_) => None,
    };
    let invalid = || {
        let name = kind.name();
        format!("invalid {name} {key}: expected seconds or a duration such as \"30s\" or \"5m\"")
    };
    seconds.map(Some).ok_or_else(invalid)
}

fn check_ignored(patterns: Option<&Value>) -> Result<(), String> {
    let bad = |what: &str| Err(format!("[job-manager.perilog]: error parsing log-ignore: {what}"));
    match patterns {
        None => Ok(()),
        Some(Value::Array(patterns)) if patterns.iter().all(Value::is_string) => Ok(()),
        Some(Value::Array(_)) => bad("all entries must be a string value"),
        Some(_) => bad("not an array"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(tables: &str) -> Result<Config, String> {
        Config::parse(&format!(r#"{{"job-manager":{{{tables}}}}}"#))
    }

    #[test]
    fn tables_get_the_known_defaults() {
        let config = parse(r#""prolog":{"command":["a"]},"epilog":{"command":["b","c"]}"#).unwrap();
        assert_eq!(
            config.report(),
            json!({
                "prolog": {"command": ["a"], "per_rank": false, "cancel_on_exception": true,
                           "timeout": 1800.0, "kill-timeout": 60.0},
                "epilog": {"command": ["b", "c"], "per_rank": false, "cancel_on_exception": false,
                           "timeout": 0.0, "kill-timeout": 60.0},
            })
        );
    }

    #[test]
    fn without_a_command_the_imp_is_run() {
        let text = r#"{"exec":{"imp":"/imp"},"job-manager":{"epilog":{"timeout":"infinity"}}}"#;
        let epilog = Config::parse(text).unwrap().epilog.unwrap();
        assert_eq!((epilog.command.join(" "), epilog.timeout), ("/imp run epilog".into(), 0.0));
    }

    #[test]
    fn times_are_seconds_or_durations() {
        for (given, timeout, kill_timeout) in [
            (r#""timeout":"5m","kill-timeout":"1.5s""#, 300.0, 1.5),
            (r#""timeout":90,"kill-timeout":2.5"#, 90.0, 2.5),
            (r#""timeout":"infinity","kill-timeout":"infinity""#, 0.0, f64::INFINITY),
            (r#""timeout":0,"kill-timeout":0"#, 0.0, 60.0),
        ] {
            let text = format!(r#""prolog":{{"command":["x"],{given}}}"#);
            let prolog = parse(&text).unwrap().prolog.unwrap();
            assert_eq!((prolog.timeout, prolog.kill_timeout), (timeout, kill_timeout), "{given}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_table() {
        let cases = [
            (r#""prolog":{"command":"x"}"#, "[job-manager.prolog]: command must be an array"),
            (r#""epilog":{"command":[1]}"#, "[job-manager.epilog]: malformed epilog command"),
            (
                r#""prolog":{}"#,
                "[job-manager.prolog]: no command specified and exec.imp not defined",
            ),
            (
                r#""prolog":{"command":["x"],"timeout":"soon"}"#,
                "[job-manager.prolog]: invalid prolog timeout: \
                 expected seconds or a duration such as \"30s\" or \"5m\"",
            ),
            (
                r#""epilog":{"command":["x"],"kill-timeout":true}"#,
                "[job-manager.epilog]: invalid epilog kill-timeout: \
                 expected seconds or a duration such as \"30s\" or \"5m\"",
            ),
            (
                r#""prolog":{"command":["x"],"comand":["x"]}"#,
                "[job-manager.prolog]: unknown key 'comand'",
            ),
            (
                r#""perilog":{"log-ignore":[1]}"#,
                "[job-manager.perilog]: error parsing log-ignore: all entries must be a string value",
            ),
        ];
        for (tables, expected) in cases {
            assert_eq!(parse(tables).unwrap_err(), expected);
        }
    }
}
