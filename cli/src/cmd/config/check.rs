//! `flux config check`: what is wrong with the files of the three configuration spaces, found
//! without starting anything.
//!
//! The broker's own program reads its tables; what is beyond a table (files that are named in it,
//! hosts, owners and modes) is looked at here.

mod places;
mod privileged;

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use flux_cert::Certificate;
use flux_protocol::hostlist::Hostlist;
use flux_protocol::payload::Object;
use flux_protocol::r::ResourceSet;
use serde_json::Value;

use self::places::Places;
use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::{outln, toml_files};

/// What has been found, a line each: `FILE:LINE: TEXT`.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) lines: Vec<String>,
}

/// The files of one space.
struct Space {
    config: Object,
    places: Places,
}

/// A dotted key, and what is wrong with it.
type Problem = (String, String);

const SPACES: [&str; 3] = ["system", "security", "imp"];

pub(super) fn run(context: &Context, dir: Option<PathBuf>) -> Outcome {
    let dir = dir.unwrap_or_else(|| context.layout.confdir());
    let findings = check(context, &dir)?;
    for line in &findings.lines {
        outln!("{line}");
    }
    if findings.lines.is_empty() {
        outln!("ok");
        return Ok(0);
    }
    Err(Failure::silent(1))
}

/// Check all three spaces below `dir`; one that is not there has no mistakes.
pub(crate) fn check(context: &Context, dir: &Path) -> Result<Findings, Failure> {
    if !dir.is_dir() {
        return Err(Failure::of(dir.display(), "there is no such folder"));
    }
    let mut findings = Findings::default();
    let [system, security, imp] = spaces(dir)?;
    if let Some(dir) = system {
        findings.system(context, &dir)?;
    }
    if let Some(dir) = security {
        findings.privileged(&dir, privileged::sign_problems);
    }
    if let Some(dir) = imp {
        findings.privileged(&dir, privileged::imp_problems);
    }
    Ok(findings)
}

/// The three folders of files that are there: below `dir` as below `/etc/flux`, `/etc` or `/`; or
/// `dir` is one of them itself.
fn spaces(dir: &Path) -> Result<[Option<PathBuf>; 3], Failure> {
    for tree in [dir.to_owned(), dir.join("flux"), dir.join("etc/flux")] {
        let spaces =
            SPACES.map(|space| Some(tree.join(space).join("conf.d")).filter(|d| d.is_dir()));
        if spaces.iter().any(Option::is_some) {
            return Ok(spaces);
        }
    }
    let full = dir.canonicalize().map_err(|e| Failure::of(dir.display(), strerror(&e)))?;
    let (itself, named) = match dir.join("conf.d") {
        conf if conf.is_dir() => (conf, full),
        _ => (dir.to_owned(), full.parent().unwrap_or(&full).to_owned()),
    };
    // What is called otherwise is what a broker is started with.
    let space = SPACES.iter().position(|space| named.ends_with(space)).unwrap_or_default();
    if itself == dir && toml_files::files(dir).is_ok_and(|files| files.is_empty()) {
        let text = "there is no system/conf.d, security/conf.d or imp/conf.d below it, nor *.toml";
        return Err(Failure::of(dir.display(), text));
    }
    let mut spaces = [None, None, None];
    if let Some(space) = spaces.get_mut(space) {
        *space = Some(itself);
    }
    Ok(spaces)
}

impl Findings {
    fn system(&mut self, context: &Context, dir: &Path) -> Result<(), Failure> {
        self.tables(context, dir)?;
        // The broker has told already what can't be read.
        if let Ok(space) = Space::read(dir) {
            self.certificate(&space);
            self.resources(&space);
            self.hosts(&space);
            self.programs(&space);
            self.modes(dir, 0o002, "writable by everybody (chmod o-w)");
        }
        Ok(())
    }

    fn privileged(&mut self, dir: &Path, problems: fn(&Object) -> Vec<Problem>) {
        let space = match Space::read(dir) {
            Ok(space) => space,
            Err(error) => return self.lines.push(error.to_string()),
        };
        // A folder that is only there is not used.
        if space.config.is_empty() {
            return;
        }
        for (key, text) in problems(&space.config) {
            self.add(&space, &key, &text);
        }
        self.lines.extend(privileged::unread(dir));
        self.modes(dir, 0o022, "writable by others than root (chmod go-w)");
        self.owners(dir);
    }

    /// What the broker says of its tables.
    fn tables(&mut self, context: &Context, dir: &Path) -> Result<(), Failure> {
        let broker = context.layout.libexecdir().join("flux-broker");
        let output = Command::new(&broker)
            .arg("--check-config")
            .arg("--config-path")
            .arg(dir)
            .output()
            .map_err(|e| Failure::of(broker.display(), strerror(&e)))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        self.lines.extend(text.lines().map(str::to_owned));
        Ok(())
    }

    fn add(&mut self, space: &Space, key: &str, text: &str) {
        self.lines.push(format!("{}: {text}", space.places.find(key)));
    }

    fn certificate(&mut self, space: &Space) {
        let Some(path) = space.string("bootstrap", "curve_cert") else { return };
        // Whoever checks need not be who reads it in the end: then its mode has to do.
        let may_read = std::fs::File::open(path)
            .map_or_else(|e| e.kind() != std::io::ErrorKind::PermissionDenied, |_| true);
        let text = match (may_read, std::fs::metadata(path)) {
            (false, Ok(meta)) if meta.permissions().mode() & 0o077 != 0 => {
                format!("{path}: readable by group/other (chmod 0400)")
            }
            (false, Ok(_)) => return,
            _ => match Certificate::load(Path::new(path)) {
                Err(error) => error.to_string(),
                Ok(_) => return,
            },
        };
        self.add(space, "bootstrap.curve_cert", &text);
    }

    /// R must be there, and know the hosts that start brokers and the properties that queues are of.
    fn resources(&mut self, space: &Space) {
        let Some(path) = space.string("resource", "path") else { return };
        let mut add = |text: String| self.add(space, "resource.path", &format!("{path}: {text}"));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => return add(strerror(&e)),
        };
        let set = match ResourceSet::decode(&text) {
            Ok(set) => set,
            Err(e) => return add(e.to_string()),
        };
        if let Some(hosts) = space.bootstrap_hosts() {
            let (known, hosts) = (set.nodelist(), hosts.iter().collect::<BTreeSet<String>>());
            let in_r: BTreeSet<String> = known.iter().collect();
            let missing: Hostlist = hosts.difference(&in_r).map(String::as_str).collect();
            let extra: Hostlist = in_r.difference(&hosts).map(String::as_str).collect();
            let texts = [(missing, "not in R"), (extra, "in R, but not in bootstrap.hosts")]
                .into_iter()
                .filter(|(list, _)| !list.is_empty())
                .map(|(list, what)| format!("{list}: {what}"))
                .collect::<Vec<_>>();
            if !texts.is_empty() {
                add(texts.join("; "));
            }
        }
        for (name, queue) in
            space.config.get("queues").and_then(Value::as_object).into_iter().flatten()
        {
            let properties = queue.get("requires").and_then(Value::as_array);
            for property in properties.into_iter().flatten().filter_map(Value::as_str) {
                if !set.properties().contains_key(property) {
                    let text = format!("{path}: no node has the property '{property}'");
                    self.add(space, &format!("queues.{name}.requires"), &text);
                }
            }
        }
    }

    /// Addresses that brokers connect to must have a meaning on this host.
    fn hosts(&mut self, space: &Space) {
        let default = space.string("bootstrap", "default_connect").unwrap_or_default();
        for (at, entry) in space.bootstrap_entries().iter().enumerate() {
            let Some(hosts) = hosts_of(entry) else { continue };
            let connect = entry.get("connect").and_then(Value::as_str).unwrap_or(default);
            let Some(address) = connect.strip_prefix("tcp://") else { continue };
            let pattern = address.rsplit_once(':').map_or(address, |(host, _port)| host);
            let pattern = pattern.trim_matches(['[', ']']);
            let mut unknown = Hostlist::new();
            for host in hosts.iter() {
                let name = pattern.replace("%h", &host);
                if (name.as_str(), 0).to_socket_addrs().is_err() {
                    unknown.push_host(&host);
                }
            }
            if !unknown.is_empty() {
                let text = format!("{unknown}: can't be resolved to an address");
                self.add(space, &format!("bootstrap.hosts.{at}"), &text);
            }
        }
    }

    /// Programs that are named by path.
    fn programs(&mut self, space: &Space) {
        for key in ["imp", "job-shell"] {
            if let Some(path) = space.string("exec", key).filter(|path| !Path::new(path).is_file())
            {
                let text = format!("{path}: there is no such program");
                self.add(space, &format!("exec.{key}"), &text);
            }
        }
    }

    /// Whoever could write these files could become whoever reads them.
    fn modes(&mut self, dir: &Path, wrong: u32, text: &str) {
        for (path, meta) in files_and_folder(dir) {
            if meta.permissions().mode() & wrong != 0 {
                self.lines.push(format!("{}:1: {text}", path.display()));
            }
        }
    }

    fn owners(&mut self, dir: &Path) {
        for (path, meta) in files_and_folder(dir) {
            if meta.uid() != 0 {
                let text = "must be owned by root (chown root)";
                self.lines.push(format!("{}:1: {text}", path.display()));
            }
        }
    }
}

fn files_and_folder(dir: &Path) -> Vec<(PathBuf, std::fs::Metadata)> {
    let mut paths = toml_files::files(dir).unwrap_or_default();
    paths.insert(0, dir.to_owned());
    paths.into_iter().filter_map(|path| Some((path.clone(), path.metadata().ok()?))).collect()
}

fn hosts_of(entry: &Value) -> Option<Hostlist> {
    entry.get("host")?.as_str()?.parse().ok()
}

impl Space {
    fn read(dir: &Path) -> Result<Space, toml_files::FilesError> {
        let config = toml_files::read(dir)?;
        Ok(Space { config, places: Places::of(dir) })
    }

    fn string(&self, table: &str, key: &str) -> Option<&str> {
        self.config.get(table)?.get(key)?.as_str()
    }

    fn bootstrap_entries(&self) -> &[Value] {
        let bootstrap = self.config.get("bootstrap");
        let hosts = bootstrap.and_then(|table| table.get("hosts")?.as_array());
        hosts.map(Vec::as_slice).unwrap_or_default()
    }

    /// None where nothing is said of hosts, or nothing that can be read.
    fn bootstrap_hosts(&self) -> Option<Hostlist> {
        let entries = Some(self.bootstrap_entries()).filter(|entries| !entries.is_empty())?;
        let mut list = Hostlist::new();
        for entry in entries {
            list.append_list(&hosts_of(entry)?);
        }
        Some(list)
    }
}
