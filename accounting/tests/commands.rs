//! Banks, users and queues: what `flux account` prints is what flux-accounting 0.18.1 does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::{Accounting, PROGRAM, said};

/// Times differ from run to run.
fn without_times(table: &str) -> String {
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for line in lines {
        let rest = line.get(32..).unwrap_or_else(|| panic!("{line}"));
        assert!(line.starts_with(|first: char| first.is_ascii_digit()), "{line}");
        text.push_str(rest);
        text.push('\n');
    }
    text
}

/// Rows without the spaces that end them.
fn trimmed(table: &str) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

const USER_HEADER: &str = "creation_time   mod_time        active          username        \
    userid          bank            default_bank    shares          job_usage       fairshare       \
    max_running_jobs max_active_jobs max_nodes       queues          \n";

#[test]
fn a_database_is_made_once_where_it_is_wanted() {
    let accounting = Accounting::new();
    let mut stmt = accounting.db();
    let db = &mut stmt;
    let tables: Vec<String> = db
        .prepare("SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        tables,
        [
            "association_table",
            "bank_table",
            "job_usage_factor_table",
            "t_half_life_period_table",
            "queue_table",
        ]
    );
    accounting.ok("add-bank root 1");
    let text = accounting.fails("create-db");
    assert!(text.contains("is an accounting database already"), "{text}");
    assert!(accounting.ok("view-bank root").contains("root"));
    // Folders above are made, and periods of usage are as many as fit.
    let elsewhere = accounting.dir().join("a/b/other.db");
    let made = said(Command::new(PROGRAM).arg("-p").arg(&elsewhere).args([
        "create-db",
        "--priority-usage-reset-period=10",
        "--priority-decay-half-life=2",
    ]));
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    let db = rusqlite::Connection::open(&elsewhere).unwrap();
    let bins: i64 = db
        .query_row(
            "SELECT count(*) FROM pragma_table_info('job_usage_factor_table')
             WHERE name LIKE 'usage_factor_period_%'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(bins, 5);
}

#[test]
fn banks_are_a_tree_with_users_at_its_leaves() {
    let accounting = Accounting::with_banks(&["A", "B", "C", "D"]);
    for bank in ["E", "F"] {
        accounting.ok(&format!("add-bank --parent-bank=D {bank} 1"));
    }
    for (user, bank) in [(5011, "A"), (5012, "A"), (5013, "B"), (5014, "C")] {
        accounting.ok(&format!("add-user --username=user{user} --userid={user} --bank={bank}"));
    }
    let root = "bank_id         bank            active          parent_bank     shares          \n\
                1               root            1                               1               \n";
    assert_eq!(accounting.ok("view-bank root"), root);
    let tree = "\nroot\n A\n  user5011\n  user5012\n B\n  user5013\n C\n  user5014\n D\n  E\n  F\n";
    assert_eq!(accounting.ok("view-bank root -t"), format!("{root}{tree}"));
    assert!(accounting.ok("view-bank D --tree").ends_with("\nD\n E\n F\n"));
    assert!(accounting.ok("view-bank A -t").ends_with("\nNo sub banks under A\n"));
    assert!(accounting.ok("view-bank D -u").ends_with("\nNo users under D\n"));
    assert_eq!(accounting.ok("view-bank foo"), "Bank not found in bank_table\n");
    accounting.ok("add-queue standby");
    accounting.ok("edit-user user5012 --queues=standby");
    let users = accounting.ok("view-bank A -u");
    let expected = "\
bank_id         bank            active          parent_bank     shares
2               A               1               root            1

Users Under Bank A:

username           userid             default_bank       shares             job_usage          fairshare          max_running_jobs   queues
user5011           5011               A                  1                  0.0                0.5                5
user5012           5012               A                  1                  0.0                0.5                5                  standby
";
    assert_eq!(trimmed(&users), expected);
    assert_eq!(accounting.ok("edit-bank C --shares=50"), "50\n");
    accounting.ok("delete-bank C");
    assert!(
        trimmed(&accounting.ok("view-bank C"))
            .ends_with("4               C               0               root            50\n")
    );
    assert_eq!(accounting.number("SELECT active FROM association_table WHERE bank='C'"), 0.0);
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_changed() {
    let accounting = Accounting::with_banks(&["A"]);
    assert_eq!(
        accounting.fails("add-bank --parent-bank=no X 1"),
        "Parent bank not found in bank table"
    );
    assert_eq!(accounting.fails("add-bank A 5"), "bank A is in bank_table already");
    assert_eq!(accounting.fails("delete-bank X"), "Bank not found in bank_table");
    let said = accounting.run("edit-bank A --shares=-1");
    assert_eq!(said.err, "flux-account: New shares amount must be >= 0\n");
    assert_eq!((said.code, said.out.as_str()), (1, "-1\n"));
    assert_eq!(
        accounting.fails("edit-user nobody1 --shares=2"),
        "User not found in association_table"
    );
    assert_eq!(accounting.fails("delete-user nobody1 A"), "User not found in association_table");
    accounting.ok("add-queue q");
    assert_eq!(accounting.fails("add-queue q"), "queue q is in queue_table already");
    assert_eq!(accounting.fails("edit-queue r --priority=1"), "Queue not found in queue_table");
    for wrong in ["add-bank Y many", "add-bank Y", "edit-queue q --priority=x", "frob"] {
        assert_eq!(accounting.run(wrong).code, 2, "{wrong}");
    }
    assert_eq!(accounting.number("SELECT sum(shares) FROM bank_table"), 2.0);
    assert_eq!(accounting.number("SELECT count(*) FROM queue_table"), 1.0);
}

#[test]
fn a_user_has_the_defaults_of_flux_accounting_until_they_are_changed() {
    let accounting = Accounting::with_banks(&["sub_bank_A"]);
    let said = accounting.run("add-user --username=user1234 --bank=sub_bank_A");
    assert_eq!(said.out, "could not find UID for user; adding default UID\n");
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let user = format!(
        "{USER_HEADER}1               user1234        65534           sub_bank_A      sub_bank_A      \
         1               0.0             0.5             5               7               \
         2147483647                      \n"
    );
    assert_eq!(without_times(&accounting.ok("view-user user1234")), user);
    accounting.ok("add-user --username=root --bank=sub_bank_A");
    assert_eq!(
        accounting.number("SELECT userid FROM association_table WHERE username='root'"),
        0.0
    );
    accounting.ok("add-queue standby");
    accounting.ok("add-queue expedite");
    accounting.ok("edit-user user1234 --shares=50 --max-nodes=3 --queues=standby,expedite");
    let row = without_times(&accounting.ok("view-user user1234"));
    let fields: Vec<&str> = row.lines().nth(1).unwrap().split_whitespace().collect();
    // Limits that were not named stay as they are.
    assert_eq!(fields.get(5..).unwrap(), ["50", "0.0", "0.5", "5", "7", "3", "standby,expedite"]);
    accounting.ok("edit-user user1234 --shares -1 --max-nodes=-1 --queues=-1");
    assert_eq!(without_times(&accounting.ok("view-user user1234")), user);
    let missing = "Queue specified does not exist in queue_table\n";
    assert_eq!(accounting.ok("edit-user user1234 --queue=foo --shares=9"), missing);
    assert_eq!(
        accounting.ok("add-user --username=root2 --userid=7 --bank=sub_bank_A --queue=foo"),
        missing
    );
    assert_eq!(accounting.number("SELECT sum(shares) FROM association_table"), 2.0);
    assert_eq!(accounting.ok("view-user user9999"), "User not found in association_table\n");
}

#[test]
fn whoever_was_deleted_comes_back_with_what_they_have_used() {
    let accounting = Accounting::with_banks(&["E", "F"]);
    for bank in ["E", "F"] {
        accounting.ok(&format!("add-user --username=u --userid=5015 --bank={bank}"));
    }
    accounting.db().execute("UPDATE association_table SET job_usage=42", []).unwrap();
    accounting.ok("delete-user u E");
    // Their jobs are charged to the other bank from now on.
    let state = "SELECT active || bank || default_bank || job_usage FROM association_table";
    let rows = |accounting: &Accounting| -> Vec<String> {
        let db = accounting.db();
        let mut stmt = db.prepare(state).unwrap();
        let rows = stmt.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(rows(&accounting), ["0EF42.0", "1FF42.0"]);
    accounting.ok("add-user --username=u --userid=5015 --bank=E --shares=9");
    assert_eq!(rows(&accounting), ["1EF42.0", "1FF42.0"]);
    accounting.ok("delete-bank F");
    assert_eq!(rows(&accounting), ["1EE42.0", "0FE42.0"]);
    accounting.ok("add-bank --parent-bank=root F 3");
    assert_eq!(accounting.number("SELECT count(*) FROM bank_table"), 3.0);
    assert_eq!(accounting.number("SELECT active*shares FROM bank_table WHERE bank='F'"), 3.0);
}

#[test]
fn a_change_is_for_one_bank_or_for_all_of_the_users() {
    let accounting = Accounting::with_banks(&["E", "F"]);
    for bank in ["E", "F"] {
        accounting.ok(&format!("add-user --username=u --userid=5015 --bank={bank}"));
    }
    accounting.ok("edit-user u --bank=F --shares=9");
    let shares = "SELECT sum(shares) FROM association_table";
    assert_eq!(accounting.number(shares), 10.0);
    accounting.ok("edit-user u --shares=3 --default-bank=F");
    assert_eq!(accounting.number(shares), 6.0);
    let default = "SELECT count(*) FROM association_table WHERE default_bank='F'";
    assert_eq!(accounting.number(default), 2.0);
    assert_eq!(
        accounting.fails("edit-user u --bank=G --shares=3"),
        "User not found in association_table"
    );
}

#[test]
fn queues_have_limits_that_can_be_reset() {
    let accounting = Accounting::new();
    accounting
        .ok("add-queue q --min-nodes-per-job=2 --max-nodes-per-job=10 --max-time-per-job=120");
    accounting.ok("edit-queue q --priority=20000 --max-time-per-job -1");
    let expected = "\
queue              min_nodes_per_job  max_nodes_per_job  max_time_per_job   priority           
q                  2                  10                 60                 20000              
";
    assert_eq!(accounting.ok("view-queue q"), expected);
    accounting.ok("delete-queue q");
    assert_eq!(accounting.ok("view-queue q"), "Queue not found in queue_table\n");
}

#[test]
fn the_tree_shows_shares_and_active_users_in_columns_or_delimited() {
    let accounting = Accounting::with_banks(&["A", "B"]);
    for (user, bank) in [("z", "A"), ("a", "A"), ("b", "B")] {
        accounting.ok(&format!("add-user --username={user} --userid=1 --bank={bank}"));
    }
    let expected = "\
Account                         Username           RawShares            RawUsage           Fairshare
root                                                       1                   0
 A                                                         1                   0
  A                                    a                   1                   0                 0.5
  A                                    z                   1                   0                 0.5
 B                                                         1                   0
  B                                    b                   1                   0                 0.5
";
    assert_eq!(accounting.ok("shares"), expected);
    accounting.ok("delete-user z A");
    accounting.ok("delete-bank B");
    let short = Path::new(PROGRAM).with_file_name("flux-account-shares");
    let said = said(Command::new(short).arg("-p").arg(accounting.path()).args(["-P", "|"]));
    let expected =
        "Account|Username|RawShares|RawUsage|Fairshare\nroot||1|0\n A||1|0\n  A|a|1|0|0.5\n";
    assert_eq!((said.out.as_str(), said.code), (expected, 0));
}

#[test]
fn users_and_banks_travel_in_files() {
    let accounting = Accounting::with_banks(&["A"]);
    accounting.ok("add-bank --parent-bank=A D 2");
    accounting.ok("add-user --username=user5011 --userid=5011 --bank=D");
    accounting.ok("export-db");
    let read = |name: &str| std::fs::read_to_string(accounting.dir().join(name)).unwrap();
    assert_eq!(read("users.csv"), "user5011,5011,D,1,5,7,2147483647,\r\n");
    assert_eq!(read("banks.csv"), "root,,1\r\nA,root,1\r\nD,A,2\r\n");
    let other = Accounting::new();
    for file in ["users.csv", "banks.csv"] {
        std::fs::copy(accounting.dir().join(file), other.dir().join(file)).unwrap();
    }
    other.ok("pop-db -b banks.csv -u users.csv");
    assert_eq!(other.ok("shares"), accounting.ok("shares"));
    // Empty fields stand for defaults.
    std::fs::write(other.dir().join("some.csv"), "user7,7,D,,,,,\"\"\n").unwrap();
    other.ok("pop-db --users some.csv");
    let limits = "SELECT max_running_jobs*100 + max_active_jobs*10 + max_nodes FROM
                  association_table WHERE username='user7'";
    assert_eq!(other.number(limits), 575.0);
    // A mistake in the last line leaves nothing of those before.
    std::fs::write(other.dir().join("bad.csv"), "user8,8,D,1,1,1,1,\nuser9,9,D,many,1,1,1,\n")
        .unwrap();
    let text = other.fails("pop-db -u bad.csv");
    assert_eq!(text, "bad.csv:2: field 4: \"many\" is not a number");
    std::fs::write(other.dir().join("short.csv"), "E\n").unwrap();
    assert_eq!(other.fails("pop-db -b short.csv"), "short.csv:1: has no field 3");
    assert_eq!(other.number("SELECT count(*) FROM association_table"), 2.0);
    assert_eq!(other.fails("pop-db -u none.csv"), "none.csv: No such file or directory");
}

#[test]
fn a_database_of_an_older_version_gets_what_it_lacks_and_keeps_what_it_has() {
    let accounting = Accounting::with_banks(&["A"]);
    accounting.ok("add-user --username=u --userid=5 --bank=A --max-nodes=9");
    accounting
        .db()
        .execute_batch(
            "
        ALTER TABLE association_table DROP COLUMN queues;
        ALTER TABLE association_table ADD COLUMN gone int DEFAULT 3;
        DROP TABLE queue_table;
        DROP TABLE t_half_life_period_table;
    ",
        )
        .unwrap();
    let text = accounting.fails("view-queue q");
    assert!(text.ends_with("see flux account update-db for databases of older versions"), "{text}");
    assert_eq!(
        accounting.ok("update-db"),
        "checking for new tables...\nnew table found: t_half_life_period_table\n\
         new table found: queue_table\nchecking for new columns to add in tables...\n"
    );
    assert!(
        accounting
            .ok("view-user u")
            .lines()
            .next()
            .unwrap()
            .trim_end()
            .ends_with("max_nodes       queues")
    );
    assert_eq!(accounting.number("SELECT max_nodes FROM association_table"), 9.0);
    assert_eq!(accounting.number("SELECT count(*) FROM t_half_life_period_table"), 1.0);
    accounting.ok("add-queue q");
    accounting.ok("add-bank --parent-bank=A B 1");
    assert_eq!(accounting.number("SELECT bank_id FROM bank_table WHERE bank='B'"), 3.0);
    // Once more there is nothing to do.
    assert_eq!(accounting.ok("update-db").lines().count(), 2);
}

#[test]
fn a_missing_or_foreign_file_is_named() {
    let accounting = Accounting::new();
    let run = |path: &Path, command: &str| {
        said(Command::new(PROGRAM).arg("-p").arg(path).args(command.split_whitespace()))
    };
    let missing = accounting.dir().join("none.db");
    let failed = run(&missing, "view-bank root");
    let text = format!("flux-account: Database file does not exist: {}\n", missing.display());
    assert_eq!((failed.err, failed.code), (text, 1));
    let failed = run(&missing, "update-fshare");
    assert!(
        failed.err.contains("error opening DB: unable to open database file"),
        "{}",
        failed.err
    );
    assert_eq!(failed.code, 255);
    assert!(!missing.exists());
    let foreign = accounting.dir().join("foreign");
    std::fs::write(
        &foreign,
        "no database at all, but long enough to be taken for one\n".repeat(20),
    )
    .unwrap();
    let failed = run(&foreign, "view-bank root");
    assert_eq!(
        failed.err,
        format!("flux-account: {}: file is not a database\n", foreign.display())
    );
    assert_eq!(accounting.run("update-fshare").err, "flux-account: root bank not found, exiting\n");
}

#[test]
fn guests_may_look_but_not_write() {
    let accounting = Accounting::with_banks(&[]);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Where guests can reach all that they need.
    let program = accounting.dir().join("flux-account");
    std::fs::copy(PROGRAM, &program).unwrap();
    let root = nix::unistd::geteuid().is_root();
    mode(accounting.dir(), if root { 0o755 } else { 0o555 });
    mode(&accounting.path(), if root { 0o644 } else { 0o444 });
    let guest = |words: &str| {
        let mut command = Command::new(&program);
        command.arg("-p").arg(accounting.path()).args(words.split_whitespace());
        if root {
            command.uid(65_534).gid(65_534).current_dir("/");
        }
        said(&mut command)
    };
    assert!(guest("view-bank root").out.contains("root"));
    let failed = guest("add-bank x 1");
    let text = format!(
        "flux-account: {}: attempt to write a readonly database: run this command as the owner of \
         the database\n",
        accounting.path().display()
    );
    assert_eq!((failed.err, failed.code), (text, 1));
    mode(&accounting.path(), 0o000);
    if root {
        mode(&accounting.path(), 0o600);
    }
    let failed = guest("view-bank root");
    let text = format!(
        "flux-account: Unable to open database file: {}: Permission denied\n",
        accounting.path().display()
    );
    assert_eq!((failed.err, failed.code), (text, 1));
    mode(accounting.dir(), 0o755);
}
