//! Frobnicators and validators: plugins that edit and judge jobs, in the order configured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::rpc::job_ingest::{SubmitResponse, flags};
use flux_protocol::rpc::sched;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};

use super::request::Request;
use super::{Context, JobIngest};
use crate::call::Call;
use crate::config::Config;
use crate::handle::Handle;
use crate::job_record;
use crate::jpath;
use crate::log::Severity;
use crate::plugin::types::{Edit, Submission, Verdict};
use crate::plugin::{
    Kind, LoadError, Mistake, Plugin, PluginFacts, PluginHost, PluginSpec, SharedJobs, as_known,
};
use crate::spans::Began;

/// Both stages, as configured.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipeline {
    frobnicators: Vec<Plugin>,
    validators: Vec<Plugin>,
    requests: u64,
    errors: u64,
    /// Of the last request.
    asked: Option<Instant>,
    watched: bool,
}

/// After so long without a request, plugins are told to rest.
const INACTIVITY: Duration = Duration::from_secs(5);

type Judged = Result<Request, (Errno, String)>;

impl Pipeline {
    pub(super) async fn load(context: &Context, config: &Config) -> Result<Pipeline, Failure> {
        check(config)?;
        // Faults are in the log without a notice, and there is nothing else to do about them.
        let (mut host, _) =
            crate::plugin_host::plugin_host(context.broker(), SharedJobs::default());
        host.set_config(config.object().clone());
        let mut pipeline = Pipeline::default();
        for Stage { name: stage, kind, default, table } in stages(config) {
            let configured = table.and_then(|table| table.get("plugins")).is_some();
            let (mut facts, mut all_known) = (Vec::new(), true);
            for mut spec in specs(stage, table, default)? {
                if kind == Kind::Validator
                    && spec.load == "jobspec.wasm"
                    && let Some(hosts) = context.broker().attrs().get("hostlist")
                {
                    // Constraints that name others can never be met.
                    spec.conf.entry("hosts").or_insert(hosts.into());
                }
                let plugin = match host.load(&spec, kind, BTreeMap::new()).await {
                    Ok(plugin) => plugin,
                    Err(error) if error.is_missing() && !configured => {
                        // An installation without a stock plugin works as far as it can.
                        context.log(Severity::Err, load_error(stage, &spec, &error));
                        all_known = false;
                        continue;
                    }
                    Err(error) => {
                        return Err(Failure::new(Errno::EINVAL, load_error(stage, &spec, &error)));
                    }
                };
                facts.push(plugin.facts().clone());
                match kind {
                    Kind::Frobnicator => pipeline.frobnicators.push(plugin),
                    _ => pipeline.validators.push(plugin),
                }
            }
            if all_known && let Some(text) = unknown_argument(stage, table, &facts) {
                return Err(Failure::new(Errno::EINVAL, text));
            }
        }
        Ok(pipeline)
    }

    /// Nobody has a say in this request.
    pub(super) fn is_empty_for(&self, request: &Request) -> bool {
        let novalidate = request.flags & flags::NOVALIDATE != 0;
        self.frobnicators.is_empty() && (self.validators.is_empty() || novalidate)
    }

    pub(super) fn stats(&self) -> Value {
        serde_json::json!({
            "frobnicator": { "plugins": self.frobnicators.len() },
            "validator": {
                "plugins": self.validators.len(),
                "requests": self.requests,
                "errors": self.errors,
            },
        })
    }

    /// Let the plugins edit and judge; then accept the job, or answer with the verdict.
    pub(super) fn submit(
        &mut self,
        context: &Context,
        request: Request,
        call: Call<SubmitResponse>,
    ) {
        self.requests += 1;
        self.asked = Some(Instant::now());
        if !std::mem::replace(&mut self.watched, true) {
            watch_activity(context, INACTIVITY);
        }
        let stages = self.clone();
        let handle = context.handle().clone();
        let after = context.clone();
        context.spawn(
            async move { stages.judge(&handle, request).await },
            move |ingest: &mut JobIngest, judged: Judged| {
                let judged = judged.map_err(|(errno, text)| {
                    ingest.pipeline.errors += 1;
                    Failure::new(errno, text)
                });
                ingest.judged(&after, judged, call);
            },
        );
    }

    async fn judge(&self, handle: &Handle, mut request: Request) -> Judged {
        for plugin in &self.frobnicators {
            let began = Began::now();
            let answers = plugin.frobnicate(vec![submission(&request)]).await;
            request.judged.push(began.end("frobnicate", Some(plugin.name())));
            match answers.into_iter().next() {
                Some(Ok(edit)) => {
                    apply(&mut request, edit)
                        .map_err(|(errno, text)| (Errno(as_known(plugin, errno.0)), text))?;
                }
                Some(Err(error)) if plugin.lets_in_unjudged() => drop(error),
                Some(Err(error)) => return Err((Errno::EINVAL, error.to_string())),
                None => return Err((Errno::EIO, format!("{}: no answer", plugin.name()))),
            }
        }
        if request.flags & flags::NOVALIDATE == 0 {
            self.validate(handle, &mut request).await?;
        }
        Ok(request)
    }

    /// All validators see the job; all that refuse it are named. The scheduler is asked last, and
    /// the number of its error counts where nobody else has one.
    async fn validate(
        &self,
        handle: &Handle,
        request: &mut Request,
    ) -> Result<(), (Errno, String)> {
        let mut refusals: Vec<(Errno, String)> = Vec::new();
        let mut is_scheduler_to_judge = false;
        for plugin in &self.validators {
            let began = Began::now();
            let answers = plugin.validate(vec![submission(request)]).await;
            request.judged.push(began.end("validate", Some(plugin.name())));
            match answers.into_iter().next() {
                Some(Ok(Verdict::Accept | Verdict::Other(_))) => {}
                Some(Ok(Verdict::Refuse(refusal))) => {
                    let errno = Errno(as_known(plugin, refusal.errnum));
                    refusals.push((errno, refusal.text));
                }
                Some(Ok(Verdict::AskFeasibility)) => is_scheduler_to_judge = true,
                // A job that could not be judged is not let in, unless that is wanted.
                Some(Err(error)) if plugin.lets_in_unjudged() => drop(error),
                Some(Err(error)) => refusals.push((Errno::EINVAL, error.to_string())),
                None => refusals.push((Errno::EIO, format!("{}: no answer", plugin.name()))),
            }
        }
        let mut errno = refusals.iter().map(|(errno, _)| errno.0).max();
        if is_scheduler_to_judge && let Err(failure) = ask_feasibility(handle, request).await {
            errno = errno.or(Some(failure.errno.0));
            refusals.push((failure.errno, failure.to_string()));
        }
        let Some(errno) = errno else { return Ok(()) };
        let mut texts: Vec<String> = Vec::new();
        for (_, text) in refusals {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        Err((Errno(errno), texts.join(", ")))
    }
}

/// After a time, see whether plugins have been asked meanwhile; when not, let them rest.
fn watch_activity(context: &Context, time: Duration) {
    let after = context.clone();
    context.spawn(tokio::time::sleep(time), move |ingest: &mut JobIngest, ()| {
        let pipeline = &mut ingest.pipeline;
        let idle = pipeline.asked.map_or(INACTIVITY, |asked| asked.elapsed());
        if idle < INACTIVITY {
            return watch_activity(&after, INACTIVITY - idle);
        }
        pipeline.watched = false;
        for plugin in pipeline.frobnicators.iter().chain(&pipeline.validators) {
            let (plugin, log) = (plugin.clone(), after.clone());
            let rest = async move { plugin.rest().await.then(|| plugin.name().to_owned()) };
            after.spawn(rest, move |_: &mut JobIngest, rested| {
                if let Some(name) = rested {
                    log.log(Severity::Debug, format!("{name}: inactivity timeout"));
                }
            });
        }
    });
}

/// Defaults and constraints do something only where there is a policy, or there are queues.
fn default_frobnicators(config: &Config) -> Vec<String> {
    let has_policy = config.get("policy.jobspec").is_some() || config.get("queues").is_some();
    match has_policy {
        true => vec!["defaults".to_owned(), "constraints".to_owned()],
        false => Vec::new(),
    }
}

/// A stage that is not disabled.
struct Stage<'a> {
    name: &'static str,
    kind: Kind,
    /// Its plugins, where the configuration names none.
    default: Vec<String>,
    table: Option<&'a Value>,
}

fn stages(config: &Config) -> impl Iterator<Item = Stage<'_>> {
    let stages = [
        ("frobnicator", Kind::Frobnicator, default_frobnicators(config)),
        ("validator", Kind::Validator, vec!["jobspec".to_owned()]),
    ];
    let with_table = stages.into_iter().map(|(name, kind, default)| {
        let table = config.get(&format!("ingest.{name}"));
        Stage { name, kind, default, table }
    });
    let is_disabled = |table: &Value| table.get("disable").and_then(Value::as_bool) == Some(true);
    with_table.filter(move |stage| !stage.table.is_some_and(is_disabled))
}

/// What a start with this configuration would say of the plugins of both stages and their arguments.
/// What the table's own check refuses is left to that.
pub(crate) async fn mistakes(host: &PluginHost, config: &Config) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for Stage { name, kind, default, table } in stages(config) {
        if table.is_none() {
            continue;
        }
        let configured = table.and_then(|table| table.get("plugins")).is_some();
        let Ok(specs) = specs(name, table, default) else { continue };
        let (mut facts, mut all_known) = (Vec::new(), true);
        for (at, spec) in specs.into_iter().enumerate() {
            match host.try_out(&spec, kind).await {
                Ok(plugin) => facts.push(plugin),
                Err(error) => {
                    all_known = false;
                    let key = format!("ingest.{name}.plugins.{at}");
                    let (text, is_missing) = (load_error(name, &spec, &error), error.is_missing());
                    // A stock plugin that is not there does not stop a start.
                    if configured || !is_missing {
                        mistakes.push(Mistake { key, text, is_missing });
                    }
                }
            }
        }
        if all_known && let Some(text) = unknown_argument(name, table, &facts) {
            let key = format!("ingest.{name}.args");
            mistakes.push(Mistake { key, text, is_missing: false });
        }
    }
    mistakes
}

/// Arguments of the bundled plugins; the others have none.
const ARGUMENTS: [(&str, &[&str]); 3] = [
    ("jobspec", &["--require-version="]),
    ("schema", &["--schema="]),
    ("require-instance", &["--require-instance-minnodes=", "--require-instance-mincores="]),
];

/// All plugins of a stage are given its `args`, so that none can tell that an argument is nobody's.
/// What a plugin of the site takes is not known here: next to one, every argument is let through.
fn unknown_argument(stage: &str, table: Option<&Value>, plugins: &[PluginFacts]) -> Option<String> {
    if !plugins.iter().all(|plugin| plugin.bundled) {
        return None;
    }
    let known: Vec<&str> = ARGUMENTS
        .iter()
        .filter(|(name, _)| plugins.iter().any(|plugin| plugin.manifest.name == *name))
        .flat_map(|(_, arguments)| arguments.iter().copied())
        .collect();
    let args = table?.get("args")?.as_array()?;
    let mut args = args.iter().filter_map(Value::as_str);
    let unknown = args.find(|arg| !known.iter().any(|option| arg.starts_with(option)))?;
    let takes = match known.as_slice() {
        [] => "its plugins take none".to_owned(),
        known => format!("its plugins take {}", known.join(", ")),
    };
    Some(format!("[ingest.{stage}] args: unknown argument '{unknown}': {takes}"))
}

/// A configuration that can't be meant, also of a stage that is disabled.
fn check(config: &Config) -> Result<(), Failure> {
    for stage in ["frobnicator", "validator"] {
        specs(stage, config.get(&format!("ingest.{stage}")), Vec::new())?;
    }
    Ok(())
}

/// The plugins of a stage: names, paths, or tables as in `[job-manager] plugins`. The table of the
/// plugin's own name below the stage, and `args`, are its configuration.
fn specs(
    stage: &str,
    table: Option<&Value>,
    default: Vec<String>,
) -> Result<Vec<PluginSpec>, Failure> {
    let invalid =
        |text: String| Failure::new(Errno::EINVAL, format!("[ingest.{stage}] plugins: {text}"));
    let entries = match table.and_then(|table| table.get("plugins")) {
        None => default.into_iter().map(Value::String).collect(),
        Some(Value::Array(entries)) => entries.clone(),
        Some(_) => return Err(invalid("must be an array of strings".to_owned())),
    };
    let mut specs = Vec::new();
    for entry in entries {
        let mut spec =
            PluginSpec::from_value(&entry).map_err(|error| invalid(error.to_string()))?;
        // A native plugin's name is that of the module in its place; a path may be of one itself.
        if let Some(stem) = spec.load.strip_suffix(".so").filter(|stem| !stem.contains('/')) {
            spec.load = stem.to_owned();
        }
        let name = spec.load.strip_suffix(".wasm").unwrap_or(&spec.load).to_owned();
        if let Some(Value::Object(conf)) = table.and_then(|table| table.get(&name)) {
            spec.conf.extend(conf.clone());
        }
        if let Some(args) = table.and_then(|table| table.get("args")) {
            spec.conf.extend(Map::from_iter([("args".to_owned(), args.clone())]));
        }
        if !spec.load.ends_with(".wasm") && !spec.load.ends_with(".so") {
            spec.load.push_str(".wasm");
        }
        specs.push(spec);
    }
    Ok(specs)
}

fn load_error(stage: &str, spec: &PluginSpec, error: &LoadError) -> String {
    let name = spec.load.strip_suffix(".wasm").unwrap_or(&spec.load);
    match error.is_missing() {
        true => format!("[ingest.{stage}]: {stage} plugin '{name}' not found"),
        false => format!("[ingest.{stage}]: {error}"),
    }
}

/// What plugins see; the environment is long, and none of their business.
fn submission(request: &Request) -> Submission {
    let jobspec = without_environment(&request.jobspec);
    let mut job = job_record::from_jobspec(&jobspec);
    if let Some(job) = &mut job {
        job.userid = request.userid;
        job.urgency = u8::try_from(request.urgency).unwrap_or(u8::MAX);
        job.flags = request.flags;
    }
    Submission {
        job,
        userid: request.userid,
        urgency: i32::try_from(request.urgency).unwrap_or(i32::MAX),
        flags: request.flags,
        jobspec,
    }
}

pub(super) fn without_environment(jobspec: &Value) -> String {
    let system = jobspec.pointer("/attributes/system").and_then(Value::as_object);
    if !system.is_some_and(|system| system.contains_key("environment")) {
        return jobspec.to_string();
    }
    let mut copy = jobspec.clone();
    if let Some(system) = copy.pointer_mut("/attributes/system").and_then(Value::as_object_mut) {
        system.shift_remove("environment");
    }
    copy.to_string()
}

fn apply(request: &mut Request, edit: Edit) -> Result<(), (Errno, String)> {
    let bad = |error: serde_json::Error| (Errno::EINVAL, format!("frobnicator: {error}"));
    match edit {
        Edit::Unchanged | Edit::Other(_) => {}
        Edit::Refuse(refusal) => return Err((Errno(refusal.errnum), refusal.text)),
        Edit::Update(updates) => {
            for (path, json) in updates {
                let value: Value = serde_json::from_str(&json).map_err(bad)?;
                jpath::set_or_remove(&mut request.jobspec, &path, value);
                request.changed = true;
            }
        }
        Edit::Replace(json) => {
            let mut new: Value = serde_json::from_str(&json).map_err(bad)?;
            let environment = request.jobspec.pointer("/attributes/system/environment").cloned();
            if let Some(environment) = environment {
                jpath::set(&mut new, "attributes.system.environment", environment);
            }
            request.jobspec = new;
            request.changed = true;
        }
    }
    Ok(())
}

async fn ask_feasibility(handle: &Handle, request: &Request) -> Result<(), Failure> {
    let jobspec = to_raw_value(&request.jobspec)
        .map_err(|error| Failure::new(Errno::EINVAL, error.to_string()))?;
    let check = sched::FeasibilityRequest { jobspec };
    match handle.rpc::<sched::Feasibility>(&check).await {
        Ok(_) => Ok(()),
        // Without a scheduler nobody knows, so nobody objects.
        Err(failure) if failure.errno == Errno::ENOSYS => Ok(()),
        Err(failure) => Err(failure),
    }
}
