//! The IMP in a control group of its own, as an instance has systemd start it: what the job leaves
//! behind is waited for, killed, and can be signalled when the IMP is gone.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flux_guests::{ALICE, BOB, FLUX, ROOT, Sandbox, User};

use crate::{host, input, probe};

/// The control group, and the processes in it; all gone when dropped.
struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// One of flux's for a job, or nothing where the test is to be skipped.
    fn new(host: &Sandbox, name: &str) -> Option<Cgroup> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
        let root = roots.iter().find(|root| Path::new(root).join("cgroup.procs").exists());
        let Some(root) = root else {
            println!("skipped: no control groups are mounted");
            return None;
        };
        let folder = Path::new(root).join(format!("imp-shell-{name}-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&folder) {
            println!("skipped: {}: {error}", folder.display());
            return None;
        }
        host.chown(&folder, FLUX);
        Some(Cgroup { folder })
    }

    /// A command that runs in it, called from elsewhere.
    fn command(&self, host: &Sandbox, user: User, program: &Path) -> Command {
        let inner = host.command(user, program);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]);
        command.arg(&self.folder).arg(inner.get_program()).args(inner.get_args());
        command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir("/");
        command
    }

    fn members(&self) -> Vec<String> {
        let list = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().map(str::to_owned).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let limit = Instant::now() + Duration::from_secs(60);
        while std::fs::remove_dir(&self.folder).is_err() && Instant::now() < limit {
            for pid in self.members() {
                let _ = Command::new("/bin/kill").args(["-KILL", &pid]).status();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "{what}: not yet");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The IMP of a job of alice's, whose shell ends at once and leaves something behind; its id.
fn start(host: &Sandbox, cgroup: &Cgroup) -> (Child, String) {
    host.script(
        "probe",
        "setsid sh -c 'trap \"\" TERM HUP; echo $$ > $HOME/new; mv $HOME/new $HOME/left
             while :; do sleep 0.05; done' &
         until [ -e $HOME/left ]; do sleep 0.02; done",
    );
    let left = host.home(ALICE).join("left");
    let _ = std::fs::remove_file(&left);
    let mut command = cgroup.command(host, FLUX, &host.imp_path());
    command.args(["exec", &probe(host), "1"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let j = input(&host.sign(ALICE, "{}"));
    child.stdin.take().unwrap().write_all(j.as_bytes()).unwrap();
    until("the shell runs", || left.exists());
    let pid = std::fs::read_to_string(left).unwrap().trim().to_owned();
    (child, pid)
}

/// As the owner, whose process the IMP is as far as signals go.
fn signal(host: &Sandbox, signal: &str, pid: u32) {
    let mut command = host.command(FLUX, "/bin/kill");
    command.args([signal, &pid.to_string()]);
    host.run(command, "").assert_success();
}

fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

#[test]
fn an_imp_with_a_control_group_stays_until_nothing_of_the_job_is_left() {
    let Some(host) = host() else { return };
    let Some(cgroup) = Cgroup::new(&host, "stays") else { return };
    let (mut child, left) = start(&host, &cgroup);
    // The shell has ended when what it left has been handed to the IMP.
    let parent = || std::fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
    let imp = format!(" {} ", child.id());
    until("the orphan is the IMP's", || {
        parent().rsplit_once(')').is_some_and(|(_, rest)| rest[2..].starts_with(&imp))
    });
    assert!(child.try_wait().unwrap().is_none(), "the IMP has left it behind");
    // What is not the IMP's child goes, too.
    let mut stray = cgroup.command(&host, ALICE, Path::new("sleep")).arg("1000").spawn().unwrap();
    until("both are there", || cgroup.members().contains(&stray.id().to_string()));
    signal(&host, "-TERM", child.id());
    assert!(runs(&left), "SIGTERM is for the shell alone");
    signal(&host, "-USR1", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0), "the shell had ended well");
    assert_eq!(stray.wait().unwrap().signal(), Some(9));
    assert!(!runs(&left));
    assert_eq!(cgroup.members(), Vec::<String>::new());
}

#[test]
fn what_a_dead_imp_has_left_in_its_control_group_can_be_killed_by_the_owner_alone() {
    let Some(host) = host() else { return };
    let Some(cgroup) = Cgroup::new(&host, "dead") else { return };
    host.configure_imp(&format!(
        "[exec]\nallowed-users = [\"flux\", \"bob\"]\nallowed-shells = [\"{}\"]\n",
        probe(&host)
    ));
    let (mut child, left) = start(&host, &cgroup);
    signal(&host, "-KILL", child.id());
    child.wait().unwrap();
    assert!(runs(&left));
    // Root's are nobody's, and what is elsewhere is not of a job.
    let mut roots = cgroup.command(&host, ROOT, Path::new("sleep")).arg("1000").spawn().unwrap();
    until("it is there", || cgroup.members().contains(&roots.id().to_string()));
    let mut other = host.command(ALICE, "sleep").arg("1000").spawn().unwrap();
    let kill = |user: User, pid: &str| host.imp(user, &["kill", "9", pid], "");
    let refusal = "kill: refusing request from uid=";
    kill(BOB, &left).assert_refused(refusal);
    kill(FLUX, &roots.id().to_string()).assert_refused(refusal);
    kill(FLUX, &other.id().to_string()).assert_refused(refusal);
    assert!(runs(&left));
    kill(FLUX, &left).assert_success();
    until("it is gone", || !runs(&left));
    for child in [&mut roots, &mut other] {
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
