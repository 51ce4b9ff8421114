//! Arguments of `flux account`, and what each command is carried out by.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::database::{self, change};
use crate::error::{Error, Result};
use crate::{
    banks, exchange, fairshare, priority_update, queues, records, schema, shares, simulate,
    update_db, usage, users,
};

/// Keep accounts of users and banks, and what they have used.
#[derive(Debug, Parser)]
#[command(
    name = "flux-account",
    bin_name = "flux account",
    version,
    infer_long_args = true,
    args_override_self = true
)]
pub(crate) struct Cli {
    /// Database to use instead of /var/lib/flux/FluxAccounting.db
    #[arg(short, long, global = true, value_name = "PATH")]
    path: Option<PathBuf>,

    /// Write job records to this file
    #[arg(short, long, value_name = "FILE")]
    output_file: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the database
    CreateDb {
        /// Forget usage after so many weeks
        #[arg(long, value_name = "WEEKS", value_parser = clap::value_parser!(u32).range(1..=520))]
        priority_usage_reset_period: Option<u32>,
        /// Length of a period of usage, after which it counts half
        #[arg(long, value_name = "WEEKS", value_parser = clap::value_parser!(u32).range(1..=520))]
        priority_decay_half_life: Option<u32>,
    },
    #[command(flatten)]
    Change(Change),
    /// Show a bank
    ViewBank {
        bank: String,
        /// Show what is below it
        #[arg(short, long)]
        tree: bool,
        /// Show users in it
        #[arg(short, long)]
        users: bool,
    },
    /// Show a user, in all of their banks
    ViewUser { username: String },
    /// Show a queue
    ViewQueue { queue: String },
    /// Show jobs in the database of the job-archive service, which is what --path is here
    ViewJobRecords {
        /// Jobs of this user
        #[arg(short, long, value_name = "USERNAME")]
        user: Option<String>,
        /// This job
        #[arg(short, long, value_name = "JOBID")]
        jobid: Option<String>,
        /// Jobs that began later, in seconds since the epoch
        #[arg(short, long, value_name = "TIME")]
        after_start_time: Option<f64>,
        /// Jobs that ended earlier, in seconds since the epoch
        #[arg(short, long, value_name = "TIME")]
        before_end_time: Option<f64>,
    },
    /// Count jobs that have ended since the last time
    UpdateUsage {
        /// Database of the job-archive service
        #[arg(
            value_name = "JOB_ARCHIVE_DB_PATH",
            required_unless_present = "archive_option",
            conflicts_with = "archive_option"
        )]
        archive: Option<PathBuf>,
        /// The same
        #[arg(
            id = "archive_option",
            long = "job-archive_db_path",
            alias = "job-archive-db-path",
            value_name = "PATH"
        )]
        archive_option: Option<PathBuf>,
        /// Length of a period of usage, as given to create-db
        #[arg(
            long,
            value_name = "WEEKS",
            default_value = "1",
            value_parser = clap::value_parser!(u32).range(1..=520)
        )]
        priority_decay_half_life: u32,
    },
    /// Calculate fair shares from usage; also flux account-update-fshare
    UpdateFshare,
    /// Tell the priority plugin of a running instance; also flux account-priority-update
    PriorityUpdate,
    /// Show the tree of banks with usage and fair shares; also flux account-shares
    Shares {
        /// Print fields with this character in between, rather than in columns
        #[arg(short = 'P', value_name = "DELIMITER")]
        parsable: Option<char>,
    },
    /// Run the jobs of an archive again on paper, and show how long those of each bank would wait
    #[command(after_help = "Example: flux account simulate --shares physics=5 --shares \
        alice@chemistry=2 /var/lib/flux/job-archive.sqlite\nNo database or instance is changed. \
        Compare settings with each other: limits, queues and urgencies are left out.")]
    Simulate {
        /// Database of the job-archive service
        #[arg(value_name = "JOB_ARCHIVE_DB_PATH")]
        archive: PathBuf,
        /// Shares of a bank or user to try out; may be given several times
        #[arg(long, value_name = "BANK=N|USER@BANK=N", value_parser = name_and_shares)]
        shares: Vec<(String, u64)>,
        /// Size of the machine; by default all cores that the jobs have had
        #[arg(long)]
        cores: Option<u64>,
        /// Seconds between calculations of fair shares
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        interval: u32,
    },
    /// Add banks and users from files; also flux account-pop-db
    #[command(after_help = "Fields of users: username,userid,bank,shares,max_running_jobs,\
        max_active_jobs,max_nodes,queues\nFields of banks: bank,parent_bank,shares")]
    PopDb(Files),
    /// Write banks and users to files; also flux account-export-db
    ExportDb(Files),
    /// Bring a database of another version up to date; also flux account-update-db
    UpdateDb {
        /// Make it like this database instead
        #[arg(short, long, value_name = "PATH")]
        new_db: Option<PathBuf>,
    },
}

/// Commands that write to the accounting database and to nothing else.
#[derive(Debug, Subcommand)]
enum Change {
    /// Add a bank
    AddBank {
        bank: String,
        /// What it is due, compared with other banks of the same parent
        #[arg(value_parser = clap::value_parser!(i64).range(0..))]
        shares: i64,
        /// Bank that it is part of; only the root has none
        #[arg(long, value_name = "BANK", default_value = "")]
        parent_bank: String,
    },
    /// Disable a bank, and all banks and users below it
    DeleteBank { bank: String },
    /// Change a bank
    EditBank {
        bank: String,
        #[arg(long, allow_negative_numbers = true)]
        shares: i64,
    },
    /// Add a user to a bank
    AddUser(AddUser),
    /// Disable a user in a bank
    DeleteUser { username: String, bank: String },
    /// Change a user; -1 stands for a default
    EditUser(EditUser),
    /// Add a queue
    AddQueue {
        queue: String,
        #[command(flatten)]
        limits: QueueLimits,
    },
    /// Change a queue; -1 stands for a default
    EditQueue {
        queue: String,
        #[command(flatten)]
        limits: QueueLimits,
    },
    /// Remove a queue
    DeleteQueue { queue: String },
}

#[derive(Debug, Args)]
struct AddUser {
    #[arg(long)]
    username: String,
    /// By default that of the system
    #[arg(long, default_value_t = schema::DEFAULT_UID)]
    userid: i64,
    /// Bank to charge jobs to
    #[arg(long)]
    bank: String,
    /// What the user is due, compared with others in the bank
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..))]
    shares: i64,
    /// Jobs that may run at the same time
    #[arg(long, value_name = "JOBS", default_value_t = 5)]
    max_running_jobs: i64,
    /// Jobs that may be pending or running
    #[arg(long, value_name = "JOBS", default_value_t = 7)]
    max_active_jobs: i64,
    /// Nodes of all running jobs
    #[arg(long, value_name = "NODES", default_value_t = schema::UNLIMITED)]
    max_nodes: i64,
    /// Queues that the user may use, separated by commas
    #[arg(long, default_value = "")]
    queues: String,
}

#[derive(Debug, Args)]
struct EditUser {
    username: String,
    /// Only in this bank
    #[arg(long)]
    bank: Option<String>,
    #[arg(long, value_name = "BANK")]
    default_bank: Option<String>,
    #[arg(long, allow_negative_numbers = true)]
    shares: Option<i64>,
    #[arg(long, value_name = "JOBS", allow_negative_numbers = true)]
    max_running_jobs: Option<i64>,
    #[arg(long, value_name = "JOBS", allow_negative_numbers = true)]
    max_active_jobs: Option<i64>,
    #[arg(long, value_name = "NODES", allow_negative_numbers = true)]
    max_nodes: Option<i64>,
    #[arg(long, allow_negative_numbers = true)]
    queues: Option<String>,
}

#[derive(Debug, Args)]
struct QueueLimits {
    #[arg(long, value_name = "NODES", allow_negative_numbers = true)]
    min_nodes_per_job: Option<i64>,
    #[arg(long, value_name = "NODES", allow_negative_numbers = true)]
    max_nodes_per_job: Option<i64>,
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    max_time_per_job: Option<i64>,
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i64>,
}

impl From<QueueLimits> for queues::Limits {
    fn from(limits: QueueLimits) -> queues::Limits {
        queues::Limits {
            min_nodes_per_job: limits.min_nodes_per_job,
            max_nodes_per_job: limits.max_nodes_per_job,
            max_time_per_job: limits.max_time_per_job,
            priority: limits.priority,
        }
    }
}

#[derive(Debug, Args)]
struct Files {
    /// File of users
    #[arg(short, long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// File of banks
    #[arg(short, long, value_name = "FILE")]
    banks: Option<PathBuf>,
}

/// Carry out a command. What it prints is appended to `out`.
pub(crate) fn run(cli: Cli, out: &mut String) -> Result<()> {
    let default = match cli.command {
        Command::ViewJobRecords { .. } => database::DEFAULT_ARCHIVE,
        _ => database::DEFAULT_PATH,
    };
    let path = cli.path.unwrap_or_else(|| default.into());
    dispatch(cli.command, &path, cli.output_file.as_deref(), out).map_err(|error| error.of(&path))
}

fn dispatch(command: Command, path: &Path, file: Option<&Path>, out: &mut String) -> Result<()> {
    match command {
        Command::CreateDb { priority_usage_reset_period, priority_decay_half_life } => {
            database::create(path, priority_usage_reset_period, priority_decay_half_life)
        }
        Command::ViewBank { bank, tree, users } => {
            banks::view(&database::open(path)?, &bank, tree, users, out)
        }
        Command::ViewUser { username } => users::view(&database::open(path)?, &username, out),
        Command::ViewQueue { queue } => queues::view(&database::open(path)?, &queue, out),
        Command::ViewJobRecords { user, jobid, after_start_time, before_end_time } => {
            let userid = user.as_deref().map(records::userid);
            let filter = records::Filter {
                userid: userid.flatten(),
                id: jobid.as_deref(),
                began_after: after_start_time,
                ended_before: before_end_time,
            };
            let archive = database::open(path)?;
            // Nobody has jobs whom nobody knows.
            let records = match userid {
                Some(None) => Vec::new(),
                _ => records::select(&archive, &filter)?,
            };
            match file {
                None => records::print(&records, out),
                Some(file) => std::fs::write(file, records::delimited(&records))
                    .map_err(|error| Error::io(file, &error))?,
            }
            Ok(())
        }
        Command::Shares { parsable } => {
            shares::print(&fairshare::load(&open_tree(path)?)?, parsable, out);
            Ok(())
        }
        Command::Simulate { archive, shares, cores, interval } => {
            let question = simulate::Question { shares, cores, interval };
            let db = database::open(path)?;
            simulate::run(&db, &open_archive(&archive)?, &question, out)
        }
        Command::UpdateFshare => change(&mut open_tree(path)?, fairshare::update),
        Command::PriorityUpdate => priority_update::run(&database::open(path)?),
        Command::ExportDb(Files { users, banks }) => {
            let users = users.unwrap_or_else(|| "users.csv".into());
            let banks = banks.unwrap_or_else(|| "banks.csv".into());
            exchange::export(&database::open(path)?, &users, &banks)
        }
        Command::PopDb(Files { users, banks }) => {
            exchange::import(&mut database::open(path)?, users.as_deref(), banks.as_deref(), out)
        }
        Command::UpdateDb { new_db } => {
            update_db::run(&mut database::open(path)?, new_db.as_deref(), out)
        }
        Command::UpdateUsage { archive, archive_option, priority_decay_half_life } => {
            let archive_path = archive.or(archive_option).unwrap_or_default();
            let mut db = database::open(path)?;
            let archive = open_archive(&archive_path)?;
            let now = database::now();
            change(&mut db, |db| usage::update(db, &archive, priority_decay_half_life, now))
        }
        Command::Change(wanted) => change(&mut database::open(path)?, |db| apply(db, wanted, out)),
    }
}

fn apply(db: &rusqlite::Connection, change: Change, out: &mut String) -> Result<()> {
    match change {
        Change::AddBank { bank, shares, parent_bank } => {
            banks::add(db, &bank, &parent_bank, shares)
        }
        Change::DeleteBank { bank } => banks::delete(db, &bank),
        Change::EditBank { bank, shares } => banks::edit(db, &bank, shares, out),
        Change::AddUser(user) => {
            let new = users::New {
                username: &user.username,
                userid: user.userid,
                bank: &user.bank,
                shares: user.shares,
                max_running_jobs: user.max_running_jobs,
                max_active_jobs: user.max_active_jobs,
                max_nodes: user.max_nodes,
                queues: &user.queues,
            };
            users::add(db, &new, out)
        }
        Change::DeleteUser { username, bank } => users::delete(db, &username, &bank),
        Change::EditUser(user) => {
            let changes = users::Changes {
                default_bank: user.default_bank.as_deref(),
                shares: user.shares,
                max_running_jobs: user.max_running_jobs,
                max_active_jobs: user.max_active_jobs,
                max_nodes: user.max_nodes,
                queues: user.queues.as_deref(),
            };
            users::edit(db, &user.username, user.bank.as_deref(), &changes, out)
        }
        Change::AddQueue { queue, limits } => queues::add(db, &queue, &limits.into()),
        Change::EditQueue { queue, limits } => queues::edit(db, &queue, &limits.into()),
        Change::DeleteQueue { queue } => queues::delete(db, &queue),
    }
}

/// The database of the job-archive service; its errors name it rather than the accounting database.
fn open_archive(path: &Path) -> Result<rusqlite::Connection> {
    let archive = database::open(path).map_err(|error| error.of(path))?;
    archive.prepare("SELECT 1 FROM jobs").map_err(|error| Error::from(error).of(path))?;
    Ok(archive)
}

fn name_and_shares(text: &str) -> std::result::Result<(String, u64), String> {
    let (name, shares) = text.split_once('=').ok_or("not of the form NAME=SHARES")?;
    let shares = shares.parse().map_err(|_| format!("'{shares}' is not a number of shares"))?;
    Ok((name.to_owned(), shares))
}

/// As the compiled commands of flux-accounting open it, in their words.
fn open_tree(path: &Path) -> Result<rusqlite::Connection> {
    database::open(path).map_err(|error| {
        Error::Walk(format!("error opening DB: unable to open database file: {error}"))
    })
}
