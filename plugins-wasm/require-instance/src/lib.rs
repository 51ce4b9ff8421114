//! Only jobs that start an instance of Flux are let in, or only those from a certain size on.
//!
//! Configuration: `[ingest.validator.require-instance]` with `minnodes` and `mincores`, or the
//! options `--require-instance-minnodes=N` and `--require-instance-mincores=N`, which go before.

use flux_plugin::prelude::*;
use flux_plugin::types::Request;
use serde::Deserialize;
use serde_json::Value;

struct RequireInstance {
    /// 0: any size.
    nodes: u64,
    cores: u64,
}

#[derive(Deserialize)]
struct Jobspec {
    attributes: Attributes,
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Attributes {
    system: System,
}

#[derive(Deserialize)]
struct System {
    batch: Option<Value>,
}

#[derive(Deserialize)]
struct Task {
    command: Vec<String>,
}

impl Plugin for RequireInstance {
    fn init(context: &Context) -> Result<Self, String> {
        Self::from_config(&context.config, &context.broker_config)
    }

    fn configure(&mut self, config: &str, broker_config: &str) -> Result<(), String> {
        *self = Self::from_config(config, broker_config)?;
        Ok(())
    }
}

impl Validator for RequireInstance {
    fn validate(&mut self, submission: &Submission) -> Verdict {
        let request = submission.job.as_ref().and_then(|job| job.request);
        if !self.concerns(request.as_ref()) || starts_instance(&submission.jobspec) {
            return Verdict::Accept;
        }
        refuse(errno::EINVAL, self.text())
    }
}

impl RequireInstance {
    fn from_config(config: &str, broker_config: &str) -> Result<Self, String> {
        let parse = |text| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
        let (own, broker) = (parse(config)?, parse(broker_config)?);
        let table = broker.pointer("/ingest/validator/require-instance");
        let number = |key: &str| -> Result<u64, String> {
            let option = format!("--require-instance-{key}=");
            let options = own.get("args").and_then(Value::as_array).into_iter().flatten();
            let last = options.filter_map(|text| text.as_str()?.strip_prefix(&option)).next_back();
            let bad = || format!("ingest.validator.require-instance: {key} must be a number >= 0");
            if let Some(text) = last {
                return text.parse().map_err(|_| bad());
            }
            let value = own.get(key).or_else(|| table?.get(key));
            value.map_or(Ok(0), |value| value.as_u64().ok_or_else(bad))
        };
        let (nodes, mut cores) = (number("minnodes")?, number("mincores")?);
        if nodes > 0 && cores == 0 {
            // Else a job that asks for cores alone would slip through.
            cores = nodes.saturating_mul(16);
        }
        Ok(RequireInstance { nodes, cores })
    }

    /// Whether a job is so large that it has to be an instance.
    fn concerns(&self, request: Option<&Request>) -> bool {
        let Some(request) = request else { return true };
        let nodes = request.nodes.map(|nodes| u64::from(nodes.min));
        let slots = u64::from(request.slots.min).saturating_mul(nodes.unwrap_or(1));
        let cores = slots.saturating_mul(u64::from(request.cores_per_slot));
        nodes.is_some_and(|nodes| nodes >= self.nodes) || cores >= self.cores
    }

    fn text(&self) -> String {
        let size = match (self.nodes, self.cores) {
            (0, 0) => {
                return "Direct job submission is disabled for this instance. Please use the \
                        batch or alloc subcommands of flux-mini(1)"
                    .to_owned();
            }
            (0, cores) => format!("{cores} cores"),
            (nodes, cores) => format!("{nodes} nodes or {cores} cores"),
        };
        format!(
            "Direct job submission disabled for jobs >= {size}. Please use flux-batch(1) or \
             flux-alloc(1)"
        )
    }
}

fn starts_instance(jobspec: &str) -> bool {
    let Ok(jobspec) = serde_json::from_str::<Jobspec>(jobspec) else { return false };
    if jobspec.attributes.system.batch.is_some() {
        return true;
    }
    let command = jobspec.tasks.first().map(|task| task.command.as_slice());
    match command {
        Some([program, verb, ..]) => {
            let name = program.rsplit('/').next().unwrap_or(program);
            name == "flux" && (verb == "broker" || verb == "start")
        }
        _ => false,
    }
}

flux_plugin::validator! {
    RequireInstance,
    name: "require-instance",
    description: "Require that all jobs are new instances of Flux",
    capabilities: ["config:ingest"],
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_plugin::testing;
    use flux_plugin::types::Count;

    fn verdict(config: &str, cores: u32, batch: bool, command: &[&str]) -> String {
        let broker = format!(r#"{{"ingest":{{"validator":{{"require-instance":{config}}}}}}}"#);
        let mut plugin = RequireInstance::init(&testing::context("{}", &broker)).unwrap();
        let request = Request {
            nodes: None,
            slots: Count { min: cores, max: Some(cores), step: None },
            cores_per_slot: 1,
            gpus_per_slot: 0,
            exclusive: false,
        };
        let job = Some(Job { request: Some(request), ..testing::job(0) });
        let system = if batch { r#"{"batch":{"script":""}}"# } else { "{}" };
        let command = serde_json::to_string(command).unwrap();
        let jobspec =
            format!(r#"{{"attributes":{{"system":{system}}},"tasks":[{{"command":{command}}}]}}"#);
        match plugin.validate(&Submission { job, userid: 0, urgency: 16, flags: 0, jobspec }) {
            Verdict::Accept => "ok".to_owned(),
            Verdict::Refuse(refusal) => refusal.text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn direct_jobs_are_refused_with_the_text_of_the_guide() {
        let text = "Direct job submission is disabled for this instance. Please use the batch or \
                    alloc subcommands of flux-mini(1)";
        assert_eq!(verdict("{}", 1, false, &["myapp"]), text);
        assert_eq!(verdict("{}", 1, false, &["sh", "-c", "flux start"]), text);
    }

    #[test]
    fn instances_are_let_in() {
        assert_eq!(verdict("{}", 1, true, &["flux"]), "ok");
        assert_eq!(verdict("{}", 1, false, &["flux", "start", "true"]), "ok");
        assert_eq!(verdict("{}", 1, false, &["/usr/bin/flux", "broker"]), "ok");
    }

    #[test]
    fn small_jobs_are_let_in_where_a_size_is_configured() {
        let config = r#"{"mincores":4}"#;
        assert_eq!(verdict(config, 3, false, &["myapp"]), "ok");
        assert!(verdict(config, 4, false, &["myapp"]).contains("for jobs >= 4 cores."));
        let config = r#"{"minnodes":2}"#;
        assert_eq!(verdict(config, 31, false, &["myapp"]), "ok");
        assert!(verdict(config, 32, false, &["myapp"]).contains(">= 2 nodes or 32 cores."));
    }

    #[test]
    fn options_go_before_the_table() {
        let broker = r#"{"ingest":{"validator":{"require-instance":{"mincores":4}}}}"#;
        let limits = |options: &str| {
            let config = format!(r#"{{"args":["--schema=x",{options}]}}"#);
            let plugin = RequireInstance::init(&testing::context(&config, broker));
            plugin.map(|plugin| (plugin.nodes, plugin.cores))
        };
        assert_eq!(limits(r#""--require-instance-mincores=8""#), Ok((0, 8)));
        assert_eq!(limits(r#""--require-instance-minnodes=2""#), Ok((2, 4)));
        assert!(limits(r#""--require-instance-mincores=x""#).is_err());
    }
}
