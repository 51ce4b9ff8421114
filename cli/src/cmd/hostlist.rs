//! `flux hostlist`: fetch, combine and take apart lists of hosts.

use std::io::Read;
use std::os::fd::AsFd as _;
use std::time::Duration;

use clap::{ArgGroup, Args};
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::hostlist::{HostIndex, Hostlist};
use flux_protocol::idset::Idset;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::Empty;
use flux_protocol::r::ResourceSet;
use flux_protocol::rpc::{job_list, resource};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{outln, target};

#[derive(Debug, Args)]
#[command(
    override_usage = "flux-hostlist [OPTIONS] [SOURCES ...]",
    group(ArgGroup::new("form").args(["expand", "count"])),
    group(ArgGroup::new("operation").args(["intersect", "minus", "xor"])),
    after_help = "SOURCES may include:
instance     hosts from the broker 'hostlist' attribute.
jobid        hosts assigned to a job
local        hosts assigned to current job if FLUX_JOB_ID is set, otherwise
             returns the 'instance' hostlist
avail[able]  instance hostlist minus those nodes down or drained
stdin, '-'   read a list of hosts on stdin
hosts        literal list of hosts

The default when no SOURCES are supplied is 'stdin', unless the -l, --local
option is used, in which case the default is 'local'."
)]
pub(crate) struct HostlistArgs {
    /// Expand hostlist using defined output delimiter
    #[arg(short, long)]
    expand: bool,
    /// Set output delimiter for expanded hostlist (default=' ')
    #[arg(short, long, value_name = "S", default_value = " ")]
    delimiter: String,
    /// Print the total number of hosts
    #[arg(short, long)]
    count: bool,
    /// Output hosts at indices in idset IDS (-IDS to index from end)
    #[arg(short, long, value_name = "[-]IDS", allow_hyphen_values = true)]
    nth: Option<String>,
    /// Output indices of HOSTS in target in hostlist. Fails if any host is not found.
    #[arg(short = 'F', long, value_name = "HOSTS")]
    find: Option<String>,
    /// Output at most N hosts (-N for the last N hosts)
    #[arg(short = 'L', long, value_name = "N", allow_negative_numbers = true)]
    limit: Option<i64>,
    /// Return sorted result
    #[arg(short = 'S', long)]
    sort: bool,
    /// Exclude all occurrences of HOSTS or indices from final result
    #[arg(short = 'x', long, value_name = "IDS|HOSTS")]
    exclude: Option<String>,
    /// Return only unique hosts in the final hostlist. Without other options, this is the same as
    /// the union of all hostlist args (default mode is append).
    #[arg(short, long, alias = "unique")]
    union: bool,
    /// Return the intersection of all hostlists
    #[arg(short, long)]
    intersect: bool,
    /// Subtract all hostlist args from first argument
    #[arg(short, long)]
    minus: bool,
    /// Return the symmetric difference of all hostlists
    #[arg(short = 'X', long)]
    xor: bool,
    /// Fallback to treating jobids that are not found as hostnames (for hostnames that are also
    /// valid jobids e.g. f1, fuzz100, etc)
    #[arg(short, long)]
    fallback: bool,
    /// Set the default source to 'local' instead of 'stdin'
    #[arg(short, long)]
    local: bool,
    /// No output. Exit with nonzero exit status if hostlist is empty
    #[arg(short, long)]
    quiet: bool,
    sources: Vec<String>,
}

/// Where lists come from; connects to the instance when one is asked for.
struct Sources<'a> {
    context: &'a Context,
    flux: OnceCell<Client>,
    fallback: bool,
}

impl HostlistArgs {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let sources = Sources { context: &context, flux: OnceCell::new(), fallback: self.fallback };
        let names = match (self.sources.is_empty(), self.local) {
            (false, _) => self.sources.clone(),
            (true, true) => vec!["local".to_owned()],
            (true, false) => vec!["stdin".to_owned()],
        };
        let mut lists = Vec::new();
        for name in &names {
            lists.push(sources.get(name).await?);
        }
        let mut hosts = self.combine(lists);
        if let Some(exclude) = &self.exclude {
            hosts = without(&hosts, exclude)?;
        }
        if self.sort {
            hosts.sort();
        }
        if self.union {
            hosts.uniq();
        }
        if let Some(limit) = self.limit.filter(|limit| *limit != 0) {
            hosts = limited(&hosts, limit);
        }
        if let Some(nth) = &self.nth {
            hosts = nth_of(&hosts, nth)?;
        }
        let text = self.show(&hosts)?;
        match (self.quiet, hosts.is_empty(), text) {
            (true, true, _) => Err(Failure::silent(1)),
            (false, _, Some(text)) => {
                outln!("{text}");
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    fn combine(&self, lists: Vec<Hostlist>) -> Hostlist {
        let mut lists = lists.into_iter();
        let mut hosts = lists.next().unwrap_or_default();
        for list in lists {
            if self.intersect {
                hosts = keep(&hosts, &list, true);
                hosts.uniq();
            } else if self.xor {
                let mut only = keep(&hosts, &list, false);
                only.append_list(&keep(&list, &hosts, false));
                only.uniq();
                hosts = only;
            } else if self.minus {
                hosts.delete_list(&list);
            } else {
                hosts.append_list(&list);
            }
        }
        hosts
    }

    fn show(&self, hosts: &Hostlist) -> Result<Option<String>, Failure> {
        if let Some(find) = &self.find {
            let indices = hosts.indices(find).map_err(error)?;
            let indices: Vec<String> = indices.iter().map(u64::to_string).collect();
            return Ok(Some(indices.join(" ")));
        }
        if self.count {
            return Ok(Some(hosts.count().to_string()));
        }
        if hosts.is_empty() {
            return Ok(None);
        }
        if self.expand {
            let delimiter = self.delimiter.replace("\\n", "\n");
            let names: Vec<String> = hosts.iter().collect();
            return Ok(Some(names.join(&delimiter)));
        }
        Ok(Some(hosts.encode()))
    }
}

impl Sources<'_> {
    async fn get(&self, name: &str) -> Result<Hostlist, Failure> {
        match name {
            "instance" => self.instance().await,
            "local" => self.local().await,
            "stdin" | "-" => stdin(),
            "avail" | "available" => self.available().await,
            name => match JobId::parse(name) {
                Ok(id) => self.job(name, id).await,
                Err(_) => Hostlist::decode(name)
                    .map_err(|_| error(format_args!("Invalid jobid or hostlist {name}"))),
            },
        }
    }

    async fn flux(&self) -> Result<&Client, Failure> {
        self.flux.get_or_try_init(|| self.context.connect()).await
    }

    async fn instance(&self) -> Result<Hostlist, Failure> {
        target::hostlist(self.flux().await?).await.map_err(error)
    }

    async fn local(&self) -> Result<Hostlist, Failure> {
        match self.context.env.get("FLUX_JOB_ID") {
            Some(jobid) => {
                let id = JobId::parse(jobid).map_err(error)?;
                self.job(jobid, id).await
            }
            None => self.instance().await,
        }
    }

    async fn job(&self, name: &str, id: JobId) -> Result<Hostlist, Failure> {
        let request =
            job_list::ListIdRequest { id, attrs: vec!["nodelist".to_owned()], state: None };
        let flux = self.flux().await?;
        match flux.rpc::<job_list::ListId>(Nodeid::ANY, &request).await {
            Ok(response) => {
                let nodelist = response.job.get("nodelist").and_then(Value::as_str);
                Hostlist::decode(nodelist.unwrap_or_default()).map_err(error)
            }
            Err(e) if e.errno() == Errno::ENOENT && self.fallback => {
                Hostlist::decode(name).map_err(error)
            }
            Err(e) if e.errno() == Errno::ENOENT => {
                Err(error(format_args!("job {name} not found")))
            }
            Err(e) => Err(error(format_args!("job {name}: {e}"))),
        }
    }

    /// The local hosts at ranks that are neither down, drained nor excluded.
    async fn available(&self) -> Result<Hostlist, Failure> {
        let hosts = self.local().await?;
        let status =
            self.flux().await?.rpc::<resource::Status>(Nodeid(0), &Empty).await.map_err(error)?;
        let resources = ResourceSet::decode(&status.r.to_string()).map_err(error)?;
        let mut ranks = resources.ranks();
        let gone = status.drain.keys().chain([&status.offline, &status.exclude]);
        for ids in gone {
            ranks.subtract(&Idset::decode(ids).map_err(error)?);
        }
        Ok(ranks.iter().filter_map(|rank| hosts.nth(u64::from(rank))).collect())
    }
}

/// Who is asked for hosts by mistake may wait for ever: some say so after a while.
fn wait_for_stdin() -> Result<(), Failure> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let seconds = std::env::var("FLUX_HOSTLIST_STDIN_TIMEOUT").ok();
    let seconds = seconds.and_then(|text| text.parse::<f64>().ok()).unwrap_or(15.0);
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let input = std::io::stdin();
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, limit) {
        Ok(0) => Err(error(format_args!("timeout after {seconds:?}s waiting for stdin"))),
        Ok(_) => Ok(()),
        Err(errno) => Err(error(errno.desc())),
    }
}

fn stdin() -> Result<Hostlist, Failure> {
    wait_for_stdin()?;
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(|e| error(strerror(&e)))?;
    let mut hosts = Hostlist::new();
    for line in text.lines() {
        hosts.append(line.trim_end()).map_err(error)?;
    }
    Ok(hosts)
}

/// The hosts of `hosts` that are, or are not, in `other`.
fn keep(hosts: &Hostlist, other: &Hostlist, present: bool) -> Hostlist {
    let index = HostIndex::new(other);
    hosts.iter().filter(|host| index.find(host).is_some() == present).collect()
}

/// Without all occurrences of some hosts, or if there are none, without those at some indices.
fn without(hosts: &Hostlist, exclude: &str) -> Result<Hostlist, Failure> {
    let list = Hostlist::decode(exclude).map_err(error)?;
    let rest = keep(hosts, &list, false);
    if rest.count() < hosts.count() {
        return Ok(rest);
    }
    let Ok(indices) = Idset::decode(exclude) else { return Ok(rest) };
    let kept = (0..).zip(hosts.iter()).filter(|(index, _)| !indices.contains(*index));
    Ok(kept.map(|(_, host)| host).collect())
}

/// The first hosts, or the last ones.
fn limited(hosts: &Hostlist, limit: i64) -> Hostlist {
    let many = usize::try_from(limit.unsigned_abs()).unwrap_or(usize::MAX);
    let count = usize::try_from(hosts.count()).unwrap_or(usize::MAX);
    let skip = if limit > 0 { 0 } else { count.saturating_sub(many) };
    hosts.iter().skip(skip).take(many).collect()
}

/// The hosts at some indices, from the end where there is a minus sign.
fn nth_of(hosts: &Hostlist, text: &str) -> Result<Hostlist, Failure> {
    let (from_end, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let ids = Idset::decode(text).map_err(error)?;
    let out_of_range = || error("Hostlist index out of range");
    let at = |index: u64| hosts.nth(index).ok_or_else(out_of_range);
    if from_end {
        let count = hosts.count();
        let index = |id: u32| count.checked_sub(u64::from(id)).ok_or_else(out_of_range);
        ids.iter().rev().map(|id| at(index(id)?)).collect()
    } else {
        ids.iter().map(|id| at(u64::from(id))).collect()
    }
}

fn error(reason: impl std::fmt::Display) -> Failure {
    Failure::new(format_args!("ERROR: {reason}"))
}
