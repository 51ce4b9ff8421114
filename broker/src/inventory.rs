//! Resources outside of an instance, as R (RFC 20): what this host has, and what a configuration
//! says; and what is wrong there beyond the tables' types.

use std::path::Path;

use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::r::ResourceSet;

use crate::attrs::Attrs;
use crate::boot;
use crate::config::{Config, tables};
use crate::plugin::Mistake;
use crate::plugin_host::plugin_host_alone;
use crate::services::resource::hardware::Hardware;
use crate::services::resource::settings::{Settings, from_array};
use crate::services::resource::verify::Verify;
use crate::services::{job_ingest, job_manager, sched};

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
    match boot::network_of(config) {
        Ok(hosts) => {
            let text = hosts.and_then(|hosts| excluded_in_vain(exclude, &hosts));
            text.into_iter().for_each(|text| add("resource.exclude", text));
        }
        Err((key, text)) => add(key, text),
    }
    let archive = config.get_str("archive.dbpath").map(Path::new);
    if let Some(folder) = archive.and_then(Path::parent).filter(|folder| !folder.is_dir())
        && !folder.as_os_str().is_empty()
    {
        let text = format!("dbpath: there is no folder {}; make it", folder.display());
        add("archive.dbpath", text);
    }
    if let Some(array) = config.get("resource.config")
        && let Err(error) = from_array(array)
    {
        add("resource.config", format!("error parsing [resource.config] array: {error}"));
    }
    lines
}

/// Ranks or hosts that the instance does not have.
fn excluded_in_vain(exclude: &str, hosts: &Hostlist) -> Option<String> {
    if let Ok(ranks) = exclude.parse::<Idset>() {
        let last = ranks.last()?;
        let is_beyond = hosts.iter().nth(last as usize).is_none();
        return is_beyond.then(|| format!("exclude set {exclude} is out of range"));
    }
    let known: std::collections::BTreeSet<String> = hosts.iter().collect();
    let list: Hostlist = exclude.parse().ok()?;
    let unknown: Hostlist = list.iter().filter(|host| !known.contains(host)).collect();
    (!unknown.is_empty()).then(|| format!("exclude: {unknown}: not in bootstrap.hosts"))
}

/// Plugins that would stop the start: each is found, checked and started, apart from all others. A
/// line each, with file and line.
pub async fn plugin_mistakes(config: &Config) -> Vec<String> {
    let host = plugin_host_alone(config.object().clone());
    let mut mistakes = job_manager::plugins::mistakes(&host, config).await;
    mistakes.extend(job_ingest::mistakes(&host, config).await);
    mistakes.extend(sched::mistake(&host, config).await);
    let folders: Vec<String> =
        host.config().path.iter().map(|folder| folder.display().to_string()).collect();
    let looked = format!(" (looked in {}, which FLUX_PLUGIN_PATH changes)", folders.join(", "));
    let line = |mistake: Mistake| {
        let looked = if mistake.is_missing { looked.as_str() } else { "" };
        let text = mistake.text.replace('\n', "; ");
        format!("{}{text}{looked}", config.place(&mistake.key))
    };
    mistakes.into_iter().map(line).collect()
}

fn encode(set: &ResourceSet) -> Result<String, String> {
    set.encode().map_err(|error| error.to_string())
}
