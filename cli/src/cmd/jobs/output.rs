//! Tables and JSON of jobs, with those of the instances that they are.

use serde_json::value::RawValue;

use super::{Jobs, error};
use crate::context::Context;
use crate::failure::Failure;
use crate::joblist::{JobInfo, JobStats};
use crate::json_text::spaced;
use crate::listing::{Listing, cut_off};
use crate::term::sgr;
use crate::{jobid, outln};

/// A job of an instance, with its URI.
struct Child {
    path: String,
    uri: String,
}

impl Jobs {
    /// `path` leads to the instance whose jobs these are.
    pub(super) async fn print(
        &self,
        context: &Context,
        listing: &Listing,
        mut jobs: Vec<JobInfo>,
        path: String,
        level: u32,
    ) -> Result<(), Failure> {
        let color = self.color.stdout();
        listing.sort(&mut jobs);
        let mut children = Vec::new();
        for job in &jobs {
            let line = cut_off(listing.line(job)?, self.columns());
            if line.trim().is_empty() {
                continue;
            }
            match color_of(job).filter(|_| color) {
                Some(sequence) => outln!("{sequence}{line}{RESET}"),
                None => outln!("{line}"),
            }
            if self.recurses() && self.descends_into(job) {
                let path = match path.as_str() {
                    "" => jobid::f58(job.id),
                    path => format!("{path}/{}", jobid::f58(job.id)),
                };
                children.push(Child { path, uri: job.uri().unwrap_or_default().to_owned() });
            }
        }
        if level == self.level {
            return Ok(());
        }
        for Child { path, uri } in children {
            let (jobs, stats) = self.jobs_of(context, listing, &uri).await;
            outln!("\n{path}:");
            if let Some(stats) = stats {
                outln!(
                    "{} running, {} completed, {} failed, {} pending",
                    stats.running,
                    stats.successful,
                    stats.failed,
                    stats.pending
                );
            }
            Box::pin(self.print(context, listing, jobs, path, level + 1)).await?;
        }
        Ok(())
    }

    /// Those of an instance. It may not be up, or be somebody else's: then there are none.
    async fn jobs_of(
        &self,
        context: &Context,
        listing: &Listing,
        uri: &str,
    ) -> (Vec<JobInfo>, Option<JobStats>) {
        let Ok(flux) = context.connect_to(uri).await else { return (Vec::new(), None) };
        let Ok(query) = self.query(listing) else { return (Vec::new(), None) };
        let found = self.fetch(context, &flux, listing, &query, &[]).await;
        let stats = match self.stats {
            true => JobStats::fetch(&flux, &[]).await.ok(),
            false => None,
        };
        (found.map(|found| found.jobs).unwrap_or_default(), stats)
    }

    fn descends_into(&self, job: &JobInfo) -> bool {
        let own = job.int("userid") == Some(i64::from(nix::unistd::getuid().as_raw()));
        job.is_instance() && (self.recurse_all || own)
    }

    /// All jobs in one object, or the one job that was asked for.
    pub(super) async fn print_json(
        &self,
        context: &Context,
        listing: &Listing,
        jobs: Vec<JobInfo>,
    ) -> Result<(), Failure> {
        let mut texts = Vec::with_capacity(jobs.len());
        for job in &jobs {
            let mut members = member_texts(job);
            if self.recurses() && self.descends_into(job) && self.level > 0 {
                let (inner, _) =
                    self.jobs_of(context, listing, job.uri().unwrap_or_default()).await;
                let inner: Vec<String> = inner.iter().map(job_text).collect();
                members.push(format!("\"jobs\":[{}]", inner.join(",")));
            }
            texts.push(format!("{{{}}}", members.join(",")));
        }
        let text = match texts.as_slice() {
            [one] if self.jobids.len() == 1 => one.clone(),
            [] if self.jobids.len() == 1 => return Ok(()),
            all => format!("{{\"jobs\":[{}]}}", all.join(",")),
        };
        let raw = RawValue::from_string(text).map_err(error)?;
        outln!("{}", spaced(&raw));
        Ok(())
    }
}

const RESET: &str = "\x1b[0;0m";

/// By result, and for instances.
fn color_of(job: &JobInfo) -> Option<&'static str> {
    match job.result().map(|result| result.name()) {
        Some("COMPLETED") => Some("\x1b[01;32m"),
        Some("CANCELED") => Some(sgr::GRAY),
        Some(_) => Some("\x1b[01;31m"),
        None => job.uri().map(|_| sgr::BOLD_BLUE),
    }
}

fn job_text(job: &JobInfo) -> String {
    format!("{{{}}}", member_texts(job).join(","))
}

fn member_texts(job: &JobInfo) -> Vec<String> {
    let members = job.to_json().into_iter();
    members.map(|(name, value)| format!("\"{name}\":{value}")).collect()
}
