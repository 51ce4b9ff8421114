//! `flux config check`: what is wrong with the files of the three configuration spaces, found
//! without starting anything.
//!
//! The broker's own program reads its tables; what is beyond a table (files that are named in it,
//! hosts, owners and modes) is looked at here.

use std::net::ToSocketAddrs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use flux_protocol::hostlist::Hostlist;
use flux_protocol::payload::Object;
use flux_protocol::r::ResourceSet;
use serde_json::Value;

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
    dir: PathBuf,
    config: Object,
}

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
    let system = dir.join("system/conf.d");
    if system.is_dir() {
        findings.tables(context, &system)?;
    }
    if let Some(space) = findings.space(&system) {
        findings.certificate(&space);
        findings.resources(&space);
        findings.hosts(&space);
        findings.plugins(context, &space);
        findings.programs(&space);
    }
    for (name, check) in
        [("security", sign_problems as fn(&Object) -> Vec<Problem>), ("imp", imp_problems)]
    {
        let space = findings.space(&dir.join(name).join("conf.d"));
        // A folder that is only there is not used.
        let Some(space) = space.filter(|space| !space.config.is_empty()) else { continue };
        for (key, text) in check(&space.config) {
            findings.add(&space, &key, &text);
        }
        findings.owners(&space.dir);
    }
    Ok(findings)
}

/// A key, and what is wrong with it.
type Problem = (String, String);

impl Findings {
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

    /// Nothing where there are no files, or none that can be read.
    fn space(&mut self, dir: &Path) -> Option<Space> {
        if !dir.is_dir() {
            return None;
        }
        match toml_files::read(dir) {
            Ok(config) => Some(Space { dir: dir.to_owned(), config }),
            Err(error) => {
                // The broker has told of its own files already.
                if !dir.ends_with("system/conf.d") {
                    self.lines.push(error.to_string());
                }
                None
            }
        }
    }

    fn add(&mut self, space: &Space, key: &str, text: &str) {
        self.lines.push(format!("{}: {text}", space.place(key)));
    }

    fn certificate(&mut self, space: &Space) {
        let Some(path) = space.string("bootstrap", "curve_cert") else { return };
        match std::fs::metadata(path) {
            Err(e) => {
                self.add(space, "curve_cert", &format!("{path}: {}", strerror(&e)));
            }
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
                let text = format!("{path}: readable by group/other (chmod 0400)");
                self.add(space, "curve_cert", &text);
            }
            Ok(_) => {}
        }
    }

    /// R must be there, and know the hosts that start brokers.
    fn resources(&mut self, space: &Space) {
        let Some(path) = space.string("resource", "path") else { return };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => return self.add(space, "path", &format!("{path}: {}", strerror(&e))),
        };
        let set = match ResourceSet::decode(&text) {
            Ok(set) => set,
            Err(e) => return self.add(space, "path", &format!("{path}: {e}")),
        };
        let Some(hosts) = space.bootstrap_hosts() else { return };
        let known: Vec<String> = set.nodelist().iter().collect();
        let missing: Hostlist = hosts.iter().filter(|host| !known.contains(host)).collect();
        let extra: Hostlist =
            known.iter().filter(|host| hosts.find(host).is_err()).map(String::as_str).collect();
        for (list, what) in [(missing, "not in R"), (extra, "in R, but not in bootstrap.hosts")] {
            if !list.is_empty() {
                self.add(space, "path", &format!("{path}: {list}: {what}"));
            }
        }
    }

    /// Addresses that brokers connect to must have a meaning on this host.
    fn hosts(&mut self, space: &Space) {
        let connect = space.string("bootstrap", "default_connect").unwrap_or_default();
        let Some(pattern) = connect.strip_prefix("tcp://").and_then(|rest| rest.split(':').next())
        else {
            return;
        };
        let mut unknown = Hostlist::new();
        for host in space.bootstrap_hosts().iter().flat_map(Hostlist::iter) {
            let name = pattern.replace("%h", &host);
            if (name.as_str(), 0).to_socket_addrs().is_err() {
                unknown.push_host(&host);
            }
        }
        if !unknown.is_empty() {
            self.add(space, "hosts", &format!("{unknown}: can't be resolved to an address"));
        }
    }

    fn plugins(&mut self, context: &Context, space: &Space) {
        let plugins = |pointer: &str| {
            let value = space.config.get(pointer.split('/').next().unwrap_or_default())?;
            let value = pointer.split('/').skip(1).try_fold(value, |value, key| value.get(key))?;
            value.as_array()
        };
        let places =
            ["job-manager/plugins", "ingest/validator/plugins", "ingest/frobnicator/plugins"];
        for entry in places.iter().filter_map(|place| plugins(place)).flatten() {
            let load = entry.get("load").unwrap_or(entry).as_str();
            let Some(load) = load else { continue };
            let stem = load.strip_suffix(".so").or(load.strip_suffix(".wasm")).unwrap_or(load);
            let file = format!("{stem}.wasm");
            let found = match load.contains('/') {
                true => Path::new(&file).is_file(),
                false => plugin_folders(context).iter().any(|folder| folder.join(&file).is_file()),
            };
            if !found {
                self.add(space, load, &format!("{load}: No such plugin found"));
            }
        }
    }

    /// Programs that are named by path.
    fn programs(&mut self, space: &Space) {
        for key in ["imp", "job-shell"] {
            if let Some(path) = space.string("exec", key).filter(|path| !Path::new(path).is_file())
            {
                self.add(space, path, &format!("{path}: there is no such program"));
            }
        }
    }

    /// Whoever could write these files could become anybody.
    fn owners(&mut self, dir: &Path) {
        let mut paths = vec![dir.to_owned()];
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        paths.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml")),
        );
        paths.sort();
        for path in paths {
            let Ok(meta) = path.metadata() else { continue };
            if meta.uid() != 0 {
                self.lines
                    .push(format!("{}:1: must be owned by root (chown root)", path.display()));
            }
            if meta.permissions().mode() & 0o022 != 0 {
                let text = "writable by others than root (chmod go-w)";
                self.lines.push(format!("{}:1: {text}", path.display()));
            }
        }
    }
}

fn plugin_folders(context: &Context) -> Vec<PathBuf> {
    match context.env.get("FLUX_PLUGIN_PATH") {
        Some(path) => std::env::split_paths(path).collect(),
        None => vec![context.layout.plugindir()],
    }
}

impl Space {
    fn string(&self, table: &str, key: &str) -> Option<&str> {
        self.config.get(table)?.get(key)?.as_str()
    }

    fn bootstrap_hosts(&self) -> Option<Hostlist> {
        let hosts = self.config.get("bootstrap")?.get("hosts")?.as_array()?;
        let mut list = Hostlist::new();
        for entry in hosts {
            list.append_list(&entry.get("host")?.as_str()?.parse().ok()?);
        }
        Some(list)
    }

    /// The file and line in which a key is set, a table begins, or else a value stands first.
    fn place(&self, word: &str) -> String {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        let texts: Vec<(PathBuf, String)> = files
            .into_iter()
            .map(|file| (file.clone(), std::fs::read_to_string(file).unwrap_or_default()))
            .collect();
        let find = |stands_in: &dyn Fn(&str) -> bool| {
            texts.iter().find_map(|(file, text)| {
                let at = text.lines().position(|line| stands_in(line.trim()))?;
                Some(format!("{}:{}", file.display(), at + 1))
            })
        };
        let key = |line: &str| {
            let key = line.split('=').next().unwrap_or_default().trim();
            key == word || key.strip_suffix(word).is_some_and(|path| path.ends_with('.'))
        };
        let table = |line: &str| line.trim_matches(['[', ']']) == word && line.starts_with('[');
        let quoted = format!("\"{word}\"");
        let value = |line: &str| !line.starts_with('#') && line.contains(&quoted);
        let part = |line: &str| !line.starts_with('#') && line.contains(word);
        let place = find(&key).or_else(|| find(&table)).or_else(|| find(&value));
        let place = place.or_else(|| find(&part));
        place.unwrap_or_else(|| format!("{}", self.dir.display()))
    }
}

fn sign_problems(config: &Object) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(sign) = config.get("sign") else {
        return vec![("sign".to_owned(), "there is no [sign] table".to_owned())];
    };
    for (key, value) in sign.as_object().into_iter().flatten() {
        let text = match (key.as_str(), value) {
            ("max-ttl", Value::Number(n)) if n.as_i64().is_some_and(|n| n > 0) => continue,
            ("max-ttl", _) => "max-ttl must be a number of seconds".to_owned(),
            ("default-type", Value::String(kind)) => match sign.get("allowed-types") {
                Some(Value::Array(types)) if !types.contains(value) => {
                    format!("default-type '{kind}' is not in allowed-types")
                }
                _ => continue,
            },
            ("default-type", _) => "default-type must be a string".to_owned(),
            ("allowed-types", value) if is_strings(value) => continue,
            ("allowed-types", _) => "allowed-types must be an array of strings".to_owned(),
            ("munge" | "curve", _) => continue,
            (other, _) => format!("unknown key '{other}' in [sign]"),
        };
        problems.push((key.clone(), text));
    }
    problems
}

const IMP_FLAGS: [&str; 3] = ["allow-unprivileged-exec", "pam-support", "allow-sudo"];

fn imp_problems(config: &Object) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (table, value) in config {
        match table.as_str() {
            "exec" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let good = match key.as_str() {
                        "allowed-users" | "allowed-shells" => is_strings(value),
                        key if IMP_FLAGS.contains(&key) => value.is_boolean(),
                        _ => false,
                    };
                    if !good {
                        problems
                            .push((key.clone(), format!("bad or unknown key '{key}' in [exec]")));
                    }
                    let shells = value.as_array().filter(|_| key == "allowed-shells");
                    for path in shells.into_iter().flatten().filter_map(Value::as_str) {
                        if !Path::new(path).is_file() {
                            let text = format!("{path}: there is no such program");
                            problems.push((path.to_owned(), text));
                        }
                    }
                }
            }
            "run" => {
                for (name, entry) in value.as_object().into_iter().flatten() {
                    problems.extend(run_problems(name, entry));
                }
            }
            // For the whole of the program.
            "allow-sudo" if value.is_boolean() => {}
            other => problems.push((other.to_owned(), format!("unknown table or key '{other}'"))),
        }
    }
    problems
}

fn run_problems(name: &str, entry: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value) in entry.as_object().into_iter().flatten() {
        let good = match key.as_str() {
            "allowed-users" | "allowed-environment" => is_strings(value),
            "path" => value.is_string(),
            _ => false,
        };
        if !good {
            problems.push((key.clone(), format!("bad or unknown key '{key}' in [run.{name}]")));
        }
    }
    match entry.get("path").and_then(Value::as_str) {
        None => problems.push((format!("run.{name}"), format!("[run.{name}] has no path"))),
        Some(path) if !Path::new(path).is_file() => {
            problems.push((path.to_owned(), format!("{path}: there is no such program")));
        }
        Some(_) => {}
    }
    problems
}

fn is_strings(value: &Value) -> bool {
    value.as_array().is_some_and(|array| array.iter().all(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn mistakes_in_signing_are_named() {
        let sign = |text: &str| texts(sign_problems(&toml_files::parse_toml(text).unwrap()));
        let good = "[sign]\nmax-ttl = 10\ndefault-type = \"munge\"\nallowed-types = [\"munge\"]\n";
        assert!(sign(good).is_empty());
        assert_eq!(
            sign("[sign]\nmax-ttl = \"x\"\ntypo = 1\n"),
            ["max-ttl must be a number of seconds", "unknown key 'typo' in [sign]"]
        );
        let other = "[sign]\ndefault-type = \"none\"\nallowed-types = [\"munge\"]\n";
        assert_eq!(sign(other), ["default-type 'none' is not in allowed-types"]);
    }

    #[test]
    fn mistakes_in_the_imps_tables_are_named() {
        let imp = |text: &str| texts(imp_problems(&toml_files::parse_toml(text).unwrap()));
        assert!(
            imp("[exec]\nallowed-users = [\"flux\"]\nallowed-shells = [\"/bin/sh\"]\n").is_empty()
        );
        assert_eq!(imp("[exec]\nallowed-users = \"flux\"\n").len(), 1);
        let run = imp("[run.prolog]\nallowed-users = [\"flux\"]\npath = \"/nonexistent/prolog\"\n");
        assert_eq!(run, ["/nonexistent/prolog: there is no such program"]);
    }
}
