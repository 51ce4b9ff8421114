//! The rules of RFC 14 and RFC 25, in the words of Flux's own validator.
//!
//! Configuration: `require-version = N | "any"` (1), also as `args = ["--require-version=N"]`; `hosts`,
//! which the broker sets: constraints may name no others.

use flux_plugin::prelude::*;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::jobspec::{Jobspec, Rules};
use serde_json::Value;

struct JobspecRules {
    version: Option<i64>,
    hosts: Option<Hostlist>,
}

impl Plugin for JobspecRules {
    fn init(context: &Context) -> Result<Self, String> {
        let version = require_version(&context.config)?;
        Ok(JobspecRules { version, hosts: hosts(&context.config)? })
    }

    fn configure(&mut self, config: &str, _: &str) -> Result<(), String> {
        *self = JobspecRules { version: require_version(config)?, hosts: hosts(config)? };
        Ok(())
    }
}

impl Validator for JobspecRules {
    fn validate(&mut self, submission: &Submission) -> Verdict {
        let rules = Rules { require_version: self.version, hosts: self.hosts.as_ref() };
        let document: Value = match serde_json::from_str(&submission.jobspec) {
            Ok(document) => document,
            Err(error) => return refuse(errno::EINVAL, error.to_string()),
        };
        match Jobspec::from_value(document, &rules) {
            Ok(_) => Verdict::Accept,
            Err(error) => refuse(errno::EINVAL, error.to_string()),
        }
    }
}

fn hosts(config: &str) -> Result<Option<Hostlist>, String> {
    let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
    let text = config.get("hosts").and_then(Value::as_str).filter(|text| !text.is_empty());
    text.map(Hostlist::decode).transpose().map_err(|error| format!("hosts: {error}"))
}

fn require_version(config: &str) -> Result<Option<i64>, String> {
    let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
    let argument = config.get("args").and_then(Value::as_array).into_iter().flatten();
    let mut argument = argument.filter_map(|arg| arg.as_str()?.strip_prefix("--require-version="));
    let wanted = match (config.get("require-version"), argument.next()) {
        (Some(Value::String(text)), _) => text.clone(),
        (Some(value), _) => value.to_string(),
        (None, Some(text)) => text.to_owned(),
        (None, None) => return Ok(Some(1)),
    };
    if wanted == "any" {
        return Ok(None);
    }
    match wanted.parse::<i64>() {
        Ok(1) => Ok(Some(1)),
        Ok(low) if low < 1 => Err(format!("Required jobspec version too low: {low} is < 1")),
        Ok(high) => Err(format!("Required jobspec version too high: {high} is > 1")),
        Err(_) => Err("Invalid argument to --require-version".to_owned()),
    }
}

flux_plugin::validator! {
    JobspecRules,
    name: "jobspec",
    description: "Python bindings based jobspec validator",
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;

    fn verdict(config: &str, jobspec: &str) -> String {
        let mut plugin = JobspecRules::init(&testing::context(config, "{}")).unwrap();
        let jobspec = jobspec.to_owned();
        let submission = Submission { job: None, userid: 0, urgency: 16, flags: 0, jobspec };
        match plugin.validate(&submission) {
            Verdict::Accept => "ok".to_owned(),
            Verdict::Refuse(refusal) => refusal.text,
            other => format!("{other:?}"),
        }
    }

    fn jobspec(version: i64) -> String {
        format!(
            r#"{{"resources":[{{"type":"slot","count":1,"label":"task",
                "with":[{{"type":"core","count":1}}]}}],
              "tasks":[{{"command":["true"],"slot":"task","count":{{"per_slot":1}}}}],
              "attributes":{{"system":{{"duration":0,"cwd":"/","environment":{{}}}}}},
              "version":{version}}}"#
        )
    }

    #[test]
    fn good_jobspec_passes_and_a_bad_one_is_refused_with_the_reason() {
        assert_eq!(verdict("{}", &jobspec(1)), "ok");
        assert_eq!(verdict("{}", r#"{"x":1}"#), "Missing key (resources)");
        assert_eq!(verdict("{}", &jobspec(2)), "version must be 1");
        assert_eq!(verdict(r#"{"require-version":"any"}"#, &jobspec(2)), "ok");
        assert!(verdict("{}", "{").starts_with("EOF while parsing"));
    }

    #[test]
    fn a_constraint_names_hosts_of_the_instance_alone() {
        let wanted = |hosts: &str| {
            let mut jobspec: Value = serde_json::from_str(&jobspec(1)).unwrap();
            jobspec["attributes"]["system"]["constraints"] =
                serde_json::json!({ "hostlist": [hosts] });
            verdict(r#"{"hosts":"fluke[0-3]"}"#, &jobspec.to_string())
        };
        assert_eq!(wanted("fluke[1-2]"), "ok");
        let refusal = wanted("fluke1,badhost");
        assert!(refusal.starts_with("host constraint contains invalid hosts: "), "{refusal}");
        assert!(refusal.contains("badhost") && !refusal.contains("fluke1"), "{refusal}");
    }

    #[test]
    fn versions_that_do_not_exist_cannot_be_required() {
        let error = |config: &str| require_version(config).unwrap_err();
        assert!(error(r#"{"args":["--require-version=2"]}"#).contains("too high: 2 is > 1"));
        assert!(error(r#"{"require-version":0}"#).contains("too low: 0 is < 1"));
        assert!(error(r#"{"require-version":"x"}"#).contains("Invalid argument"));
    }
}
