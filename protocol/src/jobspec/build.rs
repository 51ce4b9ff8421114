//! Making the jobspecs that the submission commands make.

use super::validate::{JobspecError, ensure};
use super::{Jobspec, Rules};
use serde_json::{Map, Value, json};

/// So many tasks with so many cores each: `flux submit -n`.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    pub command: Vec<String>,
    pub num_tasks: i64,
    pub cores_per_task: i64,
    pub gpus_per_task: Option<i64>,
    /// Spread the tasks over this many nodes.
    pub num_nodes: Option<i64>,
    /// Ask for whole nodes.
    pub exclusive: bool,
}

/// So many nodes or cores, and so many tasks on each of them: `flux submit --tasks-per-node`.
#[derive(Clone, Debug, Default)]
pub struct PerResource {
    pub command: Vec<String>,
    pub ncores: Option<i64>,
    pub nnodes: Option<i64>,
    /// `node` or `core`, and the number of tasks on each.
    pub per_resource: Option<(String, i64)>,
    pub gpus_per_node: Option<i64>,
    pub exclusive: bool,
}

/// What may be said about a job beyond its resources and command. None leaves a thing unset.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Seconds.
    pub duration: Option<f64>,
    pub environment: Map<String, Value>,
    pub env_expand: Option<Map<String, Value>>,
    pub cwd: Option<String>,
    pub rlimits: Option<Map<String, Value>>,
    pub name: Option<String>,
    pub input: Option<String>,
    /// A path, or `none` or `kvs`, which write no file.
    pub output: Option<String>,
    pub error: Option<String>,
    pub label_io: bool,
    pub unbuffered: bool,
    pub queue: Option<String>,
    pub bank: Option<String>,
}

impl TaskRequest {
    /// One task on one core.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            num_tasks: 1,
            cores_per_task: 1,
            gpus_per_task: None,
            num_nodes: None,
            exclusive: false,
        }
    }

    fn check(&self) -> Result<(), JobspecError> {
        ensure(self.num_tasks >= 1, "task count", "a integer >= 1")?;
        ensure(self.cores_per_task >= 1, "cores per task", "an integer >= 1")?;
        ensure(self.gpus_per_task.is_none_or(|n| n >= 0), "gpus per task", "an integer >= 0")?;
        match self.num_nodes {
            Some(nodes) => {
                ensure(nodes >= 1, "node count", "an integer >= 1 (if set)")?;
                if nodes > self.num_tasks {
                    let text = "node count must not be greater than task count";
                    return Err(JobspecError::Request(text));
                }
                Ok(())
            }
            None if self.exclusive => Err(JobspecError::NeedsNodes("exclusive")),
            None => Ok(()),
        }
    }
}

impl PerResource {
    fn check(&self) -> Result<(), JobspecError> {
        if let Some((kind, count)) = &self.per_resource {
            if !["node", "core"].contains(&kind.as_str()) {
                return Err(JobspecError::PerResourceType(kind.clone()));
            }
            ensure(*count >= 1, "per_resource_count", ">= 1")?;
        }
        ensure(self.ncores.is_none_or(|n| n >= 1), "ncores", "an integer >= 1")?;
        if let Some(gpus) = self.gpus_per_node {
            ensure(gpus >= 0, "gpus_per_node", "an integer >= 0")?;
            let nodes = self.nnodes.is_some_and(|n| n != 0);
            ensure(nodes, "gpus_per_node", "specified with nnodes")?;
        }
        ensure(self.nnodes.is_none_or(|n| n >= 1), "nnodes", "an integer >= 1")?;
        if self.exclusive && self.nnodes.is_none() {
            return Err(JobspecError::NeedsNodes("exclusive"));
        }
        Ok(())
    }

    /// Slots (on each node, if there are nodes) and cores in each.
    fn shape(&self) -> Result<(i64, i64), JobspecError> {
        match (self.nnodes, self.ncores) {
            (Some(nodes), Some(cores)) if cores < nodes => {
                Err(JobspecError::Request("number of cores cannot be less than nnodes"))
            }
            (Some(nodes), Some(cores)) if cores % nodes != 0 => {
                Err(JobspecError::Request("number of cores must be evenly divisible by node count"))
            }
            (Some(nodes), Some(cores)) => Ok((1, cores / nodes)),
            (None, Some(cores)) => Ok((cores, 1)),
            (Some(_), None) if self.exclusive => Ok((1, 1)),
            (Some(_), None) => {
                Err(JobspecError::Request("Specifying nnodes also requires ncores or exclusive"))
            }
            (None, None) => {
                Err(JobspecError::Request("must specify node or core count with per_resource"))
            }
        }
    }
}

// === impl Jobspec ===

impl Jobspec {
    /// A job of equal tasks.
    pub fn from_command(request: &TaskRequest, extras: &Extras) -> Result<Self, JobspecError> {
        request.check()?;
        let TaskRequest { num_tasks, cores_per_task, .. } = *request;
        let children = slot_children(cores_per_task, request.gpus_per_task);
        let (resources, count) = match request.num_nodes {
            None => (slot(num_tasks, children), json!({"per_slot": 1})),
            Some(nodes) => {
                // An uneven spread leaves slots without a task.
                let even = num_tasks % nodes == 0;
                let slots = num_tasks / nodes + i64::from(!even);
                let node = node(nodes, slot(slots, children), request.exclusive);
                let count = if even { json!({"per_slot": 1}) } else { json!({"total": num_tasks}) };
                (node, count)
            }
        };
        assemble(&request.command, resources, count)?.with_extras(extras)
    }

    /// A job with a number of tasks on each node or core.
    pub fn per_resource(request: &PerResource, extras: &Extras) -> Result<Self, JobspecError> {
        request.check()?;
        let (nslots, slot_cores) = request.shape()?;
        let slot = slot(nslots, slot_children(slot_cores, request.gpus_per_node));
        let resources = match request.nnodes {
            Some(nodes) => node(nodes, slot, request.exclusive),
            None => slot,
        };
        let mut jobspec = assemble(&request.command, resources, json!({"per_slot": 1}))?;
        if let Some((kind, count)) = &request.per_resource {
            jobspec.set_shell_option("per-resource", json!({"type": kind, "count": count}));
        }
        jobspec.with_extras(extras)
    }

    /// A job that is a Flux instance of its own, with one broker on each node and the request's
    /// command as its initial program.
    pub fn from_nest_command(
        request: &TaskRequest,
        broker_options: &[String],
        extras: &Extras,
    ) -> Result<Self, JobspecError> {
        let words = ["flux", "broker"].map(str::to_owned).into_iter();
        let command = words.chain(broker_options.iter().cloned()).chain(request.command.clone());
        let request = TaskRequest { command: command.collect(), ..request.clone() };
        let mut jobspec = Self::from_command(&request, extras)?;
        jobspec.set_shell_option("per-resource.type", json!("node"));
        jobspec.set_shell_option("mpi", json!("none"));
        jobspec.set_shell_option("exit-timeout", json!("none"));
        Ok(jobspec)
    }

    /// Set the time limit in seconds.
    pub fn set_duration(&mut self, seconds: f64) -> Result<(), JobspecError> {
        if seconds < 0.0 {
            return Err(JobspecError::Request("duration must not be negative"));
        }
        ensure(seconds.is_finite(), "duration", "a normal, finite value")?;
        self.set_attribute("duration", json!(seconds));
        Ok(())
    }

    fn with_extras(mut self, extras: &Extras) -> Result<Self, JobspecError> {
        if let Some(seconds) = extras.duration {
            self.set_duration(seconds)?;
        }
        self.set_attribute("environment", Value::Object(extras.environment.clone()));
        for (option, object) in [("env-expand", &extras.env_expand), ("rlimit", &extras.rlimits)] {
            if let Some(object) = object {
                self.set_shell_option(option, Value::Object(object.clone()));
            }
        }
        for (key, text) in [
            ("cwd", &extras.cwd),
            ("job.name", &extras.name),
            ("queue", &extras.queue),
            ("bank", &extras.bank),
        ] {
            if let Some(text) = text {
                self.set_attribute(key, json!(text));
            }
        }
        self.set_streams(extras);
        Ok(self)
    }

    fn set_streams(&mut self, extras: &Extras) {
        if let Some(path) = &extras.input {
            self.set_shell_option("input.stdin", json!({"type": "file", "path": path}));
        }
        for (stream, path) in [("stdout", &extras.output), ("stderr", &extras.error)] {
            let file = path.as_deref().filter(|path| !["none", "kvs"].contains(path));
            if let Some(path) = file {
                let option = format!("output.{stream}");
                self.set_shell_option(&option, json!({"type": "file", "path": path}));
                if extras.label_io {
                    self.set_shell_option(&format!("{option}.label"), json!(true));
                }
            }
        }
        if extras.unbuffered {
            self.set_shell_option("output.stdout.buffer.type", json!("none"));
            self.set_shell_option("output.stderr.buffer.type", json!("none"));
            self.set_shell_option("output.batch-timeout", json!(0.05));
            self.set_shell_option("input.batch-timeout", json!(0.0));
        }
    }
}

fn slot_children(cores: i64, gpus: Option<i64>) -> Value {
    let mut children = vec![json!({"type": "core", "count": cores})];
    if let Some(gpus) = gpus.filter(|&gpus| gpus != 0) {
        children.push(json!({"type": "gpu", "count": gpus}));
    }
    Value::Array(children)
}

fn slot(count: i64, children: Value) -> Value {
    json!({"type": "slot", "count": count, "with": children, "label": "task"})
}

fn node(count: i64, slot: Value, exclusive: bool) -> Value {
    if exclusive {
        json!({"type": "node", "count": count, "exclusive": true, "with": [slot]})
    } else {
        json!({"type": "node", "count": count, "with": [slot]})
    }
}

fn assemble(command: &[String], resources: Value, count: Value) -> Result<Jobspec, JobspecError> {
    let document = json!({
        "resources": [resources],
        "tasks": [{"command": command, "slot": "task", "count": count}],
        "attributes": {"system": {"duration": 0}},
        "version": 1,
    });
    Jobspec::from_value(document, &Rules::default())
}
