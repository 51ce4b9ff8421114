//! Resources outside of an instance, as R (RFC 20): what this host has, and what a configuration
//! says; and what is wrong there beyond the tables' types.

use std::path::Path;

use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::ResourceSet;

use crate::attrs::Attrs;
use crate::config::{Config, tables};
use crate::services::resource::hardware::Hardware;
use crate::services::resource::settings::{Settings, from_array};
use crate::services::resource::verify::Verify;

/// Of the hardware that this process may use, as rank 0.
pub fn of_this_host() -> Result<String, String> {
    let hardware = Hardware::probe(false).map_err(|error| error.to_string())?;
    let hosts: Hostlist = [Attrs::default().hostname()].iter().collect();
    let set = ResourceSet::uniform(&Idset::first_n(1), hardware.resources, &hosts);
    encode(&set.map_err(|error| error.to_string())?)
}

/// Of `[resource]` in a folder of configuration files, or in one file.
pub fn of_config(path: &Path) -> Result<String, String> {
    let config = Config::load(path).map_err(|error| error.to_string())?;
    let settings = Settings::from_config(&config).map_err(|error| error.to_string())?;
    encode(&settings.inventory.ok_or("there are no resources in the configuration")?)
}

/// What is wrong with the values of `[resource]` and `[ingest]`, and tables whose names are slips: a
/// line each, with file and line.
pub fn mistakes(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |key: &str, text: String| lines.push(format!("{}{text}", config.place(key)));
    for (name, known) in tables::slips(config) {
        add(name, format!("[{name}] is not a table of Flux (did you mean '{known}'?)"));
    }
    if let Err(error) = Verify::parse(config.get("resource.verify")) {
        let modes = "strict, allow-extra, allow-missing or ignore";
        add("resource.verify", format!("error parsing [resource]: {error} ({modes})"));
    }
    let exclude = config.get_str("resource.exclude").unwrap_or_default();
    if exclude.parse::<Idset>().is_err() && exclude.parse::<Hostlist>().is_err() {
        let text = format!("exclude: '{exclude}' is neither ranks (0-1) nor hosts (test[1-2])");
        add("resource.exclude", text);
    }
    if let Some(array) = config.get("resource.config")
        && let Err(error) = from_array(array)
    {
        add("resource.config", format!("error parsing [resource.config] array: {error}"));
    }
    lines
}

fn encode(set: &ResourceSet) -> Result<String, String> {
    set.encode().map_err(|error| error.to_string())
}
