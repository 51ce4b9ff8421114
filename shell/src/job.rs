//! What a shell knows about its job: all of it fixed once the shell has started.

use flux_protocol::fluid::JobId;
use serde_json::json;

use crate::fatal::Fatal;
use crate::jobspec::Jobspec;
use crate::layout::{Layout, SchemeError};
use crate::log::Log;
use crate::mustache;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    /// The id as users see it: with `ƒ` where the locale has it.
    pub(crate) f58: String,
    /// `job-ID`, the guest namespace of the KVS.
    pub(crate) namespace: String,
    /// `UID-shell-ID`, the service that every shell of the job registers on its broker.
    pub(crate) service: String,
    pub(crate) hostname: String,
    /// User id of the shell, hence of the job.
    pub(crate) userid: u32,
    /// User id of the instance.
    pub(crate) owner: u32,
    pub(crate) broker_rank: u32,
    pub(crate) shell_rank: usize,
    pub(crate) jobspec: Jobspec,
    pub(crate) layout: Layout,
    /// Seconds since 1970; 0 when the job may run for ever.
    pub(crate) expiration: f64,
}

/// A task of this shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId {
    /// Among all tasks of the job.
    pub(crate) rank: u32,
    /// Among the tasks of this shell.
    pub(crate) index: usize,
}

/// What templates are rendered for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tags<'a> {
    pub(crate) job: &'a Job,
    /// The shell rank of `node.` tags. One that does not exist leaves them as they are.
    pub(crate) node: usize,
    pub(crate) task: Option<TaskId>,
    pub(crate) tmpdir: Option<&'a str>,
}

// === impl Job ===

impl Job {
    pub(crate) fn size(&self) -> usize {
        self.layout.nodes.len()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.shell_rank == 0
    }

    /// The broker rank of the leader.
    pub(crate) fn leader(&self) -> u32 {
        self.layout.node(0).map_or(0, |node| node.broker_rank)
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        let ranks: Vec<u32> = self.layout.taskids(self.shell_rank).iter().collect();
        ranks.into_iter().enumerate().map(|(index, rank)| TaskId { rank, index })
    }

    /// First word of the command, without its directory.
    pub(crate) fn program(&self) -> &str {
        let arg0 = self.jobspec.command.first().map_or("unknown", String::as_str);
        arg0.rsplit('/').next().unwrap_or(arg0)
    }

    /// Map the tasks as the `taskmap` option says.
    pub(crate) fn remap(&mut self, log: &Log) -> Result<(), Fatal> {
        #[derive(serde::Deserialize, Default)]
        struct Scheme {
            scheme: String,
            #[serde(default)]
            value: String,
        }
        match self.jobspec.options.parse::<Scheme>("taskmap")? {
            Some(Scheme { scheme, value }) => {
                self.layout.remap(&scheme, &value).map_err(|e| match e {
                    SchemeError::Size(_) | SchemeError::Unknown => {
                        log.error(None, e);
                        Fatal::new(None, "failed to set new shell taskmap")
                    }
                    e => Fatal::new(None, e),
                })
            }
            None => Ok(()),
        }
    }
}

// === impl Tags ===

impl<'a> Tags<'a> {
    /// For this shell.
    pub(crate) fn of(job: &'a Job, tmpdir: Option<&'a str>) -> Tags<'a> {
        Tags { job, node: job.shell_rank, task: None, tmpdir }
    }

    pub(crate) fn task(self, task: TaskId) -> Tags<'a> {
        Tags { task: Some(task), ..self }
    }

    pub(crate) fn node(self, node: usize) -> Tags<'a> {
        Tags { node, ..self }
    }

    pub(crate) fn render(&self, template: &str) -> String {
        mustache::render(template, |tag| self.lookup(tag))
    }

    /// Whether the template names something else on each node or for each task.
    pub(crate) fn is_per_shell(&self, template: &str) -> bool {
        if self.job.size() == 1 {
            return false;
        }
        if template.contains("{{tmpdir}}") {
            return true;
        }
        let first = self.node(0).render(template);
        let task = self.job.tasks().next();
        first != self.node(1).render(template)
            || task.is_some_and(|task| first != self.task(task).render(template))
    }

    fn lookup(&self, tag: &str) -> Option<String> {
        let job = self.job;
        let tag = match tag {
            "taskid" => "task.id",
            _ => tag.strip_prefix("job").filter(|rest| rest.starts_with("id")).unwrap_or(tag),
        };
        match tag {
            "id" => Some(job.f58.clone()),
            "name" => Some(job.jobspec.name.clone().unwrap_or_else(|| job.program().to_owned())),
            "nnodes" => Some(job.size().to_string()),
            "ntasks" | "size" => Some(job.layout.total_ntasks.to_string()),
            "tmpdir" => self.tmpdir.map(str::to_owned),
            _ => {
                if let Some(encoding) = tag.strip_prefix("id.") {
                    return match encoding {
                        "f58" => Some(job.f58.clone()),
                        _ => Some(job.id.encode(encoding.parse().ok()?)),
                    };
                }
                if let Some(field) = tag.strip_prefix("task.") {
                    return self.task_field(field);
                }
                self.node_field(tag.strip_prefix("node.")?)
            }
        }
    }

    fn task_field(&self, field: &str) -> Option<String> {
        let task = self.task?;
        match field {
            "id" | "rank" => Some(task.rank.to_string()),
            "index" | "localid" => Some(task.index.to_string()),
            _ => None,
        }
    }

    fn node_field(&self, field: &str) -> Option<String> {
        let node = self.job.layout.node(self.node)?;
        let taskids = self.job.layout.taskids(self.node);
        match field.strip_prefix("resources.").unwrap_or(field) {
            "id" => Some(self.node.to_string()),
            "name" => Some(node.host.clone()),
            "broker_rank" => Some(node.broker_rank.to_string()),
            "ntasks" => Some(taskids.count().to_string()),
            "taskids" => Some(taskids.encode()),
            "ncores" => Some(node.cores.count().to_string()),
            "cores" => Some(node.cores.encode()),
            "gpus" if !node.gpus.is_empty() => Some(node.gpus.encode()),
            "resources" => {
                let mut value = json!({"ncores": node.cores.count(), "cores": node.cores});
                if let (Some(map), false) = (value.as_object_mut(), node.gpus.is_empty()) {
                    map.insert("gpus".to_owned(), json!(node.gpus));
                }
                Some(value.to_string())
            }
            _ => None,
        }
    }
}

/// The job id with `ƒ` in a UTF-8 locale, else in plain ASCII.
///
/// The job's own `FLUX_F58_FORCE_ASCII` decides as well as the shell's.
pub(crate) fn f58(
    id: JobId,
    job_environment: &std::collections::BTreeMap<String, String>,
) -> String {
    const FORCE: &str = "FLUX_F58_FORCE_ASCII";
    let forced = job_environment.contains_key(FORCE) || std::env::var_os(FORCE).is_some();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let utf8 = locale.contains("utf-8") || locale.contains("utf8");
    if utf8 && !forced { id.f58() } else { id.f58_plain() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use flux_protocol::r::ResourceSet;
    use serde_json::Value;

    /// A job on two nodes with two cores and tasks each, seen from `shell_rank`.
    pub(crate) fn job(shell_rank: usize, options: Value) -> Job {
        let spec = json!({"version": 1,
            "resources": [{"type": "node", "count": 2, "with": [{"type": "slot", "count": 2,
                "label": "task", "with": [{"type": "core", "count": 1}]}]}],
            "tasks": [{"command": ["/bin/app", "x"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"shell": {"options": options}}}});
        let r = json!({"version": 1, "execution": {"R_lite": [
            {"rank": "3-4", "children": {"core": "0-1", "gpu": "0"}}], "nodelist": ["n[7-8]"],
            "starttime": 0.0, "expiration": 0.0, "nslots": 4}});
        let jobspec = Jobspec::decode(&spec.to_string()).unwrap();
        let r = ResourceSet::decode(&r.to_string()).unwrap();
        let layout = Layout::new(&jobspec, &r).unwrap();
        let id = JobId(33436991488);
        Job {
            id,
            f58: id.f58(),
            namespace: format!("job-{}", id.0),
            service: format!("0-shell-{}", id.f58_plain()),
            hostname: "n7".to_owned(),
            userid: 0,
            owner: 0,
            broker_rank: layout.node(shell_rank).unwrap().broker_rank,
            shell_rank,
            jobspec,
            layout,
            expiration: 0.0,
        }
    }

    #[test]
    fn tags_of_job_node_and_task_are_rendered() {
        let job = job(1, json!({}));
        let tags = Tags::of(&job, Some("/tmp/x")).task(TaskId { rank: 2, index: 0 });
        for (template, result) in [
            ("{{id}}", "ƒswiKeF"),
            ("{{jobid}}", "ƒswiKeF"),
            ("{{id.dec}}", "33436991488"),
            ("{{id.f58plain}}", "fswiKeF"),
            ("{{id.nonsense}}", "{{id.nonsense}}"),
            ("{{name}}", "app"),
            ("{{nnodes}} {{ntasks}} {{size}}", "2 4 4"),
            ("{{taskid}} {{task.rank}} {{task.index}}", "2 2 0"),
            ("{{node.id}} {{node.name}} {{node.broker_rank}}", "1 n8 4"),
            ("{{node.taskids}} {{node.cores}} {{node.gpus}}", "2-3 0-1 0"),
            ("{{node.resources.ncores}}", "2"),
            ("{{tmpdir}}/script", "/tmp/x/script"),
            ("{{task.x}} {{node.x}} {{x}}", "{{task.x}} {{node.x}} {{x}}"),
        ] {
            assert_eq!(tags.render(template), result, "{template}");
        }
    }

    #[test]
    fn tags_of_a_node_that_is_none_stay() {
        let job = job(0, json!({}));
        let path = Tags::of(&job, None).node(job.size()).render("{{id}}-{{node.id}}-{{task.id}}");
        assert_eq!(path, "ƒswiKeF-{{node.id}}-{{task.id}}");
    }

    #[test]
    fn a_template_with_node_or_task_tags_is_per_shell() {
        let job = job(1, json!({}));
        let tags = Tags::of(&job, None);
        for (template, per_shell) in [
            ("out", false),
            ("{{id}}.out", false),
            ("{{node.name}}.out", true),
            ("{{task.id}}.out", true),
            ("{{tmpdir}}/out", true),
        ] {
            assert_eq!(tags.is_per_shell(template), per_shell, "{template}");
        }
    }
}
