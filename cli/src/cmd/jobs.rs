//! `flux jobs`: list jobs.

use clap::Args;
use flux_client::Client;
use flux_protocol::fluid::JobId;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::joblist::{self, Filter, JobInfo, JobStats, Query};
use crate::listing::named::{Builtin, Formats};
use crate::listing::{FormatError, Listing};
use crate::term::{self, When};
use crate::{outln, when};

mod output;

pub(crate) const FORMATS: Formats = Formats {
    command: "flux-jobs",
    subcommand: None,
    tables: &[],
    builtin: &[
        Builtin {
            name: "default",
            description: "Default flux-jobs format string",
            format: "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} \
                     {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6h} \
                     {contextual_time!F:>8h} {contextual_info}",
        },
        Builtin {
            name: "cute",
            description: "Cute flux-jobs format string (default with emojis)",
            format: "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} \
                     {status_emoji:>5.5} {ntasks:>6} {nnodes:>6h} \
                     {contextual_time!F:>8h} {contextual_info}",
        },
        Builtin {
            name: "long",
            description: "Extended flux-jobs format string",
            format: "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} \
                     {status:>9.9} {ntasks:>6} {nnodes:>6h} \
                     {t_submit!d:%b%d %R::>12} {t_remaining!F:>12h} \
                     {contextual_time!F:>8h} {contextual_info}",
        },
        Builtin {
            name: "deps",
            description: "Show job urgency, priority, and dependencies",
            format: "{id.f58:>12} ?:{queue:<8.8} {name:<10.10+} {urgency:<3} \
                     {priority:<12} {state:<8.8} {dependencies}",
        },
        Builtin {
            name: "endreason",
            description: "Show why each job ended",
            format: "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} \
                     {status_abbrev:>2.2} {t_inactive!d:%b%d %R::>12h} {inactive_reason}",
        },
    ],
};

#[derive(Debug, Args)]
#[command(override_usage = "flux-jobs [OPTIONS] [JOBID...]")]
pub(crate) struct Jobs {
    /// List jobs in all states
    #[arg(short = 'a')]
    all_states: bool,
    /// List all jobs for all users
    #[arg(short = 'A')]
    all_users: bool,
    /// Limit output to N jobs (default 1000)
    #[arg(short, long, value_name = "N")]
    count: Option<i64>,
    /// List jobs with specific job state or result
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Vec<String>,
    /// Include jobs that have become inactive since WHEN. (implies -a if no other --filter option
    /// is specified)
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<String>,
    /// Suppress printing of header line
    #[arg(short, long, alias = "suppress-header")]
    no_header: bool,
    /// Limit output to specific username or userid (Specify "all" for all users)
    #[arg(short, long, value_name = "[USERNAME|UID]")]
    user: Option<String>,
    /// Limit output to specific job name
    #[arg(long, value_name = "JOB-NAME")]
    name: Option<String>,
    /// Limit output to specific queue or queues
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    queue: Vec<String>,
    /// Limit output to jobs that were allocated to the specified HOSTS or RANKS provided as a
    /// hostlist or idset.
    #[arg(short, long, value_name = "HOSTS|RANKS")]
    include: Option<String>,
    /// Specify output format using Python's string format syntax or a defined format by name (use
    /// 'help' to get a list of names)
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "default")]
    format: String,
    /// Specify sort order
    #[arg(long, value_name = "KEY,...", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Truncate output at width N. If N=0 (default if N omitted) and stdout is connected to a
    /// terminal, use terminal width
    #[arg(short, long, value_name = "N", num_args = 0..=1, default_missing_value = "0",
          allow_negative_numbers = true)]
    width: Option<i64>,
    /// Output jobs in JSON instead of formatted output
    #[arg(long)]
    json: bool,
    /// Use color; WHEN can be 'never', 'always' or 'auto' (default)
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_value = "auto", default_missing_value = "always")]
    color: When,
    /// List jobs recursively
    #[arg(short = 'R', long)]
    recursive: bool,
    /// With --recursive, only descend N levels
    #[arg(short = 'L', long, value_name = "N", default_value_t = 9999)]
    level: u32,
    /// With --recursive, attempt to recurse all jobs, not just jobs of current user
    #[arg(long)]
    recurse_all: bool,
    /// Set max number of worker threads
    #[arg(long, value_name = "N", hide = true)]
    threads: Option<u32>,
    /// Print job statistics before header
    #[arg(long)]
    stats: bool,
    /// Print job statistics only and exit. Exits with non-zero status if there are no active jobs.
    /// Allows usage like: 'while flux jobs --stats-only; do sleep 1; done'
    #[arg(long)]
    stats_only: bool,
    /// Limit output to specific Job IDs
    #[arg(value_name = "JOBID")]
    jobids: Vec<String>,
    /// Read jobs as JSON, one per line, from standard input
    #[arg(long, hide = true)]
    from_stdin: bool,
}

/// Jobs, and whether there are more than were asked for.
struct Found {
    jobs: Vec<JobInfo>,
    truncated: bool,
}

impl Jobs {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if self.json && (self.stats || self.stats_only) {
            return Err(error("--json incompatible with --stats or --stats-only"));
        }
        let ids = self.ids()?;
        if !ids.is_empty() && self.is_filtered() && !self.recurses() {
            warn("Filtering options ignored with jobid list");
        }
        let Some(format) = FORMATS.choose(&context.env, &self.format)? else { return Ok(0) };
        let mut listing = Listing::parse(&format, joblist::headings)
            .map_err(|e| error(format_args!("Error in user format: {e}")))?;
        if let Some(keys) = &self.sort {
            listing.set_sort(keys).map_err(error)?;
        }
        if self.from_stdin {
            let jobs = jobs_from_stdin()?;
            return self.show(&context, &listing, Found { jobs, truncated: false }).await;
        }
        let query = self.query(&listing)?;
        let flux = context.connect().await?;
        if self.stats || self.stats_only {
            let stats = JobStats::fetch(&flux, &self.queue)
                .await
                .map_err(|e| error(format_args!("error retrieving job stats: {e}")))?;
            outln!(
                "{} running, {} completed, {} failed, {} pending, {} inactive purged",
                stats.running,
                stats.successful,
                stats.failed,
                stats.pending,
                stats.inactive_purged
            );
            if self.stats_only {
                return Ok(u8::from(stats.active() == 0));
            }
        }
        let found = self.fetch(&context, &flux, &listing, &query, &ids).await?;
        if !ids.is_empty() && found.jobs.is_empty() {
            return Err(Failure::silent(1));
        }
        self.show(&context, &listing, found).await
    }

    async fn show(&self, context: &Context, listing: &Listing, found: Found) -> Outcome {
        let no_header = self.no_header || self.json;
        let fitted = listing.fit(&found.jobs, no_header).map_err(error)?;
        if !no_header {
            outln!("{}", crate::listing::cut_off(fitted.header(), self.columns()));
        }
        let truncated = found.truncated;
        if self.json {
            self.print_json(context, listing, found.jobs).await?;
        } else {
            self.print(context, &fitted, found.jobs, String::new(), 0).await?;
        }
        if !no_header && truncated {
            crate::output::flush();
            eprintln!("warning: output truncated at {} jobs.", self.limit());
            eprintln!("Use --count to increase returned results or use filters to alter results.");
        }
        Ok(0)
    }

    /// Ask for jobs, and where the format needs it the instances that they are.
    async fn fetch(
        &self,
        context: &Context,
        flux: &Client,
        listing: &Listing,
        query: &Query,
        ids: &[(JobId, String)],
    ) -> Result<Found, Failure> {
        let (mut jobs, errors) = if ids.is_empty() {
            (query.list(flux).await.map_err(error)?, Vec::new())
        } else {
            query.list_ids(flux, ids).await.map_err(error)?
        };
        for text in errors {
            eprintln!("{text}");
        }
        let limit = usize::try_from(self.limit()).unwrap_or_default();
        let truncated = limit > 0 && jobs.len() > limit;
        if truncated {
            jobs.truncate(limit);
        }
        if joblist::needs_instance(&listing.fields()) {
            for job in &mut jobs {
                job.ask_instance(context).await;
            }
        }
        Ok(Found { jobs, truncated })
    }

    fn query(&self, listing: &Listing) -> Result<Query, Failure> {
        let mut fields = listing.fields();
        if self.color.stdout() {
            fields.extend(["result", "annotations"]);
        }
        if self.recurses() {
            fields.extend(["annotations", "status", "userid"]);
        }
        let mut attrs = joblist::attributes(fields);
        if self.json {
            attrs = vec!["all".to_owned()];
        }
        let constraint = self.include.as_deref().map(include).transpose()?;
        let userid = match &self.user {
            _ if self.all_users => u32::MAX,
            // Hosts and ranks are of interest whoever uses them.
            None if constraint.is_some() => u32::MAX,
            user => joblist::user_or_own(user.as_deref())?,
        };
        Ok(Query {
            attrs,
            filter: self.filter()?,
            userid,
            // One more tells whether there are more.
            max_entries: if self.limit() > 0 { self.limit() + 1 } else { self.limit() },
            since: self.since()?,
            name: self.name.clone(),
            queues: self.queue.clone(),
            constraint,
        })
    }

    fn filter(&self) -> Result<Filter, Failure> {
        if !self.filter.is_empty() {
            if self.all_states {
                warn("Both -a and --filter specified, ignoring -a");
            }
            return Filter::parse(&self.filter.join(","));
        }
        let all = self.all_states || self.since.is_some();
        Filter::parse(if all { "pending,running,inactive" } else { "pending,running" })
    }

    fn since(&self) -> Result<f64, Failure> {
        let Some(text) = &self.since else { return Ok(0.0) };
        let now = when::now();
        let since = match (when::parse(text, now), text.parse()) {
            (Ok(since), _) | (Err(_), Ok(since)) => since,
            (Err(e), Err(_)) => return Err(error(e)),
        };
        if since > now {
            return Err(error(format_args!("--since={text} appears to be in the future")));
        }
        Ok(since)
    }

    fn ids(&self) -> Result<Vec<(JobId, String)>, Failure> {
        let ids = self.jobids.iter().map(|text| match JobId::parse(text) {
            Ok(id) => Ok((id, text.clone())),
            Err(_) => Err(bad_id("flux-jobs", text)),
        });
        ids.collect()
    }

    fn limit(&self) -> i64 {
        self.count.unwrap_or(1000)
    }

    fn recurses(&self) -> bool {
        self.recursive || self.recurse_all
    }

    fn is_filtered(&self) -> bool {
        self.all_states
            || self.all_users
            || self.count.is_some()
            || !self.filter.is_empty()
            || self.since.is_some()
            || self.user.is_some()
            || self.name.is_some()
            || !self.queue.is_empty()
    }

    /// Where to cut lines off.
    fn columns(&self) -> Option<usize> {
        use std::io::IsTerminal;
        match self.width? {
            0 if std::io::stdout().is_terminal() => Some(term::output_columns()),
            width => usize::try_from(width).ok().filter(|width| *width > 0),
        }
    }
}

/// The complaint about an argument that is no job id, with the exit code of usage errors.
pub(crate) fn bad_id(command: &str, text: &str) -> Failure {
    eprintln!("{command}: error: argument JOBID: invalid JobID value: '{text}'");
    Failure::silent(2)
}

/// Ranks where it is an idset, else hosts.
fn include(text: &str) -> Result<Value, Failure> {
    if let Ok(ranks) = Idset::decode(text) {
        return Ok(json!({ "ranks": [ranks.encode()] }));
    }
    match Hostlist::decode(text) {
        Ok(hosts) => Ok(json!({ "hostlist": [hosts.to_string()] })),
        Err(_) => Err(error(format_args!("-i/--include: invalid targets: {text}"))),
    }
}

fn jobs_from_stdin() -> Result<Vec<JobInfo>, Failure> {
    let mut jobs = Vec::new();
    for (number, line) in std::io::stdin().lines().enumerate() {
        let line = line.map_err(|e| error(crate::failure::strerror(&e)))?;
        let bad =
            |reason: String| error(format_args!("JSON input error: line {}: {reason}", number + 1));
        let job = serde_json::from_str(&line).map_err(|e| bad(e.to_string()))?;
        jobs.push(JobInfo::new(job).ok_or_else(|| bad("not a job".to_owned()))?);
    }
    Ok(jobs)
}

fn error(text: impl std::fmt::Display) -> Failure {
    Failure::new(format_args!("ERROR: {text}"))
}

fn warn(text: &str) {
    eprintln!("flux-jobs: WARNING: {text}");
}

impl From<FormatError> for Failure {
    fn from(e: FormatError) -> Failure {
        error(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_format_is_one() {
        for builtin in FORMATS.builtin {
            Listing::parse(builtin.format, joblist::headings).unwrap();
        }
    }

    #[test]
    fn the_default_table_is_flux_s() {
        let listing = Listing::parse(FORMATS.builtin[0].format, joblist::headings).unwrap();
        let job = JobInfo::new(json!({
            "id": 1_234_567_890, "state": 8, "userid": 0, "name": "a-very-long-name",
            "ntasks": 1, "urgency": 0, "duration": 60.0,
        }))
        .unwrap();
        let lines = listing.lines(&mut [job], crate::listing::Print::default()).unwrap();
        assert_eq!(
            lines,
            [
                "       JOBID USER     NAME       ST NTASKS NNODES     TIME INFO",
                "     ƒ2t6V2H root     a-very-lo+  S      1      -       1m held",
            ]
        );
    }

    #[test]
    fn what_is_included_are_ranks_or_hosts() {
        assert_eq!(include("0-3").unwrap(), json!({ "ranks": ["0-3"] }));
        assert_eq!(include("a[1-2]").unwrap(), json!({ "hostlist": ["a[1-2]"] }));
        assert!(include("a[").is_err());
    }
}
