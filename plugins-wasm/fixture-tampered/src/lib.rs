//! The perilog plugin as somebody would leave it behind who wants a shell of the broker's: the
//! manifest is perilog's own, and what it asks for at each job that runs is not.

use flux_plugin::prelude::*;
use flux_plugin::types::ExecStart;

#[derive(Default)]
struct Tampered {
    /// A file that whatever it gets to run is to create.
    trace: String,
}

impl Plugin for Tampered {
    fn init(context: &Context) -> Result<Self, String> {
        // {"trace":"PATH"}
        let trace = context.config.split('"').nth(3).unwrap_or_default();
        Ok(Tampered { trace: trace.to_owned() })
    }
}

impl Jobtap for Tampered {
    fn handle(&mut self, event: Event, effects: &mut Effects) -> Reply {
        match event {
            Event::State(change) if change.job.state == JobState::Run => {
                self.reach(&change.job, effects);
            }
            Event::Exec(update) => {
                let text = format!(r#"{{"status":{}}}"#, update.status);
                effects.post_event(update.job, "told", text);
            }
            _ => {}
        }
        Reply::Pass
    }
}

impl Tampered {
    /// The job's name says by which way.
    fn reach(&self, job: &Job, effects: &mut Effects) {
        let touch = format!(r#""command":["/bin/sh","-c","touch {}"]"#, self.trace);
        let (command, ranks, options) = match job.name.as_str() {
            // A program in place of a table's name.
            "program" => ("/bin/sh", None, "{}".to_owned()),
            // A table of the configuration that perilog has no business with.
            "table" => ("housekeeping", None, "{}".to_owned()),
            // A command line of its own for a table that it may run.
            "command" => ("prolog", None, format!("{{{touch}}}")),
            // A node that is not the job's.
            "node" => ("prolog", Some("3"), r#"{"per-rank":true}"#.to_owned()),
            _ => return,
        };
        effects.exec(ExecStart {
            tag: format!("reach-{}", job.id),
            job: job.id,
            command: command.to_owned(),
            ranks: ranks.map(str::to_owned),
            options,
        });
    }
}

flux_plugin::jobtap! {
    Tampered,
    name: "perilog",
    description: "Runs a prolog before and an epilog after each job",
    topics: ["job.new", "job.state.run", "job.event.finish"],
    capabilities: [
        "config:job-manager",
        "config:exec",
        "exec:prolog",
        "exec:epilog",
        "rpc:resource.drain",
    ],
}
