//! `flux pstree`: jobs of this instance, and of the instances that they are, as a tree.

use clap::Args;
use flux_client::Client;
use flux_protocol::fluid::JobId;
use serde_json::{Value as Json, json};

use super::jobs::bad_id;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::joblist::{self, Filter, JobInfo, Query};
use crate::listing::{Listing, Row, Value};
use crate::outln;

mod tree;

use self::tree::{Style, Tree};

/// Of `--details`.
const DETAILS: &[(&str, &str)] = &[
    (
        "default",
        "{id.f58:>12} {username:<8.8} {status_abbrev:>2.2} {ntasks:>6h} {nnodes:>6h} \
         {runtime!F:>8h}",
    ),
    (
        "resources",
        "{id.f58:>12} {instance.resources.all.nnodes:>5} \
         {instance.resources.allocated.nnodes:>5} {instance.resources.all.ncores:>5} \
         {instance.resources.allocated.ncores:>5} {instance.resources.all.ngpus:>5} \
         {instance.resources.allocated.ngpus:>5}",
    ),
    (
        "progress",
        "{id.f58:>12} {ntasks:>6h} {instance.stats.total:>6} {instance.progress!P:>5} \
         {instance.utilization!P:>5} {instance.gpu_utilization!P:>5} {runtime!H:>10}",
    ),
    ("stats", "{id.f58:>12} {instance.stats:^25} {runtime!H:>10}"),
];

#[derive(Debug, Args)]
#[command(override_usage = "flux-pstree [OPTIONS] [JOBID...]")]
pub(crate) struct Pstree {
    /// Include all jobs for current user in all states
    #[arg(short, long)]
    all: bool,
    /// Limit to N jobs per instance (default 1000)
    #[arg(short, long, value_name = "N", default_value_t = 1000)]
    count: i64,
    /// list jobs with specific job state or result
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Option<String>,
    /// print extended details before tree output
    #[arg(short = 'x', long)]
    extended: bool,
    /// do not truncate long lines to terminal width
    #[arg(short, long)]
    long: bool,
    /// only descend N levels
    #[arg(short = 'L', long, value_name = "N", default_value_t = 999)]
    level: u32,
    /// include jobids in parent labels
    #[arg(short, long)]
    parent_ids: bool,
    /// Suppress header with -x, --extended
    #[arg(short, long)]
    no_header: bool,
    /// disable combination of identical children
    #[arg(short = 'X', long)]
    no_combine: bool,
    /// change label format (default='{name}')
    #[arg(short = 'o', long, value_name = "FORMAT")]
    label: Option<String>,
    /// change label format for parent only
    #[arg(long, value_name = "FORMAT")]
    parent_label: Option<String>,
    /// specify output format for extended details (implies -x, --extended)
    #[arg(long, value_name = "FORMAT")]
    detail_format: Option<String>,
    /// Select a named extended details format (default,resources,progress,stats)
    #[arg(short, long, value_name = "NAME")]
    details: Option<String>,
    /// Use compact tree connectors
    #[arg(short = 'C', long)]
    compact: bool,
    /// Use ASCII character tree connectors
    #[arg(long)]
    ascii: bool,
    /// suppress or include the enclosing instance in output. Default is 'no' unless the -x,
    /// --extended or -d, --details options are used.
    #[arg(long, value_name = "[yes|no]", value_parser = ["yes", "no"])]
    skip_root: Option<String>,
    /// Limit output to specific jobids
    #[arg(value_name = "JOBID")]
    jobids: Vec<String>,
}

/// Formats of what stands in a tree.
struct Labels {
    label: Listing,
    parent: Listing,
    details: Option<Listing>,
}

/// The enclosing instance where it is nobody's job.
struct Root(JobInfo);

impl Pstree {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let mut ids = Vec::new();
        for text in &self.jobids {
            let id = JobId::parse(text).map_err(|_| bad_id("flux-pstree", text))?;
            ids.push((id, text.clone()));
        }
        if self.ascii && self.compact {
            return Err(error("Choose only one of --ascii, --compact"));
        }
        let labels = self.labels()?;
        let skip_root = match self.skip_root.as_deref() {
            Some(answer) => answer == "yes",
            None => labels.details.is_some() || !ids.is_empty(),
        };
        let flux = context.connect().await?;
        let mut tree = if skip_root {
            Tree::new(".", "")
        } else {
            let root = Root(root_job(&context, &flux).await?);
            Tree::new(labels.parent.line(&root)?, labels.prefix(&root)?)
        };
        self.fill(&mut tree, &context, &flux, &labels, 0, skip_root, &ids).await?;
        if let (Some(details), false) = (&labels.details, self.no_header) {
            outln!("{}", details.header());
        }
        let style = match (self.compact, self.ascii) {
            (true, _) => Style::Compact,
            (_, true) => Style::Ascii,
            _ => Style::Box,
        };
        let width = (!self.long).then(columns);
        for line in tree.render(style, skip_root) {
            outln!("{}", crate::listing::cut_off(line, width));
        }
        Ok(0)
    }

    fn labels(&self) -> Result<Labels, Failure> {
        let parse = |format: &str| Listing::parse(format, joblist::headings);
        let default = if self.all { "{name}:{status_abbrev}" } else { "{name}" };
        let label = self.label.as_deref().unwrap_or(default);
        let parent = self.parent_label.as_deref().or(self.label.as_deref()).unwrap_or("{name}");
        let parent = match self.parent_ids {
            true => format!("{{id.f58}} {parent}"),
            false => parent.to_owned(),
        };
        let details = match (&self.detail_format, &self.details, self.extended) {
            (Some(format), _, _) => Some(format.as_str()),
            (None, None, false) => None,
            (None, name, _) => {
                let name = name.as_deref().unwrap_or("default");
                let found = DETAILS.iter().find(|(known, _)| *known == name);
                let unknown = || error(format_args!("Unknown --details format '{name}'"));
                Some(found.ok_or_else(unknown)?.1)
            }
        };
        Ok(Labels {
            label: parse(label)?,
            parent: parse(&parent)?,
            details: details.map(parse).transpose()?,
        })
    }

    /// Add the jobs of an instance. It may not be up, or be somebody else's: then there are none.
    #[allow(clippy::too_many_arguments)]
    async fn fill(
        &self,
        tree: &mut Tree,
        context: &Context,
        flux: &Client,
        labels: &Labels,
        level: u32,
        skip_root: bool,
        ids: &[(JobId, String)],
    ) -> Result<(), Failure> {
        if level > self.level {
            return Ok(());
        }
        let filter = match (&self.filter, self.all) {
            // The filter is for what is below the first instance that is shown.
            _ if level == 0 && skip_root => "running",
            (_, true) => "pending,running,inactive",
            (Some(filter), false) => filter,
            (None, false) => "running",
        };
        let query =
            Query { filter: Filter::parse(filter)?, max_entries: self.count, ..Query::default() };
        let jobs = if ids.is_empty() {
            query.list(flux).await
        } else {
            query.list_ids(flux, ids).await.map(|(jobs, errors)| {
                for text in errors {
                    eprintln!("{text}");
                }
                jobs
            })
        };
        for mut job in jobs.unwrap_or_default() {
            if labels.need_instance() {
                job.ask_instance(context).await;
            }
            let parent = job.is_instance();
            let label = if parent { &labels.parent } else { &labels.label };
            let mut child = Tree::new(label.line(&job)?, labels.prefix(&job)?);
            if let (true, Some(uri)) = (parent, job.uri())
                && let Ok(inner) = context.connect_to(uri).await
            {
                let below =
                    self.fill(&mut child, context, &inner, labels, level + 1, skip_root, &[]);
                Box::pin(below).await?;
            }
            tree.push(child, !self.no_combine);
        }
        Ok(())
    }
}

impl Labels {
    fn need_instance(&self) -> bool {
        let mut all = [&self.label, &self.parent].into_iter().chain(&self.details);
        all.any(|listing| joblist::needs_instance(&listing.fields()))
    }

    fn prefix<R: Row>(&self, job: &R) -> Result<String, Failure> {
        match &self.details {
            Some(details) => Ok(details.line(job)?),
            None => Ok(String::new()),
        }
    }
}

impl Row for Root {
    fn field(&self, name: &str) -> Value {
        if self.0.id.0 == 0 && (name == "id" || name.starts_with("id.")) {
            return Value::from(".");
        }
        self.0.field(name)
    }
}

/// The job that this instance is, or something like it.
async fn root_job(context: &Context, flux: &Client) -> Result<JobInfo, Failure> {
    let size: u32 =
        flux.attr("size").await.map_err(error)?.parse().map_err(|_| error("bad size"))?;
    if let (Ok(id), Ok(parent)) = (flux.attr("jobid").await, flux.attr("parent-uri").await)
        && let (Ok(parent), Ok(id)) = (context.connect_to(&parent).await, JobId::parse(&id))
        && let Ok((jobs, _)) = Query::default().list_ids(&parent, &[(id, String::new())]).await
        && let Some(mut job) = jobs.into_iter().next()
    {
        job.ask_instance(context).await;
        return Ok(job);
    }
    let text = async |name: &str| flux.attr(name).await.unwrap_or_default();
    let job = json!({
        "id": 0,
        "userid": text("security.owner").await.parse::<u32>().unwrap_or_default(),
        "state": 16,
        "name": ".",
        "ntasks": size,
        "nnodes": size,
        "nodelist": text("hostlist").await,
        "ranks": format!("0-{}", size.saturating_sub(1)),
        "t_run": text("broker.starttime").await.parse::<f64>().unwrap_or_default(),
        "annotations": { "user": { "uri": text("local-uri").await } },
    });
    let mut job = JobInfo::new(job).ok_or_else(|| error(Json::Null))?;
    job.ask_instance(context).await;
    Ok(job)
}

/// Of the terminal, else COLUMNS, else 132.
fn columns() -> usize {
    use std::io::IsTerminal;
    if std::io::stdout().is_terminal() || std::env::var_os("COLUMNS").is_some() {
        crate::term::output_columns()
    } else {
        132
    }
}

fn error(text: impl std::fmt::Display) -> Failure {
    Failure::new(format_args!("ERROR: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_formats() {
        for (_, format) in DETAILS {
            Listing::parse(format, joblist::headings).unwrap();
        }
    }
}
