//! Help and complaints about arguments, in the words of Flux's own option parser.
//!
//! clap parses; what it has to say is said here, because scripts and people know these forms:
//!
//! ```text
//! Usage: flux-kvs get [OPTIONS] KEY...
//! Get value stored under key
//!   -h, --help             Display this message.
//!   -N, --namespace=NS     Specify KVS namespace to use.
//! ```

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction};

use crate::failure::Failure;
use crate::table::Style;
use crate::term;

/// Column in which descriptions of options begin.
const OPTION_WIDTH: usize = 25;

/// The failure (or the success, for `--help`) of parsing arguments of `command`.
pub(crate) fn settle(
    error: &clap::Error,
    command: &mut clap::Command,
    args: &[OsString],
    style: Style,
) -> Failure {
    command.build();
    let command = subcommand_of(command, args);
    let name = full_name(command);
    match error.kind() {
        ErrorKind::DisplayHelp => {
            crate::out!("{}", help(command));
            return Failure::silent(0);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::MissingRequiredArgument
            if style != Style::Argparse =>
        {
            if usage_line(command).contains("\n   or: ") {
                eprintln!("{name}: missing subcommand");
            }
            eprint!("{}", help(command));
            return Failure::silent(1);
        }
        ErrorKind::UnknownArgument
            if style != Style::Argparse
                && !context(error, ContextKind::InvalidArg).starts_with('-') =>
        {
            eprint!("{}", help(command));
            return Failure::silent(1);
        }
        _ => {}
    }
    let complaint = match (style, error.kind()) {
        (Style::Argparse, ErrorKind::UnknownArgument) => {
            format!("unrecognized arguments: {}", context(error, ContextKind::InvalidArg))
        }
        _ => complaint(error),
    };
    match style {
        Style::Argparse => {
            eprint!("{}", usage_line(command).replacen("Usage", "usage", 1));
            eprintln!("{name}: error: {complaint}");
            Failure::silent(2)
        }
        Style::Builtin | Style::Optparse => {
            eprintln!("{name}: {complaint}");
            eprintln!("Try `{name} --help' for more information.");
            Failure::silent(1)
        }
    }
}

/// The whole help text of a command.
pub(crate) fn help(command: &clap::Command) -> String {
    let mut text = usage_line(command);
    if let Some(about) = command.get_about() {
        let _ = writeln!(text, "{about}");
    }
    let (help, others): (Vec<_>, Vec<_>) = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !arg.is_positional())
        .partition(|arg| matches!(arg.get_action(), ArgAction::Help));
    for arg in help.into_iter().chain(others) {
        text.push_str(&option_line(arg));
    }
    let positional: Vec<_> = command
        .get_positionals()
        .filter(|arg| !arg.is_hide_set() && arg.get_help().is_some())
        .collect();
    if !positional.is_empty() {
        text.push('\n');
        for arg in positional {
            let name = arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str());
            let name = name.unwrap_or(arg.get_id().as_str());
            text.push_str(&two_columns(&format!("  {name}"), arg.get_help()));
        }
    }
    let mut commands: Vec<_> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        .collect();
    if !commands.is_empty() {
        commands.sort_by_key(|sub| sub.get_display_order());
        let _ = writeln!(text, "\nCommon commands from {}:", full_name(command));
        for sub in commands {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "   {:<15} {about}", sub.get_name());
        }
    }
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(text, "\n{after}");
    }
    text
}

/// `Usage: COMMAND ARGS`; a command that is nothing without a subcommand has theirs.
fn usage_line(command: &clap::Command) -> String {
    let usage = command.clone().render_usage().to_string();
    if !usage.ends_with("<COMMAND>") {
        return format!("{usage}\n");
    }
    let mut text = String::new();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let usage = sub.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let start = if text.is_empty() { "Usage" } else { "   or" };
        let _ = writeln!(text, "{start}: {usage}");
    }
    text
}

/// Usage as lines without `Usage:`.
pub(crate) fn lines(command: &clap::Command) -> Vec<String> {
    let text = usage_line(command);
    let lines = text.lines().map(|line| {
        let line = line.trim_start();
        line.strip_prefix("Usage:").or(line.strip_prefix("or:")).unwrap_or(line).trim().to_owned()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

fn full_name(command: &clap::Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).to_owned()
}

fn option_line(arg: &Arg) -> String {
    let mut info = match arg.get_short() {
        Some(short) => format!("  -{short}"),
        None => "    ".to_owned(),
    };
    if let Some(long) = arg.get_long() {
        info.push_str(if arg.get_short().is_some() { ", --" } else { "  --" });
        info.push_str(long);
    }
    if arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        let name = names.first().map_or("VALUE", |name| name.as_str());
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        let _ = if optional { write!(info, "[={name}]") } else { write!(info, "={name}") };
    }
    let help = match arg.get_action() {
        ArgAction::Help => Some(clap::builder::StyledStr::from("Display this message.")),
        _ => arg.get_help().cloned(),
    };
    two_columns(&info, help.as_ref())
}

/// `left`, and `right` wrapped beside it, or below it where `left` is too wide.
fn two_columns(left: &str, right: Option<&clap::builder::StyledStr>) -> String {
    let right = right.map(ToString::to_string).unwrap_or_default();
    let width = term::columns() - OPTION_WIDTH.min(term::columns() / 2);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in right.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    let mut text = String::new();
    let mut lines = lines.iter();
    if left.len() < OPTION_WIDTH {
        let first = lines.next().map_or("", String::as_str);
        let _ = writeln!(text, "{}", format!("{left:<OPTION_WIDTH$}{first}").trim_end());
    } else {
        let _ = writeln!(text, "{left}");
    }
    for line in lines.filter(|line| !line.is_empty()) {
        let _ = writeln!(text, "{:OPTION_WIDTH$}{line}", "");
    }
    text
}

/// What is wrong, in the words of getopt(3) where it has some.
fn complaint(error: &clap::Error) -> String {
    let context = |kind| context(error, kind);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let arg = context(ContextKind::InvalidArg);
            if arg.starts_with('-') {
                format!("unrecognized option '{arg}'")
            } else {
                format!("unexpected argument '{arg}'")
            }
        }
        ErrorKind::InvalidSubcommand => {
            format!("Unknown subcommand: {}", context(ContextKind::InvalidSubcommand))
        }
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            format!("'{}' missing argument", plain_option(&context(ContextKind::InvalidArg)))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let mut text = format!(
                "{}: invalid value '{}'",
                plain_option(&context(ContextKind::InvalidArg)),
                context(ContextKind::InvalidValue)
            );
            let valid = context(ContextKind::ValidValue);
            if !valid.is_empty() {
                let _ = write!(text, " (choose from {valid})");
            }
            if let Some(source) = std::error::Error::source(error) {
                let _ = write!(text, ": {source}");
            }
            text
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = context(ContextKind::InvalidArg).replace(['<', '>'], "");
            format!("the following arguments are required: {missing}")
        }
        ErrorKind::ArgumentConflict => format!(
            "argument {}: not allowed with argument {}",
            plain_option(&context(ContextKind::InvalidArg)),
            plain_option(&context(ContextKind::PriorArg))
        ),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("error: ").to_owned()
        }
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// `--count` of `--count <COUNT>`.
fn plain_option(arg: &str) -> &str {
    arg.split([' ', '=', '[']).next().unwrap_or(arg)
}

/// The (sub)command that `args` lead to.
fn subcommand_of<'a>(command: &'a clap::Command, args: &[OsString]) -> &'a clap::Command {
    let mut found = command;
    for arg in args {
        if let Some(next) = arg.to_str().and_then(|name| found.find_subcommand(name)) {
            found = next;
        }
    }
    found
}
