//! A munge daemon with a key and a socket of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Stopped when dropped.
#[derive(Debug)]
pub(crate) struct Munged {
    child: Child,
}

impl Munged {
    pub(crate) fn start(dir: &Path) -> Result<Munged, String> {
        fs::create_dir_all(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let key = dir.join("key");
        if !key.exists() {
            let mut random = vec![0; 128];
            let mut source = fs::File::open("/dev/urandom").unwrap();
            std::io::Read::read_exact(&mut source, &mut random).unwrap();
            fs::write(&key, random).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        }
        let option = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
        let socket = dir.join("socket");
        let child = Command::new("munged")
            .args(["--foreground", "--num-threads=1"])
            .args([
                option("socket", "socket"),
                option("key-file", "key"),
                option("pid-file", "pid"),
            ])
            .args([option("log-file", "log"), option("seed-file", "seed")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("needs munged: {error}"))?;
        let mut munged = Munged { child };
        let limit = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if let Ok(Some(status)) = munged.child.try_wait() {
                return Err(format!("munged does not start: {status}"));
            }
            assert!(Instant::now() < limit, "munged does not listen at {}", socket.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(munged)
    }
}

impl Drop for Munged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
