//! Has an opinion of the broker's table `[fixture]`: refuses one that says "refuse", panics over one
//! that says "trap" and thinks forever about one that says "loop". Shows the one that it has.

use flux_plugin::prelude::*;

struct Configured {
    config: String,
}

impl Plugin for Configured {
    fn init(context: &Context) -> Result<Self, String> {
        consider(&context.broker_config)?;
        Ok(Configured { config: context.broker_config.clone() })
    }

    fn configure(&mut self, _: &str, broker_config: &str) -> Result<(), String> {
        consider(broker_config)?;
        self.config = broker_config.to_owned();
        Ok(())
    }

    fn query(&self) -> String {
        self.config.clone()
    }
}

impl Jobtap for Configured {
    fn handle(&mut self, event: Event, _: &mut Effects) -> Reply {
        let asked = matches!(event, Event::Validate(job) if job.name == "panic");
        assert!(!asked, "asked to");
        Reply::Pass
    }
}

fn consider(config: &str) -> Result<(), String> {
    if config.contains("refuse") {
        return Err("[fixture]: what is refused: expected anything else".to_owned());
    }
    assert!(!config.contains("trap"), "asked to");
    while config.contains("loop") {
        std::hint::spin_loop();
    }
    Ok(())
}

flux_plugin::jobtap! {
    Configured,
    name: "fixture-config",
    description: "Has an opinion of a table of the configuration",
    topics: ["job.validate"],
    capabilities: ["config:fixture"],
}
