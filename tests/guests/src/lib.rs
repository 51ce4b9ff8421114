//! A host of our own for tests of several users: its `/etc`, with users and configuration, is
//! mounted over the real one for the calling thread and what it starts, and nobody else. The
//! programs are those that would be installed, with the paths that are compiled in.
//!
//! It takes root, the right to mount, and munged; without these [`Sandbox::new`] says why not, and
//! the test that asked is skipped. Build the workspace first.
#![allow(clippy::unwrap_used, clippy::panic)]

mod munged;
mod output;
mod sys;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flux_sign::{Config, Mechanism};

use munged::Munged;
pub use output::Outcome;

/// A user of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub name: &'static str,
    pub uid: u32,
    /// A group that the user is in besides his own.
    pub extra: u32,
}

pub const ROOT: User = User { name: "root", uid: 0, extra: 0 };
/// The owner of instances.
pub const FLUX: User = User { name: "flux", uid: 64001, extra: 64101 };
pub const ALICE: User = User { name: "alice", uid: 64002, extra: 64102 };
pub const BOB: User = User { name: "bob", uid: 64003, extra: 64103 };

const USERS: [User; 4] = [ROOT, FLUX, ALICE, BOB];

/// The host; gone when dropped, with munged. Only the thread that made it is there.
#[derive(Debug)]
pub struct Sandbox {
    root: tempfile::TempDir,
    programs: PathBuf,
    munged: Option<Munged>,
    /// Besides what every host has.
    mounted: Vec<PathBuf>,
}

/// Do something as this user, on a thread of its own.
pub fn as_user<T: Send + 'static>(user: User, work: impl FnOnce() -> T + Send + 'static) -> T {
    sys::as_user(user.uid, work)
}

/// The host, or nothing where the test is to be skipped.
pub fn sandbox() -> Option<Sandbox> {
    match Sandbox::new() {
        Ok(sandbox) => Some(sandbox),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

impl Sandbox {
    pub fn new() -> Result<Sandbox, String> {
        if sys::effective_uid() != 0 {
            return Err("needs root, for other users and the setuid bit".to_owned());
        }
        // Nothing above it may be writable by others.
        let root = tempfile::Builder::new()
            .prefix("flux-guests-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/var/lib")
            .map_err(|error| format!("/var/lib: {error}"))?;
        sys::leave_mount_namespace().map_err(|error| format!("needs to mount: {error}"))?;
        let mut sandbox = Sandbox { root, programs: PathBuf::new(), munged: None, mounted: vec![] };
        sandbox.programs = sandbox.mount_programs()?;
        sandbox.make_etc();
        sandbox.make_homes();
        sys::bind(&sandbox.path("etc"), Path::new("/etc")).map_err(|e| format!("/etc: {e}"))?;
        sandbox.install_imp();
        let whoami = sandbox.imp(FLUX, &["whoami"], "");
        whoami.assert_success();
        match whoami.stdout.contains("flux-imp: privileged: uid=64001 euid=0") {
            true => Ok(sandbox),
            false => Err("/var/lib is mounted nosuid".to_owned()),
        }
    }

    /// A path below the host's own directory, which all may enter and root may write to.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// A program of this build, where everybody can reach it.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// A file of this project, where everybody can reach it.
    pub fn source(&self, below: &str) -> PathBuf {
        self.path("src").join(below)
    }

    /// The IMP, setuid root.
    pub fn imp_path(&self) -> PathBuf {
        self.path("libexec/flux-imp")
    }

    /// Write a file of root's, 0644.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = path.as_ref();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self.chmod(path, 0o644);
    }

    /// Write a script of root's that all may execute; its path.
    pub fn script(&self, below: &str, text: &str) -> String {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        install("755", Path::new("/dev/stdin"), &path, &format!("#!/bin/sh\n{text}\n"));
        path.to_str().unwrap().to_owned()
    }

    pub fn chmod(&self, path: impl AsRef<Path>, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn chown(&self, path: impl AsRef<Path>, user: User) {
        chown(path, Some(user.uid), Some(user.uid)).unwrap();
    }

    /// A command of this user's, with his groups and a small environment.
    pub fn command(&self, user: User, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("/usr/bin/setpriv");
        command
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.uid)])
            .arg(format!("--groups={},{}", user.uid, user.extra))
            .arg("--")
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.home(user))
            .current_dir("/");
        command.process_group(0);
        command
    }

    pub fn home(&self, user: User) -> PathBuf {
        self.path("home").join(user.name)
    }

    /// Run a command to its end.
    pub fn run(&self, mut command: Command, stdin: &str) -> Outcome {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may not read it.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Outcome::of(child.wait_with_output().unwrap())
    }

    pub fn imp(&self, user: User, args: &[&str], stdin: &str) -> Outcome {
        let mut command = self.command(user, self.imp_path());
        command.args(args);
        self.run(command, stdin)
    }

    /// The IMP's configuration.
    pub fn configure_imp(&self, text: &str) {
        self.write("/etc/flux/imp/conf.d/imp.toml", text);
    }

    /// An empty folder of this host's in place of what is there, as its `/run`.
    pub fn mount_empty(&mut self, over: &str) {
        let folder = self.path(&over.replace('/', "-"));
        fs::create_dir(&folder).unwrap();
        sys::bind(&folder, Path::new(over)).unwrap();
        self.mounted.push(over.into());
    }

    /// Start munged, and configure signing with it.
    pub fn start_munged(&mut self) -> Result<(), String> {
        self.munged = Some(Munged::start(&self.path("munge"))?);
        self.configure_signing(
            "max-ttl = 1209600\ndefault-type = \"munge\"\nallowed-types = [\"munge\"]",
        );
        Ok(())
    }

    pub fn stop_munged(&mut self) {
        self.munged = None;
    }

    /// The `[sign]` table.
    pub fn configure_signing(&self, keys: &str) {
        let socket = self.path("munge/socket");
        let text =
            format!("[sign]\n{keys}\n[sign.munge]\nsocket-path = \"{}\"\n", socket.display());
        self.write("/etc/flux/security/conf.d/sign.toml", &text);
    }

    /// Sign as one user what claims to be another's.
    pub fn sign_as(&self, signer: User, claimed: User, payload: &str) -> String {
        let config = Config::load(0).unwrap();
        let payload = payload.to_owned();
        sys::as_user(signer.uid, move || {
            flux_sign::wrap(&config, Mechanism::Munge, claimed.uid, payload.as_bytes()).unwrap()
        })
    }

    pub fn sign(&self, signer: User, payload: &str) -> String {
        self.sign_as(signer, signer, payload)
    }

    fn mount_programs(&self) -> Result<PathBuf, String> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let test = std::env::current_exe().unwrap();
        let built = test.ancestors().nth(2).unwrap();
        for name in ["flux", "flux-broker", "flux-shell", "flux-imp"] {
            let program = built.join(name);
            assert!(program.is_file(), "{} is missing: build the workspace", program.display());
        }
        let below = built
            .strip_prefix(workspace)
            .map_err(|_| "the target directory is not in the workspace".to_owned())?;
        let mounted = self.path("src");
        fs::create_dir(&mounted).unwrap();
        sys::bind(workspace, &mounted).map_err(|error| format!("mount: {error}"))?;
        Ok(mounted.join(below))
    }

    fn make_etc(&self) {
        let etc = self.path("etc");
        let line = |f: &dyn Fn(User) -> String| USERS.into_iter().map(f).collect::<String>();
        let passwd = line(&|user| {
            let home = self.home(user);
            format!("{0}:x:{1}:{1}::{2}:/bin/sh\n", user.name, user.uid, home.display())
        });
        let groups = line(&|user| match user.uid {
            0 => "root:x:0:\n".to_owned(),
            uid => format!("{0}:x:{uid}:\n{0}-extra:x:{1}:{0}\n", user.name, user.extra),
        });
        self.write(etc.join("passwd"), &passwd);
        self.write(etc.join("group"), &groups);
        self.write(etc.join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n");
        self.write(etc.join("flux/imp/conf.d/imp.toml"), "");
        for name in ["hosts", "hostname", "ld.so.cache", "localtime"] {
            // Not all hosts have all of them.
            let _ = fs::copy(Path::new("/etc").join(name), etc.join(name));
        }
    }

    fn make_homes(&self) {
        for user in USERS {
            fs::create_dir_all(self.home(user)).unwrap();
            self.chown(self.home(user), user);
        }
    }

    fn install_imp(&self) {
        let imp = self.imp_path();
        fs::create_dir_all(imp.parent().unwrap()).unwrap();
        install("4755", &self.program("flux-imp"), &imp, "");
    }
}

/// Copy a program into place, as root's. Another process does it: a descriptor of this one that is
/// open for writing may be inherited by whatever another thread starts just then, and what is open
/// for writing can't be executed.
fn install(mode: &str, from: &Path, to: &Path, stdin: &str) {
    let mut command = Command::new("/usr/bin/install");
    command.args(["-o", "root", "-g", "root", "-m", mode]).args([from, to]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "install {}", to.display());
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.munged = None;
        // What is mounted is not to be removed with the directory.
        self.mounted.iter().for_each(|mounted| sys::unmount(mounted));
        sys::unmount(Path::new("/etc"));
        sys::unmount(&self.path("src"));
    }
}
