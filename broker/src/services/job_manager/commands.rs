//! Commands that the administrator configured and plugins have run: prolog, epilog and the like.
//!
//! A plugin names the table below `[job-manager]`; the command line stands there, so that no
//! plugin can run anything else. The broker owns the processes: they outlive the plugin, and what
//! came of them is kept until the plugin has taken it.

use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use flux_protocol::failure::Failure;
use flux_protocol::fluid::JobId;
use flux_protocol::idset::Idset;
use flux_protocol::laggards::Laggards;
use flux_protocol::payload::Object;
use flux_protocol::r::ResourceSet;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::bulk::{self, Bulk, Order, Outcome};
use super::{Context, JobManager};
use crate::config::Config;
use crate::log::Severity;
use crate::plugin::types::{Event, ExecStart, ExecUpdate};

/// What may run a while longer after SIGTERM, unless the configuration says otherwise.
const KILL_TIMEOUT: f64 = 60.0;
/// Of a command that could not be run at all.
const NOT_STARTED: i32 = 127 << 8;

/// Commands that run, by plugin and tag.
#[derive(Debug, Default)]
pub struct Commands {
    running: HashMap<(String, String), Running>,
    /// What plugins that are down have not heard.
    untold: HashMap<String, VecDeque<ExecUpdate>>,
}

#[derive(Debug)]
struct Running {
    job: JobId,
    cancel_on_exception: bool,
    bulk: Rc<Bulk>,
    laggards: Laggards,
}

/// `[job-manager.NAME]`, and the options of the plugin, which stand above it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    #[serde(default)]
    command: Vec<String>,
    #[serde(alias = "per_rank")]
    per_rank: Option<bool>,
    timeout: Option<Span>,
    #[serde(alias = "kill_timeout")]
    kill_timeout: Option<Span>,
    #[serde(alias = "cancel_on_exception")]
    cancel_on_exception: Option<bool>,
    #[serde(alias = "exit_on_first_error")]
    exit_on_first_error: Option<bool>,
}

/// Seconds, as a number or as a Flux standard duration.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Span {
    Seconds(f64),
    Text(String),
}

impl Span {
    fn seconds(&self) -> Option<f64> {
        match self {
            Span::Seconds(seconds) => Some(*seconds),
            Span::Text(text) => flux_protocol::fsd::parse(text).ok(),
        }
    }
}

impl JobManager {
    /// Run a command for a plugin. One whose tag is still running goes on.
    pub(super) fn command_start(
        &mut self,
        context: &Context,
        plugin: &str,
        start: &ExecStart,
    ) -> Result<(), String> {
        let key = (plugin.to_owned(), start.tag.clone());
        if self.commands.running.contains_key(&key) {
            return Ok(());
        }
        let (order, job_ranks, cancel_on_exception) = match self.order(context, plugin, start) {
            Ok(order) => order,
            Err(text) => {
                context.log(
                    Severity::Err,
                    format!("plugin {plugin}: {}: {text}", start.command.escape_debug()),
                );
                self.command_refused(context, plugin, start, &text);
                return Ok(());
            }
        };
        let bulk = Bulk::new(context, order);
        let running = Running {
            job: JobId(start.job),
            cancel_on_exception,
            bulk: bulk.clone(),
            laggards: Laggards::default(),
        };
        self.commands.running.insert(key.clone(), running);
        if bulk.is_per_rank() {
            self.watch_laggards(context, key.clone(), Rc::downgrade(&bulk));
        }
        let (stored, is_stored) = oneshot::channel();
        self.once_stored(context, stored);
        let (after, run_in) = (context.clone(), context.clone());
        let (job, done) = (start.job, bulk.clone());
        let restored = self.jobs.get(&JobId(job)).is_some_and(|job| job.pending.restored);
        context.spawn(
            async move {
                // Without an answer the service has ended, and this with it.
                let _ = is_stored.await;
                if restored {
                    bulk.until_nodes_are_back(&run_in, &job_ranks).await;
                }
                bulk.run(run_in, |_| {}).await
            },
            move |manager: &mut JobManager, outcome| {
                let ran = manager.commands.running.remove(&key);
                let (plugin, tag) = key;
                if ran.is_some_and(|ran| ran.laggards.are_told()) {
                    manager.unexplain(&after, JobId(job), &plugin);
                }
                let update = update(tag, job, &done, &outcome);
                manager.command_ended(&after, &plugin, update);
            },
        );
        Ok(())
    }

    /// Who asks why a job waits learns which nodes are not done.
    fn watch_laggards(&self, context: &Context, key: (String, String), bulk: Weak<Bulk>) {
        let after = context.clone();
        let wait = tokio::time::sleep(Laggards::PERIOD);
        context.spawn(wait, move |manager: &mut JobManager, ()| {
            let running = manager.commands.running.get_mut(&key);
            // One of the same name may have come after it.
            let Some(running) = running.filter(|r| bulk.as_ptr() == Rc::as_ptr(&r.bulk)) else {
                return;
            };
            let id = running.job;
            if let Some(text) = running.bulk.news(&mut running.laggards) {
                manager.explain(&after, id, &key.0, &text);
            }
            manager.watch_laggards(&after, key, bulk);
        });
    }

    /// Commands look for the job's R and events in the KVS; and what is not known of after a crash
    /// would run a second time.
    fn once_stored(&mut self, context: &Context, stored: oneshot::Sender<()>) {
        self.store.then(context, |manager, _, result| manager.tell_stored(result, stored));
    }

    fn tell_stored(&mut self, result: &Result<(), Failure>, stored: oneshot::Sender<()>) {
        match result {
            // Who waited may have gone.
            Ok(()) => drop(stored.send(())),
            Err(_) => self.store.then_next_time(|manager, _, result| {
                manager.tell_stored(result, stored);
            }),
        }
    }

    pub(super) fn command_signal(&mut self, context: &Context, plugin: &str, tag: &str, sig: u32) {
        let key = (plugin.to_owned(), tag.to_owned());
        let Some(running) = self.commands.running.get(&key) else { return };
        match i32::try_from(sig) {
            // The plugin wants it ended: what SIGTERM does not end, SIGKILL does.
            Ok(libc::SIGTERM) => running.bulk.cancel(),
            Ok(sig) => running.bulk.signal(context, sig),
            Err(_) => {}
        }
    }

    /// A fatal exception was raised on the job.
    pub(super) fn commands_exception(&mut self, id: JobId) {
        for running in self.commands.running.values() {
            if running.job == id && running.cancel_on_exception {
                running.bulk.cancel();
            }
        }
    }

    /// What the broker knows of commands that a plugin lists as `procs` by job.
    pub(super) fn commands_describe(&self, plugin: &str, query: &mut Object) {
        let Some(procs) = query.get_mut("procs").and_then(Value::as_object_mut) else { return };
        for ((owner, _), running) in &self.commands.running {
            let proc = procs.get_mut(&running.job.f58()).and_then(Value::as_object_mut);
            if let Some(proc) = proc.filter(|_| owner == plugin) {
                proc.extend(running.bulk.describe());
            }
        }
    }

    /// The service ends: ask what runs to end, too.
    pub(super) fn commands_stop(&mut self, context: &Context) {
        for running in self.commands.running.values() {
            running.bulk.signal(context, libc::SIGTERM);
        }
    }

    /// What to run, the job's ranks, and whether an exception ends it. By the configuration that the
    /// plugin has: a new one is not in force for all at once.
    fn order(
        &self,
        context: &Context,
        plugin: &str,
        start: &ExecStart,
    ) -> Result<(Order, Idset, bool), String> {
        let job = self.jobs.get(&JobId(start.job)).ok_or("job is not known")?;
        let r = job.r.as_ref().ok_or("job has no resources")?;
        let r = ResourceSet::decode(r.get()).map_err(|error| error.to_string())?;
        let config = self.config_of_plugin(plugin);
        let table = config.get(&format!("job-manager.{}", start.command)).cloned();
        let table = table.ok_or("refused: no such table in [job-manager]")?;
        let settings: Settings = serde_json::from_value(table)
            .map_err(|error| format!("[job-manager.{}]: {error}", start.command))?;
        let options: Settings = match start.options.as_str() {
            "" => Settings::default(),
            text => serde_json::from_str(text).map_err(|error| format!("options: {error}"))?,
        };
        if !options.command.is_empty() {
            return Err("refused: a plugin does not choose the command line".to_owned());
        }
        let cmdline = match (settings.command.is_empty(), config.get_str("exec.imp")) {
            (false, _) => settings.command,
            (true, Some(imp)) => vec![imp.to_owned(), "run".to_owned(), start.command.clone()],
            (true, None) => return Err("no command specified and exec.imp not defined".to_owned()),
        };
        let per_rank = options.per_rank.or(settings.per_rank).unwrap_or(start.ranks.is_some());
        let job_ranks = r.ranks();
        let ranks: Idset = match (&start.ranks, per_rank) {
            (Some(ranks), true) => ranks.parse().map_err(|_| format!("ranks: {ranks}"))?,
            (None, true) => job_ranks.clone(),
            (_, false) => Idset::from_range(0, 0),
        };
        if per_rank && !ranks.difference(&job_ranks).is_empty() {
            return Err(format!("refused: rank {ranks} is not of job {}", job.id.f58()));
        }
        let seconds = |span: Option<Span>| span.as_ref().and_then(Span::seconds);
        let timeout = seconds(options.timeout).or(seconds(settings.timeout));
        let kill = seconds(options.kill_timeout).or(seconds(settings.kill_timeout));
        let env = [
            ("FLUX_JOB_ID", job.id.f58()),
            ("FLUX_JOB_USERID", job.userid.to_string()),
            ("FLUX_JOB_RANKS", job_ranks.to_string()),
        ];
        let order = Order {
            through_imp: bulk::is_through_imp(&config, &cmdline),
            command: bulk::command(context, cmdline, env),
            ranks,
            timeout: timeout
                .filter(|timeout| *timeout > 0.0)
                .and_then(|timeout| Duration::try_from_secs_f64(timeout).ok()),
            kill_timeout: Duration::try_from_secs_f64(kill.unwrap_or(KILL_TIMEOUT))
                .unwrap_or(Duration::MAX),
            exit_on_first_error: options
                .exit_on_first_error
                .or(settings.exit_on_first_error)
                .unwrap_or(false),
            name: start.command.clone(),
            job: job.id.f58(),
            label: format!("{}: {}", job.id.f58(), start.command),
            names_ranks: per_rank,
            drains_killed: per_rank,
            ignore: ignored(&config),
        };
        let cancel = options.cancel_on_exception.or(settings.cancel_on_exception);
        Ok((order, job_ranks, cancel.unwrap_or(false)))
    }

    fn command_refused(&mut self, context: &Context, plugin: &str, start: &ExecStart, text: &str) {
        let update = ExecUpdate {
            tag: start.tag.clone(),
            job: start.job,
            finished: true,
            status: NOT_STARTED,
            failed_ranks: String::new(),
            timed_out: false,
            canceled: false,
            details: json!({ "error": text }).to_string(),
        };
        // In a later turn: the plugin's effects are still being applied.
        let (after, plugin) = (context.clone(), plugin.to_owned());
        context.later(move |manager: &mut JobManager| {
            manager.command_ended(&after, &plugin, update);
        });
    }

    /// Tell the plugin; one that is down hears of it when it is back.
    fn command_ended(&mut self, context: &Context, plugin: &str, update: ExecUpdate) {
        self.commands.untold.entry(plugin.to_owned()).or_default().push_back(update);
        self.commands_tell(context, plugin);
    }

    pub(super) fn commands_tell(&mut self, context: &Context, plugin: &str) {
        let Some(updates) = self.commands.untold.remove(plugin) else { return };
        for update in updates {
            let name = plugin.to_owned();
            let again = update.clone();
            self.tell_plugin(context, plugin, Event::Exec(update), move |manager| {
                manager.commands.untold.entry(name).or_default().push_back(again);
            });
        }
    }
}

fn update(tag: String, job: u64, bulk: &Bulk, outcome: &Outcome) -> ExecUpdate {
    let errors: serde_json::Map<String, Value> =
        outcome.errors.iter().map(|(rank, text)| (rank.to_string(), json!(text))).collect();
    let details = json!({ "hosts": bulk.hosts_of(&outcome.failed), "errors": errors });
    ExecUpdate {
        tag,
        job,
        finished: true,
        status: outcome.status,
        failed_ranks: outcome.failed.to_string(),
        timed_out: outcome.timed_out,
        canceled: outcome.canceled,
        details: details.to_string(),
    }
}

/// `[job-manager.perilog] log-ignore`: extended regular expressions.
pub(super) fn ignored(config: &Config) -> Rc<[regex_lite::Regex]> {
    let patterns = config.get("job-manager.perilog.log-ignore").and_then(Value::as_array);
    let compile = |pattern: &Value| regex_lite::Regex::new(pattern.as_str()?).ok();
    patterns.into_iter().flatten().filter_map(compile).collect()
}
