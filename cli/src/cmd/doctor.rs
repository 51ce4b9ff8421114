//! `flux doctor`: is this node fit to run a broker of the system instance? No broker is needed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Args;
use flux_protocol::payload::Object;
use flux_protocol::r::{ResourceSet, Resources};
use serde::Serialize;
use serde_json::Value;

use crate::cmd::config::check;
use crate::cmd::r::local;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{outln, toml_files};

/// Less free space than this is too little for the store.
const MIN_SPACE: u64 = 1 << 30;
const MUNGE_SOCKET: &str = "/run/munge/munge.socket.2";

#[derive(Debug, Args)]
#[command(override_usage = "flux doctor [OPTIONS]")]
pub(crate) struct Doctor {
    /// Folder with system, security and imp below it (default: /etc/flux)
    #[arg(long, value_name = "DIR")]
    confdir: Option<PathBuf>,
    /// Where the leader keeps the store
    #[arg(long, value_name = "DIR", default_value = "/var/lib/flux")]
    statedir: PathBuf,
    /// Socket of the MUNGE daemon (default: that of the configuration)
    #[arg(long, value_name = "PATH")]
    munge: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    text: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "str::is_empty")]
    remedy: &'static str,
}

impl Doctor {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let confdir = self.confdir.clone().unwrap_or_else(|| context.layout.confdir());
        let mut findings = configuration(&context, &confdir)?;
        let system = read(&confdir.join("system/conf.d"));
        let security = read(&confdir.join("security/conf.d"));
        findings.extend(self.munge(&security));
        findings.extend(imp(&system));
        findings.push(self.space());
        findings.extend(clock());
        findings.extend(hardware(&system, || local::from_system(&context)));
        findings.push(pass("config-hash", format!("{:016x}", hash(&system))));
        let good = findings.iter().all(|finding| finding.ok);
        if self.json {
            let text = serde_json::to_string(&findings).map_err(Failure::new)?;
            outln!("{text}");
        } else {
            findings.iter().for_each(Finding::print);
        }
        if good { Ok(0) } else { Err(Failure::silent(1)) }
    }

    fn munge(&self, security: &Object) -> Option<Finding> {
        let sign = security.get("sign")?;
        let kind = sign.get("default-type")?.as_str()?;
        if kind != "munge" {
            return None;
        }
        let configured = sign.pointer("/munge/socket-path").and_then(Value::as_str);
        let socket = match &self.munge {
            Some(socket) => socket.as_path(),
            None => Path::new(configured.unwrap_or(MUNGE_SOCKET)),
        };
        Some(match UnixStream::connect(socket) {
            Ok(_) => pass("munge", format!("{} answers", socket.display())),
            Err(e) => fail(
                "munge",
                format!("{}: {}", socket.display(), strerror(&e)),
                "install munge, give all nodes the same key, and start munge.service",
            ),
        })
    }

    fn space(&self) -> Finding {
        let shown = self.statedir.display();
        match nix::sys::statvfs::statvfs(&self.statedir) {
            Err(e) => fail(
                "statedir",
                format!("{shown}: {}", e.desc()),
                "make the folder, with owner flux and mode 0700; systemd does so for the unit",
            ),
            Ok(stat) => {
                let free = stat.blocks_available() * stat.fragment_size();
                let text = format!("{shown}: {} MiB free", free >> 20);
                match free >= MIN_SPACE {
                    true => pass("statedir", text),
                    false => fail("statedir", text, "the store needs at least 1 GiB"),
                }
            }
        }
    }
}

impl Finding {
    fn print(&self) {
        let verdict = if self.ok { "OK" } else { "FAIL" };
        outln!("{verdict:<5} {}: {}", self.check, self.text);
        if !self.remedy.is_empty() {
            outln!("      {}", self.remedy);
        }
    }
}

fn configuration(context: &Context, confdir: &Path) -> Result<Vec<Finding>, Failure> {
    let found = check::check(context, confdir)?;
    let remedy = "correct the file; `flux config check` looks again";
    let mut findings: Vec<Finding> =
        found.lines.into_iter().map(|line| fail("configuration", line, remedy)).collect();
    if findings.is_empty() {
        findings.push(pass("configuration", format!("{}: no mistakes", confdir.display())));
    }
    Ok(findings)
}

/// Signed requests are good for a time, and logs of nodes are read side by side. Nothing where there
/// is nobody who could tell.
fn clock() -> Option<Finding> {
    let args = ["show", "--property=NTPSynchronized", "--value"];
    let output = std::process::Command::new("timedatectl").args(args).output().ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(pass("clock", "synchronized".to_owned())),
        "no" => Some(fail(
            "clock",
            "not synchronized".to_owned(),
            "run chrony or systemd-timesyncd on all nodes",
        )),
        _ => None,
    }
}

/// Nothing where the owner's jobs are all that is to run.
fn imp(system: &Object) -> Option<Finding> {
    let path = system.get("exec")?.get("imp")?.as_str()?;
    Some(match std::fs::metadata(path) {
        Err(e) => fail("imp", format!("{path}: {}", strerror(&e)), "install flux-security"),
        Ok(meta) if meta.uid() != 0 || meta.permissions().mode() & 0o4000 == 0 => fail(
            "imp",
            format!("{path}: is not setuid root"),
            "chown root and chmod 4755; the file system must not be mounted nosuid",
        ),
        Ok(_) if is_nosuid(Path::new(path)) => fail(
            "imp",
            format!("{path}: its file system is mounted nosuid"),
            "mount it without nosuid, or install flux-security elsewhere",
        ),
        Ok(_) => pass("imp", format!("{path}: setuid root")),
    })
}

fn is_nosuid(path: &Path) -> bool {
    let flags = nix::sys::statvfs::statvfs(path).map(|stat| stat.flags());
    flags.is_ok_and(|flags| flags.contains(nix::sys::statvfs::FsFlags::ST_NOSUID))
}

/// Does this host have what R says of it? Nothing where the broker does not look.
fn hardware(system: &Object, here: impl FnOnce() -> Result<Resources, Failure>) -> Option<Finding> {
    let resource = system.get("resource")?;
    if resource.get("noverify").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let path = resource.get("path")?.as_str()?;
    let set = ResourceSet::decode(&std::fs::read_to_string(path).ok()?).ok()?;
    let host = std::env::var("FLUX_FAKE_HOSTNAME").ok().or_else(|| {
        nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned())
    })?;
    let Some((_, node)) = set.nodes().find(|(_, node)| *node.host == *host) else {
        let text = format!("{host} is not in {path}");
        return Some(fail("hardware", text, "add the host to R, or correct its name"));
    };
    let Ok(here) = here() else { return None };
    let missing = node.resources.cores.difference(&here.cores);
    Some(match missing.is_empty() {
        true => pass("hardware", format!("{host}: core[{}]", node.resources.cores)),
        false => fail(
            "hardware",
            format!("{host}: missing resources: core[{missing}]"),
            "repair the node or correct R; else it will be drained when its broker starts",
        ),
    })
}

/// A folder that can't be read has been told of by the check of the configuration.
fn read(dir: &Path) -> Object {
    if dir.is_dir() { toml_files::read(dir).unwrap_or_default() } else { Object::new() }
}

/// FNV-1a over the merged configuration, in whatever order it is written: nodes that differ in it
/// are configured differently.
fn hash(config: &Object) -> u64 {
    let mut config = Value::Object(config.clone());
    config.sort_all_objects();
    let text = config.to_string();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn pass(check: &'static str, text: String) -> Finding {
    Finding { check, ok: true, text, remedy: "" }
}

fn fail(check: &'static str, text: String, remedy: &'static str) -> Finding {
    Finding { check, ok: false, text, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_that_differ_have_different_hashes() {
        let parse = |text: &str| toml_files::parse_toml(text).unwrap();
        let one = parse("[kvs]\ncheckpoint-period = \"30m\"\n[access]\nallow-root-owner = true\n");
        let same = parse("[access]\nallow-root-owner = true\n[kvs]\ncheckpoint-period = \"30m\"\n");
        assert_eq!(hash(&one), hash(&same));
        assert_ne!(hash(&one), hash(&parse("[access]\nallow-root-owner = true\n")));
    }

    #[test]
    fn an_imp_without_the_bit_is_a_fault() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("[exec]\nimp = \"{}\"\n", file.path().display());
        let finding = imp(&toml_files::parse_toml(&text).unwrap()).unwrap();
        assert!(!finding.ok && finding.text.ends_with("is not setuid root"), "{finding:?}");
        assert!(imp(&Object::new()).is_none());
    }

    #[test]
    fn cores_that_are_not_there_are_a_fault() {
        let host = nix::unistd::gethostname().unwrap().to_string_lossy().into_owned();
        let resources = Resources {
            cores: "100000".parse().unwrap(),
            gpus: flux_protocol::idset::Idset::new(),
        };
        let hosts = [host].iter().collect();
        let ranks = flux_protocol::idset::Idset::first_n(1);
        let set = ResourceSet::uniform(&ranks, resources, &hosts).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), set.encode().unwrap()).unwrap();
        let text = format!("[resource]\npath = \"{}\"\n", file.path().display());
        let finding = hardware(&toml_files::parse_toml(&text).unwrap(), local::from_kernel);
        let finding = finding.unwrap();
        assert!(finding.text.ends_with("missing resources: core[100000]"), "{finding:?}");
        let unverified = toml_files::parse_toml(&format!("{text}noverify = true\n")).unwrap();
        assert!(hardware(&unverified, local::from_kernel).is_none());
    }

    #[test]
    fn munge_is_asked_where_the_configuration_says_that_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let doctor = |munge: Option<&str>| Doctor {
            confdir: None,
            statedir: dir.path().to_owned(),
            munge: munge.map(PathBuf::from),
            json: false,
        };
        let text = format!(
            "[sign]\ndefault-type = \"munge\"\n[sign.munge]\nsocket-path = \"{}\"\n",
            socket.display()
        );
        let security = toml_files::parse_toml(&text).unwrap();
        assert!(doctor(None).munge(&security).unwrap().ok);
        assert!(!doctor(Some("/nonexistent/socket")).munge(&security).unwrap().ok);
    }
}
