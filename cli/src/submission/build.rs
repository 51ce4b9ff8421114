//! The jobspec of `flux run`, `submit` and `bulksubmit`: so many tasks.

use flux_protocol::idset::Idset;
use flux_protocol::jobspec::{Extras, Jobspec, JobspecError, PerResource, TaskRequest};

use super::env::Variables;
use super::options::{Common, Tasks};
use super::refuse;
use crate::failure::Failure;

/// The options as numbers.
#[derive(Debug)]
struct Numbers {
    ntasks: Option<i64>,
    nodes: Option<i64>,
    cores: Option<i64>,
    cores_per_task: Option<i64>,
    gpus_per_task: Option<i64>,
    tasks_per_node: Option<i64>,
    tasks_per_core: Option<i64>,
    gpus_per_node: Option<i64>,
}

pub(crate) fn jobspec(
    common: &Common,
    tasks: &Tasks,
    command: &[String],
    own: &Variables,
) -> Result<Jobspec, Failure> {
    if command.is_empty() {
        return Err(refuse("job command and arguments are missing"));
    }
    let duration = common.duration()?;
    let numbers = Numbers::of(tasks)?;
    let extras = Extras {
        cwd: common.directory(),
        name: common.job_name.clone(),
        input: common.input.clone().filter(|input| !names_tasks(input)),
        output: common.output.clone(),
        error: common.error.clone(),
        label_io: common.label_io,
        unbuffered: common.unbuffered,
        queue: common.queue.clone(),
        bank: common.bank.clone(),
        duration,
        ..Extras::default()
    };
    let made = match numbers.per_resource()? {
        Some(request) => {
            let request = PerResource {
                command: command.to_vec(),
                exclusive: tasks.exclusive || request.exclusive,
                ..request
            };
            Jobspec::per_resource(&request, &extras)
        }
        None => numbers.equal_tasks(command, tasks.exclusive, &extras),
    };
    let mut jobspec = made.map_err(refuse)?;
    common.apply(&mut jobspec, own, tasks.taskmap.as_deref())?;
    Ok(jobspec)
}

/// Whether `--input` is a set of tasks that standard input is for, rather than a file.
pub(crate) fn names_tasks(input: &str) -> bool {
    input.parse::<Idset>().is_ok()
}

// === impl Numbers ===

impl Numbers {
    fn of(tasks: &Tasks) -> Result<Numbers, Failure> {
        Ok(Numbers {
            ntasks: number("ntasks", tasks.ntasks.as_deref())?,
            nodes: number("nodes", tasks.nodes.as_deref())?,
            cores: number("cores", tasks.cores.as_deref())?,
            cores_per_task: number("cores-per-task", tasks.cores_per_task.as_deref())?,
            gpus_per_task: number("gpus-per-task", tasks.gpus_per_task.as_deref())?,
            tasks_per_node: number("tasks-per-node", tasks.tasks_per_node.as_deref())?,
            tasks_per_core: number("tasks-per-core", tasks.tasks_per_core.as_deref())?,
            gpus_per_node: number("gpus-per-node", tasks.gpus_per_node.as_deref())?,
        })
    }

    /// So many tasks on each node or core, where one of the options says so.
    fn per_resource(&self) -> Result<Option<PerResource>, Failure> {
        let per_resource = match (self.tasks_per_node, self.tasks_per_core) {
            (Some(_), Some(_)) => {
                let text = "Do not specify both the number of tasks per node and per core";
                return Err(refuse(text));
            }
            (Some(count), None) if count < 1 => {
                return Err(refuse("--tasks-per-node must be >= 1"));
            }
            (None, Some(count)) if count < 1 => {
                return Err(refuse("--tasks-per-core must be >= 1"));
            }
            (Some(count), None) => Some(("node".to_owned(), count)),
            (None, Some(count)) => Some(("core".to_owned(), count)),
            (None, None) => None,
        };
        let nodes = self.nodes.filter(|nodes| *nodes != 0);
        if self.gpus_per_node.is_some_and(|gpus| gpus != 0) && nodes.is_none() {
            return Err(refuse("--gpus-per-node requires --nodes"));
        }
        if per_resource.is_none() && self.gpus_per_node.is_none() && self.cores.is_none() {
            return Ok(None);
        }
        let gpus = self.gpus_per_task.is_some_and(|gpus| gpus != 0);
        if self.ntasks.is_some() || self.cores_per_task.is_some() || gpus {
            return Err(refuse(
                "Per-resource options can't be used with per-task options. (See --help for details)",
            ));
        }
        Ok(Some(PerResource {
            command: Vec::new(),
            ncores: self.cores,
            nnodes: self.nodes,
            per_resource,
            gpus_per_node: self.gpus_per_node,
            // Nodes without a number of cores are whole nodes.
            exclusive: nodes.is_some() && self.cores.is_none(),
        }))
    }

    fn equal_tasks(
        &self,
        command: &[String],
        exclusive: bool,
        extras: &Extras,
    ) -> Result<Jobspec, JobspecError> {
        let mut request = TaskRequest::new(command.to_vec());
        // Nodes without a number of tasks are whole nodes with a task each.
        let nodes_alone = self.ntasks.is_none() && self.nodes.is_some_and(|nodes| nodes != 0);
        request.num_tasks = self.ntasks.or(self.nodes.filter(|n| *n != 0)).unwrap_or(1);
        request.cores_per_task = self.cores_per_task.filter(|cores| *cores != 0).unwrap_or(1);
        request.gpus_per_task = self.gpus_per_task;
        request.num_nodes = self.nodes;
        request.exclusive = exclusive || nodes_alone;
        Jobspec::from_command(&request, extras)
    }
}

fn number(option: &str, text: Option<&str>) -> Result<Option<i64>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = text
        .trim()
        .parse()
        .map_err(|_| refuse(format_args!("--{option}: invalid int value '{text}'")))?;
    Ok(Some(number))
}
