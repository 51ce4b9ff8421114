//! Manual pages, made from the same descriptions as `--help`.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, Command};

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
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = head(&format!("flux-{name}"), &about);
    text.push_str(".SH SYNOPSIS\n");
    for line in usage::lines(command) {
        let _ = writeln!(text, ".B {}\n.br", escape(&line));
    }
    let _ = writeln!(text, ".SH DESCRIPTION\n{}.", escape(about.trim_end_matches('.')));
    if let Some(long) = command.get_long_about() {
        let _ = writeln!(text, ".PP\n{}", escape(&long.to_string()));
    }
    section(&mut text, "OPTIONS", command);
    let subcommands: Vec<_> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    if !subcommands.is_empty() {
        text.push_str(".SH COMMANDS\n");
    }
    for sub in subcommands {
        let _ = writeln!(text, ".SS {}", escape(sub.get_name()));
        for line in usage::lines(sub) {
            let _ = writeln!(text, ".B {}\n.br", escape(&line));
        }
        if let Some(about) = sub.get_about() {
            let _ = writeln!(text, ".PP\n{}.", escape(about.to_string().trim_end_matches('.')));
        }
        options(&mut text, sub);
    }
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(text, ".SH NOTES\n.nf\n{}\n.fi", escape(&after.to_string()));
    }
    text.push_str(".SH SEE ALSO\n.BR flux (1)\n");
    text
}

fn overview() -> String {
    let mut text = head("flux", "the Flux resource manager");
    text.push_str(
        ".SH SYNOPSIS\n.B flux [OPTIONS] COMMAND [ARGS]\n.SH DESCRIPTION\n\
         Talks to the Flux instance that \\fBFLUX_URI\\fR names, else to the system instance. \
         Each command has a page of its own.\n.SH OPTIONS\n",
    );
    for (option, help) in [
        ("-h, --help", "Show what commands there are."),
        ("-v, --verbose", "Be verbose about environment and command search."),
        ("-V, --version", "Show versions."),
        ("-p, --parent", "Run the command in the enclosing instance."),
        ("-r, --root", "Run the command in the outermost instance."),
    ] {
        let _ = writeln!(text, ".TP\n.B {}\n{}", escape(option), escape(help));
    }
    text.push_str(".SH COMMANDS\n");
    let listed = |name: &str| {
        GROUPS.iter().flat_map(|(_, rows)| *rows).any(|(row, _)| row.split('/').any(|n| n == name))
    };
    for (heading, rows) in GROUPS {
        let _ = writeln!(text, ".SS {}", escape(heading));
        for (name, about) in *rows {
            let _ = writeln!(text, ".TP\n.B {}\n{}", escape(name), escape(about));
        }
    }
    text.push_str(".SS more\n");
    for row in COMMANDS.iter().filter(|row| !listed(row.name)) {
        let about = (row.build)().get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, ".TP\n.B {}\n{}", escape(row.name), escape(&about));
    }
    text
}

fn head(name: &str, about: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        ".TH \"{}\" 1 \"\" \"flux {version}\" \"Flux\"\n.SH NAME\n{} \\- {}\n",
        name.to_uppercase(),
        escape(name),
        escape(about.trim_end_matches('.'))
    )
}

fn section(text: &mut String, heading: &str, command: &Command) {
    let before = text.len();
    let _ = writeln!(text, ".SH {heading}");
    let empty = text.len();
    options(text, command);
    if text.len() == empty {
        text.truncate(before);
    }
}

fn options(text: &mut String, command: &Command) {
    let shown = |arg: &&Arg| {
        !arg.is_hide_set() && !matches!(arg.get_action(), ArgAction::Version | ArgAction::Help)
    };
    for arg in command.get_arguments().filter(shown) {
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
        if arg.is_positional() && help.is_none() {
            continue;
        }
        let help = help.unwrap_or_default();
        let _ = writeln!(text, ".TP\n.B {}\n{}", escape(&names(arg)), escape(&help));
    }
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

/// Text as roff takes it: no commands, hyphens that can be copied.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
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
        }
        let page = std::fs::read_to_string(dir.path().join("flux-dump.1")).unwrap();
        assert!(page.contains("\\-\\-maxreqs=N"), "{page}");
        let page = std::fs::read_to_string(dir.path().join("flux-kvs.1")).unwrap();
        assert!(page.contains(".SS get\n"), "{page}");
        assert!(
            std::fs::read_to_string(dir.path().join("flux.1")).unwrap().contains(".B submit\n")
        );
    }

    #[test]
    fn text_is_no_command_of_roff() {
        assert_eq!(escape(".x -n\n'y\\z"), "\\&.x \\-n\n\\&'y\\ez");
    }
}
