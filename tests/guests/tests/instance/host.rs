//! A running instance of flux's on a host of our own.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flux_guests::{FLUX, Outcome, Sandbox, User, sandbox};

/// Stopped when dropped.
#[derive(Debug)]
pub(super) struct Instance {
    start: Child,
    pub(super) host: Sandbox,
}

/// Brokers of the instance.
pub(super) const SIZE: u32 = 2;

impl Instance {
    /// An instance with these lines in its configuration, beside the IMP's path, or nothing where
    /// the test is to be skipped.
    pub(super) fn start(config: &str) -> Option<Instance> {
        let mut host = sandbox()?;
        if let Err(reason) = host.start_munged() {
            println!("skipped: {reason}");
            return None;
        }
        host.configure_imp(&format!(
            "[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"{}\"]\n",
            host.program("flux-shell").display()
        ));
        let imp = host.imp_path();
        host.write(
            "/etc/flux/system/conf.d/system.toml",
            &format!("[exec]\nimp = \"{}\"\n{config}\n", imp.display()),
        );
        let rundir = host.path("run");
        std::fs::create_dir(&rundir).unwrap();
        host.chown(&rundir, FLUX);
        host.chmod(&rundir, 0o755);
        let mut command = host.command(FLUX, host.program("flux"));
        let program = ": > $HOME/ready; while [ ! -e $HOME/stop ]; do sleep 0.1; done";
        command
            .args(["start", &format!("--test-size={SIZE}")])
            .arg(format!("--test-rundir={}", rundir.display()))
            .arg("--config-path=/etc/flux/system/conf.d")
            .args(["sh", "-c", program])
            .env("TMPDIR", host.home(FLUX))
            .env("FLUX_PLUGIN_PATH", host.source("plugins-wasm/dist"))
            .stdin(Stdio::null());
        let log = std::fs::File::create(host.path("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let start = command.spawn().unwrap();
        let mut instance = Instance { start, host };
        instance.wait_until_it_runs();
        Some(instance)
    }

    /// The initial program is started when the instance runs.
    fn wait_until_it_runs(&mut self) {
        let limit = Instant::now() + Duration::from_secs(120);
        while !self.host.home(FLUX).join("ready").exists() {
            if let Ok(Some(status)) = self.start.try_wait() {
                panic!("flux start: {status}: {}", self.log());
            }
            assert!(Instant::now() < limit, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.host.path("log")).unwrap_or_default()
    }

    /// A command of this user's, with the instance as its.
    pub(super) fn flux(&self, user: User, args: &[&str]) -> Outcome {
        self.flux_with(user, args, "")
    }

    pub(super) fn flux_with(&self, user: User, args: &[&str], stdin: &str) -> Outcome {
        let mut command = self.host.command(user, self.host.program("flux"));
        let socket = self.host.path("run/local-0");
        command.args(args).env("FLUX_URI", format!("local://{}", socket.display()));
        self.host.run(command, stdin)
    }

    /// Submit; the id.
    pub(super) fn submit(&self, user: User, args: &[&str]) -> String {
        let mut all = vec!["submit"];
        all.extend(args);
        let outcome = self.flux(user, &all);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stdout.trim().to_owned()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = std::fs::write(self.host.home(FLUX).join("stop"), "");
        let limit = Instant::now() + Duration::from_secs(60);
        while Instant::now() < limit {
            if let Ok(Some(_)) = self.start.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.start.kill();
        let _ = self.start.wait();
    }
}
