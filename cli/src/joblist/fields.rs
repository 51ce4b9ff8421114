//! Fields of jobs in formats: headings, and the attributes of `job-list` that they are made of.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::listing;

const HEADINGS: &[(&str, &str)] = &[
    ("id", "JOBID"),
    ("id.dec", "JOBID"),
    ("id.hex", "JOBID"),
    ("id.f58", "JOBID"),
    ("id.f58plain", "JOBID"),
    ("id.emoji", "JOBID"),
    ("id.kvs", "JOBID"),
    ("id.words", "JOBID"),
    ("id.dothex", "JOBID"),
    ("userid", "UID"),
    ("username", "USER"),
    ("urgency", "URG"),
    ("priority", "PRI"),
    ("state", "STATE"),
    ("state_single", "S"),
    ("state_emoji", "STATE"),
    ("name", "NAME"),
    ("cwd", "CWD"),
    ("queue", "QUEUE"),
    ("project", "PROJECT"),
    ("bank", "BANK"),
    ("ntasks", "NTASKS"),
    ("ncores", "NCORES"),
    ("duration", "DURATION"),
    ("nnodes", "NNODES"),
    ("expiration", "EXPIRATION"),
    ("t_remaining", "T_REMAINING"),
    ("ranks", "RANKS"),
    ("nodelist", "NODELIST"),
    ("success", "SUCCESS"),
    ("result", "RESULT"),
    ("result_abbrev", "RS"),
    ("result_emoji", "RESULT"),
    ("t_submit", "T_SUBMIT"),
    ("t_depend", "T_DEPEND"),
    ("t_priority", "T_PRIORITY"),
    ("t_sched", "T_SCHED"),
    ("t_run", "T_RUN"),
    ("t_cleanup", "T_CLEANUP"),
    ("t_inactive", "T_INACTIVE"),
    ("runtime", "RUNTIME"),
    ("status", "STATUS"),
    ("status_abbrev", "ST"),
    ("status_emoji", "STATUS"),
    ("waitstatus", "WSTATUS"),
    ("returncode", "RC"),
    ("exception.occurred", "EXCEPTION-OCCURRED"),
    ("exception.severity", "EXCEPTION-SEVERITY"),
    ("exception.type", "EXCEPTION-TYPE"),
    ("exception.note", "EXCEPTION-NOTE"),
    ("annotations", "ANNOTATIONS"),
    ("dependencies", "DEPENDENCIES"),
    ("contextual_info", "INFO"),
    ("contextual_time", "TIME"),
    ("inactive_reason", "INACTIVE-REASON"),
    ("annotations.sched.t_estimate", "T_ESTIMATE"),
    ("annotations.sched.reason_pending", "REASON"),
    ("annotations.sched.resource_summary", "RESOURCES"),
    ("sched", "SCHED"),
    ("sched.t_estimate", "T_ESTIMATE"),
    ("sched.reason_pending", "REASON"),
    ("sched.resource_summary", "RESOURCES"),
    ("user", "USER"),
    ("uri", "URI"),
    ("uri.local", "URI"),
    ("instance.stats.total", "NJOBS"),
    ("instance.utilization", "CORE%"),
    ("instance.gpu_utilization", "GPU%"),
    ("instance.progress", "PROG"),
    ("instance.resources.all.ncores", "CORES"),
    ("instance.resources.all.ngpus", "GPUS"),
    ("instance.resources.all.nnodes", "NODES"),
    ("instance.resources.up.ncores", "UP"),
    ("instance.resources.up.ngpus", "UP"),
    ("instance.resources.up.nnodes", "UP"),
    ("instance.resources.down.ncores", "DOWN"),
    ("instance.resources.down.ngpus", "DOWN"),
    ("instance.resources.down.nnodes", "DOWN"),
    ("instance.resources.allocated.ncores", "USED"),
    ("instance.resources.allocated.ngpus", "USED"),
    ("instance.resources.allocated.nnodes", "USED"),
    ("instance.resources.free.ncores", "FREE"),
    ("instance.resources.free.ngpus", "FREE"),
    ("instance.resources.free.nnodes", "FREE"),
];

/// The heading of a field. Schedulers and users make up annotations: any of them is a field.
pub(crate) fn headings(field: &str) -> Option<Cow<'static, str>> {
    if let Some(known) = listing::heading(HEADINGS, field) {
        return Some(known);
    }
    if let Some(name) = field.strip_prefix("annotations.") {
        return Some(name.to_uppercase().into());
    }
    if field.starts_with("sched.") || field.starts_with("user.") {
        return Some(field.to_uppercase().into());
    }
    let name = field.strip_prefix("instance.")?;
    Some(name.strip_prefix("resources.").unwrap_or(name).to_uppercase().into())
}

/// Whether a field needs a connection to the instance that a job is.
pub(crate) fn needs_instance(fields: &[&str]) -> bool {
    fields.iter().any(|field| field.starts_with("instance."))
}

/// What to ask `job-list` for, sorted.
pub(crate) fn attributes<'a>(fields: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = fields.into_iter().flat_map(of_field).copied().collect();
    names.into_iter().map(str::to_owned).collect()
}

fn of_field(field: &str) -> &'static [&'static str] {
    if field.starts_with("instance.") {
        return &["annotations", "state", "result"];
    }
    if ["annotations", "sched", "user", "uri"].contains(&field.split('.').next().unwrap_or(field)) {
        return &["annotations"];
    }
    match field {
        "userid" | "username" => &["userid"],
        "urgency" => &["urgency"],
        "priority" => &["priority"],
        "state" | "state_single" | "state_emoji" => &["state"],
        "name" => &["name"],
        "cwd" => &["cwd"],
        "queue" => &["queue"],
        "project" => &["project"],
        "bank" => &["bank"],
        "ntasks" => &["ntasks"],
        "ncores" => &["ncores"],
        "duration" => &["duration"],
        "nnodes" => &["nnodes"],
        "ranks" => &["ranks"],
        "nodelist" => &["nodelist"],
        "success" => &["success"],
        "waitstatus" => &["waitstatus"],
        "returncode" => &["waitstatus", "result"],
        "exception.occurred" => &["exception_occurred"],
        "exception.severity" => &["exception_severity"],
        "exception.type" => &["exception_type"],
        "exception.note" => &["exception_note"],
        "result" | "result_abbrev" | "result_emoji" => &["result"],
        "t_submit" => &["t_submit"],
        "t_depend" => &["t_depend"],
        "t_priority" => &["t_priority"],
        "t_sched" => &["t_sched"],
        "t_run" => &["t_run"],
        "t_cleanup" => &["t_cleanup"],
        "t_inactive" => &["t_inactive"],
        "runtime" => &["t_run", "t_cleanup"],
        "status" | "status_abbrev" | "status_emoji" => &["state", "result"],
        "expiration" | "t_remaining" => &["expiration", "state", "result"],
        "dependencies" => &["dependencies"],
        "contextual_info" => {
            &["state", "dependencies", "annotations", "nodelist", "priority", "urgency"]
        }
        "contextual_time" => &["state", "t_run", "t_cleanup", "duration"],
        "inactive_reason" => &[
            "state",
            "result",
            "waitstatus",
            "exception_occurred",
            "exception_severity",
            "exception_type",
            "exception_note",
        ],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_annotation_is_a_field() {
        assert_eq!(headings("annotations.user.foo").as_deref(), Some("USER.FOO"));
        assert_eq!(headings("sched.x").as_deref(), Some("SCHED.X"));
        assert_eq!(headings("instance.resources.x").as_deref(), Some("X"));
        assert_eq!(headings("id.f58").as_deref(), Some("JOBID"));
        assert_eq!(headings("nope"), None);
    }

    #[test]
    fn attributes_are_those_that_fields_are_made_of() {
        assert_eq!(attributes(["status", "state", "id.f58"]), ["result", "state"]);
        assert_eq!(attributes(["user.x", "uri"]), ["annotations"]);
        assert!(needs_instance(&["id", "instance.progress"]) && !needs_instance(&["id"]));
    }
}
