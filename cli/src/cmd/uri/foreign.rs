//! Instances within jobs of other batch systems, whose own commands tell where these run.

use std::path::Path;
use std::process::{Command, Output};

use flux_protocol::hostlist::Hostlist;

use super::{ResolveError, process, to_remote};
use crate::context::Context;
use crate::failure::strerror;

/// Of IBM's Cluster System Management: which nodes a job has.
const CSM_QUERY: &str = "/opt/ibm/csm/bin/csm_allocation_query";

/// Look among the job's processes on this node, else on the first of its nodes.
pub(super) fn slurm(context: &Context, jobid: &str) -> Result<String, ResolveError> {
    let listed = run(context, "scontrol", &["listpids", jobid]);
    let Ok(output) = listed else { return slurm_elsewhere(context, jobid) };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for pid in local_leaders(&text) {
        if let Ok(uri) = process(pid) {
            return to_remote(&uri);
        }
    }
    Err(ResolveError::Foreign(format!("no process of Slurm job {jobid} here has a FLUX_URI")))
}

/// Processes of local id 0: `PID JOBID STEPID LOCALID GLOBALID`. Others may belong to instances
/// within the one that is looked for.
fn local_leaders(listing: &str) -> impl Iterator<Item = &str> {
    let own = std::process::id().to_string();
    listing.lines().filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let pid = fields.next().filter(|pid| pid.parse::<u32>().is_ok_and(|pid| pid > 0))?;
        (fields.nth(2) == Some("0") && pid != own).then_some(pid)
    })
}

fn slurm_elsewhere(context: &Context, jobid: &str) -> Result<String, ResolveError> {
    let failed = |text: String| ResolveError::Foreign(format!("{text} Slurm job {jobid}"));
    let nodes = run(context, "squeue", &["-h", "-o", "%N", "-j", jobid])
        .map_err(|_| failed("unable to query nodelist for".to_owned()))?;
    let nodes = String::from_utf8_lossy(&nodes.stdout).trim().to_owned();
    let nodes: Hostlist = nodes.parse().map_err(|e| failed(format!("nodelist: {e}:")))?;
    let first = nodes.iter().next();
    let first = first.ok_or_else(|| failed("empty nodelist returned for".to_owned()))?.to_string();
    let (job, uri) = (format!("--jobid={jobid}"), format!("slurm:{jobid}"));
    let args = ["--overlap", &job, "-w", &first, "-n1", "-N1", "flux", "uri", &uri];
    // It is not our own instance that is asked for there.
    let answer = run(context, "srun", &args)
        .map_err(|_| failed(format!("unable to resolve a URI on {first} for")))?;
    Ok(line(&answer))
}

/// Ask `flux uri` on a node of the job.
pub(super) fn lsf(context: &Context, jobid: &str) -> Result<String, ResolveError> {
    let failed = |text: &str| ResolveError::Foreign(format!("{text} LSF job {jobid}"));
    let query = context.env.get("CSM_ALLOCATION_QUERY").unwrap_or(CSM_QUERY);
    let nodes = run(context, query, &["-j", jobid])
        .map_err(|_| failed("unable to query the compute nodes of"))?;
    let node = compute_node(&String::from_utf8_lossy(&nodes.stdout));
    let node = node.ok_or_else(|| failed("unable to find a compute node of"))?;
    let ssh = context.env.get("FLUX_SSH").unwrap_or("ssh");
    let own = std::env::current_exe().ok().map(|path| path.display().to_string());
    let own = own.unwrap_or("flux".to_owned());
    let flux = context.env.get("FLUX_SSH_RCMD").unwrap_or(&own);
    let target = format!("'lsf:{jobid}?is_compute'");
    let answer = run(context, ssh, &[&node, flux, "uri", "--remote", &target])
        .map_err(|_| failed(&format!("unable to resolve a URI on {node} for")))?;
    Ok(line(&answer))
}

/// The first node by name, of YAML: `compute_nodes:` with a list of names below or beside it.
fn compute_node(yaml: &str) -> Option<String> {
    let mut lines = yaml.lines().skip_while(|line| !line.starts_with("compute_nodes:"));
    let beside = lines.next()?.split_once(':')?.1.trim();
    let list = beside.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let beside = list.unwrap_or(beside).to_owned();
    let below = lines.map_while(|line| line.trim_start().strip_prefix("- "));
    let names = std::iter::once(beside.as_str()).chain(below);
    let mut nodes = Vec::new();
    for name in names.map(str::trim).filter(|name| !name.is_empty()) {
        let names: Hostlist = name.replace(' ', "").parse().ok()?;
        nodes.extend(names.iter().map(|node| node.to_string()));
    }
    nodes.into_iter().min()
}

/// On a node of the job: the instance whose first broker runs here and belongs to the job.
pub(super) fn lsf_here(jobid: &str) -> Result<String, ResolveError> {
    let missing = || ResolveError::Foreign(format!("no Flux broker of LSF job {jobid} runs here"));
    let wanted = format!("LSB_JOBID={jobid}");
    let processes = std::fs::read_dir("/proc").map_err(|_| missing())?;
    for entry in processes.flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim() == "flux-broker-0" && has_variable(&entry.path(), wanted.as_bytes()) {
            return to_remote(&process(&entry.file_name().to_string_lossy())?);
        }
    }
    Err(missing())
}

fn has_variable(process: &Path, wanted: &[u8]) -> bool {
    // Those of others can't be read, and are not meant.
    let environ = std::fs::read(process.join("environ")).unwrap_or_default();
    environ.split(|&byte| byte == 0).any(|variable| variable == wanted)
}

/// Run a program that does not see our instance; what it prints, if it succeeds.
fn run(context: &Context, program: &str, args: &[&str]) -> Result<Output, String> {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(context.env.all()).env_remove("FLUX_URI");
    let output = command.output().map_err(|e| strerror(&e).to_string())?;
    if output.status.success() { Ok(output) } else { Err(output.status.to_string()) }
}

fn line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn leaders_of_steps_are_found_in_a_listing() {
        let listing = "PID      JOBID    STEPID   LOCALID GLOBALID\n\
                       -1       7        0        0       0\n\
                       11       7        0        1       1\n\
                       12       7        0        0       0\n";
        assert_eq!(local_leaders(listing).collect::<Vec<_>>(), ["12"]);
    }

    #[test]
    fn the_first_compute_node_is_found_in_yaml() {
        let below = "---\nid: 1\ncompute_nodes:\n - lassen9\n - lassen10\nlaunch: x\n";
        assert_eq!(compute_node(below).unwrap(), "lassen10");
        assert_eq!(compute_node("compute_nodes: n[2-3]\n").unwrap(), "n2");
        assert_eq!(compute_node("nodes: []\n"), None);
        assert_eq!(compute_node("compute_nodes:\nother: 1\n"), None);
    }
}
