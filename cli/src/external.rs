//! Commands that are programs of their own: `flux-NAME` in the search path.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{AccessFlags, access};

use crate::context::Context;
use crate::failure::{Failure, strerror};
use crate::table::COMMANDS;

/// Suggest commands up to so many edits away.
const SIMILAR: usize = 3;
const SUGGESTIONS: usize = 3;

/// The program of command `name`, if there is one.
pub(crate) fn find(context: &Context, name: &str) -> Option<PathBuf> {
    let dirs = context.env.search_path();
    dirs.iter().map(|dir| dir.join(format!("flux-{name}"))).find(|path| is_program(path))
}

/// Become the program of command `name`. Returns only if that fails.
pub(crate) fn exec(context: &Context, name: &str, args: &[OsString], verbose: bool) -> Failure {
    if name.contains('/') {
        return run(context, Path::new(name), name, args).prefix("flux");
    }
    let dirs = context.env.search_path();
    for dir in &dirs {
        let path = dir.join(format!("flux-{name}"));
        if verbose {
            eprintln!("flux: trying to exec {}", path.display());
        }
        if is_program(&path) {
            return run(context, &path, name, args).prefix("flux");
        }
    }
    let mut text = format!("`{name}' is not a flux command.  See 'flux --help'");
    let similar = similar(name, &dirs);
    if !similar.is_empty() {
        text.push_str("\nThe most similar command");
        text.push_str(if similar.len() > 1 { "s are" } else { " is" });
        for command in similar.iter().take(SUGGESTIONS) {
            text.push_str("\n\t");
            text.push_str(command);
        }
    }
    Failure::new(text).prefix("flux")
}

fn run(context: &Context, path: &Path, name: &str, args: &[OsString]) -> Failure {
    let error = Command::new(path).args(args).env_clear().envs(context.env.all()).exec();
    Failure::of(name, strerror(&error))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// The commands that are closest to `name`, if any is close.
fn similar(name: &str, dirs: &[PathBuf]) -> Vec<String> {
    let builtin = COMMANDS.iter().map(|command| command.name.to_owned());
    let external =
        dirs.iter().filter_map(|dir| dir.read_dir().ok()).flatten().filter_map(|entry| {
            let entry = entry.ok()?;
            let file = entry.file_name().into_string().ok()?;
            let command = file.strip_prefix("flux-")?.to_owned();
            is_program(&entry.path()).then_some(command)
        });
    let mut best = SIMILAR;
    let mut found: Vec<String> = Vec::new();
    for command in builtin.chain(external) {
        let mut distance = edit_distance(&command, name);
        if command.starts_with(name) {
            // Who typed the beginning meant the rest.
            distance = if name.len() >= 5 { 0 } else { distance.saturating_sub(1) };
        }
        if distance < best {
            best = distance;
            found.clear();
        }
        if distance == best && !found.contains(&command) {
            found.push(command);
        }
    }
    found
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let above = *cell;
            *cell = (above + 1).min(left + 1).min(diagonal + usize::from(x != y));
            diagonal = above;
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edit_distance("kvs", "kvs"), 0);
        assert_eq!(edit_distance("resource", "resouce"), 1);
        assert_eq!(edit_distance("top", "nope"), 2);
        assert_eq!(edit_distance("", "abc"), 3);
    }

    #[test]
    fn close_commands_are_suggested_and_far_ones_are_not() {
        assert_eq!(similar("getatr", &[]), ["getattr"]);
        assert!(similar("xyzzyplugh", &[]).is_empty());
    }
}
