//! Judges jobspecs by a JSON Schema of the site.
//!
//! Configuration: `args = ["--schema=FILE"]` in `[ingest.validator]`, or `schema = "FILE"` in
//! `[ingest.validator.schema]`. A plugin has no files: the broker reads this one (capability
//! `file:schema`) when the plugin is loaded or configured, and passes its text.

mod keyword;
mod python;
mod schema;

use flux_plugin::prelude::*;
use schema::Schema;
use serde_json::Value;

struct SchemaRules {
    schema: Schema,
}

impl Plugin for SchemaRules {
    fn init(context: &Context) -> Result<Self, String> {
        Ok(SchemaRules { schema: configured(&context.config)? })
    }

    fn configure(&mut self, config: &str, _: &str) -> Result<(), String> {
        self.schema = configured(config)?;
        Ok(())
    }
}

impl Validator for SchemaRules {
    fn validate(&mut self, submission: &Submission) -> Verdict {
        let jobspec: Value = match serde_json::from_str(&submission.jobspec) {
            Ok(jobspec) => jobspec,
            Err(error) => return refuse(errno::EINVAL, error.to_string()),
        };
        match self.schema.check(&jobspec) {
            Ok(()) => Verdict::Accept,
            Err(text) => refuse(errno::EINVAL, text),
        }
    }
}

fn configured(config: &str) -> Result<Schema, String> {
    let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
    let text = config.pointer("/files/schema").and_then(Value::as_str);
    let text = text.ok_or("a schema is required: args = [ \"--schema=FILE\" ]")?;
    Schema::parse(text)
}

flux_plugin::validator! {
    SchemaRules,
    name: "schema",
    description: "Validate jobspec using jsonschema",
    capabilities: ["file:schema"],
}

#[cfg(test)]
mod tests;
