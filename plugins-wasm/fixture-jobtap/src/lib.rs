//! Tells what it was called for, and misbehaves on jobs of certain names. A frozen copy of it
//! stays in the broker's tests for as long as contract 1 is supported.

use flux_plugin::prelude::*;
use flux_plugin::types::{EventPosted, Level};

#[derive(Default)]
struct Tracer {
    calls: u64,
    trace: Vec<String>,
}

impl Plugin for Tracer {
    fn init(context: &Context) -> Result<Self, String> {
        if context.config.contains("refuse-start") {
            return Err("not today".to_owned());
        }
        let saved = context.saved.as_deref().and_then(|saved| saved.try_into().ok());
        Ok(Tracer { calls: saved.map_or(0, u64::from_le_bytes), trace: Vec::new() })
    }

    fn configure(&mut self, config: &str, _: &str) -> Result<(), String> {
        if config.contains("bad") { Err("bad configuration".to_owned()) } else { Ok(()) }
    }

    fn query(&self) -> String {
        let trace = self.trace.join(",");
        format!(r#"{{"calls":{},"trace":"{trace}"}}"#, self.calls)
    }

    fn save(&self) -> Vec<u8> {
        self.calls.to_le_bytes().to_vec()
    }
}

impl Jobtap for Tracer {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        self.calls += 1;
        let (label, job) = match &event {
            Event::Create(news) => ("create", &news.job),
            Event::New(news) => ("new", &news.job),
            Event::Validate(job) => ("validate", job),
            Event::State(change) => ("state", &change.job),
            Event::PriorityGet(job) => ("priority", job),
            Event::Posted(EventPosted { job, .. }) => ("posted", job),
            _ => return Reply::Pass,
        };
        self.trace.push(format!("{label}:{}", job.id));
        match job.name.as_str() {
            "panic" => panic!("asked to"),
            "loop" => loop {
                std::hint::black_box(());
            },
            "refuse" => Reply::Refuse(refuse_with(errno::EINVAL, "refused as asked")),
            "look" => self.look(job.id, effects),
            "keep" => {
                let count = host::get("count").map_or(0, |bytes| bytes.len());
                effects.put("count", vec![0; count + 1]);
                Reply::Priority(u32::try_from(count).unwrap_or(u32::MAX))
            }
            "reach" => {
                effects.drain("0", "because");
                effects.rpc(1, "resource.status", "{}");
                effects.count("reached", 1.0);
                Reply::Pass
            }
            "flood" => {
                (0..1000).for_each(|line| host::log(Level::Info, &format!("line {line}")));
                Reply::Pass
            }
            "grow" => {
                let mut heap = Vec::new();
                loop {
                    heap.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&heap);
                }
            }
            _ => Reply::Pass,
        }
    }
}

impl Tracer {
    /// What the host answers, and what the system does.
    fn look(&self, id: JobId, effects: &mut Effects) -> Reply {
        let environment = std::env::vars().count();
        let file = std::fs::read("/etc/passwd").is_ok() || std::fs::read_dir("/").is_ok();
        let socket = std::net::TcpStream::connect("127.0.0.1:22").is_ok();
        let jobspec = host::jobspec(id).unwrap_or_default();
        effects.explain(
            id,
            format!(
                "environment {environment} file {file} socket {socket} now {} random {} \
                 drain {} jobspec {jobspec} posted {:?}",
                host::now(),
                host::random(),
                host::granted("drain"),
                host::event_posted(id, "submit"),
            ),
        );
        Reply::Pass
    }
}

flux_plugin::jobtap! {
    Tracer,
    name: "tracer",
    description: "Tells what it was called for",
    topics: ["job.create", "job.new", "job.validate", "job.state.*", "job.priority.get", "job.event.*"],
    order: "-state",
}
