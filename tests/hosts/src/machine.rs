//! A machine of our own with a systemd: process 1 of new namespaces, on an overlay of this machine's
//! root with an installation laid over it, and in control groups of its own.
//!
//! What it writes is gone with it. It takes root, overlayfs, and the right to mount control groups;
//! without these [`machine`] says why not, and the test that asked is skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::instance::{program, until};
use crate::sys;

const SYSTEMD: &str = "/lib/systemd/systemd";
/// Where the control groups of tests are, in each hierarchy that systemd uses.
const HIERARCHIES: [&str; 3] =
    ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// What their names begin with; the rest is the number of the test's process.
const GROUP: &str = "fluxtest-";
/// Nothing of what this machine starts, and an order that keeps the unit in memory when it has ended.
const TARGET: &str =
    "[Unit]\nRequires=basic.target\nAfter=basic.target flux.service\nAllowIsolate=yes\n";

/// Becomes process 1, in namespaces that are made already. Its arguments: where the root is to be
/// mounted, the folder with what lies above this machine's, a folder for overlayfs, and how control
/// groups are mounted here.
const BOOT: &str = r#"
set -e
root=$1 upper=$2 work=$3 mode=$4
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$upper,workdir=$work" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
case $mode in
hybrid)
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd ;;
*)
    mount -t cgroup2 cgroup2 sys/fs/cgroup ;;
esac
for dir in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $dir; done
chmod 1777 tmp
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm old
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
ip link set lo up
hostname n1
pivot_root . old
umount -l /old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=fluxtest.target --log-target=journal --show-status=0
"#;

/// A running machine; it is switched off when dropped.
#[derive(Debug)]
pub struct Machine {
    dir: tempfile::TempDir,
    groups: Vec<PathBuf>,
    /// The parent of process 1.
    outside: Child,
    init: u32,
}

/// The machine, or nothing where the test is to be skipped.
pub fn machine(prepare: impl FnOnce(&Path)) -> Option<Machine> {
    match Machine::boot(prepare) {
        Ok(machine) => Some(machine),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

impl Machine {
    /// Lay out the packages of this build, let `prepare` add to that tree, and boot.
    fn boot(prepare: impl FnOnce(&Path)) -> Result<Machine, String> {
        if sys::effective_uid() != 0 {
            return Err("needs root, for namespaces with a systemd".to_owned());
        }
        if !Path::new(SYSTEMD).exists() {
            return Err(format!("needs {SYSTEMD}"));
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let [root, upper, work] = ["root", "upper", "work"].map(|name| dir.path().join(name));
        for path in [&root, &upper, &work] {
            fs::create_dir(path).map_err(|error| error.to_string())?;
        }
        install(&upper);
        prepare(&upper);
        let units = upper.join("etc/systemd/system");
        fs::create_dir_all(&units).map_err(|error| error.to_string())?;
        fs::write(units.join("fluxtest.target"), TARGET).map_err(|error| error.to_string())?;
        let groups = make_groups()?;
        let mode = if groups.len() > 1 { "hybrid" } else { "unified" };
        let mut command = Command::new("sh");
        // The shell moves itself, so that the new namespaces have its control group as their root.
        let enter = "for group in \"$@\"; do echo $$ > \"$group/cgroup.procs\" || exit 9; done";
        let unshare = "exec unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child \
                       sh -c \"$BOOT\" boot \"$ROOT\" \"$UPPER\" \"$WORK\" \"$MODE\"";
        command.arg("-c").arg(format!("{enter}\n{unshare}")).arg("enter").args(&groups);
        command.env("BOOT", BOOT).env("ROOT", &root).env("MODE", mode);
        command.env("UPPER", &upper).env("WORK", &work);
        let said = dir.path().join("said");
        let said_file = fs::File::create(&said).map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said_file);
        let outside = command.spawn().map_err(|error| error.to_string())?;
        let mut machine = Machine { dir, groups, outside, init: 0 };
        machine.wait_for_init().map_err(|reason| {
            let said = fs::read_to_string(&said).unwrap_or_default();
            format!("{reason}: {}", said.trim())
        })?;
        Ok(machine)
    }

    /// Wait until process 1 is a systemd that answers.
    fn wait_for_init(&mut self) -> Result<(), String> {
        let pid = self.outside.id();
        let mut ended = None;
        until("a systemd that answers", || {
            if let Ok(Some(status)) = self.outside.try_wait() {
                ended = Some(status);
                return true;
            }
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let Some(init) = children.ok().and_then(|text| text.trim().parse().ok()) else {
                return false;
            };
            let name = fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default();
            if name.trim() != "systemd" {
                return false;
            }
            self.init = init;
            let state = self.try_run(&["systemctl", "is-system-running"]);
            ["running", "degraded"].contains(&text(&state.stdout).trim())
        });
        match ended {
            Some(status) => Err(format!("can't boot a systemd here ({status})")),
            None => Ok(()),
        }
    }

    /// A command as root of the machine, and what came of it.
    pub fn try_run(&self, command: &[&str]) -> Output {
        let init = self.init.to_string();
        Command::new("nsenter")
            .args(["-t", &init, "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command prints that is to succeed.
    pub fn run(&self, command: &[&str]) -> String {
        let output = self.try_run(command);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command:?}: {said}\n{}", self.journal());
        text(&output.stdout)
    }

    /// A property of the unit `flux`.
    pub fn unit(&self, property: &str) -> String {
        self.run(&["systemctl", "show", "--value", "-P", property, "flux"]).trim().to_owned()
    }

    /// Wait until the unit is in a state.
    pub fn wait_for_unit(&self, state: &str) {
        until(&format!("unit {state}"), || self.unit("ActiveState") == state);
    }

    /// What the broker has logged.
    pub fn journal(&self) -> String {
        text(&self.try_run(&["journalctl", "-u", "flux", "--no-pager", "-o", "cat"]).stdout)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its namespace ends with process 1, and all that is in it.
        if self.init != 0 {
            let _ = sys::signal(self.init, libc::SIGKILL);
        }
        let _ = self.outside.kill();
        let _ = self.outside.wait();
        for group in &self.groups {
            remove_group(group);
        }
        let _ = &self.dir;
    }
}

/// The installable tree of this build.
fn install(to: &Path) {
    let programs = program("flux").parent().map(Path::to_owned).unwrap_or_default();
    let status = Command::new(program("xtask"))
        .args(["dist".as_ref(), to.as_os_str(), "--bin".as_ref(), programs.as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status();
    assert!(status.unwrap().success(), "the packages can't be laid out");
}

/// A control group in each hierarchy that is there.
fn make_groups() -> Result<Vec<PathBuf>, String> {
    let name = format!("{GROUP}{}", std::process::id());
    let mut groups = Vec::new();
    for hierarchy in HIERARCHIES {
        let hierarchy = Path::new(hierarchy);
        // Below a hybrid layout the third is no hierarchy.
        if !hierarchy.join("cgroup.procs").exists() {
            continue;
        }
        sweep(hierarchy);
        let group = hierarchy.join(&name);
        let made = fs::create_dir(&group);
        made.map_err(|error| format!("needs control groups: {}: {error}", group.display()))?;
        groups.push(group);
    }
    match groups.is_empty() {
        true => Err("needs control groups below /sys/fs/cgroup".to_owned()),
        false => Ok(groups),
    }
}

/// Remove what tests left behind that were killed.
fn sweep(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let dead = |pid: &str| !Path::new("/proc").join(pid).exists();
        if name.strip_prefix(GROUP).is_some_and(dead) {
            remove_group(&entry.path());
        }
    }
}

/// With the groups that systemd has made in it, once their processes are gone.
fn remove_group(group: &Path) {
    for _ in 0..100 {
        let inner = fs::read_dir(group).into_iter().flatten().flatten();
        inner.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_group(&entry.path()));
        if fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
