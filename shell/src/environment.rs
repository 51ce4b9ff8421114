//! The environment of tasks: the job's, with what the shell adds.

use std::collections::BTreeMap;

use crate::affinity::Gpus;
use crate::job::{Job, Tags, TaskId};
use crate::log::Log;
use serde_json::Value;

/// What the shell learns from its broker and its own environment.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) uri: &'a str,
    pub(crate) jobid_path: &'a str,
    pub(crate) tmpdir: &'a str,
}

#[derive(Debug)]
pub(crate) struct Environment {
    /// Of every task here.
    shared: BTreeMap<String, String>,
    /// Templates with tags of tasks.
    templates: BTreeMap<String, String>,
    gpus: Vec<String>,
}

// === impl Environment ===

impl Environment {
    pub(crate) fn new(job: &Job, around: &Surroundings<'_>, log: &Log) -> Environment {
        let mut shared = job.jobspec.environment.clone();
        shared.remove("FLUX_PROXY_REMOTE");
        let path = if around.jobid_path == "/" { "" } else { around.jobid_path };
        let mut set = |name: &str, value: String| {
            shared.insert(name.to_owned(), value);
        };
        set("FLUX_URI", around.uri.to_owned());
        set("FLUX_KVS_NAMESPACE", job.namespace.clone());
        set("FLUX_JOB_ID_PATH", format!("{path}/{}", job.f58));
        set("FLUX_JOB_SIZE", job.layout.total_ntasks.to_string());
        set("FLUX_JOB_NNODES", job.size().to_string());
        set("FLUX_JOB_ID", job.f58.clone());
        set("FLUX_JOB_TMPDIR", around.tmpdir.to_owned());
        set("FLUX_TERMINUS_SESSION", "0".to_owned());
        let wants_mpi = job.jobspec.options.get("mpi").and_then(Value::as_str) != Some("none");
        if wants_mpi {
            // Files in shared memory of two jobs would have the same names.
            set("OMPI_MCA_btl_vader_backing_directory", around.tmpdir.to_owned());
        }
        // The job's is that of the host where it was submitted.
        if let Some(hostname) = shared.get_mut("HOSTNAME") {
            hostname.clone_from(&job.hostname);
        }
        let mut environment = Environment { shared, templates: BTreeMap::new(), gpus: Vec::new() };
        environment.expand(job, around.tmpdir, log);
        environment
    }

    pub(crate) fn set_gpus(&mut self, gpus: Gpus) {
        self.shared.insert("CUDA_VISIBLE_DEVICES".to_owned(), gpus.all);
        let order = self.shared.entry("CUDA_DEVICE_ORDER".to_owned());
        order.or_insert_with(|| "PCI_BUS_ID".to_owned());
        self.gpus = gpus.tasks;
    }

    /// The hardware is described in a file; a choice of hwloc's components would go before it.
    pub(crate) fn set_topology(&mut self, file: String) {
        self.shared.entry("HWLOC_XMLFILE".to_owned()).or_insert(file);
        self.shared.remove("HWLOC_COMPONENTS");
    }

    pub(crate) fn of_task(&self, task: TaskId, tags: Tags<'_>) -> BTreeMap<String, String> {
        let mut env = self.shared.clone();
        for (name, template) in &self.templates {
            env.insert(name.clone(), tags.task(task).render(template));
        }
        env.insert("FLUX_TASK_LOCAL_ID".to_owned(), task.index.to_string());
        env.insert("FLUX_TASK_RANK".to_owned(), task.rank.to_string());
        if let Some(gpus) = self.gpus.get(task.index) {
            env.insert("CUDA_VISIBLE_DEVICES".to_owned(), gpus.clone());
        }
        env
    }

    /// Variables that are templates: the `env-expand` option.
    fn expand(&mut self, job: &Job, tmpdir: &str, log: &Log) {
        let Some(Value::Object(templates)) = job.jobspec.options.get("env-expand") else { return };
        let tags = Tags::of(job, Some(tmpdir));
        for (name, template) in templates {
            let Some(template) = template.as_str() else {
                log.error("env-expand", format_args!("invalid value for env var {name}"));
                continue;
            };
            let value = tags.render(template);
            if value.contains("{{") {
                self.templates.insert(name.clone(), template.to_owned());
            } else {
                self.shared.insert(name.clone(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use serde_json::json;

    fn environment(job: &Job) -> Environment {
        let around = Surroundings { uri: "local:///x", jobid_path: "/", tmpdir: "/run/jobtmp" };
        Environment::new(job, &around, &Log::new())
    }

    #[test]
    fn a_file_that_describes_the_hardware_is_what_hwloc_reads() {
        let mut with_components = job(0, json!({}));
        let own = &mut with_components.jobspec.environment;
        own.insert("HWLOC_COMPONENTS".to_owned(), "x86".to_owned());
        let mut environment = environment(&with_components);
        environment.set_topology("/run/jobtmp/hwloc.xml".to_owned());
        environment.set_topology("another".to_owned());
        let file = environment.shared.get("HWLOC_XMLFILE").map(String::as_str);
        assert_eq!(file, Some("/run/jobtmp/hwloc.xml"));
        assert!(!environment.shared.contains_key("HWLOC_COMPONENTS"));
    }

    #[test]
    fn a_task_learns_who_and_where_it_is() {
        let mut job = job(1, json!({"env-expand": {"A": "{{id.dec}}", "B": "{{taskid}}"}}));
        for (name, value) in [("HOSTNAME", "login"), ("FLUX_PROXY_REMOTE", "x"), ("Z", "z")] {
            job.jobspec.environment.insert(name.to_owned(), value.to_owned());
        }
        let mut environment = environment(&job);
        environment.set_gpus(Gpus { all: "-1".to_owned(), tasks: vec!["4".into(), "5".into()] });
        let env = environment.of_task(TaskId { rank: 3, index: 1 }, Tags::of(&job, None));
        for (name, value) in [
            ("FLUX_TASK_RANK", "3"),
            ("FLUX_TASK_LOCAL_ID", "1"),
            ("FLUX_JOB_SIZE", "4"),
            ("FLUX_JOB_NNODES", "2"),
            ("FLUX_JOB_ID", "ƒswiKeF"),
            ("FLUX_JOB_ID_PATH", "/ƒswiKeF"),
            ("FLUX_JOB_TMPDIR", "/run/jobtmp"),
            ("FLUX_KVS_NAMESPACE", "job-33436991488"),
            ("FLUX_URI", "local:///x"),
            ("HOSTNAME", "n7"),
            ("CUDA_VISIBLE_DEVICES", "5"),
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            ("A", "33436991488"),
            ("B", "3"),
            ("Z", "z"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.contains_key("FLUX_PROXY_REMOTE"));
    }

    #[test]
    fn a_job_that_wants_no_mpi_gets_nothing_for_it() {
        const OMPI: &str = "OMPI_MCA_btl_vader_backing_directory";
        let has = |options| {
            let job = job(0, options);
            let task = TaskId { rank: 0, index: 0 };
            environment(&job).of_task(task, Tags::of(&job, None)).contains_key(OMPI)
        };
        assert!(has(json!({})));
        assert!(!has(json!({"mpi": "none"})));
    }
}
