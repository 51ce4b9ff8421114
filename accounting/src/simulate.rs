//! What if shares were others: run the jobs of an archive again, on paper.
//!
//! The machine is a pool of cores. Jobs come when they came, need what they had and run as long as
//! they ran; the next is the first of those whose user has the highest fair share, and while it does
//! not fit, it holds the others up. Fair shares are calculated every so often, from usage that
//! begins with nothing and is halved with every week. Urgencies, limits, queues and dependencies are
//! left out: what can be told are differences between two settings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt::Write as _;

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::fairshare::{self, Node};
use crate::records::{self, Record};
use crate::{schema, usage};

/// What is to be found out.
#[derive(Debug)]
pub(crate) struct Question {
    /// Shares of banks (`BANK`) and users (`USER@BANK`) that are to be tried.
    pub(crate) shares: Vec<(String, u64)>,
    /// Size of the machine; by default all cores that jobs of the archive have had.
    pub(crate) cores: Option<u64>,
    /// Seconds from one calculation of fair shares to the next.
    pub(crate) interval: u32,
}

/// An association, by its place in a list.
type Index = usize;

#[derive(Debug, Clone)]
struct Job {
    account: Index,
    submitted: f64,
    waited: f64,
    lasts: f64,
    cores: u64,
    usage: f64,
}

#[derive(Debug, Default)]
struct Workload {
    /// User and bank.
    accounts: Vec<(String, String)>,
    /// In the order in which they were submitted.
    jobs: Vec<Job>,
    /// Jobs that nobody is charged for.
    foreign: usize,
    cores: u64,
}

/// `flux account simulate`
pub(crate) fn run(
    db: &Connection,
    archive: &Connection,
    question: &Question,
    out: &mut String,
) -> Result<()> {
    let mut workload = load(db, archive)?;
    let cores = question.cores.unwrap_or(workload.cores);
    let before = workload.jobs.len();
    workload.jobs.retain(|job| job.cores <= cores);
    let too_large = before - workload.jobs.len();
    let present = fairshare::load(db)?;
    let mut proposed = present.clone();
    for (name, shares) in &question.shares {
        if !set_shares(&mut proposed, None, name, *shares) {
            return Err(Error::text(format!("{name}: no such active bank, or USER@BANK")));
        }
    }
    let interval = f64::from(question.interval.max(1));
    let mut columns = vec![workload.jobs.iter().map(|job| job.waited).collect()];
    columns.push(replay(&workload, present, cores, interval));
    if !question.shares.is_empty() {
        columns.push(replay(&workload, proposed, cores, interval));
    }
    print(&workload, &columns, out);
    // A String takes all that is written to it.
    let _ = writeln!(out, "\n{} jobs on {cores} cores; mean waits in seconds", workload.jobs.len());
    for (count, why) in
        [(workload.foreign, "of users who are in no bank"), (too_large, "of more cores than that")]
    {
        if count > 0 {
            let _ = writeln!(out, "left out: {count} jobs {why}");
        }
    }
    Ok(())
}

fn load(db: &Connection, archive: &Connection) -> Result<Workload> {
    let mut workload = Workload::default();
    let mut known: HashMap<(i64, String), Index> = HashMap::new();
    let mut defaults: HashMap<i64, Index> = HashMap::new();
    for account in usage::accounts(db)? {
        let Some(userid) = account.userid else { continue };
        let index = workload.accounts.len();
        if account.is_default_bank {
            defaults.insert(userid, index);
        }
        known.insert((userid, account.bank.clone()), index);
        workload.accounts.push((account.username, account.bank));
    }
    let mut seen = BTreeMap::new();
    records::that_ran(archive, |record| {
        for (rank, cores) in record.cores() {
            let most = seen.entry(rank).or_insert(cores);
            *most = cores.max(*most);
        }
        let account = match record.bank() {
            Some(bank) => known.get(&(record.userid, bank)),
            None => defaults.get(&record.userid),
        };
        match account {
            None => workload.foreign += 1,
            Some(account) => workload.jobs.push(job(*account, &record)),
        }
    })?;
    workload.cores = seen.values().sum();
    workload.jobs.sort_by(|a, b| a.submitted.total_cmp(&b.submitted));
    Ok(workload)
}

fn job(account: Index, record: &Record) -> Job {
    Job {
        account,
        submitted: record.t_submit,
        waited: (record.t_run - record.t_submit).max(0.0),
        lasts: (record.t_inactive - record.t_run).max(0.0),
        cores: record.cores().iter().map(|(_, cores)| cores).sum(),
        usage: record.usage(),
    }
}

/// Whether there is a bank or user of that name.
fn set_shares(node: &mut Node, bank: Option<&str>, name: &str, shares: u64) -> bool {
    let matches = match (node.is_user, bank) {
        (true, Some(bank)) => name == format!("{}@{bank}", node.name),
        _ => node.name == name,
    };
    if matches {
        node.shares = shares;
        return true;
    }
    let Node { name: bank, children, .. } = node;
    children.iter_mut().any(|child| set_shares(child, Some(bank), name, shares))
}

/// Seconds that each job waits.
fn replay(workload: &Workload, tree: Node, cores: u64, interval: f64) -> Vec<f64> {
    let mut machine = Machine {
        workload,
        tree,
        free: cores,
        used: vec![0.0; workload.accounts.len()],
        fairshare: vec![0.0; workload.accounts.len()],
        pending: vec![VecDeque::new(); workload.accounts.len()],
        running: BinaryHeap::new(),
        waits: vec![0.0; workload.jobs.len()],
    };
    let begin = workload.jobs.first().map_or(0.0, |job| job.submitted);
    let (mut next_update, mut next_week) = (begin, begin + schema::WEEK);
    let mut submissions = workload.jobs.iter().enumerate().peekable();
    loop {
        let submitted = submissions.peek().map(|(_, job)| job.submitted);
        let ended = machine.running.peek().map(|Reverse((Time(time), _))| *time);
        let now = match (submitted, ended) {
            (None, None) => break,
            (Some(time), None) | (None, Some(time)) => time,
            (Some(submitted), Some(ended)) => submitted.min(ended),
        };
        while now >= next_week {
            machine.used.iter_mut().for_each(|used| *used *= usage::DECAY);
            next_week += schema::WEEK;
        }
        machine.end(now);
        // Nobody looks at fair shares between two of these moments.
        if now >= next_update {
            machine.update_fairshare();
            next_update += interval * (((now - next_update) / interval).floor() + 1.0);
        }
        while let Some((index, job)) = submissions.next_if(|(_, job)| job.submitted <= now) {
            if let Some(queue) = machine.pending.get_mut(job.account) {
                queue.push_back(index);
            }
        }
        machine.start(now);
    }
    machine.waits
}

#[derive(Debug)]
struct Machine<'a> {
    workload: &'a Workload,
    tree: Node,
    free: u64,
    /// By account, as the next two.
    used: Vec<f64>,
    fairshare: Vec<f64>,
    pending: Vec<VecDeque<usize>>,
    /// The first to end is the largest.
    running: BinaryHeap<Reverse<(Time, usize)>>,
    waits: Vec<f64>,
}

/// A number that can be compared with any other.
#[derive(Debug, PartialEq)]
struct Time(f64);

impl Eq for Time {}

impl Ord for Time {
    fn cmp(&self, other: &Time) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Time) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Machine<'_> {
    fn end(&mut self, now: f64) {
        while let Some(Reverse((Time(time), index))) = self.running.peek() {
            let Some(job) = self.workload.jobs.get(*index).filter(|_| *time <= now) else { return };
            self.free += job.cores;
            if let Some(used) = self.used.get_mut(job.account) {
                *used += job.usage;
            }
            self.running.pop();
        }
    }

    fn start(&mut self, now: f64) {
        while let Some((account, index)) = self.next() {
            let Some(job) = self.workload.jobs.get(index).filter(|job| job.cores <= self.free)
            else {
                return;
            };
            self.free -= job.cores;
            self.running.push(Reverse((Time(now + job.lasts), index)));
            if let Some(wait) = self.waits.get_mut(index) {
                *wait = now - job.submitted;
            }
            if let Some(queue) = self.pending.get_mut(account) {
                queue.pop_front();
            }
        }
    }

    /// Of the first jobs of all accounts, the one with the highest fair share; among equals the
    /// oldest.
    fn next(&self) -> Option<(Index, usize)> {
        let first = |(account, queue): (Index, &VecDeque<usize>)| Some((account, *queue.front()?));
        let share = |account: Index| self.fairshare.get(account).copied().unwrap_or_default();
        self.pending
            .iter()
            .enumerate()
            .filter_map(first)
            .max_by(|(a, i), (b, j)| share(*a).total_cmp(&share(*b)).then(j.cmp(i)))
    }

    fn update_fairshare(&mut self) {
        let accounts = &self.workload.accounts;
        let by_name: HashMap<(&str, &str), Index> = accounts
            .iter()
            .enumerate()
            .map(|(at, (user, bank))| ((user.as_str(), bank.as_str()), at))
            .collect();
        set_usage(&mut self.tree, "", &|user, bank| {
            by_name.get(&(user, bank)).and_then(|at| self.used.get(*at)).copied()
        });
        for share in fairshare::calculate(&self.tree) {
            let at = by_name.get(&(share.username.as_str(), share.bank.as_str()));
            if let Some(place) = at.and_then(|at| self.fairshare.get_mut(*at)) {
                *place = share.fairshare;
            }
        }
    }
}

/// Put what users have used into the tree, and sums of it into banks.
fn set_usage(node: &mut Node, bank: &str, used: &impl Fn(&str, &str) -> Option<f64>) {
    if node.is_user {
        node.usage = fairshare::whole(used(&node.name, bank).unwrap_or_default());
        return;
    }
    let Node { name, children, .. } = node;
    for child in children.iter_mut() {
        set_usage(child, name, used);
    }
    node.usage = node.children.iter().fold(0, |sum, child| sum.saturating_add(child.usage));
}

const HEADERS: [&str; 3] = ["Archived", "Simulated", "Proposed"];

/// Mean waits by bank.
fn print(workload: &Workload, columns: &[Vec<f64>], out: &mut String) {
    let mut banks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, job) in workload.jobs.iter().enumerate() {
        if let Some((_, bank)) = workload.accounts.get(job.account) {
            banks.entry(bank).or_default().push(index);
        }
    }
    // A String takes all that is written to it.
    let _ = write!(out, "{:<20}{:>10}", "Bank", "Jobs");
    for (_, header) in columns.iter().zip(HEADERS) {
        let _ = write!(out, "{header:>15}");
    }
    out.push('\n');
    let all = (0..workload.jobs.len()).collect();
    for (bank, jobs) in banks.into_iter().chain([("(all)", all)]) {
        let _ = write!(out, "{bank:<20}{:>10}", jobs.len());
        for waits in columns {
            // From zero: the sum of nothing is otherwise less than that.
            let sum =
                jobs.iter().filter_map(|index| waits.get(*index)).fold(0.0, |sum, wait| sum + wait);
            #[allow(clippy::cast_precision_loss, reason = "there are not as many jobs")]
            let mean = sum / jobs.len().max(1) as f64;
            let _ = write!(out, "{mean:>15.1}");
        }
        out.push('\n');
    }
}
