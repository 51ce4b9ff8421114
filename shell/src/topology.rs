//! The `hwloc` option: `xmlfile` gives tasks a file that describes the hardware, which spares each
//! of them to look at it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flux_client::Client;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::rpc::resource;
use serde::Deserialize;
use serde_json::Value;

use crate::fatal::{Fatal, reason};
use crate::job::Job;
use crate::log::Log;
use crate::options::is_on;

const COMPONENT: &str = "hwloc";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    xmlfile: Value,
    restrict: Value,
}

/// Write the file, if it is wanted, as the broker of this node has it.
pub(crate) async fn write(
    job: &Job,
    tmpdir: &Path,
    flux: &Client,
    log: &Log,
) -> Result<Option<String>, Fatal> {
    let raw: Raw = job.jobspec.options.parse_object(COMPONENT)?.unwrap_or_default();
    if !is_on(&raw.xmlfile) {
        return Ok(None);
    }
    if is_on(&raw.restrict) {
        log.warn(COMPONENT, "hwloc.restrict is not supported: the file has all of the node");
    }
    let rank = Nodeid(job.broker_rank);
    let xml = flux.rpc::<resource::TopoGet>(rank, &Empty).await.map_err(|error| {
        Fatal::new(COMPONENT, format!("failed to get the topology of this node: {error}"))
    })?;
    let path = tmpdir.join("hwloc.xml");
    let text = path.to_string_lossy().into_owned();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
    file.and_then(|mut file| file.write_all(xml.0.as_bytes()))
        .map_err(|error| Fatal::new(COMPONENT, format!("{text}: {}", reason(&error))))?;
    let len = xml.0.len();
    log.debug(COMPONENT, format_args!("Writing {len} bytes to HWLOC_XMLFILE={text}"));
    Ok(Some(text))
}
