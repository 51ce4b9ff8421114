//! `list`, `validate` and `frobnicate`: the plugins of job-ingest on lines of JSON.
//!
//! A line is `{"jobspec": .., "userid": .., "urgency": .., "flags": ..}`, or a jobspec alone. The
//! answer is a line, too: `{"errnum": 0}` and the like. What only a scheduler can say is handed to
//! the caller under the key `feasibility`.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Outcome, host};
use crate::job_record;
use crate::plugin::types::{Edit, Submission, Verdict};
use crate::plugin::{Kind, LoadError, Plugin, PluginSpec, SharedJobs, SourceError, as_known};

#[derive(Debug, Args)]
pub(super) struct List {
    /// "validator", "frobnicator", "jobtap" or "scheduler"
    kind: String,
    /// The broker's configuration, whose plugins by path are listed, too: a file with a JSON object
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Ingest {
    /// Lines are jobspecs
    #[arg(long)]
    jobspec_only: bool,
    /// Plugins to use
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    plugins: Vec<String>,
    /// The broker's configuration: a file with a JSON object
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Options of the plugins
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Validate {
    #[command(flatten)]
    ingest: Ingest,
}

#[derive(Debug, Args)]
pub(super) struct Frobnicate {
    #[command(flatten)]
    ingest: Ingest,
}

impl List {
    pub(super) fn run(self) -> Outcome {
        let kinds = [Kind::Validator, Kind::Frobnicator, Kind::Jobtap, Kind::Scheduler];
        let kind = kinds.into_iter().find(|kind| kind.name() == self.kind);
        let kind = kind.ok_or_else(|| format!("{}: no such kind of plugin", self.kind))?;
        let stem =
            |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let bundled = host(Map::new(), SharedJobs::default(), None).available(kind);
        let mut lines: BTreeMap<String, String> = bundled
            .into_iter()
            .map(|(path, manifest)| (stem(&path), manifest.description))
            .collect();
        for path in self.by_path()? {
            let (_, inspection) = super::inspect::read(&path)?;
            lines.insert(stem(Path::new(&path)), inspection.manifest.description);
        }
        say!("Available plugins:");
        lines.iter().for_each(|(name, description)| say!("{name:<20}  {description}"));
        Ok(ExitCode::SUCCESS)
    }

    /// A site's own plugins of job-ingest, which are in no folder that is searched.
    fn by_path(&self) -> Result<Vec<String>, String> {
        let config = super::configuration(self.config.as_deref())?;
        let entries = config
            .get("ingest")
            .and_then(|ingest| ingest.get(&self.kind)?.get("plugins")?.as_array())
            .cloned()
            .unwrap_or_default();
        let load = |entry: &Value| entry.get("load").unwrap_or(entry).as_str().map(str::to_owned);
        Ok(entries.iter().filter_map(load).filter(|load| load.contains('/')).collect())
    }
}

impl Validate {
    pub(super) async fn run(self) -> Outcome {
        let plugins = self.ingest.load(Kind::Validator, "validator", "jobspec").await?;
        self.ingest
            .each(async |submission| {
                let (mut errnum, mut texts, mut asks) = (0, Vec::new(), false);
                for plugin in &plugins {
                    let (code, text) = match plugin.validate(vec![submission.clone()]).await.pop() {
                        Some(Ok(Verdict::Refuse(refusal))) => {
                            (as_known(plugin, refusal.errnum), refusal.text)
                        }
                        Some(Ok(verdict)) => {
                            asks |= matches!(verdict, Verdict::AskFeasibility);
                            continue;
                        }
                        Some(Err(error)) => (22, error.to_string()),
                        None => (22, format!("{}: no answer", plugin.name())),
                    };
                    errnum = errnum.max(code);
                    if !texts.contains(&text) {
                        texts.push(text);
                    }
                }
                let mut answer = Map::from_iter([("errnum".to_owned(), json!(errnum))]);
                if errnum != 0 {
                    answer.insert("errstr".to_owned(), json!(texts.join(", ")));
                }
                if asks {
                    answer.insert("feasibility".to_owned(), json!(submission.jobspec));
                }
                Value::Object(answer)
            })
            .await
    }
}

impl Frobnicate {
    pub(super) async fn run(self) -> Outcome {
        let plugins =
            self.ingest.load(Kind::Frobnicator, "frobnicator", "defaults,constraints").await?;
        self.ingest
            .each(async |mut submission| {
                for plugin in &plugins {
                    let edit = plugin.frobnicate(vec![submission.clone()]).await.pop();
                    let edited = match edit {
                        Some(Ok(edit)) => apply(&submission.jobspec, edit),
                        Some(Err(error)) => Err(error.to_string()),
                        None => Err(format!("{}: no answer", plugin.name())),
                    };
                    match edited {
                        Ok(jobspec) => submission.jobspec = jobspec,
                        Err(text) => return json!({ "errnum": 1, "errstr": text }),
                    }
                }
                let data: Value = serde_json::from_str(&submission.jobspec).unwrap_or_default();
                json!({ "errnum": 0, "data": data })
            })
            .await
    }
}

impl Ingest {
    async fn load(&self, kind: Kind, stage: &str, default: &str) -> Result<Vec<Plugin>, String> {
        let config = match &self.config {
            None => Map::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
                serde_json::from_str(&text).map_err(|error| error.to_string())?
            }
        };
        let host = host(config, SharedJobs::default(), None);
        let names: Vec<String> = match self.plugins.is_empty() {
            true => default.split(',').map(str::to_owned).collect(),
            false => self.plugins.clone(),
        };
        let mut plugins = Vec::new();
        for name in names {
            let file = format!("{}.wasm", name.strip_suffix(".wasm").unwrap_or(&name));
            let mut spec = PluginSpec::named(file);
            if !self.args.is_empty() {
                spec.conf.insert("args".to_owned(), json!(self.args));
            }
            let plugin = host.load(&spec, kind, Default::default()).await;
            plugins.push(plugin.map_err(|error| match error {
                LoadError::Source { error: SourceError::NotFound, .. } => {
                    format!("{stage} plugin '{name}' not found")
                }
                error => error.to_string(),
            })?);
        }
        Ok(plugins)
    }

    /// Answers each line of standard input.
    async fn each(&self, answer: impl AsyncFn(Submission) -> Value) -> Outcome {
        let mut failed = false;
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|error| error.to_string())?;
            if line.trim().is_empty() {
                continue;
            }
            let answer = answer(self.submission(&line)?).await;
            failed |= answer.get("errnum").and_then(Value::as_u64).unwrap_or(0) != 0;
            say!("{answer}");
        }
        // With jobspecs alone the exit code tells the result.
        Ok(ExitCode::from(u8::from(failed && self.jobspec_only)))
    }

    fn submission(&self, line: &str) -> Result<Submission, String> {
        let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let (jobspec, rest) = match self.jobspec_only {
            true => (value, json!({})),
            false => {
                let wanted = ["jobspec", "userid", "flags", "urgency"];
                if wanted.iter().any(|key| value.get(key).is_none()) {
                    let text = "Missing keys in input. Did you mean to use --jobspec-only?";
                    return Err(text.to_owned());
                }
                (value.get("jobspec").cloned().unwrap_or_default(), value)
            }
        };
        let number = |key: &str| rest.get(key).and_then(Value::as_u64);
        let jobspec = jobspec.to_string();
        Ok(Submission {
            job: job_record::from_jobspec(&jobspec),
            userid: number("userid")
                .and_then(|userid| u32::try_from(userid).ok())
                .unwrap_or_else(|| nix::unistd::getuid().as_raw()),
            urgency: number("urgency").and_then(|n| i32::try_from(n).ok()).unwrap_or(16),
            flags: number("flags").and_then(|flags| u32::try_from(flags).ok()).unwrap_or(0),
            jobspec,
        })
    }
}

fn apply(jobspec: &str, edit: Edit) -> Result<String, String> {
    match edit {
        Edit::Unchanged | Edit::Other(_) => Ok(jobspec.to_owned()),
        Edit::Refuse(refusal) => Err(refusal.text),
        Edit::Replace(json) => Ok(json),
        Edit::Update(updates) => {
            let mut edited: Value =
                serde_json::from_str(jobspec).map_err(|error| error.to_string())?;
            for (path, json) in updates {
                let value = serde_json::from_str(&json).map_err(|error| error.to_string())?;
                set(&mut edited, &path, value);
            }
            Ok(edited.to_string())
        }
    }
}

/// Sets, or with null removes, what stands at a dotted path.
fn set(value: &mut Value, path: &str, new: Value) {
    let Some(object) = value.as_object_mut() else { return };
    match path.split_once('.') {
        None if new.is_null() => drop(object.shift_remove(path)),
        None => drop(object.insert(path.to_owned(), new)),
        Some((key, rest)) => {
            set(object.entry(key).or_insert_with(|| json!({})), rest, new);
        }
    }
}
