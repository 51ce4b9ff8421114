//! What jobs have used, and the fair shares that follow. Expected numbers are those of
//! flux-accounting 0.18.1.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::Accounting;
use rusqlite::Connection;

const WEEK: f64 = 604_800.0;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The database of the job-archive service.
struct Archive(Connection);

impl Archive {
    fn new(accounting: &Accounting) -> Archive {
        let db = Connection::open(accounting.dir().join("archive")).unwrap();
        db.execute_batch(
            "CREATE TABLE jobs(id CHAR(16) PRIMARY KEY, userid INT, ranks TEXT, t_submit REAL,
             t_run REAL, t_cleanup REAL, t_inactive REAL, eventlog TEXT, jobspec TEXT, R TEXT)",
        )
        .unwrap();
        Archive(db)
    }

    fn add(&self, userid: i64, bank: Option<&str>, ranks: &str, run: f64, inactive: f64) {
        let bank = bank.map(|bank| format!("\"bank\":\"{bank}\"")).unwrap_or_default();
        let jobspec = format!("{{\"attributes\":{{\"system\":{{{bank}}}}}}}");
        let r = match ranks {
            "" => String::new(),
            _ => format!(
                "{{\"version\":1,\"execution\":{{\"R_lite\":[{{\"rank\":\"{ranks}\",\
                 \"children\":{{\"core\":\"0\"}}}}]}}}}"
            ),
        };
        self.0
            .execute(
                "INSERT INTO jobs VALUES ((SELECT 1000+count(*) FROM jobs),?,?,?,?,?,?,'',?,?)",
                (userid, ranks, run - 1.0, run, inactive, inactive, jobspec, r),
            )
            .unwrap();
    }
}

fn usage(accounting: &Accounting, user: &str, bank: &str) -> f64 {
    accounting.number(&format!(
        "SELECT job_usage FROM association_table WHERE username='{user}' AND bank='{bank}'"
    ))
}

#[test]
fn usage_is_nodes_times_seconds_of_jobs_that_are_new() {
    let accounting = Accounting::with_banks(&["A", "B"]);
    for bank in ["A", "B"] {
        accounting.ok(&format!("add-user --username=u --userid=5011 --bank={bank}"));
    }
    let archive = Archive::new(&accounting);
    let start = now();
    archive.add(5011, None, "0", start, start + 10.0);
    archive.add(5011, Some("A"), "0-3", start, start + 20.0);
    archive.add(5011, Some("B"), "1,3", start, start + 30.0);
    archive.add(5011, Some("other"), "0", start, start + 40.0);
    // Never ran.
    archive.add(5011, None, "", 0.0, start + 5.0);
    archive.add(5012, None, "0", start, start + 50.0);
    accounting.ok("update-usage archive");
    let used = |bank| (usage(&accounting, "u", bank) * 100.0).round() / 100.0;
    assert_eq!((used("A"), used("B")), (90.0, 60.0));
    // A second time there is nothing new.
    accounting.ok("update-usage --job-archive_db_path=archive");
    assert_eq!((used("A"), used("B")), (90.0, 60.0));
    // One that began before the last one that was counted has ended.
    archive.add(5011, None, "0", start + 1.0, start + 101.0);
    accounting
        .ok(&format!("update-usage --job-archive_db_path={}/archive", accounting.dir().display()));
    assert_eq!((used("A"), used("B")), (190.0, 60.0));
}

#[test]
fn an_archive_that_is_none_is_named() {
    let accounting = Accounting::with_banks(&["A"]);
    assert_eq!(accounting.fails("update-usage none"), "Database file does not exist: none");
    Connection::open(accounting.dir().join("empty"))
        .unwrap()
        .execute("CREATE TABLE x(y)", [])
        .unwrap();
    let text = accounting.fails("update-usage empty");
    assert!(text.starts_with("empty: no such table: jobs"), "{text}");
    let said = accounting.run("update-usage");
    assert_eq!(said.code, 2, "{}", said.err);
}

#[test]
fn job_records_are_shown_in_columns_or_written_to_a_file() {
    let accounting = Accounting::new();
    let archive = Archive::new(&accounting);
    archive.add(5011, Some("a"), "0-1", 100_000_000.0, 100_002_000.0);
    archive.add(5012, Some("a"), "0", 100_000_500.5, 100_002_500.0);
    let view = |words: &str| accounting.ok(&format!("--path archive {words}"));
    // The last --path counts.
    let table = "\
UserID     Username   JobID      T_Submit        T_Run           T_Inactive      Nodes     
5011       5011       1000       99999999.0      100000000.0     100002000.0     2         
5012       5012       1001       100000499.5     100000500.5     100002500.0     1         
";
    assert_eq!(view("view-job-records"), table);
    let header = format!("{}\n", table.lines().next().unwrap());
    let only = |at: usize| format!("{header}{}\n", table.lines().nth(at).unwrap());
    assert_eq!(view("view-job-records --user=5011"), only(1));
    assert_eq!(view("view-job-records -j 1001"), only(2));
    assert_eq!(view("view-job-records -a 100000000"), only(2));
    assert_eq!(view("view-job-records -b 100002500"), only(1));
    assert_eq!(view("view-job-records -u nobody-of-that-name"), header);
    assert_eq!(view("-o records view-job-records -u 5012"), "");
    let records = std::fs::read_to_string(accounting.dir().join("records")).unwrap();
    assert_eq!(
        records,
        "UserID|Username|JobID|T_Submit|T_Run|T_Inactive|Nodes|R\r\n\
         5012|5012|1001|100000499.5|100000500.5|100002500.0|1|{\"version\":1,\"execution\":\
         {\"R_lite\":[{\"rank\":\"0\",\"children\":{\"core\":\"0\"}}]}}\r\n"
    );
}

/// An association with these bins, in a period that has ended so many weeks ago.
fn with_bins(bins: [f64; 4], weeks_ago: f64) -> (Accounting, Archive) {
    let accounting = Accounting::with_banks(&["A"]);
    accounting.ok("add-user --username=u --userid=1001 --bank=A");
    let db = accounting.db();
    for (bin, value) in bins.iter().enumerate() {
        let update = format!("UPDATE job_usage_factor_table SET usage_factor_period_{bin}=?");
        db.execute(&update, [value]).unwrap();
    }
    db.execute(
        "UPDATE t_half_life_period_table SET end_half_life_period=?",
        [now() - weeks_ago * WEEK],
    )
    .unwrap();
    let archive = Archive::new(&accounting);
    (accounting, archive)
}

fn bins(accounting: &Accounting) -> Vec<f64> {
    (0..4)
        .map(|bin| {
            accounting
                .number(&format!("SELECT usage_factor_period_{bin} FROM job_usage_factor_table"))
        })
        .collect()
}

#[test]
fn a_period_later_usage_counts_half_and_the_oldest_is_forgotten() {
    let (accounting, _archive) = with_bins([128.0, 64.0, 64.0, 16.0], 1.5);
    let end = "SELECT end_half_life_period FROM t_half_life_period_table";
    let before = accounting.number(end);
    accounting.ok("update-usage archive");
    // 64 + 16 + 8, and 1 that is dropped.
    assert_eq!(usage(&accounting, "u", "A"), 88.0);
    assert_eq!(bins(&accounting).get(1..3).unwrap(), [16.0, 8.0]);
    assert_eq!(accounting.number(end) - before, WEEK);
    // Within the next period, nothing happens.
    accounting.ok("update-usage archive");
    assert_eq!(usage(&accounting, "u", "A"), 88.0);
    assert_eq!(accounting.number(end) - before, WEEK);
}

/// Not a negative zero, either.
#[test]
fn with_a_single_period_nothing_is_left_of_the_last_one() {
    let accounting = Accounting::with_banks(&["A"]);
    accounting.ok("add-user --username=u --userid=1001 --bank=A");
    accounting
        .db()
        .execute_batch(
            "ALTER TABLE job_usage_factor_table DROP COLUMN usage_factor_period_3;
             ALTER TABLE job_usage_factor_table DROP COLUMN usage_factor_period_2;
             ALTER TABLE job_usage_factor_table DROP COLUMN usage_factor_period_1;
             UPDATE job_usage_factor_table SET usage_factor_period_0=100;
             UPDATE association_table SET job_usage=100;
             UPDATE t_half_life_period_table SET end_half_life_period=1",
        )
        .unwrap();
    let _archive = Archive::new(&accounting);
    accounting.ok("update-usage archive");
    let row = accounting.ok("view-user u");
    assert_eq!(row.lines().nth(1).unwrap().split_whitespace().nth(8), Some("0.0"), "{row}");
}

#[test]
fn new_jobs_go_to_the_current_period_or_begin_the_next() {
    let (accounting, archive) = with_bins([4096.0, 256.0, 32.0, 16.0], 0.0);
    let start = now();
    archive.add(1001, None, "0", start - 5000.0, start - 3000.0);
    archive.add(1001, None, "0", start - 2600.0, start - 500.0);
    accounting.ok("update-usage archive");
    let used = |accounting: &Accounting| (usage(accounting, "u", "A") * 1e3).round() / 1e3;
    assert_eq!(used(&accounting), 8500.0);
    let (accounting, archive) = with_bins([8196.0, 256.0, 32.0, 16.0], 2.1);
    archive.add(1001, Some("A"), "0", start, start + 200.0);
    accounting.ok("update-usage archive");
    assert_eq!(used(&accounting), 4366.0);
    assert_eq!(bins(&accounting).get(1..).unwrap(), [64.0, 4.0, 16.0]);
}

#[test]
fn fair_shares_follow_from_usage() {
    let accounting = Accounting::new();
    accounting.ok("add-bank root 1000");
    let users = [
        (
            "account1",
            1000,
            vec![("leaf.1.1", 10000, 100.0), ("leaf.1.2", 1000, 11.0), ("leaf.1.3", 100_000, 10.9)],
        ),
        ("account2", 100, vec![("leaf.2.1", 100_000, 8.0), ("leaf.2.2", 10000, 3.0)]),
        ("account3", 10, vec![("leaf.3.1", 100, 0.0), ("leaf.3.2", 10, 1.0)]),
    ];
    for (bank, shares, users) in users {
        accounting.ok(&format!("add-bank --parent-bank=root {bank} {shares}"));
        for (user, shares, used) in users {
            accounting.ok(&format!(
                "add-user --username={user} --userid=1 --bank={bank} --shares={shares}"
            ));
            let update = "UPDATE association_table SET job_usage=? WHERE username=?";
            accounting.db().execute(update, (used, user)).unwrap();
        }
    }
    accounting.ok("update-fshare");
    let expected = "\
Account                         Username           RawShares            RawUsage           Fairshare
root                                                    1000                 133
 account1                                               1000                 121
  account1                      leaf.1.1               10000                 100            0.285714
  account1                      leaf.1.2                1000                  11            0.142857
  account1                      leaf.1.3              100000                  10            0.428571
 account2                                                100                  11
  account2                      leaf.2.1              100000                   8            0.714286
  account2                      leaf.2.2               10000                   3            0.571429
 account3                                                 10                   1
  account3                      leaf.3.1                 100                   0                   1
  account3                      leaf.3.2                  10                   1            0.857143
";
    assert_eq!(accounting.ok("shares"), expected);
    // A circle of banks has no end.
    accounting
        .db()
        .execute("UPDATE bank_table SET parent_bank='account1' WHERE bank='account1'", [])
        .unwrap();
    accounting.db().execute("INSERT INTO bank_table VALUES (9,'account1',1,'root',1)", []).unwrap();
    assert_eq!(
        accounting.fails("update-fshare"),
        "bank account1 is its own ancestor in bank_table"
    );
    let said = accounting.run("view-bank root -t");
    assert_eq!(said.err, "flux-account: bank account1 is its own ancestor in bank_table\n");
}

#[test]
fn writers_wait_for_each_other() {
    let accounting = Accounting::with_banks(&["A"]);
    let mut db = accounting.db();
    let transaction =
        db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    transaction.execute("UPDATE bank_table SET shares=7", []).unwrap();
    std::thread::scope(|scope| {
        let accounting = &accounting;
        let waiting: Vec<_> = (0..4)
            .map(|user| {
                let words = format!("add-user --username=u{user} --userid=1 --bank=A");
                scope.spawn(move || accounting.ok(&words))
            })
            .collect();
        // Meanwhile others can read what was there before.
        assert!(accounting.ok("view-bank A").trim_end().ends_with('1'));
        assert_eq!(accounting.number("SELECT count(*) FROM association_table"), 0.0);
        transaction.commit().unwrap();
        for thread in waiting {
            thread.join().unwrap();
        }
    });
    assert_eq!(accounting.number("SELECT count(*) FROM association_table"), 4.0);
    assert!(accounting.ok("view-bank A").trim_end().ends_with('7'));
}

#[test]
fn an_archive_is_run_again_under_other_shares() {
    let accounting = Accounting::with_banks(&["A", "B"]);
    accounting.ok("add-user --username=u1 --userid=5001 --bank=A");
    accounting.ok("add-user --username=u2 --userid=5002 --bank=B");
    let archive = Archive::new(&accounting);
    let start = 100_000_000.0;
    // One core, which the first user has had for five jobs and the second for the next five.
    for job in 0..10 {
        let run = start + 100.0 * f64::from(job);
        archive.add(5001 + i64::from(job / 5), None, "0", run, run + 100.0);
    }
    archive.add(5003, None, "0", start, start + 1.0);
    archive.0.execute("UPDATE jobs SET t_submit=?", [start]).unwrap();
    let before = std::fs::read(accounting.path()).unwrap();
    let said = accounting.ok("simulate archive --interval=1 --shares B=4");
    let expected = "\
Bank                      Jobs       Archived      Simulated       Proposed
A                            5          200.0          400.0          580.0
B                            5          700.0          500.0          320.0
(all)                       10          450.0          450.0          450.0

10 jobs on 1 cores; mean waits in seconds
left out: 1 jobs of users who are in no bank
";
    assert_eq!(said, expected);
    // Two at a time, and no change to try.
    let said = accounting.ok("simulate archive --interval=1 --cores=2");
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.get(1).unwrap(), &["A", "5", "200.0", "160.0"]);
    assert_eq!(rows.get(3).unwrap(), &["(all)", "10", "450.0", "200.0"]);
    let none = accounting.ok("simulate archive --cores=0");
    assert_eq!(
        none.lines().nth(1).unwrap(),
        "(all)                        0            0.0            0.0"
    );
    assert!(none.ends_with("left out: 10 jobs of more cores than that\n"), "{none}");
    assert_eq!(
        accounting.fails("simulate archive --shares C=1"),
        "C: no such active bank, or USER@BANK"
    );
    assert_eq!(accounting.run("simulate archive --shares C").code, 2);
    accounting.ok("simulate archive --shares u1@A=3");
    assert_eq!(std::fs::read(accounting.path()).unwrap(), before);
}
