//! `flux admin system-scripts`: prolog, epilog and housekeeping as they are configured, and the
//! scripts that there are for them on this host.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Args;
use flux_client::Client;
use flux_protocol::errno::Errno;
use flux_protocol::message::Nodeid;
use flux_protocol::payload::{Empty, Object};
use flux_protocol::rpc::config;
use flux_protocol::rpc::job_manager::{JobtapQuery, NameRequest};
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::outln;
use crate::term::{When, paint, sgr};

/// The plugin that runs prologs and epilogs.
const PERILOG: &str = "perilog.so";

#[derive(Debug, Args)]
pub(super) struct SystemScripts {
    /// Show scripts even when not configured
    #[arg(short, long)]
    verbose: bool,
    /// Colorize output when supported; WHEN can be 'always' (default if omitted), 'never', or
    /// 'auto' (default).
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_value = "auto", default_missing_value = "always")]
    color: When,
}

/// What is known of the instance.
#[derive(Default)]
struct Known {
    config: Object,
    /// Whether prologs and epilogs are run at all.
    perilog: bool,
}

/// A file in a folder of scripts.
#[derive(Debug, PartialEq)]
struct Script {
    name: String,
    is_executable: bool,
}

impl SystemScripts {
    /// Without an instance, only the files are shown.
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let known = match context.connect().await {
            Ok(flux) => Known::ask(&flux).await?,
            Err(_) => Known::default(),
        };
        for program in ["prolog", "epilog", "housekeeping"] {
            self.show(context, &known, program);
        }
        Ok(0)
    }

    fn show(&self, context: &Context, known: &Known, program: &str) {
        let color = self.color.stdout();
        let table = known.config.get("job-manager").and_then(|table| table.get(program));
        let table = table.and_then(Value::as_object);
        let say = |sgr, text: &str| outln!("▸ {program}: {}", paint(color, sgr, text));
        let Some(table) = table else {
            say(sgr::YELLOW, "not configured");
            if self.verbose {
                scripts(context, program, color);
            }
            outln!();
            return;
        };
        if program != "housekeeping" && !known.perilog {
            say(sgr::YELLOW, "configured but inactive");
            outln!("  {}", paint(color, sgr::YELLOW, "(perilog plugin not loaded)"));
            outln!();
            return;
        }
        let enabled = paint(color, sgr::GREEN, "enabled");
        outln!("▸ {program}: {enabled} ({})", how(program, table));
        let command = words(table.get("command"));
        if runs_scripts(program, &command) {
            scripts(context, program, color);
        } else {
            outln!("  command: {}", command.join(" "));
        }
        outln!();
    }
}

impl Known {
    async fn ask(flux: &Client) -> Result<Known, Failure> {
        let config = flux.rpc::<config::Get>(Nodeid::ANY, &Empty).await?;
        let request = NameRequest { name: PERILOG.to_owned() };
        let perilog = match flux.rpc::<JobtapQuery>(Nodeid::ANY, &request).await {
            Ok(_) => true,
            Err(e) if e.errno() == Errno::EPERM => {
                eprintln!("Warning: only instance owner can query {PERILOG} status");
                true
            }
            Err(_) => false,
        };
        Ok(Known { config, perilog })
    }
}

fn how(program: &str, table: &Object) -> String {
    if program == "housekeeping" {
        return match table.get("release-after").and_then(Value::as_str) {
            Some(after) => format!("release after {after}"),
            None => "batch release".to_owned(),
        };
    }
    let per_rank = table.get("per-rank").and_then(Value::as_bool).unwrap_or(false);
    format!("per-rank={per_rank}")
}

fn words(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Those of the IMP, which is the default, and of `flux perilog-run`; other commands do as they
/// like.
fn runs_scripts(program: &str, command: &[&str]) -> bool {
    match command {
        [] => true,
        [imp, "run", name] if imp.ends_with("flux-imp") => *name == program,
        [flux, "perilog-run", name, ..] if flux.ends_with("flux") => *name == program,
        _ => false,
    }
}

/// The site's one program, or its folder of scripts.
fn scripts(context: &Context, program: &str, color: bool) {
    let dim = |text: &str| paint(color, sgr::DARK_GRAY, text);
    let dir = context.layout.confdir().join("system");
    let single = dir.join(program);
    if let Ok(metadata) = std::fs::metadata(&single)
        && metadata.is_file()
    {
        let mark = mark(metadata.permissions().mode() & 0o111 != 0, color);
        outln!("  {} {}", dim("site:"), dim(&single.display().to_string()));
        outln!("    {mark} {program}");
    }
    let dir = dir.join(format!("{program}.d"));
    outln!("  {} {}", dim("site:"), dim(&dir.display().to_string()));
    let found = folder(&dir);
    if found.is_empty() {
        outln!("    {}", dim("(no scripts)"));
    }
    for script in found {
        outln!("    {} {}", mark(script.is_executable, color), script.name);
    }
}

fn mark(is_executable: bool, color: bool) -> String {
    match is_executable {
        true => paint(color, sgr::GREEN, "✓"),
        false => paint(color, sgr::RED, "✗ not executable"),
    }
}

/// The files of a folder in the order in which they are run; one that cannot be read has none.
fn folder(dir: &Path) -> Vec<Script> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let script = |entry: std::fs::DirEntry| {
        let metadata = std::fs::metadata(entry.path()).ok().filter(std::fs::Metadata::is_file)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Some(Script { name, is_executable: metadata.permissions().mode() & 0o111 != 0 })
    };
    let mut scripts: Vec<Script> = entries.filter_map(script).collect();
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_commands_run_the_scripts_of_the_site() {
        assert!(runs_scripts("prolog", &[]));
        assert!(runs_scripts("prolog", &["/usr/libexec/flux/flux-imp", "run", "prolog"]));
        assert!(runs_scripts("epilog", &["flux", "perilog-run", "epilog", "-e", "x"]));
        assert!(!runs_scripts("epilog", &["flux-imp", "run", "prolog"]));
        assert!(!runs_scripts("prolog", &["/etc/site/prolog"]));
    }

    #[test]
    fn scripts_are_shown_in_order_with_those_that_do_not_run() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("20-b", 0o755), ("10-a", 0o644)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        let script = |name: &str, is_executable| Script { name: name.to_owned(), is_executable };
        assert_eq!(folder(dir.path()), [script("10-a", false), script("20-b", true)]);
        assert_eq!(folder(&dir.path().join("none")), []);
    }
}
