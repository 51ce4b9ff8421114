//! Files that come with the job (RFC 37 archives): in the jobspec, or by name in the KVS.

use std::path::Path;

use flux_client::archive::{Extraction, FileError, objects};
use flux_client::{Client, kvs};
use serde::Deserialize;
use serde_json::Value;

use crate::fatal::Fatal;
use crate::job::Job;
use crate::log::Log;

const FILES: &str = "files";
const STAGE_IN: &str = "stage-in";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StageIn {
    names: Option<String>,
    /// Of old for `names`.
    tags: Option<String>,
    pattern: Option<String>,
    destination: Option<String>,
}

/// Put the jobspec's files into the job's temporary directory.
pub(crate) async fn extract_job_files(
    job: &Job,
    tmpdir: &Path,
    flux: &Client,
) -> Result<(), Fatal> {
    match &job.jobspec.files {
        Some(archive) if !archive.is_null() => {
            extract(flux, archive, tmpdir, &|_| true).await.map_err(|e| Fatal::new(FILES, e))?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Put files that `flux archive` has stored where the `stage-in` option says.
pub(crate) async fn stage_in(
    job: &Job,
    tmpdir: &Path,
    flux: &Client,
    log: &Log,
) -> Result<(), Fatal> {
    let Some(option) = job.jobspec.options.parse_object::<StageIn>(STAGE_IN)? else {
        return Ok(());
    };
    if option.tags.is_some() && job.is_leader() {
        log.warn(
            STAGE_IN,
            "Setting stage-in.names to the value of deprecated option stage-in.tags.",
        );
    }
    let names = option.tags.or(option.names).unwrap_or_default();
    let mut names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        names.push("main");
    }
    let (scope, destination) = match option.destination.as_deref() {
        None => ("local", tmpdir),
        Some(destination) => match destination.split_once(':') {
            None => ("local", Path::new(destination)),
            Some((scope @ ("local" | "global"), path)) => (scope, Path::new(path)),
            Some(_) => {
                let text = "destination prefix must be local: or global:";
                return Err(Fatal::new(STAGE_IN, text));
            }
        },
    };
    if scope == "global" && !job.is_leader() {
        return Ok(());
    }
    let wanted = |path: &str| match &option.pattern {
        Some(pattern) => crate::sys::fnmatch(pattern, path),
        None => true,
    };
    let started = std::time::Instant::now();
    let (mut count, mut bytes) = (0, 0);
    for name in names {
        let archive = lookup(flux, name).await?;
        let extracted = extract(flux, &archive, destination, &wanted).await;
        let (files, size) = extracted.map_err(|e| Fatal::new(STAGE_IN, e))?;
        count += files;
        bytes += size;
    }
    let rate = bytes as f64 / 1e6 / started.elapsed().as_secs_f64();
    log.debug(STAGE_IN, format_args!("{count} files {rate:.1}MB/s"));
    Ok(())
}

async fn lookup(flux: &Client, name: &str) -> Result<Value, Fatal> {
    let key = format!("archive.{name}");
    let failed = |e: &dyn std::fmt::Display| {
        Fatal::new(STAGE_IN, format!("could not lookup {key} in primary KVS namespace: {e}"))
    };
    let value = kvs::get(flux, kvs::Root::Namespace("primary"), &key).await;
    serde_json::from_slice(&value.map_err(|e| failed(&e))?).map_err(|e| failed(&e))
}

/// Returns how many files there were, and their sizes.
async fn extract(
    flux: &Client,
    archive: &Value,
    directory: &Path,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<(usize, u64), FileError> {
    let (mut count, mut bytes) = (0, 0);
    let mut extraction = Extraction::new(flux, directory, true);
    for (path, object) in objects(archive)? {
        if wanted(&path) {
            count += 1;
            bytes += object.size.unwrap_or(0);
            extraction.extract(&path, &object).await?;
        }
    }
    extraction.finish()?;
    Ok((count, bytes))
}
