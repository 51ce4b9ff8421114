//! Commands of other packages, as they make them known to `flux help`: `help.d/*.json` beside the
//! data of this installation, and the files of `FLUX_CMDHELP_PATTERN`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::pattern::Pattern;

/// A heading with commands.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Group {
    name: String,
    #[serde(rename = "description")]
    pub(crate) heading: String,
    pub(crate) commands: Vec<Entry>,
}

#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    #[serde(rename = "description")]
    pub(crate) about: String,
}

/// The groups of all files that `patterns` match: paths, separated by colons, with a pattern as the
/// last part. One that comes up again adds its commands and renames the group. What can't be read is
/// told of and left out.
pub(crate) fn groups(datadir: &Path, patterns: &str) -> Vec<Group> {
    let installed = datadir.join("help.d/*.json");
    let patterns = patterns.split(':').filter(|pattern| !pattern.is_empty()).map(PathBuf::from);
    let mut groups: Vec<Group> = Vec::new();
    for file in std::iter::once(installed).chain(patterns).flat_map(|pattern| files(&pattern)) {
        match read(&file) {
            Ok(more) => more.into_iter().for_each(|group| add(&mut groups, group)),
            Err(reason) => eprintln!("flux: {}: {reason}", file.display()),
        }
    }
    groups
}

fn add(groups: &mut Vec<Group>, group: Group) {
    match groups.iter_mut().find(|known| known.name == group.name) {
        Some(known) => {
            known.heading = group.heading;
            known.commands.extend(group.commands);
        }
        None => groups.push(group),
    }
}

fn read(file: &Path) -> Result<Vec<Group>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| crate::failure::strerror(&e))?;
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

fn files(pattern: &Path) -> Vec<PathBuf> {
    let dir = pattern.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    let Ok(pattern) = Pattern::glob(&name) else { return Vec::new() };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| pattern.matches(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_add_groups_and_commands_to_groups_of_others() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("help.d")).unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        let group = |heading: &str, command: &str| {
            format!(
                r#"[{{"name": "site", "description": "{heading}", "commands":
                    [{{"name": "{command}", "description": "about {command}"}}]}}]"#
            )
        };
        write("help.d/a.json", &group("our commands", "one"));
        write("help.d/b.txt", "not looked at");
        write("mine.json", &group("all commands", "two"));
        write("broken.json", "[{");
        let dir = dir.path();
        assert_eq!(groups(dir, "").len(), 1);
        let more = format!("{0}/m*.json:{0}/broken.json:{0}/none/*", dir.display());
        let groups = groups(dir, &more);
        let [group] = &groups[..] else { panic!("{groups:?}") };
        let names: Vec<&str> = group.commands.iter().map(|entry| &*entry.name).collect();
        assert_eq!((&*group.heading, names), ("all commands", vec!["one", "two"]));
    }
}
