//! `flux pgrep` and `flux pkill`: find jobs by name or range of ids, and cancel them.

use clap::Args;
use flux_client::Client;
use flux_protocol::fluid::JobId;
use regex_lite::Regex;

use super::cancel::{cancel, count};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::joblist::{self, Filter, JobInfo, Query};
use crate::listing::named::{Builtin, Formats};
use crate::listing::{Listing, Print};
use crate::{jobid, jobwatch};

const DEFAULT: &str = "{id.f58}";

const FORMATS: Formats = Formats {
    command: "flux-pgrep",
    subcommand: None,
    tables: &[],
    builtin: &[
        Builtin {
            name: "default",
            description: "Default flux-pgrep format string",
            format: DEFAULT,
        },
        Builtin {
            name: "full",
            description: "full flux-pgrep format string",
            format: "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} \
                     {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6h} \
                     {contextual_time!F:>8h} {contextual_info}",
        },
        Builtin {
            name: "long",
            description: "Extended flux-pgrep format string",
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
    ],
};

// Doc comments of flattened arguments would become those of the command.
#[derive(Debug, Args)]
struct Search {
    /// Target all users
    #[arg(short = 'A')]
    all_users: bool,
    /// Limit output to specific username or userid (Specify "all" for all users)
    #[arg(short, long, value_name = "[USERNAME|UID]")]
    user: Option<String>,
    /// List jobs with specific job state or result
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Vec<String>,
    /// Limit output to specific queue or queues
    #[arg(short, long, value_name = "QUEUE,...", value_delimiter = ',')]
    queue: Vec<String>,
    /// Limit output to the first N matches
    #[arg(short, long, value_name = "N", default_value_t = 99999)]
    count: usize,
    /// Limit number of searched jobs to N entries (default: 1000)
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_entries: i64,
    /// job name pattern or id range
    #[arg(value_name = "EXPRESSION", required = true)]
    expression: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-pgrep [OPTIONS] EXPRESSION...")]
pub(crate) struct Pgrep {
    /// Target jobs in all states
    #[arg(short = 'a')]
    all_states: bool,
    #[command(flatten)]
    search: Search,
    /// Suppress printing of header line
    #[arg(short, long)]
    no_header: bool,
    /// Specify output format using Python's string format syntax or a defined format by name (use
    /// 'help' to get a list of names)
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "default")]
    format: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "flux-pkill [OPTIONS] EXPRESSION...")]
pub(crate) struct Pkill {
    /// Target jobs in all states
    #[arg(short = 'a', hide = true)]
    all_states: bool,
    #[command(flatten)]
    search: Search,
    /// Wait for jobs to finish after cancel
    #[arg(long)]
    wait: bool,
}

/// What jobs are searched by.
#[derive(Debug, Default)]
struct Expression {
    name: Option<Regex>,
    ids: Option<(JobId, JobId)>,
}

impl Pgrep {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let formats = Formats { command: "flux-jobs", ..FORMATS };
        let chosen = match (self.format.as_str(), context.env.get("FLUX_PGREP_FORMAT_DEFAULT")) {
            ("default", Some(format)) => format.to_owned(),
            _ => self.format.clone(),
        };
        let format = match chosen.as_str() {
            // Not what FLUX_JOBS_FORMAT_DEFAULT says.
            "default" => DEFAULT.to_owned(),
            chosen => match formats.choose(&context.env, chosen)? {
                Some(format) => format,
                None => return Ok(0),
            },
        };
        let listing = Listing::parse(&format, joblist::headings)
            .map_err(|e| error(format_args!("Error in user format: {e}")))?;
        let expression = Expression::parse(&self.search.expression, "flux-pgrep")?;
        let flux = context.connect().await?;
        let attrs = joblist::attributes(listing.fields().into_iter().chain(["name"]));
        let mut jobs = self.search.find(&flux, &expression, attrs, self.all_states).await?;
        if jobs.is_empty() {
            return Err(Failure::silent(1));
        }
        if joblist::needs_instance(&listing.fields()) {
            for job in &mut jobs {
                job.ask_instance(&context).await;
            }
        }
        let no_header = self.no_header || format == DEFAULT;
        listing.print(&mut jobs, Print { no_header, width: None })?;
        Ok(0)
    }
}

impl Pkill {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let expression = Expression::parse(&self.search.expression, "flux-pkill")?;
        let flux = context.connect().await?;
        let attrs = vec!["name".to_owned()];
        let jobs = self.search.find(&flux, &expression, attrs, self.all_states).await?;
        if jobs.is_empty() {
            return Err(Failure::silent(1));
        }
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let errors = cancel(&flux, &ids, None).await?;
        for (id, reason) in &errors {
            eprintln!("flux-pkill: ERROR: {}: cancel: {reason}", jobid::f58(*id));
        }
        if self.wait {
            for id in ids.iter().filter(|id| !errors.iter().any(|(failed, _)| failed == *id)) {
                jobwatch::result(&flux, *id).await.map_err(error)?;
            }
        }
        let canceled = (ids.len() - errors.len()) as u64;
        eprintln!("flux-pkill: INFO: Canceled {}", count(canceled, "job"));
        Ok(u8::from(!errors.is_empty()))
    }
}

impl Search {
    async fn find(
        &self,
        flux: &Client,
        expression: &Expression,
        attrs: Vec<String>,
        all_states: bool,
    ) -> Result<Vec<JobInfo>, Failure> {
        let mut filter = self.filter.join(",");
        if all_states {
            filter = ["pending,running,inactive", &filter].join(",");
        } else if filter.is_empty() {
            filter.push_str("pending,running");
        }
        let query = Query {
            attrs,
            filter: Filter::parse(filter.trim_end_matches(','))?,
            userid: match self.all_users {
                true => u32::MAX,
                false => joblist::user_or_own(self.user.as_deref())?,
            },
            max_entries: self.max_entries,
            queues: self.queue.clone(),
            ..Query::default()
        };
        let mut jobs = query.list(flux).await.map_err(error)?;
        jobs.retain(|job| expression.matches(job));
        jobs.truncate(self.count);
        Ok(jobs)
    }
}

impl Expression {
    /// Exit code 2 tells that there is something wrong with the expression.
    fn parse(words: &[String], command: &str) -> Result<Expression, Failure> {
        let bad = |reason: String| {
            eprintln!("{command}: ERROR: expression error: {reason}");
            Failure::silent(2)
        };
        let mut expression = Expression::default();
        for word in words {
            if let Some((first, last)) = word.split_once("..").filter(|_| !word.contains(':'))
                && let (Ok(first), Ok(last)) = (JobId::parse(first), JobId::parse(last))
            {
                expression.ids = Some((first, last));
                continue;
            }
            if expression.name.is_some() {
                return Err(bad("Only one pattern can be provided".to_owned()));
            }
            let pattern = word.strip_prefix("name:").unwrap_or(word);
            expression.name = Some(Regex::new(pattern).map_err(|e| bad(e.to_string()))?);
        }
        Ok(expression)
    }

    fn matches(&self, job: &JobInfo) -> bool {
        let name = self.name.as_ref().is_none_or(|regex| regex.is_match(job.str("name")));
        name && self.ids.is_none_or(|(first, last)| (first..=last).contains(&job.id))
    }
}

fn error(text: impl std::fmt::Display) -> Failure {
    Failure::new(format_args!("ERROR: {text}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(words: &[&str], id: u64, name: &str) -> bool {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let job = JobInfo::new(json!({ "id": id, "name": name })).unwrap();
        Expression::parse(&words, "test").unwrap().matches(&job)
    }

    #[test]
    fn names_match_anywhere_and_ids_in_a_range() {
        assert!(matches(&["leep"], 1, "sleep") && !matches(&["^leep"], 1, "sleep"));
        assert!(matches(&["name:a..b"], 1, "a--b") && matches(&["x..y"], 1, "x--y"));
        assert!(matches(&["1..3"], 3, "x") && !matches(&["1..3"], 4, "x"));
        assert!(matches(&["1..0x9", "x"], 3, "x") && !matches(&["1..9", "x"], 3, "y"));
    }

    #[test]
    fn there_is_one_pattern() {
        let words = ["a".to_owned(), "b".to_owned()];
        assert!(Expression::parse(&words, "test").is_err());
        assert!(Expression::parse(&["(".to_owned()], "test").is_err());
    }
}
