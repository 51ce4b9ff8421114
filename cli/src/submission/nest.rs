//! The jobspec of `flux batch` and `flux alloc`: an instance of its own, with a broker on each node.

use clap::{ArgAction, Args};
use flux_protocol::idset::Idset;
use flux_protocol::jobspec::{Extras, Jobspec, TaskRequest};
use serde_json::{Value, json};

use super::options::Common;
use super::{conf, files, refuse};
use crate::failure::Failure;

/// Where `--dump` without a name puts the dump.
const DUMP: &str = "flux-{{jobid}}-dump.tgz";
/// Its path in the job's temporary directory is that of a file of the job.
const CONF_OPTION: &str = "-c{{tmpdir}}/conf.json";

#[derive(Debug, Clone, Args)]
pub(crate) struct Nest {
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    pub add_brokers: u32,
    /// Set configuration for a child Flux instance. CONF may be a multiline string in JSON or TOML,
    /// a configuration key=value, a path to a JSON or TOML file, or a configuration loaded by name
    /// from a standard search path. This option may specified multiple times, in which case the
    /// config is iteratively updated.
    #[arg(long, value_name = "CONF", action = ArgAction::Append)]
    pub conf: Vec<String>,
    /// Pass options to flux brokers
    #[arg(long, value_name = "OPTS", alias = "broker-opt", action = ArgAction::Append,
          allow_hyphen_values = true)]
    pub broker_opts: Vec<String>,
    /// Archive KVS on exit
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          default_missing_value = DUMP)]
    pub dump: Option<String>,
    /// Number of total resource slots requested. The size of a resource slot may be specified via
    /// the -c, --cores-per-slot and -g, --gpus-per-slot options. The default slot size is 1 core.
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub nslots: Option<i64>,
    /// Number of cores to allocate per slot
    #[arg(short = 'c', long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub cores_per_slot: i64,
    /// Number of GPUs to allocate per slot
    #[arg(short = 'g', long, value_name = "N", allow_negative_numbers = true)]
    pub gpus_per_slot: Option<i64>,
    /// Distribute allocated resource slots across N individual nodes
    #[arg(short = 'N', long, value_name = "N", allow_negative_numbers = true)]
    pub nodes: Option<i64>,
    /// With -N, --nodes, allocate nodes exclusively
    #[arg(short = 'x', long)]
    pub exclusive: bool,
}

/// The instance's initial program and standard streams.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub command: Vec<String>,
    pub name: Option<String>,
    pub input: Option<String>,
    pub output: Option<String>,
    pub error: Option<String>,
    pub label_io: bool,
    /// More options for the brokers.
    pub broker_opts: Vec<String>,
}

impl Nest {
    /// Resources, brokers and configuration; [`Common::apply`] is still to come.
    pub(crate) fn jobspec(&self, common: &Common, program: Program) -> Result<Jobspec, Failure> {
        let nodes = self.nodes.filter(|nodes| *nodes != 0);
        let (slots, exclusive) = match (self.nslots.filter(|slots| *slots != 0), nodes) {
            (Some(slots), _) => (slots, self.exclusive),
            (None, Some(nodes)) => (nodes, true),
            (None, None) => return Err(refuse("Number of slots to allocate must be specified")),
        };
        let mut configuration = conf::merge(&self.conf)?;
        if self.add_brokers > 0 {
            self.exclude_added(&mut configuration)?;
        }
        // As of old, `-B` has options for brokers if they look like that; banks don't.
        let bank = common.bank.clone().filter(|bank| !bank.starts_with('-'));
        let of_old = common.bank.iter().filter(|bank| bank.starts_with('-'));
        let dump = self.dump.as_ref().map(|file| format!("-Scontent.dump={file}"));
        let mut broker_opts: Vec<String> = (self.broker_opts.iter().chain(of_old))
            .chain(&dump)
            .chain(&program.broker_opts)
            .flat_map(|options| options.split(',').map(str::to_owned))
            .collect();
        if configuration.is_some() {
            broker_opts.push(CONF_OPTION.to_owned());
        }
        let request = TaskRequest {
            command: program.command,
            num_tasks: slots,
            cores_per_task: self.cores_per_slot,
            gpus_per_task: self.gpus_per_slot,
            num_nodes: self.nodes,
            exclusive,
        };
        let extras = Extras {
            duration: common.duration()?,
            cwd: common.directory(),
            name: program.name,
            input: program.input,
            output: program.output,
            error: program.error,
            label_io: program.label_io,
            unbuffered: common.unbuffered,
            queue: common.queue.clone(),
            bank,
            ..Extras::default()
        };
        let mut jobspec =
            Jobspec::from_nest_command(&request, &broker_opts, &extras).map_err(refuse)?;
        if let Some(configuration) = &configuration {
            files::set_file(&mut jobspec, "conf.json", files::json_file(configuration));
        }
        if self.add_brokers == 0 {
            return Ok(jobspec);
        }
        self.add_tasks(jobspec)
    }

    /// The task map of `--add-brokers`, which are on the first node.
    pub(crate) fn taskmap(&self) -> Option<String> {
        let (more, nodes) = (self.add_brokers, self.nodes?);
        (more > 0).then(|| format!("manual:[[0,1,{},1],[1,{},1,1]]", 1 + more, nodes - 1))
    }

    /// The brokers that are added have no resources of their own.
    fn exclude_added(&self, configuration: &mut Option<Value>) -> Result<(), Failure> {
        if self.nodes.is_none_or(|nodes| nodes == 0) {
            return Err(refuse("--add-brokers may only be specified with -N, --nnodes"));
        }
        let configuration = configuration.get_or_insert_with(|| json!({}));
        let excluded = configuration.pointer("/resource/exclude").and_then(Value::as_str);
        let mut excluded: Idset = excluded.unwrap_or_default().parse().map_err(refuse)?;
        excluded.insert_range(1, self.add_brokers);
        conf::set(configuration, "resource.exclude", json!(excluded.to_string()))
    }

    fn add_tasks(&self, jobspec: Jobspec) -> Result<Jobspec, Failure> {
        let total = self.nodes.unwrap_or_default() + i64::from(self.add_brokers);
        let mut document = jobspec.into_document();
        if let Some(count) = document.pointer_mut("/tasks/0/count") {
            *count = json!({ "total": total });
        }
        let rules = flux_protocol::jobspec::Rules::default();
        let mut jobspec = Jobspec::from_value(document, &rules).map_err(refuse)?;
        jobspec.remove_attribute("shell.options.per-resource");
        Ok(jobspec)
    }
}
