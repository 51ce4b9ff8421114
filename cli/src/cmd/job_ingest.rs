//! `flux job-validator` and `flux job-frobnicator`: the plugins of job-ingest, at hand.
//!
//! Plugins run in `flux-broker plugin`, with the configuration of the instance, where there is
//! one. What they leave to the scheduler is asked of it here.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use clap::Args;
use flux_client::{Client, RpcError};
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::{config, sched};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cmd::plugin::tool;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{json_text, outln, output};

#[derive(Debug, Args)]
#[command(override_usage = "flux-job-validator [OPTIONS] [PLUGIN OPTIONS]")]
pub(crate) struct JobValidator {
    #[command(flatten)]
    ingest: Ingest,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-job-frobnicator [OPTIONS] [PLUGIN OPTIONS]")]
pub(crate) struct JobFrobnicator {
    #[command(flatten)]
    ingest: Ingest,
}

#[derive(Debug, Args)]
struct Ingest {
    /// Expect only JSON encoded jobspec on stdin
    #[arg(long)]
    jobspec_only: bool,
    /// List available plugins and exit
    #[arg(long)]
    list_plugins: bool,
    /// Plugins to use
    #[arg(long, alias = "plugin", value_name = "LIST")]
    plugins: Vec<String>,
    /// Options of the plugins, such as --require-version=VERSION (jobspec) and --schema=FILE
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    args: Vec<String>,
}

impl JobValidator {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        self.ingest.run(context, "validate", "validator").await
    }
}

impl JobFrobnicator {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        self.ingest.run(context, "frobnicate", "frobnicator").await
    }
}

impl Ingest {
    async fn run(self, context: Context, verb: &str, kind: &str) -> Outcome {
        // Without an instance, plugins go by what their options say.
        let flux = context.connect().await.ok();
        let file = match &flux {
            Some(flux) => Some(configuration(flux).await?),
            None => None,
        };
        let mut command = tool(&context);
        if self.list_plugins {
            command.arg("list").arg(kind);
            if let Some(file) = &file {
                command.arg("--config").arg(file.path());
            }
            let program = command.get_program().to_string_lossy().into_owned();
            let status = command.status().map_err(|e| Failure::of(&program, strerror(&e)))?;
            return Ok(u8::from(!status.success()));
        }
        command.arg(verb).args(self.jobspec_only.then_some("--jobspec-only"));
        command.args(self.plugins.iter().map(|list| format!("--plugins={list}")));
        if let Some(file) = &file {
            command.arg("--config").arg(file.path());
        }
        command.arg("--").args(self.args).stdout(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|error| Failure::of(&program, strerror(&error)))?;
        let mut refused = false;
        if let Some(answers) = child.stdout.take() {
            for line in BufReader::new(answers).lines() {
                let line = line.map_err(|error| Failure::new(strerror(&error)))?;
                refused |= answer(flux.as_ref(), &line).await;
                output::flush();
            }
        }
        let status = child.wait().map_err(|error| Failure::of(&program, strerror(&error)))?;
        match status.code() {
            Some(0) => Ok(u8::from(refused && self.jobspec_only)),
            code => {
                Err(Failure::silent(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
            }
        }
    }
}

/// Print an answer; true where it is the scheduler that refuses.
async fn answer(flux: Option<&Client>, line: &str) -> bool {
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    let Some(jobspec) = value.get("feasibility").and_then(Value::as_str) else {
        print(line.to_owned());
        return false;
    };
    let refusal = match (flux, RawValue::from_string(jobspec.to_owned())) {
        (Some(flux), Ok(jobspec)) => {
            let request = sched::FeasibilityRequest { jobspec };
            flux.rpc::<sched::Feasibility>(Nodeid::ANY, &request).await.err()
        }
        _ => None,
    };
    let number = value.get("errnum").and_then(Value::as_u64).filter(|&number| number != 0);
    let texts = value.get("errstr").and_then(Value::as_str).map(str::to_owned);
    let texts: Vec<String> =
        texts.into_iter().chain(refusal.as_ref().map(RpcError::to_string)).collect();
    let number =
        number.unwrap_or_else(|| refusal.as_ref().map_or(0, |error| error.errno().0.into()));
    let mut result = json!({ "errnum": number });
    if let Value::Object(result) = &mut result
        && number != 0
    {
        result.insert("errstr".to_owned(), json!(texts.join(", ")));
    }
    print(result.to_string());
    number != 0
}

fn print(json: String) {
    match RawValue::from_string(json) {
        Ok(raw) => outln!("{}", json_text::spaced(&raw)),
        Err(error) => eprintln!("flux-plugin: not JSON: {error}"),
    }
}

/// The instance's configuration in a file that goes with the value.
async fn configuration(flux: &Client) -> Result<tempfile::NamedTempFile, Failure> {
    let config = flux.rpc::<config::Get>(Nodeid::ANY, &Empty).await?;
    let failed = |error: std::io::Error| Failure::of("configuration", strerror(&error));
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(Value::Object(config).to_string().as_bytes()).map_err(failed)?;
    file.flush().map_err(failed)?;
    Ok(file)
}
