//! What became of a job and how long each step took, as spans in JSON lines.
//!
//! On when the broker starts with `FLUX_TRACE_JSON=FILE`; brokers of one host may share a file.
//! A job is a trace, with its id for a name:
//!
//! ```text
//! job                                    submit .. clean
//!   job-ingest.submit                    request .. answer, with a span for each plugin
//!   job.depend, job.priority             as the eventlog has them
//!   plugin.job.state.priority            calls of jobtap plugins
//!   sched.alloc, exec.start, job.run, job.cleanup
//! ```

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use serde_json::json;

/// Name of the variable.
const VARIABLE: &str = "FLUX_TRACE_JSON";
/// Events that end a step, and what it is called.
const STEPS: [(&str, &str); 6] = [
    ("depend", "job.depend"),
    ("priority", "job.priority"),
    ("alloc", "sched.alloc"),
    ("start", "exec.start"),
    ("finish", "job.run"),
    ("clean", "job.cleanup"),
];

/// Where spans go; nowhere unless somebody wants them.
#[derive(Debug)]
pub struct Spans {
    out: Option<RefCell<File>>,
    rank: u32,
    next: Cell<u64>,
    /// Active jobs: when they were submitted, and when the last step ended.
    jobs: RefCell<HashMap<JobId, (f64, f64)>>,
}

/// A step that is over.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    /// Seconds since 1970.
    pub start: f64,
    /// Seconds.
    pub duration: f64,
    /// Which plugin did it.
    pub plugin: Option<String>,
}

/// Since when something is under way.
#[derive(Debug, Clone, Copy)]
pub struct Began(f64);

impl Began {
    pub fn now() -> Began {
        Began(now())
    }

    pub fn end(self, name: impl Into<String>, plugin: Option<&str>) -> Span {
        Span {
            name: name.into(),
            start: self.0,
            duration: now() - self.0,
            plugin: plugin.map(str::to_owned),
        }
    }
}

impl Spans {
    /// As the environment has it. A file that can't be opened is told on standard error.
    pub fn from_environment(rank: u32) -> Spans {
        let open = |path: std::ffi::OsString| {
            let file = File::options().create(true).append(true).open(&path);
            file.inspect_err(|e| eprintln!("{VARIABLE}: {}: {e}", path.to_string_lossy())).ok()
        };
        let out = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).and_then(open);
        Spans::to(out, rank)
    }

    fn to(out: Option<File>, rank: u32) -> Spans {
        // Unlike those of a broker that wrote to the same file before.
        let first = (now() * 1e6) as u64;
        let (out, next) = (out.map(RefCell::new), Cell::new(first));
        Spans { out, rank, next, jobs: RefCell::default() }
    }

    pub fn wanted(&self) -> bool {
        self.out.is_some()
    }

    /// A step of a job, with those that it consists of.
    pub fn step(&self, job: JobId, span: &Span, inner: &[Span]) {
        if self.out.is_none() {
            return;
        }
        let id = self.write(job, Some(root(job)), None, span);
        for span in inner {
            self.write(job, Some(id.clone()), None, span);
        }
    }

    /// What the eventlog of a job says.
    pub fn event(&self, job: JobId, event: &Event) {
        if self.out.is_none() {
            return;
        }
        let time = event.timestamp;
        let mut jobs = self.jobs.borrow_mut();
        let (submitted, last) = *jobs.entry(job).or_insert((time, time));
        let Some((_, name)) = STEPS.iter().find(|(ends, _)| *ends == event.name) else { return };
        let span = |name: &str, start: f64| Span {
            name: name.to_owned(),
            start,
            duration: time - start,
            plugin: None,
        };
        self.write(job, Some(root(job)), None, &span(name, last));
        jobs.insert(job, (submitted, time));
        if event.name == "clean" {
            jobs.remove(&job);
            self.write(job, None, Some(root(job)), &span("job", submitted));
        }
    }

    /// Returns the id of the span.
    fn write(&self, job: JobId, parent: Option<String>, id: Option<String>, span: &Span) -> String {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        // Ranks count apart.
        let id = id.unwrap_or_else(|| format!("{:016x}", number ^ u64::from(self.rank) << 52));
        let mut line = json!({
            "trace_id": job.f58().to_string(),
            "span_id": id,
            "parent_id": parent,
            "name": span.name,
            "rank": self.rank,
            "start": span.start,
            "duration": span.duration,
        });
        if let (Some(plugin), Some(line)) = (&span.plugin, line.as_object_mut()) {
            line.insert("plugin".to_owned(), json!(plugin));
        }
        if let Some(out) = &self.out {
            // One write, so that lines of several brokers do not mix. A full disk stops no job.
            let _ = out.borrow_mut().write_all(format!("{line}\n").as_bytes());
        }
        id
    }
}

/// The id of a job's outermost span: its other spans are told before it.
fn root(job: JobId) -> String {
    format!("{:016x}", job.0)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashSet;

    #[test]
    fn spans_of_a_job_form_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let spans = Spans::to(Some(File::create(&path).unwrap()), 0);
        let job = JobId(12345);
        let inner = [Began::now().end("validate", Some("jobspec"))];
        spans.step(job, &Began::now().end("job-ingest.submit", None), &inner);
        for (at, name) in
            ["submit", "depend", "priority", "alloc", "start", "exception", "finish", "clean"]
                .iter()
                .enumerate()
        {
            let event = Event { timestamp: at as f64, name: (*name).to_owned(), context: None };
            spans.event(job, &event);
        }
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ids: HashSet<&str> =
            lines.iter().map(|line| line["span_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), lines.len());
        let roots: Vec<_> = lines.iter().filter(|line| line["parent_id"].is_null()).collect();
        assert_eq!(roots.len(), 1);
        assert_eq!((&roots[0]["name"], &roots[0]["duration"]), (&json!("job"), &json!(7.0)));
        for line in &lines {
            let parent = line["parent_id"].as_str();
            assert!(parent.is_none_or(|parent| ids.contains(parent)), "{line}");
        }
        let run = lines.iter().find(|line| line["name"] == "job.run").unwrap();
        assert_eq!((&run["start"], &run["duration"]), (&json!(4.0), &json!(2.0)));
        assert!(spans.jobs.borrow().is_empty());
    }
}
