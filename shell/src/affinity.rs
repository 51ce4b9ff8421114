//! Binding tasks to the cores that the job was given (`cpu-affinity`), and showing them their GPUs
//! (`gpu-affinity`).

use flux_protocol::idset::{Idset, Style};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::fatal::Fatal;
use crate::job::Job;
use crate::log::Log;

mod cpuset;
mod topology;

const CPU: &str = "cpu-affinity";
const GPU: &str = "gpu-affinity";

/// What tasks are bound to, by the operating system's numbers of CPUs.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    /// Of the shell, and of each task that has none of its own.
    shell: Option<Idset>,
    tasks: Vec<Idset>,
}

/// GPUs of tasks, as `CUDA_VISIBLE_DEVICES` has them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gpus {
    /// For tasks that have none of their own. `-1`: none at all.
    pub(crate) all: String,
    pub(crate) tasks: Vec<String>,
}

// === impl Affinity ===

impl Affinity {
    /// Bind this process, hence all that it starts, and say what each task is to be bound to.
    pub(crate) fn new(job: &Job, log: &Log) -> Result<Affinity, Fatal> {
        let option = match job.jobspec.options.string(CPU) {
            Ok(option) => option.unwrap_or_else(|| "on".to_owned()),
            Err(_) => {
                log.warn(CPU, "invalid option");
                "on".to_owned()
            }
        };
        let (mode, verbose, dry_run) = parse(&option);
        let Some(node) = job.layout.node(job.shell_rank) else { return Ok(Affinity::default()) };
        if mode == "off" {
            log.debug(CPU, "disabling affinity due to cpu-affinity=off");
            return Ok(Affinity::default());
        }
        let cores = topology::cores(&allowed());
        let Some(mine) = select(&cores, &node.cores) else {
            let cores = &node.cores;
            log.warn(
                CPU,
                format_args!("unable to get cpuset for cores {cores}. Disabling affinity"),
            );
            return Ok(Affinity::default());
        };
        let all = union(&mine);
        let ntasks = job.tasks().count();
        let tasks = match mode.split_once(':') {
            _ if mode == "per-task" => cpuset::distribute(&mine, ntasks),
            Some(("map", list)) => {
                cpuset::parse_list(list, ntasks).map_err(|e| Fatal::new(CPU, e))?
            }
            _ => Vec::new(),
        };
        if verbose || dry_run {
            log.notice(CPU, format_args!("cpus: {}", list(&all)));
            for (task, cpus) in job.tasks().zip(&tasks) {
                log.notice(CPU, format_args!("task {}: cpus: {}", task.rank, list(cpus)));
            }
        }
        if dry_run {
            return Ok(Affinity::default());
        }
        bind(&all).map_err(|e| Fatal::new(CPU, format!("can't bind to {}: {e}", list(&all))))?;
        Ok(Affinity { shell: Some(all), tasks })
    }

    /// Bind this thread as the task is to be: what it starts now inherits that. Call
    /// [`Affinity::leave`] after that.
    pub(crate) fn enter(&self, index: usize, log: &Log) {
        if let Some(cpus) = self.tasks.get(index)
            && let Err(e) = bind(cpus)
        {
            log.error(CPU, format_args!("can't bind task to {}: {e}", list(cpus)));
        }
    }

    pub(crate) fn leave(&self) {
        if let (Some(shell), false) = (&self.shell, self.tasks.is_empty()) {
            // It worked before.
            let _ = bind(shell);
        }
    }
}

// === impl Gpus ===

impl Gpus {
    /// `None`: the option is off.
    pub(crate) fn new(job: &Job, log: &Log) -> Result<Option<Gpus>, Fatal> {
        let option = match job.jobspec.options.string(GPU) {
            Ok(option) => option.unwrap_or_else(|| "on".to_owned()),
            Err(_) => {
                log.warn(GPU, "Failed to get gpu-affinity shell option, ignoring");
                "on".to_owned()
            }
        };
        if option == "off" {
            log.debug(GPU, "disabling affinity due to gpu-affinity=off");
            return Ok(None);
        }
        let gpus =
            job.layout.node(job.shell_rank).map(|node| node.gpus.clone()).unwrap_or_default();
        let ntasks = job.tasks().count();
        // An id that there is not, so that a job without GPUs does not use those of the node.
        let mut result = Gpus { all: "-1".to_owned(), tasks: Vec::new() };
        if option == "per-task" {
            let each = gpus.count() / (ntasks.max(1) as u64);
            let mut left = gpus;
            for _ in 0..ntasks {
                let own = left.lowest(each);
                left.subtract(&own);
                result.tasks.push(commas(&own));
            }
        } else if let Some(list) = option.strip_prefix("map:") {
            let sets = cpuset::parse_list(list, ntasks)
                .map_err(|e| Fatal::new(GPU, format!("failed to parse gpu map {list}: {e}")))?;
            result.tasks = sets.iter().map(commas).collect();
        } else if !gpus.is_empty() {
            result.all = commas(&gpus);
        }
        Ok(Some(result))
    }
}

/// The mode, and the switches `verbose` and `dry-run` that may stand before it.
fn parse(option: &str) -> (&str, bool, bool) {
    let (mut mode, mut verbose, mut dry_run) = (option, false, false);
    loop {
        let rest = if let Some(rest) = mode.strip_prefix("dry-run") {
            dry_run = true;
            rest
        } else if let Some(rest) = mode.strip_prefix("verbose") {
            verbose = true;
            rest
        } else {
            return (mode, verbose, dry_run);
        };
        mode = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// The cores of those logical ids, if there are all of them.
fn select(cores: &[Idset], ids: &Idset) -> Option<Vec<Idset>> {
    ids.iter().map(|id| cores.get(id as usize).cloned()).collect()
}

fn union(sets: &[Idset]) -> Idset {
    sets.iter().fold(Idset::new(), |all, set| &all | set)
}

fn list(cpus: &Idset) -> String {
    cpus.encode()
}

fn commas(ids: &Idset) -> String {
    ids.encode_with(Style { range: false, brackets: false })
}

/// The CPUs that this process may run on.
fn allowed() -> Idset {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Idset::new() };
    let is_set = |&id: &u32| set.is_set(id as usize).unwrap_or(false);
    (0..u32::try_from(CpuSet::count()).unwrap_or(0)).filter(is_set).collect()
}

fn bind(cpus: &Idset) -> Result<(), nix::errno::Errno> {
    let mut set = CpuSet::new();
    for id in cpus.iter() {
        set.set(id as usize)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use serde_json::json;

    #[test]
    fn switches_stand_before_the_mode() {
        assert_eq!(parse("per-task"), ("per-task", false, false));
        assert_eq!(parse("verbose,map:0;1"), ("map:0;1", true, false));
        assert_eq!(parse("dry-run,verbose,on"), ("on", true, true));
        assert_eq!(parse("verbose"), ("", true, false));
    }

    #[test]
    fn gpus_are_those_of_the_job_all_or_for_each_task() {
        let gpus = |option: &str, expected: (&str, &[&str])| {
            let job = job(0, json!({"gpu-affinity": option}));
            let gpus = Gpus::new(&job, &Log::new()).unwrap().unwrap();
            assert_eq!(
                (gpus.all.as_str(), gpus.tasks.as_slice()),
                (
                    expected.0,
                    expected.1.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice()
                ),
                "{option}"
            );
        };
        gpus("on", ("0", &[]));
        gpus("map:0;1-2", ("-1", &["0", "1,2"]));
        gpus("per-task", ("-1", &["", ""]));
        let off = job(0, json!({"gpu-affinity": "off"}));
        assert_eq!(Gpus::new(&off, &Log::new()).unwrap(), None);
    }

    #[test]
    fn cores_that_do_not_exist_select_nothing() {
        let cores = [Idset::from_range(0, 1), Idset::from_range(2, 3)];
        assert_eq!(union(&select(&cores, &Idset::first_n(2)).unwrap()).encode(), "0-3");
        assert_eq!(select(&cores, &Idset::first_n(3)), None);
    }
}
