//! `flux help`, and the text of `flux --help`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use flux_protocol::layout::Layout;

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::help_lists::{self, Group};
use crate::table::{self, GROUPS};
use crate::{external, man, out, usage};

#[derive(Debug, Args)]
#[command(override_usage = "flux help [COMMAND]")]
pub(crate) struct Help {
    /// Write manual pages of all commands into a folder
    #[arg(long, value_name = "DIR", hide = true)]
    write_man_pages: Option<PathBuf>,
    command: Option<String>,
}

impl Help {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        if let Some(dir) = &self.write_man_pages {
            man::write_all(dir).map_err(|e| Failure::of(dir.display(), strerror(&e)))?;
            return Ok(0);
        }
        let Some(command) = self.command else {
            out!("{}", overview());
            return Ok(0);
        };
        let page = match command.strip_prefix("flux") {
            Some(_) => command.clone(),
            None => format!("flux-{command}"),
        };
        if has_page(&context, &page)
            && let Some(code) = show(&context, &page)?
        {
            return Ok(code);
        }
        let name = page.trim_start_matches("flux-");
        match table::find(name) {
            Some(command) => {
                let mut command = (command.build)();
                command.build();
                out!("{}", usage::help(&command));
                Ok(0)
            }
            None if external::find(&context, name).is_some() && !man_has(&context, &page) => {
                Err(external::exec(&context, name, &["--help".into()], false))
            }
            // Other packages have pages, too; without any, man(1) says so.
            None => show(&context, &page)?.ok_or_else(|| {
                Failure::new(format_args!("no manual page for {name}: man(1) is not installed"))
            }),
        }
    }
}

/// Have man(1) show a page; its exit code, or nothing where it is not installed.
fn show(context: &Context, page: &str) -> Result<Option<u8>, Failure> {
    match Command::new("man").arg(page).envs(context.env.all()).status() {
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Ok(Some(code.unwrap_or(1)))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::of("man", strerror(&e))),
    }
}

/// Whether man(1) knows a page of anybody's.
fn man_has(context: &Context, page: &str) -> bool {
    let mut man = Command::new("man");
    man.args(["-w", page]).envs(context.env.all());
    man.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn has_page(context: &Context, page: &str) -> bool {
    let man = context.layout.man_path();
    ["1", "5", "7"].iter().any(|section| {
        let file = man.join(format!("man{section}/{page}.{section}"));
        file.is_file() || file.with_extension(format!("{section}.gz")).is_file()
    })
}

fn other_packages() -> Vec<Group> {
    let Ok(program) = std::env::current_exe() else { return Vec::new() };
    let patterns = std::env::var("FLUX_CMDHELP_PATTERN").unwrap_or_default();
    help_lists::groups(&Layout::from_program(&program).datadir(), &patterns)
}

/// What `flux --help` prints.
pub(crate) fn overview() -> String {
    let mut text = String::from(
        "Usage: flux [OPTIONS] COMMAND ARGS
  -h, --help             Display this message.
  -v, --verbose          Be verbose about environment and command search
  -V, --version          Display command and component versions
  -p, --parent           Set environment of parent instead of current instance
  -r, --root             Set environment of root instead of current instance
",
    );
    for (heading, commands) in GROUPS {
        text.push_str(&format!("\n{heading}\n"));
        for (name, about) in *commands {
            text.push_str(&format!("   {name:<18} {about}\n"));
        }
    }
    for group in other_packages() {
        text.push_str(&format!("\n{}\n", group.heading));
        for entry in group.commands {
            text.push_str(&format!("   {:<18} {}\n", entry.name, entry.about));
        }
    }
    text.push_str("\nSee 'flux help COMMAND' for more information about a specific command.\n");
    text
}
