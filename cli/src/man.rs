//! Manual pages, made from the same descriptions as `--help`.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use roff::{Roff, bold, roman};

use crate::table::{COMMANDS, GROUPS};
use crate::usage;

/// Write a page for `flux` and one for each command: `flux-NAME.1`.
pub(crate) fn write_all(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("flux.1"), overview())?;
    for row in COMMANDS {
        let mut command = (row.build)();
        command.build();
        let page = page(row.name, &command);
        std::fs::write(dir.join(format!("flux-{}.1", row.name)), page)?;
    }
    Ok(())
}

/// The page of a command.
fn page(name: &str, command: &Command) -> String {
    let about = about(name, command);
    let mut page = head(&format!("flux-{name}"), &about);
    page.control("SH", ["SYNOPSIS"]);
    synopsis(&mut page, command);
    page.control("SH", ["DESCRIPTION"]).text([roman(sentence(&about))]);
    if let Some(long) = command.get_long_about() {
        page.control("PP", []).text([roman(long.to_string())]);
    }
    let described = options(command);
    if described != Roff::new() {
        page.control("SH", ["OPTIONS"]).extend([described]);
    }
    let subcommands: Vec<_> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    if !subcommands.is_empty() {
        page.control("SH", ["COMMANDS"]);
    }
    for sub in subcommands {
        page.control("SS", [sub.get_name()]);
        synopsis(&mut page, sub);
        if let Some(about) = sub.get_about() {
            page.control("PP", []).text([roman(sentence(&about.to_string()))]);
        }
        page.extend([options(sub)]);
    }
    if let Some(after) = command.get_after_help() {
        page.control("SH", ["NOTES"]).control("nf", []).text([roman(after.to_string())]);
        page.control("fi", []);
    }
    page.control("SH", ["SEE ALSO"]).control("BR", ["flux", "(1)"]);
    page.to_roff()
}

fn overview() -> String {
    let mut page = head("flux", "the Flux resource manager");
    page.control("SH", ["SYNOPSIS"]).text([bold("flux [OPTIONS] COMMAND [ARGS]")]);
    page.control("SH", ["DESCRIPTION"]).text([
        roman("Talks to the Flux instance that "),
        bold("FLUX_URI"),
        roman(" names, else to the system instance. Each command has a page of its own."),
    ]);
    page.control("SH", ["OPTIONS"]);
    for (option, help) in [
        ("-h, --help", "Show what commands there are."),
        ("-v, --verbose", "Be verbose about environment and command search."),
        ("-V, --version", "Show versions."),
        ("-p, --parent", "Run the command in the enclosing instance."),
        ("-r, --root", "Run the command in the outermost instance."),
    ] {
        item(&mut page, option, help);
    }
    page.control("SH", ["COMMANDS"]);
    for (heading, rows) in GROUPS {
        page.control("SS", [*heading]);
        for (name, about) in *rows {
            item(&mut page, name, about);
        }
    }
    page.control("SS", ["more"]);
    for row in COMMANDS.iter().filter(|row| listed(row.name).is_none()) {
        item(&mut page, row.name, &about(row.name, &(row.build)()));
    }
    page.to_roff()
}

/// What a command is for: in its own words, or in those of the list of commands.
fn about(name: &str, command: &Command) -> String {
    let own = command.get_about().map(ToString::to_string);
    own.or_else(|| listed(name).map(str::to_owned)).unwrap_or_default()
}

/// What the list of commands says, if the command is in it.
fn listed(name: &str) -> Option<&'static str> {
    let mut rows = GROUPS.iter().flat_map(|(_, rows)| *rows);
    rows.find(|(row, _)| row.split('/').any(|n| n == name)).map(|(_, about)| *about)
}

fn head(name: &str, about: &str) -> Roff {
    let release = concat!("flux ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", [&name.to_uppercase(), "1", "\"\"", release, "Flux"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - {}", about.trim_end_matches('.')))]);
    page
}

fn synopsis(page: &mut Roff, command: &Command) {
    for line in usage::lines(command) {
        page.text([bold(line)]).control("br", []);
    }
}

fn sentence(about: &str) -> String {
    format!("{}.", about.trim_end_matches('.'))
}

/// A term, and what it means.
fn item(page: &mut Roff, term: &str, help: &str) {
    page.control("TP", []).text([bold(term)]).text([roman(help)]);
}

fn options(command: &Command) -> Roff {
    let shown = |arg: &&Arg| {
        !arg.is_hide_set() && !matches!(arg.get_action(), ArgAction::Version | ArgAction::Help)
    };
    let mut list = Roff::new();
    for arg in command.get_arguments().filter(shown) {
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
        if arg.is_positional() && help.is_none() {
            continue;
        }
        item(&mut list, &names(arg), &help.unwrap_or_default());
    }
    list
}

/// `-n, --count=N`
fn names(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str());
    let value = value.unwrap_or(arg.get_id().as_str());
    if arg.is_positional() {
        return value.to_uppercase();
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let mut text = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() {
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        let _ = if optional { write!(text, "[={value}]") } else { write!(text, "={value}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path()).unwrap();
        for row in COMMANDS {
            let page = std::fs::read_to_string(dir.path().join(format!("flux-{}.1", row.name)));
            let page = page.unwrap();
            assert!(page.contains(".SH NAME\n") && page.contains(".SH SYNOPSIS\n"), "{}", row.name);
            assert!(!about(row.name, &(row.build)()).is_empty(), "{}: what is it for?", row.name);
        }
        let page = std::fs::read_to_string(dir.path().join("flux-dump.1")).unwrap();
        assert!(page.contains("\\-\\-maxreqs=N"), "{page}");
        let page = std::fs::read_to_string(dir.path().join("flux-kvs.1")).unwrap();
        assert!(page.contains(".SS get\n"), "{page}");
        let page = std::fs::read_to_string(dir.path().join("flux.1")).unwrap();
        assert!(page.contains(".TP\n\\fBsubmit\\fR\n"), "{page}");
    }
}
